"""Every encoding against OpenCV's own conversions or arithmetic written here; what is malformed is an ImageError."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.encodings import ENCODINGS, Image, decode_raw
from sac_ae_ros.core.errors import ImageError

pytestmark = pytest.mark.filterwarnings("error")  # what a NaN becomes by mere casting depends on the processor

H, W = 6, 8
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = RGB[..., 0]
WIDE = RANDOM.integers(0, 65536, (H, W), dtype=np.uint16)
REAL = RANDOM.uniform(-0.5, 1.5, (H, W)).astype(np.float32)
REAL[0, :5] = np.nan, np.inf, -np.inf, 0, 1
LUMA, U, V = RANDOM.integers(60, 180, (3, H, W), dtype=np.uint8)  # 60..180: some colours clip, most do not


def rgb_of(luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, luma 16..235, in floating point."""
    y, u, v = (plane.astype(float) - level for plane, level in ((luma, 16), (u, 128), (v, 128)))
    rgb = np.dstack([1.164 * y + 1.596 * v, 1.164 * y - 0.813 * v - 0.391 * u, 1.164 * y + 2.018 * u])
    return np.clip(np.rint(rgb), 0, 255)


def per_block(plane: np.ndarray, rows: int) -> np.ndarray:
    """The sample that rows x 2 pixels share, for each pixel."""
    return plane[::rows, ::2].repeat(rows, 0).repeat(2, 1)


def packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.dstack([first, second])


