"""Raw image messages of any encoding to uint8 RGB.

Encodings: sensor_msgs/image_encodings.hpp. Conversions are OpenCV's; `step` padding and big-endian samples are
honoured, which cv_bridge does not do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ImageError

MAX_SIDE_PX = 16384
MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Image:
    """The fields of sensor_msgs/Image that carry pixels; `data` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    step: int
    is_bigendian: bool
    data: bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """How an encoding lies in memory, and what makes RGB of it once its samples have eight bits.

    chroma: 0, or how the plane of U and V that follows the luma is sampled, 420 or 444.
    ranged: whether the samples are quantities, for a value range to map.
    """

    channels: int
    dtype: type[np.generic]
    convert: Callable[[NDArray[np.uint8]], NDArray]
    chroma: int = 0
    even_width: bool = False
    ranged: bool = False


def _cv(code: int) -> Callable[[NDArray], NDArray]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _first_three(pixels: NDArray) -> NDArray:
    return np.ascontiguousarray(pixels[..., :3])


def _every_second(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    return cv2.resize(pixels, (width // 2, height), interpolation=cv2.INTER_NEAREST)  # numpy takes ten times longer


_GRAY = _cv(cv2.COLOR_GRAY2RGB)
_BGR = _cv(cv2.COLOR_BGR2RGB)
_BGRA = _cv(cv2.COLOR_BGRA2RGB)
_UYVY = _cv(cv2.COLOR_YUV2RGB_UYVY)
_YUYV = _cv(cv2.COLOR_YUV2RGB_YUY2)
# ROS names a Bayer pattern by its first row, OpenCV by the second row's second and third pixel.
_BAYER = {
    "rggb": _cv(cv2.COLOR_BayerBG2RGB),
    "bggr": _cv(cv2.COLOR_BayerRG2RGB),
    "gbrg": _cv(cv2.COLOR_BayerGR2RGB),
    "grbg": _cv(cv2.COLOR_BayerGB2RGB),
}
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, np.uint8, np.ascontiguousarray),
    "bgr8": _Layout(3, np.uint8, _BGR),
    "rgba8": _Layout(4, np.uint8, _first_three),
    "bgra8": _Layout(4, np.uint8, _BGRA),
    "mono8": _Layout(1, np.uint8, _GRAY),
    "mono16": _Layout(1, np.uint16, _GRAY),
    "8UC1": _Layout(1, np.uint8, _GRAY),
    "8UC3": _Layout(3, np.uint8, _BGR),
    "8UC4": _Layout(4, np.uint8, _BGRA),
    "16UC1": _Layout(1, np.uint16, _GRAY, ranged=True),
    "32FC1": _Layout(1, np.float32, _GRAY, ranged=True),
    "yuv422": _Layout(2, np.uint8, _UYVY, even_width=True),
    "uyvy": _Layout(2, np.uint8, _UYVY, even_width=True),
    "yuv422_yuy2": _Layout(2, np.uint8, _YUYV, even_width=True),
    "yuyv": _Layout(2, np.uint8, _YUYV, even_width=True),
    "nv12": _Layout(1, np.uint8, _cv(cv2.COLOR_YUV2RGB_NV12), chroma=420, even_width=True),
    "nv21": _Layout(1, np.uint8, _cv(cv2.COLOR_YUV2RGB_NV21), chroma=420, even_width=True),
    "nv24": _Layout(1, np.uint8, lambda twice: _every_second(_YUYV(twice)), chroma=444),
    **{f"bayer_{name}8": _Layout(1, np.uint8, convert) for name, convert in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(1, np.uint16, convert) for name, convert in _BAYER.items()},
}
ENCODINGS = tuple(sorted(_LAYOUTS))
RANGED_ENCODINGS = frozenset(name for name, layout in _LAYOUTS.items() if layout.ranged)
GREY_ENCODINGS = frozenset(name for name, layout in _LAYOUTS.items() if layout.convert is _GRAY)


def decode_raw(image: Image, value_range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Decodes one raw image to uint8 RGB [H, W, 3]; core.image.decode has the rules.

    Raises:
        ImageError: unknown encoding, size out of bounds, too little data for its step.
    """
    layout = _layout(image)
    samples = _samples(image, layout)
    pixels = samples if layout.dtype is np.uint8 else _eight_bits(samples, value_range if layout.ranged else None)
    try:
        return layout.convert(pixels)
    except cv2.error as error:
        raise ImageError(f"image {_title(image)}: OpenCV cannot convert it ({error.err})") from None


def unknown_encoding(encoding: str, why: str = "") -> ImageError:
    """The error for an encoding that nobody here decodes; `why` may say what else was tried."""
    return ImageError(
        f"image encoding: expected one of {', '.join(ENCODINGS)}; got {encoding[:80]!r}{why and f', and {why}'};"
        " set the camera driver to one of these"
    )


def check_size(height: int, width: int, title: str) -> None:
    """Bounds what is going to be allocated.

    Raises:
        ImageError: a side of 0, or one of more than MAX_SIDE_PX, or more than MAX_PIXELS in all.
    """
    bounded = 1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX and height * width <= MAX_PIXELS
    if not bounded:
        raise ImageError(
            f"{title}: expected sides of 1..{MAX_SIDE_PX} and at most {MAX_PIXELS} pixels, got {height}x{width}"
        )


def _layout(image: Image) -> _Layout:
    layout = _LAYOUTS.get(image.encoding)
    if layout is None:
        raise unknown_encoding(image.encoding)
    check_size(image.height, image.width, f"image {_title(image)}")
    odd = (layout.even_width and image.width % 2) or (layout.chroma == 420 and image.height % 2)
    if odd:
        raise ImageError(f"image {_title(image)}: expected even sides for this encoding")
    return layout


def _samples(image: Image, layout: _Layout) -> NDArray:
    """The samples as an array [rows, W] or [rows, W, C] in native byte order, padding cut off."""
    row_bytes = image.width * layout.channels * np.dtype(layout.dtype).itemsize
    if image.step < row_bytes:
        raise ImageError(f"image {_title(image)}: expected a step of at least {row_bytes} bytes, got {image.step}")
    if layout.chroma == 444:
        return _nv24_as_yuyv(image)
    rows = image.height * 3 // 2 if layout.chroma else image.height
    dtype = np.dtype(layout.dtype).newbyteorder(">" if image.is_bigendian else "<")
    samples = _plane(image, 0, rows, row_bytes, image.step).view(dtype).astype(layout.dtype, copy=False)
    return samples if layout.channels == 1 else samples.reshape(rows, image.width, layout.channels)


def _nv24_as_yuyv(image: Image) -> NDArray[np.uint8]:
    """[H, 2W, 2] bytes Y U Y V: each pixel twice, since OpenCV knows no 4:4:4 with NV12's colour matrix.

    `step` is the luma plane's. As V4L2 has it, a row of the U-V plane takes twice that, padding included.
    """
    height, width, step = image.height, image.width, image.step
    chroma = _plane(image, height * step, height, 2 * width, 2 * step)
    luma = _plane(image, 0, height, width, step)
    u, v = cv2.split(chroma.reshape(height, width, 2))
    return np.asarray(cv2.merge([luma, u, luma, v]), np.uint8).reshape(height, 2 * width, 2)


def _plane(image: Image, start: int, rows: int, row_bytes: int, step: int) -> NDArray[np.uint8]:
    """`rows` of `row_bytes` each, `step` apart, as contiguous bytes [rows, row_bytes]."""
    needed = start + step * (rows - 1) + row_bytes  # the last row's padding may be missing
    raw = np.frombuffer(image.data, np.uint8)
    if raw.size < needed:
        raise ImageError(f"image {_title(image)}: expected {needed} bytes for step {image.step}, got {raw.size}")
    plane = np.lib.stride_tricks.as_strided(raw[start:], (rows, row_bytes), (step, 1), writeable=False)
    return np.ascontiguousarray(plane)


def _eight_bits(samples: NDArray, value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Cuts the value range into 256 equal parts; uint16 keeps its high byte where there is no range."""
    if samples.dtype == np.uint16:
        return _table(*value_range)[samples] if value_range else (samples >> 8).astype(np.uint8)
    return _binned(samples, *(value_range or (0.0, 1.0)))


@functools.lru_cache(maxsize=4)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    return _binned(np.arange(1 << 16, dtype=np.float64), low, high)


def _binned(samples: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """The part of low..high that each sample lies in, 0..255. What is outside clips; not a number becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        parts = np.clip((samples - low) * (256 / (high - low)), 0, 255)
    return np.nan_to_num(parts, copy=False, nan=0).astype(np.uint8)


def _title(image: Image) -> str:
    return f"{image.height}x{image.width} {image.encoding}"
