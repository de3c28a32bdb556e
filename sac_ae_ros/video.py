"""Camera pictures with the commands drawn on them, as H.264 that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.spec import ActionSpec

WIDTH_PX = 640
BAR_HEIGHT_PX = 34
INK, QUIET, PAPER = (235, 235, 235), (120, 120, 120), (28, 28, 30)
FORWARD, BACKWARD = (90, 200, 120), (240, 150, 70)


@dataclass(frozen=True)
class Moment:
    """One frame of a video: uint8 RGB [h, w, 3], the command in physical units [A] (None: none sent), a caption."""

    picture: NDArray[np.uint8]
    command: NDArray[np.float64] | None
    caption: str


def draw(moment: Moment, actions: Sequence[ActionSpec]) -> NDArray[np.uint8]:
    """The picture enlarged to 640 pixels of width, with one bar for each action below it."""
    height, width = moment.picture.shape[:2]
    rows = round(height * WIDTH_PX / width / 2) * 2
    picture = np.asarray(cv2.resize(moment.picture, (WIDTH_PX, rows), interpolation=cv2.INTER_CUBIC), np.uint8)
    panel = np.full((BAR_HEIGHT_PX * (len(actions) + 1) + 10, WIDTH_PX, 3), PAPER, np.uint8)
    _text(panel, moment.caption, (12, BAR_HEIGHT_PX // 2 + 8), INK)
    for i, action in enumerate(actions):
        value = None if moment.command is None else float(moment.command[i])
        _bar(panel, (i + 1) * BAR_HEIGHT_PX, action, value)
    return np.vstack([picture, panel])


def write(path: Path, moments: Iterable[Moment], actions: Sequence[ActionSpec], frame_rate_hz: int) -> None:
    """Writes an MP4 atomically.

    Raises:
        ValueError: there is not one moment.
    """
    import av

    partial = path.with_name(f".{path.name}.partial.mp4")
    frames = 0
    with av.open(str(partial), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=frame_rate_hz, options={"crf": "22", "preset": "fast"})
        for moment in moments:
            picture = draw(moment, actions)
            if frames == 0:
                stream.height, stream.width, stream.pix_fmt = picture.shape[0], picture.shape[1], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            frames += 1
        if frames:
            container.mux(stream.encode())
    if not frames:
        partial.unlink(missing_ok=True)
        raise ValueError("video: expected at least one frame")
    partial.replace(path)


def _bar(panel: NDArray[np.uint8], top: int, action: ActionSpec, value: float | None) -> None:
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
    text = "no command" if value is None else f"{value:+.2f} {action.unit}"
    _text(panel, text, (right + 12, middle + 6), QUIET if value is None else INK)


def _text(image: NDArray[np.uint8], text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