def in_turn(even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Columns of two planes in turn, [rows, 2 columns]."""
    return packed(even, odd).reshape(len(even), -1)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.dstack([levels] * 3)


CHROMA = np.where(np.arange(W) % 2, per_block(V, 1), per_block(U, 1))  # U V U V along a row
COLOUR_422 = rgb_of(LUMA, per_block(U, 1), per_block(V, 1))
COLOUR_420 = rgb_of(LUMA, per_block(U, 2), per_block(V, 2))
BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}
# Encoding: its planes, each with how many steps one of its rows takes; the picture; and how far off a level may be.
CASES: dict[str, tuple[list[tuple[np.ndarray, int]], np.ndarray, int]] = {
    "rgb8": ([(RGB, 1)], RGB, 0),
    "bgr8": ([(RGB[..., ::-1], 1)], RGB, 0),
    "8UC3": ([(RGB[..., ::-1], 1)], RGB, 0),
    "rgba8": ([(np.dstack([RGB, GREY]), 1)], RGB, 0),
    "bgra8": ([(np.dstack([RGB[..., ::-1], GREY]), 1)], RGB, 0),
    "8UC4": ([(np.dstack([RGB[..., ::-1], GREY]), 1)], RGB, 0),
    "mono8": ([(GREY, 1)], grey(GREY), 0),
    "8UC1": ([(GREY, 1)], grey(GREY), 0),
    "mono16": ([(WIDE, 1)], grey(WIDE // 256), 0),
    "16UC1": ([(WIDE, 1)], grey(WIDE // 256), 0),
    "32FC1": ([(REAL, 1)], grey(np.clip(np.floor(np.nan_to_num(REAL, nan=0, posinf=2, neginf=-2) * 256), 0, 255)), 0),
    "yuv422": ([(packed(CHROMA, LUMA), 1)], COLOUR_422, 1),
    "uyvy": ([(packed(CHROMA, LUMA), 1)], COLOUR_422, 1),
    "yuv422_yuy2": ([(packed(LUMA, CHROMA), 1)], COLOUR_422, 1),
    "yuyv": ([(packed(LUMA, CHROMA), 1)], COLOUR_422, 1),
    "nv12": ([(LUMA, 1), (in_turn(U[::2, ::2], V[::2, ::2]), 1)], COLOUR_420, 1),
    "nv21": ([(LUMA, 1), (in_turn(V[::2, ::2], U[::2, ::2]), 1)], COLOUR_420, 1),
    "nv24": ([(LUMA, 1), (in_turn(U, V), 2)], rgb_of(LUMA, U, V), 1),
    **{f"bayer_{name}8": ([(GREY, 1)], cv2.demosaicing(GREY, code), 0) for name, code in BAYER.items()},
    **{
        f"bayer_{name}16": ([(WIDE, 1)], cv2.demosaicing((WIDE // 256).astype(np.uint8), code), 0)
        for name, code in BAYER.items()
    },
}


def message(encoding: str, planes: list[tuple[np.ndarray, int]], padding: int = 0, big: bool = False) -> Image:
    """Each row is followed by its padding, the last of all by none."""
    data, (height, width) = b"", planes[0][0].shape[:2]
    for plane, steps in planes:
        rows = plane.reshape(len(plane), -1)
        rows = rows.astype(rows.dtype.newbyteorder(">" if big else "<"))
        data += b"".join(row.tobytes() + b"\xab" * (padding * steps) for row in rows)
    step = planes[0][0][0].nbytes + padding
    return Image(height, width, encoding, step, big, data[: len(data) - padding * planes[-1][1]])


def test_every_encoding_has_a_reference():
    assert set(CASES) == set(ENCODINGS)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_against_its_reference(encoding, padding, big):
    planes, expected, tolerance = CASES[encoding]
    image = message(encoding, planes, padding, big)
    decoded = decode_raw(image)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (H, W, 3)
    assert np.abs(decoded.astype(int) - expected).max() <= tolerance
    longer = Image(image.height, image.width, encoding, image.step, big, image.data + b"\xcd" * 40)
    np.testing.assert_array_equal(decode_raw(longer), decoded)
    one_short = Image(image.height, image.width, encoding, image.step, big, image.data[:-1])
    with pytest.raises(ImageError, match=rf"expected {len(image.data)} bytes for step {image.step}"):
        decode_raw(one_short)


@pytest.mark.parametrize(("encoding", "code"), [("nv12", cv2.COLOR_YUV2RGB_NV12), ("nv21", cv2.COLOR_YUV2RGB_NV21)])
def test_semiplanar_colours_are_those_of_opencvs_own_two_planes(encoding, code):
    (luma, _), (chroma, _) = CASES[encoding][0]
    own = cv2.cvtColorTwoPlane(luma, chroma.reshape(H // 2, W // 2, 2), code)
    np.testing.assert_array_equal(decode_raw(message(encoding, CASES[encoding][0], padding=3)), own)


def test_nv24_has_nv12s_colours_and_takes_odd_sides():
    u, v = per_block(U, 2), per_block(V, 2)
    nv24 = message("nv24", [(LUMA, 1), (in_turn(u, v), 2)])
    np.testing.assert_array_equal(decode_raw(nv24), decode_raw(message("nv12", CASES["nv12"][0])))
    odd = message("nv24", [(LUMA[:5, :7], 1), (in_turn(u[:5, :7], v[:5, :7]), 2)], padding=1)
    np.testing.assert_array_equal(decode_raw(odd), decode_raw(nv24)[:5, :7])


@pytest.mark.parametrize(
    ("pattern", "first_row", "second_row"),
    [("rggb", "rg", "gb"), ("bggr", "bg", "gr"), ("gbrg", "gb", "rg"), ("grbg", "gr", "bg")],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_are_named_by_their_first_row(pattern, first_row, second_row, bits):
    """A mosaic of one flat colour comes back as that colour, whatever the pattern."""
    colour = {"r": 200, "g": 90, "b": 30}
    rows = [[colour[first_row[x % 2]] if y % 2 == 0 else colour[second_row[x % 2]] for x in range(W)] for y in range(H)]
    mosaic = np.array(rows, np.uint8) if bits == 8 else np.array(rows, np.uint16) << 8
    decoded = decode_raw(message(f"bayer_{pattern}{bits}", [(mosaic, 1)]))
    np.testing.assert_array_equal(decoded[2:-2, 2:-2], np.broadcast_to([200, 90, 30], (H - 4, W - 4, 3)))


@pytest.mark.parametrize("big", [False, True])
def test_a_value_range_cuts_millimetres_into_equal_parts(big):
    depth = np.array([[0, 499, 500, 501, 1000, 1500, 1999, 2499, 2500, 65535]], np.uint16)
    decoded = decode_raw(message("16UC1", [(depth, 1)], padding=3, big=big), (500.0, 2500.0))
    assert decoded[0, :, 0].tolist() == [0, 0, 0, 0, 64, 128, 191, 255, 255, 255]
    metres = np.append(depth[0] / 1000, [np.nan, np.inf, -np.inf]).astype(np.float32)[None]
    decoded = decode_raw(message("32FC1", [(metres, 1)], padding=3, big=big), (0.5, 2.5))
    assert decoded[0, :, 0].tolist() == [0, 0, 0, 0, 64, 128, 191, 255, 255, 255, 0, 255, 0]


def test_the_default_ranges_keep_eight_bit_pictures_exactly():
    levels = np.arange(256, dtype=np.uint8)[None]
    wide = levels.astype(np.uint16) << 8 | 0xFF
    for image, values in [
        (message("32FC1", [((levels / 255).astype(np.float32), 1)]), None),
        (message("32FC1", [((levels / 256).astype(np.float32), 1)]), None),
        (message("16UC1", [(wide, 1)]), None),
        (message("16UC1", [(wide, 1)]), (0.0, 65535.0)),
        (message("mono16", [(wide, 1)]), (0.0, 1.0)),  # a range is about quantities, not about grey
    ]:
        np.testing.assert_array_equal(decode_raw(image, values)[..., 0], levels)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Image(4, 4, "rgb8", 12, False, bytes(47)), "expected 48 bytes for step 12, got 47"),
        (Image(4, 4, "rgb8", 11, False, bytes(48)), "a step of at least 12"),
        (Image(4, 4, "32FC1", 15, False, bytes(64)), "a step of at least 16"),
        (Image(4, 4, "nv24", 4, False, bytes(47)), "expected 48 bytes for step 4, got 47"),
        (Image(4, 4, "nv24", 8, False, bytes(48)), "expected 88 bytes for step 8"),  # both planes' padding
        (Image(4, 4, "rgb9", 12, False, bytes(48)), "expected one of 16UC1, .*, yuyv; got 'rgb9'; set the camera"),
        (Image(4, 0, "rgb8", 0, False, b""), "got 4x0"),
        (Image(0, 4, "rgb8", 12, False, b""), "got 0x4"),
        (Image(2**32 - 1, 2**32 - 1, "rgb8", 2**32 - 1, False, bytes(48)), "at most"),
        (Image(16384, 16384, "mono8", 16384, False, b""), "at most 64000000 pixels"),
        (Image(4, 5, "yuv422", 10, False, bytes(40)), "even sides"),
        (Image(5, 4, "nv12", 4, False, bytes(40)), "even sides"),
        (Image(2, 2, "rgb8", 2**32 - 1, False, bytes(48)), "expected 4294967301 bytes"),
    ],
)
def test_malformed_images_say_what_is_wrong(broken, says):
    with pytest.raises(ImageError, match=says):
        decode_raw(broken)


@st.composite
def nearly_right(draw: st.DrawFn) -> Image:
    """Sizes, steps and lengths around those that fit, where mistakes by one hide."""
    height, width = draw(st.integers(0, 7)), draw(st.integers(0, 9))
    step = max(0, width * draw(st.sampled_from([1, 2, 3, 4])) + draw(st.integers(-2, 5)))
    length = int(step * height * draw(st.sampled_from([1, 1.5, 3]))) + draw(st.integers(-6, 3))
    data = np.random.default_rng(draw(st.integers(0, 99))).bytes(max(0, length))
    return Image(height, width, draw(st.sampled_from(ENCODINGS)), step, draw(st.booleans()), data)


ANYTHING = st.builds(
    Image,
    height=st.integers(0, 2**32 - 1),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 9),
    encoding=st.sampled_from(ENCODINGS) | st.text(max_size=12),
    step=st.integers(0, 2**32 - 1),
    is_bigendian=st.booleans(),
    data=st.binary(max_size=500),
)
RANGES = st.none() | st.tuples(st.floats(-1e300, 0), st.floats(0, 1e300, exclude_min=True))


@settings(max_examples=300, deadline=None)
@given(nearly_right() | ANYTHING, RANGES)
def test_whatever_arrives_is_an_image_or_an_image_error(image, value_range):
    try:
        decoded = decode_raw(image, value_range)
    except ImageError:
        return
    assert decoded.shape == (image.height, image.width, 3)
    assert decoded.dtype == np.uint8
