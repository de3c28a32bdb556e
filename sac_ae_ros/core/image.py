"""Image messages of any encoding to uint8 RGB, and the one resize that simulation and robot share.

Encodings: sensor_msgs/image_encodings.hpp. Conversions are OpenCV's; `step` padding and big-endian samples are
honoured, which cv_bridge does not do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ImageError

MAX_SIDE_PX = 16384
MAX_PIXELS = 64_000_000
MAX_COMPRESSED_BYTES = 256 * 1024 * 1024


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
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage; what the format is, the bytes themselves tell."""

    data: bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """How an encoding lies in memory: rows are height * rows_num / 2 for the semi-planar ones."""

    channels: int
    dtype: type[np.generic]
    convert: Callable[[NDArray], NDArray]
    semiplanar: bool = False
    even_width: bool = False


def _cv(code: int) -> Callable[[NDArray], NDArray]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _first_three(pixels: NDArray) -> NDArray:
    return np.ascontiguousarray(pixels[..., :3])


def _high_byte(then: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
    """16-bit samples keep their eight most significant bits."""
    return lambda pixels: then((pixels >> 8).astype(np.uint8))


_GRAY = _cv(cv2.COLOR_GRAY2RGB)
# ROS names a Bayer pattern by its first row, OpenCV by the second row's second and third pixel.
_BAYER = {
    "rggb": _cv(cv2.COLOR_BayerBG2RGB),
    "bggr": _cv(cv2.COLOR_BayerRG2RGB),
    "gbrg": _cv(cv2.COLOR_BayerGR2RGB),
    "grbg": _cv(cv2.COLOR_BayerGB2RGB),
}
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, np.uint8, np.ascontiguousarray),
    "bgr8": _Layout(3, np.uint8, _cv(cv2.COLOR_BGR2RGB)),
    "rgba8": _Layout(4, np.uint8, _first_three),
    "bgra8": _Layout(4, np.uint8, _cv(cv2.COLOR_BGRA2RGB)),
    "mono8": _Layout(1, np.uint8, _GRAY),
    "mono16": _Layout(1, np.uint16, _high_byte(_GRAY)),
    "8UC1": _Layout(1, np.uint8, _GRAY),
    "8UC3": _Layout(3, np.uint8, _cv(cv2.COLOR_BGR2RGB)),
    "8UC4": _Layout(4, np.uint8, _cv(cv2.COLOR_BGRA2RGB)),
    "yuv422": _Layout(2, np.uint8, _cv(cv2.COLOR_YUV2RGB_UYVY), even_width=True),
    "uyvy": _Layout(2, np.uint8, _cv(cv2.COLOR_YUV2RGB_UYVY), even_width=True),
    "yuv422_yuy2": _Layout(2, np.uint8, _cv(cv2.COLOR_YUV2RGB_YUY2), even_width=True),
    "yuyv": _Layout(2, np.uint8, _cv(cv2.COLOR_YUV2RGB_YUY2), even_width=True),
    "nv12": _Layout(1, np.uint8, _cv(cv2.COLOR_YUV2RGB_NV12), semiplanar=True, even_width=True),
    "nv21": _Layout(1, np.uint8, _cv(cv2.COLOR_YUV2RGB_NV21), semiplanar=True, even_width=True),
    **{f"bayer_{name}8": _Layout(1, np.uint8, convert) for name, convert in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(1, np.uint16, _high_byte(convert)) for name, convert in _BAYER.items()},
}
ENCODINGS = tuple(sorted(_LAYOUTS))


def decode(image: Image | CompressedImage) -> NDArray[np.uint8]:
    """Decodes one message to uint8 RGB [H, W, 3].

    8UC3 and 8UC4 are read as BGR and BGRA, as cv_bridge does; 16-bit samples keep their high byte.

    Raises:
        ImageError: unknown encoding, size out of bounds, too little data for its step, undecodable bytes.
    """
    if isinstance(image, CompressedImage):
        return _decode_compressed(image)
    layout = _layout(image)
    pixels = _rows(image, layout)
    try:
        return layout.convert(pixels)
    except cv2.error as error:
        raise ImageError(f"image {_title(image)}: OpenCV cannot convert it ({error.err})") from None


