"""A camera's optics against those that the policy was trained with."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from sac_ae_ros.core.image import Image, View, see
from sac_ae_ros.core.optics import Intrinsics, differences
from sac_ae_ros.core.spec import CameraSpec

SQUARE = CameraSpec("camera", 84, 84, 180, 320, fovy_deg=75.0)


def pinhole(height: int, width: int, fovy_deg: float) -> Intrinsics:
    focal_px = height / 2 / math.tan(math.radians(fovy_deg) / 2)
    return Intrinsics(height, width, focal_px, focal_px, width / 2, height / 2)


@pytest.mark.parametrize(("height", "width"), [(180, 320), (480, 640), (1080, 1920), (84, 84)])
def test_the_camera_of_training_fits_at_any_resolution(height, width):
    assert differences(SQUARE, pinhole(height, width, 75.0), View(), 0.0) == []


def test_another_field_of_view_is_named_with_both_angles():
    texts = differences(SQUARE, pinhole(480, 640, 43.2), View(), 0.1)
    assert texts == [
        "vertical field of view: the policy was trained with 75.0 degrees, this camera gives 43.2 after crop",
        "horizontal field of view: the policy was trained with 75.0 degrees, this camera gives 43.2 after crop",
    ]


def test_the_tolerance_is_relative_to_the_focal_length():
    wide = dataclasses.replace(pinhole(480, 640, 75.0), fx=pinhole(480, 640, 75.0).fx * 1.09)
    assert differences(SQUARE, wide, View(), 0.1) == []
    assert [text.split(":")[0] for text in differences(SQUARE, wide, View(), 0.08)] == ["horizontal field of view"]


def test_the_tolerance_of_the_principal_point_is_relative_to_the_side():
    camera = pinhole(480, 640, 75.0)  # its crop is 480 x 480
    assert differences(SQUARE, dataclasses.replace(camera, cx=320 + 47), View(), 0.1) == []
    texts = differences(SQUARE, dataclasses.replace(camera, cx=320 + 96), View(), 0.1)
    assert texts == [
        "optical axis: the policy was trained with it at 0.50 of the image's width,"
        " this camera has it at 0.70 after crop"
    ]
    texts = differences(SQUARE, dataclasses.replace(camera, cy=240 - 96), View(), 0.1)
    assert ["0.50 of the image's height" in text and "0.30" in text for text in texts] == [True]


def test_a_centred_part_narrows_the_view():
    half = View(roi=(160, 120, 320, 240))
    narrow = math.degrees(2 * math.atan(math.tan(math.radians(75.0) / 2) / 2))
    (first, _) = differences(SQUARE, pinhole(480, 640, 75.0), half, 0.1)
    assert first.endswith(f"gives {narrow:.1f} after roi and crop")
    fits = dataclasses.replace(SQUARE, fovy_deg=narrow)
    assert differences(fits, pinhole(480, 640, 75.0), half, 0.0) == []


def test_a_turned_camera_swaps_its_axes():
    wide = CameraSpec("camera", 60, 80, 60, 80, fovy_deg=60.0)
    upright = pinhole(60, 80, 60.0)
    for rotate_deg in (90, 270):
        lying = Intrinsics(80, 60, upright.fy, upright.fx, upright.cy, upright.cx)
        assert differences(wide, lying, View(rotate_deg=rotate_deg), 0.0) == []
    texts = differences(wide, upright, View(rotate_deg=90), 0.1)
    assert texts[0].endswith("after rotation and crop")
    texts = differences(wide, upright, View(roi=(0, 0, 60, 60), rotate_deg=180), 0.01)
    assert texts[0].endswith("after roi, rotation and crop")


@pytest.mark.parametrize("rotate_deg", [0, 90, 180, 270])
def test_the_optical_axis_lands_where_the_image_has_it(rotate_deg):
    """A white patch around the principal point is looked for in the policy's picture."""
    camera = CameraSpec("camera", 40, 30, 40, 30, crop="center", k=(50.0, 0, 0, 0, 50.0, 0, 0, 0, 1))
    cx, cy, view = 100.0, 170.0, View(roi=(40, 30, 160, 200), rotate_deg=rotate_deg)
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[int(cy) - 10 : int(cy) + 10, int(cx) - 10 : int(cx) + 10] = 255
    seen = see(Image(240, 320, "rgb8", 960, False, pixels.tobytes()), camera, view)[..., 0]
    moments = cv2.moments(seen)
    x, y = moments["m10"] / moments["m00"] + 0.5, moments["m01"] / moments["m00"] + 0.5
    side_px = math.sqrt(moments["m00"] / 255)  # the patch is 20 pixels wide
    scale = side_px / 20
    matches = dataclasses.replace(camera, k=(200 * scale, 0, x, 0, 200 * scale, y, 0, 0, 1))
    assert differences(matches, Intrinsics(240, 320, 200.0, 200.0, cx, cy), view, 0.02) == []


def test_a_squeezed_picture_has_two_focal_lengths():
    squeezed = CameraSpec("camera", 84, 84, 180, 320, crop="none", fovy_deg=75.0)
    assert differences(squeezed, pinhole(360, 640, 75.0), View(), 0.0) == []
    texts = differences(squeezed, pinhole(480, 640, 75.0), View(), 0.1)
    assert len(texts) == 1
    assert texts[0].startswith("horizontal field of view")
    assert "after" not in texts[0]


def test_a_part_outside_of_the_image_is_a_difference():
    (text,) = differences(SQUARE, pinhole(48, 64, 75.0), View(roi=(0, 0, 65, 48)), 0.1)
    assert text.startswith("image.roi")
