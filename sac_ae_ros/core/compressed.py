"""JPEG, PNG and compressed depth to uint8 RGB; how large they are is known, and bounded, before anything is decoded."""

from __future__ import annotations

import functools
import math
import re
import struct
import sys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.codestream import JPEG_SIGNATURE, PNG_SIGNATURE, Codestream, read_codestream
from sac_ae_ros.core.encodings import ENCODINGS, Image, decode_raw
from sac_ae_ros.core.errors import ImageError, quote

MAX_COMPRESSED_BYTES = 256 * 1024 * 1024
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_AS_CODED = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
# What sensor_msgs/CompressedImage documents of the field `format`: of compressed_image_transport, and of
# compressed_depth_image_transport, which wrote no codec at first. Drivers also write the codec alone, or nothing.
_COMPRESSED = re.compile(r"\s*(jpe?g|png) compressed *(\w*)\s*", re.IGNORECASE)
_COMPRESSED_DEPTH = re.compile(r"\s*compressedDepth *(\w*)\s*")
_CODECS = {"": "", **dict.fromkeys(("jpeg", "jpg", "mjpeg", "image/jpeg"), "jpeg"), "png": "png", "image/png": "png"}
_VIDEO = {"h264": "h264", "avc": "h264", "h265": "hevc", "hevc": "hevc"} | {"libx264": "h264", "libx265": "hevc"}
_LONGEST_FORMAT = 200
_STARTS = re.compile(b"|".join(map(re.escape, (JPEG_SIGNATURE, PNG_SIGNATURE))))
_DEPTH_HEADER = struct.Struct("<iff")
_BGR = frozenset({"bgr8", "bgra8", "bgr16", "bgra16"})
_RGB = frozenset({"rgb8", "rgba8", "rgb16", "rgba16"})
_SAMPLE_BITS = {"mono8": 8, "8UC1": 8, "mono16": 16, "16UC1": 16, "32FC1": 32}
_SAMPLE_BITS |= {name: 16 if name.endswith("16") else 8 for name in ENCODINGS if name.startswith("bayer_")}


@dataclass(frozen=True)
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage that carry pixels.

    `format` tells what the coded samples mean: whether red and blue are swapped, or a depth. The bytes tell the codec.
    """

    data: bytes | bytearray | memoryview | NDArray[np.uint8]
    format: str = ""

    @functools.cached_property
    def header(self) -> Header:
        """What `read_header` tells, read once.

        Raises:
            ImageError: as there.
        """
        return read_header(self)


@dataclass(frozen=True)
class Header:
    """What is known before decoding.

    encoding: of the samples that OpenCV makes of the bytes, as of a raw image: bgr8 for colours in their usual order.
    reducible: whether a smaller picture is cheaper to decode. complaint: what is doubtful about `format`, or empty.
    start: of the JPEG or PNG in the bytes. depth: quantisation A and B of compressedDepth in 32FC1.
    """

    height: int
    width: int
    encoding: str
    reducible: bool
    complaint: str = ""
    start: int = 0
    depth: tuple[float, float] | None = None


def video_codec(text: str) -> str:
    """The codec of a video, "h264" or "hevc", by a CompressedImage's format or an FFMPEGPacket's encoding; else "".

    The codec is the whole text, or what stands before the first semicolon: h264, H.265, hevc, libx264, h264_nvenc.
    """
    first = text[:_LONGEST_FORMAT].partition(";")[0].strip().lower().replace(".", "").removeprefix("video/")
    return _VIDEO.get(first.partition("_")[0], "")


def read_header(image: CompressedImage) -> Header:
    """Reads the size of an image, and what its samples mean.

    Raises:
        ImageError: no JPEG or PNG, too large, cut, more work than core.codestream allows, or a `format` that
            contradicts the bytes so that nobody knows what they mean.
    """
    data = np.frombuffer(image.data, np.uint8).data
    if not 0 < len(data) <= MAX_COMPRESSED_BYTES:
        raise ImageError(f"compressed image: expected 1..{MAX_COMPRESSED_BYTES} bytes, got {len(data)}")
    original, _, rest = image.format[:_LONGEST_FORMAT].partition(";")
    depth = _COMPRESSED_DEPTH.fullmatch(rest)
    behind = bytes(data[_DEPTH_HEADER.size : _DEPTH_HEADER.size + len(PNG_SIGNATURE)])
    if depth or (not rest and behind == PNG_SIGNATURE):
        return _depth_header(data, image.format, original.strip(), depth[1] if depth else "")
    if not _STARTS.match(data):
        if codec := video_codec(image.format):
            raise ImageError(
                f"compressed image: expected JPEG or PNG, got a packet of a video ({codec}), which only recordings"
                " are decoded from; have the camera send JPEG, or turn it into images with image_transport's republish"
            )
        raise ImageError(
            f"compressed image: expected JPEG or PNG, got the format {quote(image.format)} and bytes that start with"
            f" {bytes(data[:8]).hex()}"
        )
    stream = read_codestream(data)
    encoding, complaint = _encoding(image.format, stream)
    reducible = stream.codec == "jpeg" and encoding in ("bgr8", "rgb8", "mono8")
    return Header(stream.height, stream.width, encoding, reducible, complaint)


def decode_compressed(
    image: CompressedImage, header: Header, reduction: int = 1, value_range: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Decodes to uint8 RGB, each side 1 / `reduction` of the header's, rounded up; reductions: 1, 2, 4, 8.

    Red and blue are as the original image had them. `value_range` maps samples of 16UC1 and 32FC1 as in raw images.
    Rows and columns stay as they were coded: an EXIF orientation is ignored, since calibration and `rotate_deg`
    are about the sensor's own rows, and a picture must not turn because a driver began to write a tag.

    Raises:
        ImageError: the bytes do not decode, or not to the size that the header says.
    """
    colored = header.encoding in ("bgr8", "rgb8", "mono8")
    samples = _decode(image, header, REDUCED[reduction] if colored else _AS_CODED)
    height, width = -(-header.height // reduction), -(-header.width // reduction)
    if samples.shape[:2] != (height, width):
        raise ImageError(f"compressed image: its header says {height}x{width}, it decodes to {samples.shape[:2]}")
    if header.encoding == "rgb8":
        return samples
    if colored:
        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_BGR2RGB), np.uint8)
    if header.depth is not None:
        samples = _metres(samples, *header.depth)
    step = width * samples.itemsize
    return decode_raw(Image(height, width, header.encoding, step, sys.byteorder == "big", samples), value_range)


