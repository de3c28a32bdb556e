"""A second look at a recording that was scored: its pictures again, now that everything about each tick is known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.evaluate import stamp_of
from sac_ae_ros.bag.footage import Footage
from sac_ae_ros.core.compressed import REDUCED, CompressedImage, decode_compressed
from sac_ae_ros.core.errors import SacAeError
from sac_ae_ros.core.image import Image, View, decode, see

if TYPE_CHECKING:
    from sac_ae_ros.bag.evaluate import Evaluation, Options, Tick
    from sac_ae_ros.bag.reader import Bag

CAMERA_WIDTH = 640  # pixels; no picture that we show needs more
SPACED_S = 1.0


@dataclass(frozen=True)
class Look:
    """What there was to see at a tick.

    index: of the tick in the evaluation. camera: what was published, uint8 RGB [h, w, 3], made smaller if it was wider
    than 640 pixels. seen: what the policy got of it, uint8 RGB [H, W, 3].
    """

    index: int
    tick: Tick
    camera: NDArray[np.uint8]
    seen: NDArray[np.uint8]


def look_again(bag: Bag, result: Evaluation, options: Options, wanted: Collection[int] | None = None) -> Iterator[Look]:
    """Goes through the bag once more, in its order; decodes the frames of the wanted ticks (None: of all) only.

    Args:
        bag: the recording that `result` is of.
        result: what `evaluate` gave.
        options: what it was given.
        wanted: indices into `result.ticks`.
    """
    ticks = result.ticks if wanted is None else [result.ticks[i] for i in wanted]
    indices = range(len(ticks)) if wanted is None else wanted
    left: dict[tuple[int, int], list[int]] = {}
    for index, tick in zip(indices, ticks, strict=True):
        left.setdefault((tick.log_ns, tick.stamp_ns), []).append(index)
    footage = Footage(bag, bag.topics[result.image_topic])
    for record, picture in footage.follow(bag.records([result.image_topic])):
        found = left.get((record.stamp_ns, stamp_of(record, options)))
        if not found:
            continue
        try:
            image = picture()
            seen, camera = see(image, result.spec.camera, options.view), camera_picture(image, options.view)
        except SacAeError:  # the one of the same stamps that the policy got comes after it
            continue
        index = found.pop(0)
        yield Look(index, result.ticks[index], camera, seen)


def camera_picture(image: Image | CompressedImage, view: View) -> NDArray[np.uint8]:
    """The whole picture, for people: uint8 RGB [h, w, 3], turned as the view turns it, at most 640 pixels wide.

    Raises:
        ImageError: as `core.image.decode`.
    """
    if isinstance(image, CompressedImage):
        header = image.header
        enough = [by for by in REDUCED if header.width >= by * CAMERA_WIDTH] if header.reducible else []
        rgb = decode_compressed(image, header, max(enough, default=1), view.value_range)
    else:
        rgb = decode(image, view.value_range)
    for _ in range(view.rotate_deg // 90):
        rgb = np.asarray(np.rot90(rgb, -1), np.uint8)
    height, width = rgb.shape[:2]
    if width <= CAMERA_WIDTH:
        return np.ascontiguousarray(rgb)
    size = CAMERA_WIDTH, max(1, round(height * CAMERA_WIDTH / width))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def most_novel(result: Evaluation, count: int = 10) -> list[int]:
    """Indices of the ticks with the highest novelty, the worst first, at least a second apart.

    By the score, or by the reconstruction error where the policy has no statistics.
    """
    scored = any(tick.score is not None for tick in result.ticks)
    return _worst(result, lambda tick: tick.score if scored else tick.novelty, count)


def most_disagreeing(result: Evaluation, count: int = 10) -> list[int]:
    """Indices of the ticks farthest from the recorded command, the worst first, at least a second apart."""
    return _worst(result, lambda tick: disagreement(result, tick), count)


def disagreement(result: Evaluation, tick: Tick) -> float | None:
    """Mean over the actions of |policy - recorded| / the action's range; None without both."""
    if tick.values is None or tick.recorded is None:
        return None
    spans = np.array([action.high - action.low for action in result.spec.actions])
    with np.errstate(over="ignore"):
        return float((np.abs(tick.values - tick.recorded) / spans).mean())


def _worst(result: Evaluation, measure: Callable[[Tick], float | None], count: int) -> list[int]:
    values = [(value, i) for i, tick in enumerate(result.ticks) if (value := measure(tick)) is not None and value > 0]
    chosen: list[int] = []
    for _, i in sorted(values, key=lambda pair: (-pair[0], pair[1])):
        stamp_ns = result.ticks[i].stamp_ns
        if all(abs(stamp_ns - result.ticks[other].stamp_ns) >= SPACED_S * 1e9 for other in chosen):
            chosen.append(i)
            if len(chosen) == count:
                break
    return chosen
