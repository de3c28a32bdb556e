"""Camera pictures, with the commands drawn below them, as H.264 that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.spec import ActionSpec

WIDTH_PX = 640
BAR_HEIGHT_PX = 34
INK, QUIET, PAPER = (235, 235, 235), (120, 120, 120), (28, 28, 30)
FORWARD, BACKWARD = (90, 200, 120), (240, 150, 70)
RECORDED = (250, 220, 90)
MOST_PLAIN = 1e5  # larger numbers are written with an exponent
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
    with Film(path, frame_rate_hz) as film:
        for i, moment in enumerate(moments):
            film.add(i / frame_rate_hz, draw(moment, actions))


class Film:
    """An MP4 while it is written; a context that leaves the file whole, or nothing where it is left by an error."""

    def __init__(self, path: Path, frame_rate_hz: float, *, crf: int = 22, preset: str = "fast") -> None:
        """Pictures may come at any times; `frame_rate_hz` tells how long the last one stays.

        Args:
            path: the file; one that is there is replaced.
            frame_rate_hz: the usual number of pictures in a second.
            crf: of libx264: a larger one gives a smaller file.
            preset: of libx264: how much time it takes to make the file small.
        """
        import av

        self._path, self._partial = path, path.with_name(f".{path.name}.partial.mp4")
        self._container = av.open(str(self._partial), "w", options={"movflags": "faststart"})
        rate = Fraction(frame_rate_hz).limit_denominator(1000)
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        self._stream.codec_context.time_base = TICK
        self._last = -1

    def add(self, at_s: float, picture: NDArray[np.uint8]) -> None:
        """Adds uint8 RGB [h, w, 3], h and w even, from `at_s` seconds on; the times ascend from 0."""
        import av

        if self._last < 0:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last = max(round(at_s / TICK), self._last + 1)
        frame.time_base, frame.pts = TICK, self._last
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Raises ValueError where not one picture came."""
        try:
            if kind is None and self._last >= 0:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                if self._last < 0:
                    raise ValueError("video: expected at least one frame")
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)


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
    _text(panel[:, : left - 6], action.name, (12, middle + 6), INK)  # a long name is cut off at the bar
    cv2.rectangle(panel, (left, middle - 8), (right, middle + 8), (50, 50, 54), -1)
    if value is not None:
        color = FORWARD if value >= 0 else BACKWARD
        cv2.rectangle(panel, (min(zero, column(value)), middle - 8), (max(zero, column(value)), middle + 8), color, -1)
    cv2.line(panel, (zero, middle - 12), (zero, middle + 12), INK, 1)
    if recorded is not None:
        cv2.rectangle(panel, (column(recorded) - 2, middle - 12), (column(recorded) + 2, middle + 12), RECORDED, -1)
    text = "no command" if value is None else f"{value:+{'.2f' if abs(value) < MOST_PLAIN else '.2e'}} {action.unit}"
    _text(panel, text, (right + 12, middle + 6), QUIET if value is None else INK)


def _text(image: NDArray[np.uint8], text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
