"""What the policy gets of an image: the part that counts, turned, cropped and averaged."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.errors import ConfigError, ImageError
from sac_ae_ros.core.image import ENCODINGS, CompressedImage, Image, View, _reduction, complaints, decode, fit, see
from sac_ae_ros.core.spec import CameraSpec

H, W = 6, 8
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
RAW = Image(H, W, "rgb8", 3 * W, False, RGB.tobytes())
SMOOTH = cv2.resize(RGB, (640, 480), interpolation=cv2.INTER_CUBIC)
JPEG = CompressedImage(cv2.imencode(".jpg", SMOOTH)[1].tobytes())
PNG = CompressedImage(cv2.imencode(".png", SMOOTH)[1].tobytes())


def camera(height: int, width: int, crop: str = "center") -> CameraSpec:
    return CameraSpec("camera", height, width, height, width, crop=crop, fovy_deg=60.0)


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_raw_image_is_decoded_then_fitted(encoding, crop):
    image = Image(12, 16, encoding, 80, False, np.random.default_rng(1).bytes(80 * 36))
    expected = fit(decode(image), 4, 4, crop)
    assert see(image, camera(4, 4, crop)).tobytes() == expected.tobytes()


def test_a_png_is_decoded_then_fitted():
    assert see(PNG, camera(32, 32)).tobytes() == fit(decode(PNG), 32, 32, "center").tobytes()


@pytest.mark.parametrize(("rotate_deg", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_the_part_is_cut_out_then_turned_clockwise(rotate_deg, turns):
    part = np.rot90(RGB[1:4, 2:7], turns)
    view = View(roi=(2, 1, 5, 3), rotate_deg=rotate_deg)
    np.testing.assert_array_equal(see(RAW, camera(*part.shape[:2]), view), part)


def test_the_crop_comes_last():
    """Turned, the 8x6 picture is upright: the crop then takes rows off, not columns."""
    seen = see(RAW, camera(6, 6), View(rotate_deg=90))
    np.testing.assert_array_equal(seen, np.rot90(RGB, -1)[1:7])


def test_the_value_range_reaches_the_decoder():
    depth = np.array([[1000, 2000]], "<u2")
    image = Image(1, 2, "16UC1", 4, False, depth.tobytes())
    assert see(image, camera(1, 2), View(value_range=(1000, 3000)))[0, :, 0].tolist() == [0, 128]


def test_the_value_range_reaches_a_png_of_16_bits():
    depth = np.array([[1000, 2000]], np.uint16)
    image = CompressedImage(cv2.imencode(".png", depth)[1].tobytes(), "16UC1; png compressed ")
    assert see(image, camera(1, 2), View(value_range=(1000, 3000)))[0, :, 0].tolist() == [0, 128]


GREY_JPEG, GREY_PNG = (cv2.imencode(suffix, SMOOTH[..., 0])[1].tobytes() for suffix in (".jpg", ".png"))
DEPTH = cv2.imencode(".png", np.zeros((H, W), np.uint16))[1].tobytes()


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (RAW, ""),
        (JPEG, ""),
        (PNG, ""),
        (Image(1, 2, "bayer_rggb8", 2, False, b"12"), ""),
        (CompressedImage(GREY_PNG, "bayer_rggb8; png compressed "), ""),
        (Image(1, 2, "mono8", 2, False, b"12"), "image: grey (mono8), where the policy was trained on colours"),
        (Image(1, 2, "8UC1", 2, False, b"12"), "image: grey (8UC1)"),
        (CompressedImage(GREY_JPEG, "bgr8; jpeg compressed bgr8"), "image: grey (mono8)"),
        (CompressedImage(GREY_PNG, "mono8; png compressed "), "image: grey (mono8)"),
        (CompressedImage(DEPTH, "png"), "image: grey (16UC1)"),
        (CompressedImage(JPEG.data, "webp"), "compressed image: unknown format 'webp'; read as bgr8"),
    ],
)
def test_what_is_doubtful_about_an_image_is_said(image, found):
    assert " and ".join(complaints(image)).startswith(found) if found else complaints(image) == ()


def test_a_value_range_says_that_grey_is_meant():
    ranged = View(value_range=(0, 1000))
    assert complaints(CompressedImage(DEPTH, "16UC1; png compressed "), ranged) == ()
    assert complaints(Image(1, 2, "mono8", 2, False, b"12"), ranged)  # it does not apply to these


@pytest.mark.parametrize("image", [RAW, JPEG, PNG])
@pytest.mark.parametrize("beyond", [(0, 0, 641, 1), (0, 0, 1, 481), (640, 0, 1, 1), (0, 480, 1, 1)])
def test_a_part_outside_names_both_sides(image, beyond):
    with pytest.raises(ImageError, match=r"image\.roi: expected a part of the camera's (6x8|480x640) image, got rows"):
        see(image, camera(4, 4), View(roi=beyond))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"roi": (0, 0, 4)}, "image.roi: expected x_offset, y_offset, width, height"),
        ({"roi": (0, 0, 4, 0)}, "image.roi"),
        ({"roi": (-1, 0, 4, 4)}, "image.roi"),
        ({"rotate_deg": 45}, "image.rotate_deg: expected 0, 90, 180 or 270, got 45"),
        ({"value_range": (1.0,)}, "image.value_range"),
        ({"value_range": (1.0, 1.0)}, "image.value_range"),
        ({"value_range": (2.0, 1.0)}, "the lower first"),
        ({"value_range": (0.0, float("nan"))}, "image.value_range"),
        ({"value_range": (0.0, float("inf"))}, "image.value_range"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        View.of(**options)


def test_unset_parameters_are_the_full_view():
    assert View.of(roi=(), rotate_deg=0, value_range=()) == View()
    assert View.of((1, 2, 3, 4), 90, [0.5, 2.0]) == View((1, 2, 3, 4), 90, (0.5, 2.0))


@pytest.mark.parametrize(
    ("part", "target", "crop", "rotate_deg", "reduction"),
    [
        ((0, 0, 640, 480), (30, 30), "center", 0, 8),
        ((0, 0, 640, 480), (31, 31), "center", 0, 4),  # 480 / 8 rows would be too few
        ((0, 0, 640, 480), (60, 60), "center", 90, 4),
        ((0, 0, 640, 480), (120, 160), "none", 0, 2),
        ((0, 0, 640, 480), (160, 120), "none", 0, 1),
        ((0, 0, 640, 480), (160, 120), "none", 270, 2),  # upright once it is turned
        ((0, 0, 640, 480), (400, 400), "center", 0, 1),
        ((80, 40, 320, 240), (15, 20), "none", 0, 8),
        ((84, 40, 320, 240), (15, 20), "none", 0, 4),  # the part begins in the middle of a block of 8
        ((81, 40, 320, 240), (15, 20), "none", 0, 1),
        ((0, 0, 1920, 1080), (60, 60), "center", 0, 4),  # the square begins at column 420
        ((0, 0, 641, 480), (30, 30), "none", 0, 1),
    ],
)
def test_a_jpeg_is_reduced_where_pixels_are_enough_and_edges_stay(part, target, crop, rotate_deg, reduction):
    assert _reduction(part, camera(*target, crop), rotate_deg) == reduction


@pytest.mark.parametrize("view", [View(), View((80, 40, 320, 240)), View((80, 40, 320, 240), 90), View(None, 180)])
def test_a_reduced_jpeg_shows_the_same_part(view):
    """By another way, and at the same place: a shift by one reduced pixel would make 8 levels."""
    target = camera(15, 15)
    x, y, cols, rows = view.roi or (0, 0, 640, 480)
    full = np.rot90(decode(JPEG)[y : y + rows, x : x + cols], -view.rotate_deg // 90)
    off = np.abs(see(JPEG, target, view).astype(int) - fit(np.ascontiguousarray(full), 15, 15, "center"))
    assert 0 < off.mean() < 2


def test_fit_crops_the_centre_to_the_ratio_and_averages():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 100
    wide[::2, 2:6] = 200
    np.testing.assert_array_equal(fit(wide, 2, 2, "center"), np.full((2, 2, 3), 150))
    assert fit(wide, 2, 2, "none")[0, 0, 0] == 75
    assert fit(wide.transpose(1, 0, 2), 2, 2, "center")[0, 0, 0] == 150


def test_fit_leaves_an_image_of_the_right_size_untouched():
    np.testing.assert_array_equal(fit(RGB, H, W, "center"), RGB)


VIEWS = st.builds(
    View,
    st.none() | st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2),
    st.sampled_from([0, 90, 180, 270]),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), VIEWS, st.sampled_from(["center", "none"]))
def test_any_view_of_any_size_is_the_policys_picture_or_an_image_error(height, width, raw, view, crop):
    pixels = np.full((height, width, 3), 200, np.uint8)
    jpeg = CompressedImage(cv2.imencode(".jpg", pixels)[1].tobytes())
    image = Image(height, width, "rgb8", 3 * width, False, pixels.tobytes()) if raw else jpeg
    x, y, cols, rows = view.roi or (0, 0, width, height)
    try:
        seen = see(image, camera(2, 3, crop), view)
    except ImageError:
        assert x + cols > width or y + rows > height
        return
    assert x + cols <= width
    assert y + rows <= height
    assert seen.shape == (2, 3, 3)
    assert np.abs(seen.astype(int) - 200).max() <= 2
