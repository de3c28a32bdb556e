"""What a policy gets of a camera's image: decoded, its part cut out, turned, and brought to size.

Simulation, robot and bag scoring share these functions, so that they see the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.compressed import CompressedImage, decode_compressed
from sac_ae_ros.core.encodings import ENCODINGS, GREY_ENCODINGS, RANGED_ENCODINGS, Image, decode_raw
from sac_ae_ros.core.errors import ConfigError, ImageError
from sac_ae_ros.core.spec import CameraSpec

__all__ = ["ENCODINGS", "CompressedImage", "Image", "View", "complaints", "decode", "fit", "see"]

# From 1280x720 to 84x84, the mean error is 1.5 levels where a reduced JPEG leaves 2.1 pixels on a side for each of the
# policy's, little more than JPEG's own; where it leaves 1.1 it is 5.8, since averaging over parts of pixels blurs.
PIXELS_LEFT = 2
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class View:
    """What of the camera's image the policy gets, before its own crop and resize.

    roi: x_offset, y_offset, width, height in pixels of the image as published; None: all of it.
    rotate_deg: turns that part clockwise; 0, 90, 180 or 270.
    value_range: the samples of 16UC1 and 32FC1, compressed or not, that become 0 and 255; None: 0..65535, and 0..1.

    Raises:
        ConfigError: a part without pixels, another angle, a range that is none.
    """

    roi: tuple[int, int, int, int] | None = None
    rotate_deg: int = 0
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        roi, values = self.roi, self.value_range
        if roi is not None and (len(roi) != 4 or min(roi[:2]) < 0 or min(roi[2:]) < 1):
            raise ConfigError(f"image.roi: expected x_offset, y_offset, width, height in pixels, got {list(roi)}")
        if self.rotate_deg not in (0, *_ROTATIONS):
            raise ConfigError(f"image.rotate_deg: expected 0, 90, 180 or 270, got {self.rotate_deg}")
        if values is not None and (len(values) != 2 or not -math.inf < values[0] < values[1] < math.inf):
            raise ConfigError(f"image.value_range: expected two numbers, the lower first, got {list(values)}")

    @classmethod
    def of(cls, roi: Sequence[int] = (), rotate_deg: int = 0, value_range: Sequence[float] = ()) -> View:
        """A view from parameters, of which empty ones are unset.

        Raises:
            ConfigError: as the constructor.
        """
        return cls(tuple(roi) or None, rotate_deg, tuple(value_range) or None)  # type: ignore[arg-type]

    def part(self, height: int, width: int) -> tuple[int, int, int, int]:
        """x, y, width and height of the part that counts of an image of that size.

        Raises:
            ImageError: the part lies outside of the image.
        """
        x, y, cols, rows = self.roi or (0, 0, width, height)
        if x + cols > width or y + rows > height:
            raise ImageError(
                f"image.roi: expected a part of the camera's {height}x{width} image, got rows {y}..{y + rows}"
                f" and columns {x}..{x + cols}; correct image.roi or the camera's resolution"
            )
        return x, y, cols, rows


FULL_VIEW = View()


def decode(image: Image | CompressedImage, value_range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Decodes one message to uint8 RGB [H, W, 3], full size.

    8UC3 and 8UC4 are read as BGR and BGRA, as cv_bridge does; mono16 and bayer_*16 keep their high byte. 16UC1 and
    32FC1 are grey levels: `value_range` (0..65535 and 0..1 where None) is cut into 256 equal parts, so that by
    default 16UC1 keeps its high byte too; what is outside clips, and not a number becomes 0. A compressed image is what
    the raw one was that its `format` names; without that, a grey PNG of 16 bits is 16UC1.

    Raises:
        ImageError: unknown encoding, size out of bounds, too little data for its step, undecodable bytes.
    """
    if isinstance(image, CompressedImage):
        return decode_compressed(image, image.header, 1, value_range)
    return decode_raw(image, value_range)


def complaints(image: Image | CompressedImage, view: View = FULL_VIEW) -> tuple[str, ...]:
    """What is doubtful about the pixels of an image that can be decoded, for people to judge.

    Raises:
        ImageError: as `decode`.
    """
    found, encoding = [], getattr(image, "encoding", "")
    if isinstance(image, CompressedImage):
        encoding, complaint = image.header.encoding, image.header.complaint
        found += [f"compressed image: {complaint}"] if complaint else []
    wanted = view.value_range is not None and encoding in RANGED_ENCODINGS
    if encoding in GREY_ENCODINGS and not wanted:
        found.append(f"image: grey ({encoding}), where the policy was trained on colours; have the camera send colours")
    return tuple(found)


def see(image: Image | CompressedImage, camera: CameraSpec, view: View = FULL_VIEW) -> NDArray[np.uint8]:
    """What the policy gets of one message: uint8 RGB [camera.height, camera.width, 3].

    Decodes, cuts out the view's part, turns it, then crops and resizes as `fit`. A JPEG is decoded at 1/2, 1/4 or 1/8
    where that leaves twice the policy's height and width and cuts no pixel in two, so that the part stays the same.

    Raises:
        ImageError: as `decode`, or the view's part lies outside of the image.
    """
    reduction = 1
    if isinstance(image, CompressedImage):
        header = image.header
        part = view.part(header.height, header.width)
        reduction = _reduction(part, camera, view.rotate_deg) if header.reducible else 1
        rgb = decode_compressed(image, header, reduction, view.value_range)
    else:
        rgb = decode_raw(image, view.value_range)
        part = view.part(*rgb.shape[:2])
    x, y, cols, rows = (pixels // reduction for pixels in part)
    rgb = rgb[y : y + rows, x : x + cols]
    if view.rotate_deg:
        rgb = np.asarray(cv2.rotate(rgb, _ROTATIONS[view.rotate_deg]), np.uint8)
    return fit(rgb, camera.height, camera.width, camera.crop)


def fit(rgb: NDArray[np.uint8], height: int, width: int, crop: str) -> NDArray[np.uint8]:
    """Crops and resizes uint8 RGB [h, w, 3] to [height, width, 3].

    `crop` "center" keeps the largest centred part with the target's ratio, "none" keeps everything. Pixels are
    averaged by area (cv2.INTER_AREA); an image of the right size passes untouched.
    """
    rows, cols = rgb.shape[:2]
    top, left, rows, cols = _window(rows, cols, height, width, crop)
    rgb = rgb[top : top + rows, left : left + cols]
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _window(rows: int, cols: int, height: int, width: int, crop: str) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of what `crop` keeps of rows x cols pixels."""
    if crop != "center":
        return 0, 0, rows, cols
    keep_rows = min(rows, max(1, cols * height // width))
    keep_cols = min(cols, max(1, rows * width // height))
    return (rows - keep_rows) // 2, (cols - keep_cols) // 2, keep_rows, keep_cols


def _reduction(part: tuple[int, int, int, int], camera: CameraSpec, rotate_deg: int) -> int:
    """The largest divisor that leaves enough pixels and divides every edge of what is kept."""
    _, _, cols, rows = part
    size = (cols, rows) if rotate_deg in (90, 270) else (rows, cols)
    window = _window(*size, camera.height, camera.width, camera.crop)
    for reduction in (8, 4, 2):
        needed = PIXELS_LEFT * reduction
        enough = window[2] >= needed * camera.height and window[3] >= needed * camera.width
        if enough and not any(edge % reduction for edge in (*part, *window)):
            return reduction
    return 1