def fit(rgb: NDArray[np.uint8], height: int, width: int, crop: str) -> NDArray[np.uint8]:
    """Crops and resizes uint8 RGB [h, w, 3] to [height, width, 3].

    `crop` "center" keeps the largest centred part with the target's ratio, "none" keeps everything. Pixels are
    averaged by area (cv2.INTER_AREA); an image of the right size passes untouched.
    """
    if crop == "center":
        rgb = _center_crop(rgb, height, width)
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _center_crop(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    rows, cols = rgb.shape[:2]
    keep_rows = min(rows, max(1, cols * height // width))
    keep_cols = min(cols, max(1, rows * width // height))
    top, left = (rows - keep_rows) // 2, (cols - keep_cols) // 2
    return rgb[top : top + keep_rows, left : left + keep_cols]


def _layout(image: Image) -> _Layout:
    layout = _LAYOUTS.get(image.encoding)
    if layout is None:
        raise ImageError(
            f"image encoding: expected one of {', '.join(ENCODINGS)}; got {image.encoding!r};"
            " set the camera driver to one of these"
        )
    _check_size(image.height, image.width, f"image {_title(image)}")
    odd = (layout.even_width and image.width % 2) or (layout.semiplanar and image.height % 2)
    if odd:
        raise ImageError(f"image {_title(image)}: expected even sides for this encoding")
    return layout


def _rows(image: Image, layout: _Layout) -> NDArray:
    """The pixels as an array [rows, W] or [rows, W, C] in native byte order, padding cut off."""
    row_bytes = image.width * layout.channels * np.dtype(layout.dtype).itemsize
    if image.step < row_bytes:
        raise ImageError(f"image {_title(image)}: expected a step of at least {row_bytes} bytes, got {image.step}")
    rows = image.height * 3 // 2 if layout.semiplanar else image.height
    needed = image.step * (rows - 1) + row_bytes  # the last row's padding may be missing
    raw = np.frombuffer(image.data, np.uint8)
    if raw.size < needed:
        raise ImageError(f"image {_title(image)}: expected {needed} bytes for step {image.step}, got {raw.size}")
    packed = np.lib.stride_tricks.as_strided(raw, (rows, row_bytes), (image.step, 1), writeable=False)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if image.is_bigendian else "<")
    pixels = np.ascontiguousarray(packed).view(dtype).astype(layout.dtype, copy=False)
    return pixels if layout.channels == 1 else pixels.reshape(rows, image.width, layout.channels)


def _decode_compressed(image: CompressedImage) -> NDArray[np.uint8]:
    raw = np.frombuffer(image.data, np.uint8)
    if not 0 < raw.size <= MAX_COMPRESSED_BYTES:
        raise ImageError(f"compressed image: expected 1..{MAX_COMPRESSED_BYTES} bytes, got {raw.size}")
    height, width = _compressed_size(raw.tobytes())
    _check_size(height, width, "compressed image")
    try:
        bgr = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"compressed image: OpenCV cannot decode it ({error.err})") from None
    if bgr is not None and sorted(bgr.shape[:2]) != sorted((height, width)):  # EXIF may turn it
        raise ImageError(f"compressed image: its header says {height}x{width}, it decodes to {bgr.shape[:2]}")
    if bgr is None:
        raise ImageError(f"compressed image: {raw.size} bytes start like JPEG or PNG but do not decode; is it cut?")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _compressed_size(data: bytes) -> tuple[int, int]:
    """Height and width from a JPEG's frame header (ITU T.81 B.2.2) or a PNG's IHDR, before any decoding."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if not data.startswith(b"\xff\xd8"):
        raise ImageError(f"compressed image: expected JPEG or PNG, got bytes that start with {data[:8].hex()}")
    at = 2
    while at + 9 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF:
            break
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these stand without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        else:
            at += 2 + max(length, 2)
    raise ImageError("compressed image: a JPEG without a frame header; is it cut?")


def _check_size(height: int, width: int, title: str) -> None:
    bounded = 1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX and height * width <= MAX_PIXELS
    if not bounded:
        raise ImageError(
            f"{title}: expected sides of 1..{MAX_SIDE_PX} and at most {MAX_PIXELS} pixels, got {height}x{width}"
        )


def _title(image: Image) -> str:
    return f"{image.height}x{image.width} {image.encoding}"
