"""JPEG and PNG against OpenCV's own; damaged ones are an ImageError or a picture of the size their header says."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.compressed import REDUCED, CompressedImage, decode_compressed, read_header
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


def decode(data: bytes, reduction: int = 1) -> np.ndarray:
    image = CompressedImage(data)
    return decode_compressed(image, read_header(image), reduction)


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
        (b"GIF89a" + bytes(40), "expected JPEG or PNG"),
        (b"\xff\xd8\xff\xe0", "is it cut"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\x7f\xff\xff\xff" * 2 + bytes(9), "at most"),
        (PNG[:60], "do not decode"),
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
