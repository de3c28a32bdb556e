"""JPEG and PNG against OpenCV's own; damaged ones are an ImageError or a picture of the size their header says."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.compressed import REDUCED, CompressedImage, decode_compressed, read_header
from sac_ae_ros.core.encodings import Image, decode_raw
from sac_ae_ros.core.errors import ImageError

RGB = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (65, 49))
BGR = np.ascontiguousarray(RGB[..., ::-1])


def encode(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


JPEG, PNG = encode(".jpg", BGR), encode(".png", BGR)
KINDS = {
    "jpeg": JPEG,
    "progressive jpeg": encode(".jpg", BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg with restarts": encode(".jpg", BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "jpeg 4:4:4": encode(".jpg", BGR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "grey jpeg": encode(".jpg", BGR[..., 0]),
    "png": PNG,
    "png with alpha": encode(".png", np.dstack([BGR, BGR[..., 0]])),
    "16 bit png": encode(".png", BGR.astype(np.uint16) * 257),
}


def turned_by_tag(jpeg: bytes) -> bytes:
    """With an EXIF orientation of 6: turn it clockwise by 90 degrees to see it upright."""
    tiff = b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + bytes(4)
    payload = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[2:]


def decode(data: bytes, reduction: int = 1, format_text: str = "", value_range=None) -> np.ndarray:
    image = CompressedImage(data, format_text)
    return decode_compressed(image, read_header(image), reduction, value_range)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_opencv_decodes(kind):
    header = read_header(CompressedImage(KINDS[kind]))
    assert (header.height, header.width, header.reducible) == (49, 65, "jpeg" in kind)
    decoded = decode(KINDS[kind])
    np.testing.assert_array_equal(decoded[..., ::-1], cv2.imdecode(np.frombuffer(KINDS[kind], np.uint8), 1))
    shown = np.dstack([BGR[..., 0]] * 3) if "grey" in kind else RGB
    assert np.abs(decoded.astype(int) - shown).mean() < (6 if "jpeg" in kind else 0.01)


@pytest.mark.parametrize("reduction", REDUCED)
def test_a_reduced_jpeg_is_the_average_of_its_pixels(reduction):
    even = encode(".jpg", cv2.resize(BGR, (160, 96)))
    full, small = decode(even), decode(even, reduction)
    assert small.shape == (96 // reduction, 160 // reduction, 3)
    averaged = cv2.resize(full, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - averaged).mean() < 2
    assert decode(JPEG, reduction).shape == (-(-49 // reduction), -(-65 // reduction), 3)


def test_an_exif_orientation_turns_nothing():
    tagged = turned_by_tag(JPEG)
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), 1).shape == (65, 49, 3)  # OpenCV would
    for reduction in (1, 2):
        np.testing.assert_array_equal(decode(tagged, reduction), decode(JPEG, reduction))


def test_a_header_is_read_once():
    image = CompressedImage(PNG)
    assert image.header is image.header == read_header(image)


@pytest.mark.parametrize("data", [bytearray(JPEG), memoryview(JPEG), np.frombuffer(JPEG, np.uint8)])
def test_any_buffer_will_do(data):
    np.testing.assert_array_equal(decode(data), decode(JPEG))


def test_bytes_behind_the_end_do_no_harm():
    """USB cameras pad their MJPEG buffers."""
    np.testing.assert_array_equal(decode(JPEG + bytes(100)), decode(JPEG))


def big_frame_header(marker: bytes) -> bytes:
    """A frame header of 65500x65500 pixels, hidden behind `marker` as if that had a length."""
    frame = b"\xff\xc0\x00\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\x00"
    return marker + (len(frame) + 2).to_bytes(2, "big") + frame


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "got 0"),
        (b"GIF89a" + bytes(40), "expected JPEG or PNG, got the format '' and bytes that start with 474946"),
        (b"\xff\xd8\xff\xe0", "is it cut"),
        (PNG[:16] + b"\x7f\xff\xff\xff" * 2 + PNG[24:], "at most"),
        (PNG[:60], "PNG of 60 bytes without its end; is it cut"),
        (PNG[:45] + bytes(9) + PNG[54:], "do not decode"),
        (PNG[:20], "expected JPEG or PNG"),
        (JPEG[:-2], "without its end; is it cut"),
        (JPEG[: len(JPEG) // 2], "without its end; is it cut"),
        (JPEG[:40], "without a frame header; is it cut"),
        (turned_by_tag(JPEG[:-2])[:-20].replace(b"Exif", b"\xff\xd9if"), "without its end"),  # a thumbnail has its own
        (JPEG[:2] + big_frame_header(b"\xff\x00") + JPEG[2:], "without a frame header"),
        (JPEG[:2] + big_frame_header(b"\xff\xd0") + JPEG[2:], "without a frame header"),
        (JPEG[:2] + b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff" + JPEG[2:], "at most 64000000 pixels, got 65535x65535"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value[:20],
)
def test_malformed_bytes_say_what_is_wrong(data, says):
    with pytest.raises(ImageError, match=says):
        decode(data)


DEEP = (BGR[..., 0].astype(np.uint16) << 8) + BGR[..., 1]
AS_PUBLISHED = {  # the raw image's encoding and samples; what image_transport codes of them, and says of that
    "rgb8": (RGB, BGR, "bgr8"),
    "bgr8": (BGR, BGR, "bgr8"),
    "rgba8": (np.dstack([RGB, RGB[..., 0]]), BGR, "bgr8"),
    "bgra8": (np.dstack([BGR, BGR[..., 0]]), BGR, "bgr8"),
    "mono8": (BGR[..., 0], BGR[..., 0], ""),
    "8UC1": (BGR[..., 0], BGR[..., 0], ""),
    "8UC3": (BGR, BGR, ""),
    "8UC4": (np.dstack([BGR, RGB[..., 0]]), np.dstack([BGR, RGB[..., 0]]), ""),
    "mono16": (DEEP, DEEP, ""),
    "16UC1": (DEEP, DEEP, ""),
    "bayer_grbg8": (BGR[..., 0], BGR[..., 0], ""),
    "bayer_rggb16": (DEEP, DEEP, ""),
}


def raw(encoding: str, samples: np.ndarray) -> Image:
    return Image(*samples.shape[:2], encoding, samples.strides[0], False, samples.tobytes())


@pytest.mark.parametrize("value_range", [None, (9000.0, 30000.0)])
@pytest.mark.parametrize("encoding", AS_PUBLISHED)
def test_a_png_of_image_transport_is_what_the_raw_image_was(encoding, value_range):
    samples, coded, says = AS_PUBLISHED[encoding]
    decoded = decode(encode(".png", coded), 1, f"{encoding}; png compressed {says}", value_range)
    np.testing.assert_array_equal(decoded, decode_raw(raw(encoding, np.ascontiguousarray(samples)), value_range))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "mono8", "bayer_grbg8", "mono16", "yuv422"])
def test_a_jpeg_of_image_transport_is_nearly_the_raw_image(encoding):
    """It makes colours bgr8 and everything else grey, which older ones did not tell."""
    coded, shown = (BGR, RGB) if "rgb" in encoding or encoding == "bgr8" else (BGR[..., 0], BGR[..., [0, 0, 0]])
    says = "bgr8" if coded is BGR else "mono8"
    decoded = decode(encode(".jpg", coded), 1, f"{encoding}; jpeg compressed {says}")
    assert np.abs(decoded.astype(int) - shown).mean() < 6


def test_a_mosaic_in_a_jpeg_becomes_colours():
    grey = np.full((48, 64), 90, np.uint8)
    grey[::2, ::2] = 200  # red in rggb
    decoded = decode(encode(".jpg", grey, cv2.IMWRITE_JPEG_QUALITY, 100), 1, "bayer_rggb8; jpeg compressed ")
    assert np.abs(decoded[8:40, 8:56].mean((0, 1)) - [200, 90, 90]).max() < 4


@pytest.mark.parametrize("coded", ["rgb8", "rgba8"])
@pytest.mark.parametrize("original", ["rgb8", "bgr8", "rgba8"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_red_and_blue_that_were_swapped_in_coding_are_swapped_back(suffix, original, coded):
    """The publisher gave OpenCV an rgb8 array as if it were bgr8."""
    codec = suffix[1:].replace("jpg", "jpeg")
    swapped, usual = encode(suffix, RGB), encode(suffix, BGR)
    for reduction in (1, 2) if suffix == ".jpg" else (1,):
        decoded = decode(swapped, reduction, f"{original}; {codec} compressed {coded}")
        np.testing.assert_array_equal(decoded[..., ::-1], decode(swapped, reduction))
        assert np.abs(decoded.astype(int) - decode(usual, reduction)).mean() < 8


@pytest.mark.parametrize("text", ["", "jpeg", "jpg", "JPEG", "image/jpeg", "bgr8; jpeg compressed bgr8", " jpeg "])
def test_a_usual_format_is_not_complained_about(text):
    header = read_header(CompressedImage(JPEG, text))
    assert (header.encoding, header.complaint) == ("bgr8", "")


@pytest.mark.parametrize(
    ("data", "text", "encoding", "complaint"),
    [
        (JPEG, "rgb8", "bgr8", "unknown format 'rgb8'; read as bgr8"),
        (JPEG, "webp", "bgr8", "unknown format 'webp'; read as bgr8"),
        (PNG, "bgr8; h264 compressed bgr8", "bgr8", "unknown format 'bgr8; h264 compressed bgr8'; read as bgr8"),
        (PNG, "jpeg", "bgr8", "format 'jpeg', but the bytes are png"),
        (JPEG, "rgb8; png compressed bgr8", "bgr8", "format 'rgb8; png compressed bgr8', but the bytes are jpeg"),
        (KINDS["grey jpeg"], "?", "mono8", "unknown format '?'; read as mono8"),
        (JPEG, "\x1b[2J\njpeg \ud800\u202e", "bgr8", r"unknown format '\x1b[2J\njpeg \ud800\u202e'; read as bgr8"),
        (JPEG, "x" * 10_000_000, "bgr8", f"unknown format {'x' * 80!r}...; read as bgr8"),
        (JPEG, ";" * 10_000_000, "bgr8", f"unknown format {';' * 80!r}...; read as bgr8"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_unknown_or_wrong_format_is_said_in_one_short_line(data, text, encoding, complaint):
    header = read_header(CompressedImage(data, text))
    assert (header.encoding, header.complaint) == (encoding, complaint)


WORDS = [
    "jpeg",
    "png",
    "rgb8",
    "bgr8",
    "mono8",
    "16UC1",
    "32FC1",
    "bayer_rggb8",
    " compressed ",
    "compressedDepth",
    ";",
    " ",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=7).map("".join), st.sampled_from(list(KINDS)))
def test_any_format_is_a_picture_or_one_line(text, kind):
    image = CompressedImage(KINDS[kind], text)
    try:
        told = image.header.complaint
        assert decode_compressed(image, image.header).shape == (49, 65, 3)
    except ImageError as error:
        told = str(error)
    assert told == "" or told.isprintable()
    assert len(told) < 500


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        (
            b"\0\0\0\1" + JPEG,
            "h264",
            r"got a packet of a video \(h264\), which only recordings are decoded from",
        ),
        (JPEG, "rgb8; jpeg compressed ", "expected the order of its colours in the format, such as 'rgb8; jpeg"),
        (JPEG, "rgb8; jpeg compressed gbr8", "expected the order of its colours"),
        (JPEG, "mono8; jpeg compressed mono8", "expected the order of its colours"),
        (JPEG, "mono8; jpeg compressed rgb8", "expected the order of its colours"),
        (encode(".png", DEEP), "mono8; png compressed ", "'mono8; png compressed ' says, got 16 bits"),
        (encode(".png", BGR[..., 0]), "16UC1; png compressed ", "got 8 bits; have the publisher send PNG"),
        (encode(".png", BGR[..., 0]), "bayer_rggb16; png compressed ", "got 8 bits"),
        (encode(".png", DEEP), "32FC1; png compressed ", "got 16 bits"),
    ],
)
def test_a_format_that_leaves_the_pixels_open_is_refused(data, text, says):
    with pytest.raises(ImageError, match=says):
        decode(data, 1, text)


def test_a_grey_png_of_16_bits_is_a_quantity_unless_it_says_otherwise():
    data = encode(".png", DEEP)
    ranged, high = (decode_raw(raw("16UC1", DEEP), values) for values in ((9000.0, 30000.0), None))
    assert not np.array_equal(ranged, high)
    for text, expected in [
        ("png", ranged),
        ("", ranged),
        ("16UC1; png compressed ", ranged),
        ("mono16; png compressed", high),
    ]:
        np.testing.assert_array_equal(decode(data, 1, text, (9000.0, 30000.0)), expected)
        np.testing.assert_array_equal(decode(data, 1, text), high)


def depth_message(samples: np.ndarray, a: float = 0.0, b: float = 0.0) -> bytes:
    return struct.pack("<iff", 0, a, b) + encode(".png", samples)


@pytest.mark.parametrize(
    "text", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "mono16; compressedDepth ", "16UC1"]
)
def test_compressed_depth_in_millimetres(text):
    decoded = decode(depth_message(DEEP, np.nan, np.inf), 1, text, (500.0, 4000.0))  # no quantisation: any numbers
    encoding = text.partition(";")[0]
    np.testing.assert_array_equal(decoded, decode_raw(raw(encoding, DEEP), (500.0, 4000.0)))


def test_compressed_depth_in_metres():
    """Quantised by hand as compressed_depth_image_transport does: A / depth + B, with 0 for what is too far or none."""
    metres = np.array([[0.5, 1.0, 2.0, 4.0, 9.9, np.nan]], np.float32)
    z0, farthest = 100.0, 10.0
    a = z0 * (z0 + 1)
    b = 1 - a / farthest
    samples = np.array([[a / m + b if m < farthest else 0 for m in metres[0]]]).astype(np.uint16)
    decoded = decode(depth_message(samples, a, b), 1, "32FC1; compressedDepth png", (0.0, 10.0))
    np.testing.assert_array_equal(decoded, decode_raw(raw("32FC1", metres), (0.0, 10.0)))
    assert decoded[0, :, 0].tolist() == [12, 25, 51, 102, 253, 0]


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        (
            depth_message(DEEP),
            "16UC1; compressedDepth rvl",
            "expected PNG, got the format '16UC1; compressedDepth rvl'",
        ),
        (depth_message(DEEP), "bgr8; compressedDepth png", "expected a PNG of 16UC1 or 32FC1 behind 12 bytes"),
        (depth_message(DEEP), "png", "expected a PNG of 16UC1 or 32FC1 behind 12 bytes, got 'png'"),
        (depth_message(DEEP)[:12], "16UC1; compressedDepth png", "and 12 bytes"),
        (depth_message(DEEP)[12:], "16UC1; compressedDepth png", "expected JPEG or PNG"),
        (depth_message(BGR[..., 0]), "16UC1; compressedDepth png", "got png of 1 channels and 8 bits"),
        (bytes(12) + JPEG, "16UC1; compressedDepth png", "got jpeg of 3 channels and 8 bits"),
        (depth_message(DEEP, np.nan), "32FC1; compressedDepth png", "finite numbers, got nan and 0"),
        (depth_message(DEEP, 0.0), "32FC1; compressedDepth png", "finite numbers, got 0 and 0"),
    ],
)
def test_compressed_depth_that_cannot_be_read_says_why(data, text, says):
    with pytest.raises(ImageError, match=says):
        decode(data, 1, text)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with up to three pieces replaced, cut out or put in; then perhaps cut."""
    data = bytearray(draw(st.sampled_from(list(KINDS.values()))))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 250) | st.integers(0, len(data)))
        gone = draw(st.integers(0, 6))
        data[at : at + gone] = draw(st.binary(max_size=6) | st.sampled_from([b"\xff\xd9", b"\xff\x00", b"\xff\xda"]))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


@settings(max_examples=200, deadline=None)
@given(damaged() | st.binary(max_size=60).map(lambda tail: JPEG[:2] + tail), st.sampled_from(list(REDUCED)))
def test_damaged_bytes_are_an_image_or_an_image_error(data, reduction):
    image = CompressedImage(data)
    try:
        header = read_header(image)
        decoded = decode_compressed(image, header, reduction)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape == (-(-header.height // reduction), -(-header.width // reduction), 3)
