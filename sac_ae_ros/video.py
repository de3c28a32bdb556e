"""Camera pictures, with the commands drawn below them, as H.264 that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.spec import ActionSpec

WIDTH_PX = 640
BAR_HEIGHT_PX = 34
INK, QUIET, PAPER = (235, 235, 235), (120, 120, 120), (28, 28, 30)
FORWARD, BACKWARD = (90, 200, 120), (240, 150, 70)
RECORDED = (250, 220, 90)
TICK = Fraction(1, 1000)  # seconds


@dataclass(frozen=True)
class Moment:
    """One frame of a video: uint8 RGB [h, w, 3], the command in physical units [A] (None: none sent), a caption.

    recorded: another command to compare with, [A], drawn as a mark on each bar.
    """

    picture: NDArray[np.uint8]
    command: NDArray[np.float64] | None
    caption: str
    recorded: NDArray[np.float64] | None = None


def draw(moment: Moment, actions: Sequence[ActionSpec]) -> NDArray[np.uint8]:
    """The picture enlarged to 640 pixels of width, with one bar for each action below it."""
    height, width = moment.picture.shape[:2]
    rows = round(height * WIDTH_PX / width / 2) * 2
    picture = np.asarray(cv2.resize(moment.picture, (WIDTH_PX, rows), interpolation=cv2.INTER_CUBIC), np.uint8)
    panel = np.full((BAR_HEIGHT_PX * (len(actions) + 1) + 10, WIDTH_PX, 3), PAPER, np.uint8)
    _text(panel, moment.caption, (12, BAR_HEIGHT_PX // 2 + 8), INK)
    for i, action in enumerate(actions):
        value, recorded = (None if each is None else float(each[i]) for each in (moment.command, moment.recorded))
        _bar(panel, (i + 1) * BAR_HEIGHT_PX, action, value, recorded)
    return np.vstack([picture, panel])


def write(path: Path, moments: Iterable[Moment], actions: Sequence[ActionSpec], frame_rate_hz: int) -> None:
    """Writes an MP4 atomically.

    Raises:
        ValueError: there is not one moment.
    """
    encode(path, ((i / frame_rate_hz, draw(moment, actions)) for i, moment in enumerate(moments)), frame_rate_hz)


def encode(
    path: Path,
    pictures: Iterable[tuple[float, NDArray[np.uint8]]],
    frame_rate_hz: float,
    crf: int = 22,
    preset: str = "fast",
) -> None:
    """Writes an MP4 atomically, of pictures uint8 RGB [h, w, 3] and when each is to be seen, seconds that ascend.

    h and w are even. `frame_rate_hz` tells how long the last one stays. `crf` and `preset` are libx264's: a larger crf
    gives a smaller file.

    Raises:
        ValueError: there is not one picture.
    """
    import av

    partial = path.with_name(f".{path.name}.partial.mp4")
    last = -1
    try:
        with av.open(str(partial), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(
                "libx264",
                rate=Fraction(frame_rate_hz).limit_denominator(1000),
                options={"crf": str(crf), "preset": preset},
            )
            stream.codec_context.time_base = TICK
            for at_s, picture in pictures:
                if last < 0:
                    stream.height, stream.width, stream.pix_fmt = picture.shape[0], picture.shape[1], "yuv420p"
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                pts = max(round(at_s / TICK), last + 1)
                frame.time_base, frame.pts, last = TICK, pts, pts
                container.mux(stream.encode(frame))
            if last >= 0:
                container.mux(stream.encode())
        if last < 0:
            raise ValueError("video: expected at least one frame")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def poster(path: Path) -> bytes:
    """The middle frame of a video as JPEG, for players that show nothing until they are started."""
    import av

    with av.open(str(path)) as container:
        middle = container.streams.video[0].frames // 2
        frame = next(islice(container.decode(video=0), middle, None)).to_ndarray(format="bgr24")
    return bytes(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def _bar(
    panel: NDArray[np.uint8], top: int, action: ActionSpec, value: float | None, recorded: float | None = None
) -> None:
    left, right, middle = 150, 490, top + BAR_HEIGHT_PX // 2

    def column(x: float) -> int:
        share = (min(max(x, action.low), action.high) - action.low) / (action.high - action.low)
        return round(left + share * (right - left))

    zero = column(0.0)
    _text(panel, action.name, (12, middle + 6), INK)
    cv2.rectangle(panel, (left, middle - 8), (right, middle + 8), (50, 50, 54), -1)
    if value is not None:
        color = FORWARD if value >= 0 else BACKWARD
        cv2.rectangle(panel, (min(zero, column(value)), middle - 8), (max(zero, column(value)), middle + 8), color, -1)
    cv2.line(panel, (zero, middle - 12), (zero, middle + 12), INK, 1)
    if recorded is not None:
        cv2.rectangle(panel, (column(recorded) - 2, middle - 12), (column(recorded) + 2, middle + 12), RECORDED, -1)
    text = "no command" if value is None else f"{value:+.2f} {action.unit}"
    _text(panel, text, (right + 12, middle + 6), QUIET if value is None else INK)


def _text(image: NDArray[np.uint8], text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
