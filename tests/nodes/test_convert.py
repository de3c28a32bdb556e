"""Messages to core types and back."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import decode
from sac_ae_ros.core.optics import Intrinsics
from sac_ae_ros.nodes.convert import forward_header, from_ns, from_rgb, to_image, to_intrinsics, to_ns


def test_an_image_survives_the_round_trip():
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = from_rgb(rgb, Header(stamp=Time(sec=3), frame_id="lens"))
    assert (message.height, message.width, message.step, message.encoding) == (2, 4, 12, "rgb8")
    assert np.array_equal(decode(to_image(message)), rgb)


def test_both_image_messages_are_taken():
    assert to_image(Image(height=1, width=2, encoding="mono8", step=2, is_bigendian=1)).is_bigendian is True
    assert bytes(to_image(CompressedImage(data=b"\xff\xd8")).data) == b"\xff\xd8"


@pytest.mark.parametrize(
    ("frame_id", "expected"),
    [
        ("lens", "lens"),
        ("", ""),
        ("öptik/links", "öptik/links"),
        ("x" * 256, "x" * 256),
        ("x" * 10**6, "x" * 256 + "..."),
        ("\x1b[31mlens\n\0\u202e", "\\x1b[31mlens\\n\\x00\\u202e"),
        ("\x1b" * 10**6, ("\\x1b" * 64) + "..."),
    ],
)
def test_a_forwarded_header_keeps_its_stamp_and_a_short_printable_frame(frame_id, expected):
    stamp = Time(sec=3, nanosec=5)
    assert forward_header(Header(stamp=stamp, frame_id=frame_id)) == Header(stamp=stamp, frame_id=expected)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_763_800_000_123_456_789])
def test_stamps_are_exact(stamp_ns):
    assert to_ns(from_ns(stamp_ns)) == stamp_ns


K = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]


def test_optics_of_the_whole_sensor():
    assert to_intrinsics(CameraInfo(height=480, width=640, k=K)) == Intrinsics(480, 640, 500.0, 510.0, 320.0, 240.0)


def test_binning_and_the_drivers_roi_change_the_optics():
    roi = RegionOfInterest(x_offset=100, y_offset=40, height=400, width=440)
    info = CameraInfo(height=480, width=640, k=K, binning_x=2, binning_y=2, roi=roi)
    assert to_intrinsics(info) == Intrinsics(200, 220, 250.0, 255.0, 110.0, 100.0)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (CameraInfo(height=480, width=640), "calibrate the camera"),
        (CameraInfo(height=480, width=640, k=[np.nan] * 9), "calibrate the camera"),
        (CameraInfo(k=K), "the image's size"),
    ],
)
def test_a_camera_without_optics_is_refused(info, says):
    with pytest.raises(ImageError, match=says):
        to_intrinsics(info)
