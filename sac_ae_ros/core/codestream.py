"""What a JPEG's markers and a PNG's chunks tell, and bounds on the work of decoding them, before anything is decoded.

The walk takes time in proportion to the bytes, whatever they are: 3 GB/s for a camera's JPEG.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from sac_ae_ros.core.encodings import MAX_PIXELS, check_size
from sac_ae_ros.core.errors import ImageError

MAX_SEGMENTS = 65_536  # marker segments, or chunks; 8 KiB a chunk, as libpng writes them, is 512 MiB
MAX_SCANS = 100  # cameras and libjpeg make up to 10, the keenest optimisers 64
MAX_SCAN_PIXELS = 4 * MAX_PIXELS
MAX_TEXT_BYTES = 65_536  # of compressed text and colour profiles; deflate makes at most 1032 of each
MAX_INFLATED_BYTES = 2 * 8 * MAX_PIXELS  # rgba16 is the largest kind of pixel; no file below 1 MB can reach it
DEFLATE_RATIO = 1032

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
_FILL = re.compile(rb"\xff{1,65536}")
# The next marker behind coded data, where FF00 is data; RST0..7 and TEM stand alone. Two bytes, so that fill bytes cost
# no more than others.
_NEXT_MARKER = re.compile(rb"\xff[^\xff\x00\x01\xd0-\xd7]")
_PIECE = 4 << 20  # bytes that are searched at a time, so that other threads get their turn
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDS_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
_EOI, _SOS = 0xD9, 0xDA
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_INFLATED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")


@dataclass(frozen=True)
class Codestream:
    """What the bytes say of themselves.

    codec: jpeg or png. channels: 1 is grey, 3 colour; alpha does not count. bits: of a decoded sample, 8 or 16.
    """

    codec: str
    height: int
    width: int
    channels: int
    bits: int


def read_codestream(data: memoryview) -> Codestream:
    """Walks over the whole codestream of `data`, unsigned bytes.

    Raises:
        ImageError: neither JPEG nor PNG, cut, larger than check_size allows, or more work than the bounds above allow.
    """
    start = bytes(data[:16])
    if start.startswith(JPEG_SIGNATURE):
        return _read_jpeg(data)
    if start.startswith(PNG_SIGNATURE) and start[8:] == b"\0\0\0\rIHDR" and len(data) >= 33:
        return _read_png(data)
    raise ImageError(f"compressed image: expected JPEG or PNG, got bytes that start with {start[:8].hex()}")


def _read_jpeg(data: memoryview) -> Codestream:
    """By ITU T.81 B.1 and B.2, as libjpeg reads it: some OpenCVs decode a JPEG without its end to grey."""
    frame: Codestream | None = None
    at, scans = len(JPEG_SIGNATURE), 0
    for _ in range(MAX_SEGMENTS):
        at = _next_in_scans(data, at) if scans else _next_in_header(data, at)
        if at < 0:
            break
        marker, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        if marker == _EOI:
            if frame is None or not scans:
                break
            return frame
        if marker in _SOF:
            if frame is not None:
                raise ImageError("compressed image: expected one frame header in a JPEG, got two")
            frame = _read_frame_header(data, at)
        elif marker == _SOS and frame is not None:
            scans += 1
            _check_scans(frame, scans)
        at += 1 + max(length, 2)
    else:
        raise ImageError(f"compressed image: expected at most {MAX_SEGMENTS} segments in a JPEG, got more")
    if frame is None:
        raise ImageError("compressed image: a JPEG without a frame header; is it cut?")
    raise ImageError(f"compressed image: a JPEG of {len(data)} bytes without its end; is it cut?")


def _next_in_header(data: memoryview, at: int) -> int:
    """Where the code of the marker at `at` is, behind fill bytes; -1 without one.

    Other bytes, and markers that stand without a length, end the walk: no encoder puts them there, and a decoder would
    go on to the next marker, and find another size.
    """
    fill = _FILL.match(data, at)
    if fill is None or fill.end() >= len(data) or data[fill.end()] in _STANDS_ALONE:
        return -1
    return fill.end()


def _next_in_scans(data: memoryview, at: int) -> int:
    """The same behind the start of a scan, where coded data lies between."""
    for start in range(at, len(data), _PIECE):
        found = _NEXT_MARKER.search(data, start, start + _PIECE + 1)
        if found:
            return found.start() + 1
    return -1


def _read_frame_header(data: memoryview, at: int) -> Codestream:
    if at + 9 > len(data):
        raise ImageError("compressed image: a JPEG without a frame header; is it cut?")
    bits, height, width, components = struct.unpack(">BHHB", data[at + 3 : at + 9])
    check_size(height, width, "compressed image")
    if bits != 8 or components not in (1, 3, 4):
        raise ImageError(
            f"compressed image: expected a JPEG of 8 bits and 1, 3 or 4 components, got {bits} and {components}"
        )
    return Codestream("jpeg", height, width, 1 if components == 1 else 3, bits)


def _check_scans(frame: Codestream, scans: int) -> None:
    most = min(MAX_SCANS, MAX_SCAN_PIXELS // (frame.height * frame.width))
    if scans > most:
        raise ImageError(
            f"compressed image: expected at most {most} scans in a JPEG of {frame.height}x{frame.width}, got more;"
            " have the camera send baseline JPEG"
        )


def _read_png(data: memoryview) -> Codestream:
    """By the PNG specification, sections 5 and 11."""
    width, height, bits, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    check_size(height, width, "compressed image")
    if color_type not in _PNG_SAMPLES or bits not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise ImageError(
            f"compressed image: expected a PNG's colour type, bits and interlacing, got {color_type}, {bits} and"
            f" {interlaced}"
        )
    row_bytes = 1 + -(-width * _PNG_SAMPLES[color_type] * bits // 8)
    _check_inflated(_image_data(data), 2 * row_bytes * height + MAX_TEXT_BYTES)  # interlaced rows are padded more
    return Codestream("png", height, width, 3 if color_type in (2, 3, 6) else 1, max(bits, 8))


def _image_data(data: memoryview) -> list[memoryview]:
    """The contents of the IDAT chunks."""
    parts: list[memoryview] = []
    text_bytes, at = 0, len(PNG_SIGNATURE)
    for _ in range(MAX_SEGMENTS):
        if at + 12 > len(data):
            raise ImageError(f"compressed image: a PNG of {len(data)} bytes without its end; is it cut?")
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if kind == b"IEND":
            return parts
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        elif kind in _INFLATED_CHUNKS:
            text_bytes += length
            if text_bytes > MAX_TEXT_BYTES:
                raise ImageError(
                    f"compressed image: expected at most {MAX_TEXT_BYTES} bytes of text and colour profile in a PNG,"
                    " got more; have the camera send none"
                )
        at += 12 + length
    raise ImageError(f"compressed image: expected at most {MAX_SEGMENTS} chunks in a PNG, got more")


def _check_inflated(parts: list[memoryview], most: int) -> None:
    """Inflates where that could be more than the largest picture's work; OpenCV goes on to the end of the data."""
    if sum(map(len, parts)) * DEFLATE_RATIO <= MAX_INFLATED_BYTES:
        return
    inflate, inflated = zlib.decompressobj(), 0
    for part in parts:
        left: bytes | memoryview = part
        while left and not inflate.eof:
            try:
                inflated += len(inflate.decompress(left, _PIECE))
            except zlib.error:
                return  # OpenCV stops there too
            left = inflate.unconsumed_tail
            if inflated > most:
                raise ImageError(f"compressed image: expected a PNG of at most {most} bytes of pixels, got more")
