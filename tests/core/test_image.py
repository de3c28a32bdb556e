"""Decoding against OpenCV's own conversions; every malformed image is an ImageError and nothing else."""

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import ENCODINGS, CompressedImage, Image, decode, fit

H, W = 6, 8
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
SMOOTH = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_LINEAR)


def image(encoding: str, pixels: np.ndarray, *, padding: int = 0, big: bool = False, height: int = 0) -> Image:
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    data = rows.astype(rows.dtype.newbyteorder(">" if big else "<")).tobytes()
    row_bytes = len(data) // len(rows)
    padded = b"".join(data[i * row_bytes : (i + 1) * row_bytes] + b"\xab" * padding for i in range(len(rows)))
    return Image(height or pixels.shape[0], pixels.shape[1], encoding, row_bytes + padding, big, padded)


COLOURS = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "8UC3": RGB[..., ::-1],
    "rgba8": np.dstack([RGB, RGB[..., :1]]),
    "bgra8": np.dstack([RGB[..., ::-1], RGB[..., :1]]),
    "8UC4": np.dstack([RGB[..., ::-1], RGB[..., :1]]),
}


@pytest.mark.parametrize("encoding", COLOURS)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_orders(encoding, padding):
    decoded = decode(image(encoding, COLOURS[encoding], padding=padding))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding):
    np.testing.assert_array_equal(decode(image(encoding, RGB[..., 0])), np.dstack([RGB[..., 0]] * 3))


@pytest.mark.parametrize("big", [False, True])
def test_mono16_keeps_its_high_byte_in_either_byte_order(big):
    wide = RGB[..., 0].astype(np.uint16) << 8 | 0x37
    np.testing.assert_array_equal(decode(image("mono16", wide, big=big, padding=3)), np.dstack([RGB[..., 0]] * 3))


@pytest.mark.parametrize(
    ("pattern", "first_row", "second_row"),
    [("rggb", "rg", "gb"), ("bggr", "bg", "gr"), ("gbrg", "gb", "rg"), ("grbg", "gr", "bg")],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_are_named_by_their_first_row(pattern, first_row, second_row, bits):
    """A mosaic of one flat colour comes back as that colour, whatever the pattern."""
    colour = {"r": 200, "g": 90, "b": 30}
    rows = [[colour[first_row[x % 2]] if y % 2 == 0 else colour[second_row[x % 2]] for x in range(W)] for y in range(H)]
    mosaic = np.array(rows, np.uint8 if bits == 8 else np.uint16)
    mosaic = mosaic if bits == 8 else mosaic << 8
    decoded = decode(image(f"bayer_{pattern}{bits}", mosaic))
    np.testing.assert_array_equal(decoded[2:-2, 2:-2], np.broadcast_to([200, 90, 30], (H - 4, W - 4, 3)))


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_packed_yuv_orders(encoding):
    """Grey in luma, with chroma that makes it red: the order of the four bytes decides."""
    y, u, v = 81, 90, 240
    pair = [u, y, v, y] if encoding in ("yuv422", "uyvy") else [y, u, y, v]
    packed = np.tile(np.array(pair, np.uint8), (H, W // 2)).reshape(H, W, 2)
    decoded = decode(image(encoding, packed))
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize(("encoding", "order"), [("nv12", (90, 240)), ("nv21", (240, 90))])
def test_semiplanar_yuv_orders(encoding, order):
    luma = np.full((H, W), 81, np.uint8)
    chroma = np.tile(np.array(order, np.uint8), (H // 2, W // 2))
    decoded = decode(image(encoding, np.vstack([luma, chroma]), padding=4, height=H))
    assert decoded.shape == (H, W, 3)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images(suffix):
    data = cv2.imencode(suffix, SMOOTH[..., ::-1])[1].tobytes()
    decoded = decode(CompressedImage(data))
    assert decoded.shape == SMOOTH.shape
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < (8 if suffix == ".jpg" else 0.01)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Image(4, 4, "rgb8", 12, False, bytes(47)), "expected 48 bytes for step 12, got 47"),
        (Image(4, 4, "rgb8", 11, False, bytes(48)), "a step of at least 12"),
        (Image(4, 4, "rgb9", 12, False, bytes(48)), "expected one of 16UC1, 32FC1"),
        (Image(4, 0, "rgb8", 0, False, b""), "got 4x0"),
        (Image(0, 4, "rgb8", 12, False, b""), "got 0x4"),
        (Image(2**32 - 1, 2**32 - 1, "rgb8", 2**32 - 1, False, bytes(48)), "at most"),
        (Image(16384, 16384, "mono8", 16384, False, b""), "at most 64000000 pixels"),
        (Image(4, 5, "yuv422", 10, False, bytes(40)), "even sides"),
        (Image(5, 4, "nv12", 4, False, bytes(40)), "even sides"),
        (CompressedImage(b""), "got 0"),
        (CompressedImage(b"GIF89a" + bytes(40)), "expected JPEG or PNG"),
        (CompressedImage(b"\xff\xd8\xff\xe0"), "is it cut"),
        (CompressedImage(b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\x7f\xff\xff\xff" * 2 + bytes(9)), "at most"),
        (CompressedImage(cv2.imencode(".png", SMOOTH)[1].tobytes()[:60]), "do not decode"),
    ],
)
def test_malformed_images_say_what_is_wrong(broken, says):
    with pytest.raises(ImageError, match=says):
        decode(broken)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Image,
        height=st.integers(0, 40),
        width=st.integers(0, 40),
        encoding=st.sampled_from(ENCODINGS),
        step=st.integers(0, 200),
        is_bigendian=st.booleans(),
        data=st.binary(max_size=3000),
    )
)
def test_whatever_arrives_is_an_image_or_an_image_error(message):
    try:
        decoded = decode(message)
    except ImageError:
        return
    assert decoded.shape == (message.height, message.width, 3)
    assert decoded.dtype == np.uint8


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([".jpg", ".png"]), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damaged_compressed_images_never_raise_anything_else(suffix, at, junk):
    data = bytearray(cv2.imencode(suffix, RGB)[1].tobytes())
    data[at : at + len(junk)] = junk
    with contextlib.suppress(ImageError):
        assert decode(CompressedImage(bytes(data))).ndim == 3


def test_fit_crops_the_centre_to_the_ratio_and_averages():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 100
    wide[::2, 2:6] = 200
    np.testing.assert_array_equal(fit(wide, 2, 2, "center"), np.full((2, 2, 3), 150))
    assert fit(wide, 2, 2, "none")[0, 0, 0] == 75
    assert fit(wide.transpose(1, 0, 2), 2, 2, "center")[0, 0, 0] == 150


def test_fit_leaves_an_image_of_the_right_size_untouched():
    assert fit(RGB, H, W, "center") is not None
    np.testing.assert_array_equal(fit(RGB, H, W, "center"), RGB)


def test_a_jpeg_cannot_hide_its_size_behind_a_marker_without_length():
    """A restart marker, then bytes that would read as a small frame header if it had a length."""
    data = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
    fake = b"\xff\xd0\x00\x02\xff\xc0\x00\x0b\x08\x00\x08\x00\x08"
    with pytest.raises(ImageError):
        decode(CompressedImage(data[:2] + fake + data[2:]))
