"""JPEG and PNG to uint8 RGB; how large they are is known, and bounded, before anything is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.encodings import check_size
from sac_ae_ros.core.errors import ImageError

MAX_COMPRESSED_BYTES = 256 * 1024 * 1024
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage; what the format is, the bytes themselves tell."""

    data: bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class Header:
    """What the first bytes tell: the size in pixels, and whether a smaller picture is cheaper to decode."""

    height: int
    width: int
    reducible: bool


def read_header(image: CompressedImage) -> Header:
    """Reads a JPEG's or a PNG's size.

    Raises:
        ImageError: neither of the two, too large, or a JPEG that is cut.
    """
    raw = np.frombuffer(image.data, np.uint8)
    if not 0 < raw.size <= MAX_COMPRESSED_BYTES:
        raise ImageError(f"compressed image: expected 1..{MAX_COMPRESSED_BYTES} bytes, got {raw.size}")
    data = raw.tobytes()
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        header = Header(height, width, reducible=False)  # OpenCV decodes all of a PNG, then picks pixels
    elif data.startswith(b"\xff\xd8"):
        header = _jpeg_header(data)
    else:
        raise ImageError(f"compressed image: expected JPEG or PNG, got bytes that start with {data[:8].hex()}")
    check_size(header.height, header.width, "compressed image")
    return header


def decode_compressed(image: CompressedImage, header: Header, reduction: int = 1) -> NDArray[np.uint8]:
    """Decodes to uint8 RGB, each side 1 / `reduction` of the header's, rounded up; reductions: 1, 2, 4, 8.

    Rows and columns stay as they were coded: an EXIF orientation is ignored, since calibration and `rotate_deg`
    are about the sensor's own rows, and a picture must not turn because a driver began to write a tag.

    Raises:
        ImageError: the bytes do not decode, or not to the size that the header says.
    """
    raw = np.frombuffer(image.data, np.uint8)
    try:
        bgr = cv2.imdecode(raw, REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"compressed image: OpenCV cannot decode it ({error.err})") from None
    if bgr is None:
        raise ImageError(f"compressed image: {raw.size} bytes start like JPEG or PNG but do not decode; is it cut?")
    height, width = -(-header.height // reduction), -(-header.width // reduction)
    if bgr.shape != (height, width, 3):
        raise ImageError(f"compressed image: its header says {height}x{width}, it decodes to {bgr.shape[:2]}")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _jpeg_header(data: bytes) -> Header:
    """From the frame header, ITU T.81 B.2.2. The end marker must follow it: some OpenCVs decode a cut JPEG to grey."""
    at = 2
    while at + 9 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker == 0x00:  # a decoder would look for the next marker, and find another size
            break
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these stand without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if data.find(_END_OF_JPEG, at) < 0:
                raise ImageError(f"compressed image: a JPEG of {len(data)} bytes without its end; is it cut?")
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Header(height, width, reducible=True)
        else:
            at += 2 + max(length, 2)
    raise ImageError("compressed image: a JPEG without a frame header; is it cut?")