def _decode(image: CompressedImage, header: Header, flags: int) -> NDArray:
    coded = np.frombuffer(image.data, np.uint8)[header.start :]
    try:
        samples = cv2.imdecode(coded, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"compressed image: OpenCV cannot decode it ({error.err})") from None
    if samples is None:
        raise ImageError(f"compressed image: {coded.size} bytes start like JPEG or PNG but do not decode; is it cut?")
    return np.ascontiguousarray(samples)


def _encoding(format_text: str, stream: Codestream) -> tuple[str, str]:
    """The decoded samples' encoding, and what is doubtful about it."""
    unstated = "bgr8" if stream.channels == 3 else "mono8" if stream.bits == 8 else "16UC1"
    original, semicolon, rest = format_text[:_LONGEST_FORMAT].partition(";")
    original, stated = original.strip(), _COMPRESSED.fullmatch(rest)
    codec = _CODECS.get(original.lower()) if not semicolon else stated and stated[1].lower().replace("jpg", "jpeg")
    if codec is None:
        return unstated, f"unknown format {quote(format_text)}; read as {unstated}"
    doubt = f"format {quote(format_text)}, but the bytes are {stream.codec}" if codec not in ("", stream.codec) else ""
    if stated is None:
        return unstated, doubt
    coded = stated[2].lower()
    if stream.channels == 3:
        if coded in _BGR or (original in ("8UC3", "8UC4") and not coded):
            return "bgr8", doubt
        if coded in _RGB and original in _BGR | _RGB:
            return "rgb8", doubt  # they were coded as if they were in the usual order, and come out in theirs
        raise ImageError(
            "compressed image: expected the order of its colours in the format, such as"
            f" 'rgb8; {stream.codec} compressed bgr8', got {quote(format_text)}; have the publisher write that,"
            f" or '{stream.codec}' alone"
        )
    return _grey_encoding(format_text, original, coded, stream, unstated), doubt


def _grey_encoding(format_text: str, original: str, coded: str, stream: Codestream, unstated: str) -> str:
    """The same for one channel, which holds the original's samples unless they were made grey, or of fewer bits."""
    made_grey = (original.startswith("bayer_") and coded) or (original == "mono16" and stream.bits == 8)
    if made_grey or original not in _SAMPLE_BITS:
        return unstated if stream.bits == 8 else "mono16"
    if _SAMPLE_BITS[original] != stream.bits:
        raise ImageError(
            f"compressed image: expected samples as the format {quote(format_text)} says, got {stream.bits} bits;"
            " have the publisher send PNG, or compressedDepth"
        )
    return unstated if original == "8UC1" else original


def _depth_header(data: memoryview, format_text: str, original: str, codec: str) -> Header:
    """Of compressed_depth_image_transport: the quantisation, then a PNG of 16 bits."""
    if codec not in ("", "png"):
        raise ImageError(
            f"compressed depth: expected PNG, got the format {quote(format_text)}, which is not supported; set the"
            " publisher's parameter IMAGE_TOPIC.compressedDepth.format to png"
        )
    if original not in ("16UC1", "mono16", "32FC1") or len(data) <= _DEPTH_HEADER.size:
        raise ImageError(
            f"compressed depth: expected a PNG of 16UC1 or 32FC1 behind {_DEPTH_HEADER.size} bytes, got"
            f" {quote(format_text)} and {len(data)} bytes"
        )
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    stream = read_codestream(data[_DEPTH_HEADER.size :])
    if (stream.codec, stream.channels, stream.bits) != ("png", 1, 16):
        raise ImageError(
            f"compressed depth: expected a grey PNG of 16 bits, got {stream.codec} of {stream.channels} channels and"
            f" {stream.bits} bits"
        )
    depth = (a, b) if original == "32FC1" else None
    if depth and not (math.isfinite(a) and math.isfinite(b) and a > 0):
        raise ImageError(f"compressed depth: expected a quantisation of finite numbers, got {a:g} and {b:g}")
    return Header(stream.height, stream.width, original, False, start=_DEPTH_HEADER.size, depth=depth)


def _metres(samples: NDArray[np.uint16], a: float, b: float) -> NDArray[np.float32]:
    """Undoes the quantisation of inverse depths, A / (sample - B); 0 means that nothing was measured."""
    with np.errstate(divide="ignore"):
        metres = np.float32(a) / (samples.astype(np.float32) - np.float32(b))
    return np.where(samples == 0, np.float32(np.nan), metres)
