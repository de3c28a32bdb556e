"""Messages to core types and back."""

from __future__ import annotations

import array
import math

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from sac_ae_ros.core.errors import ImageError, printable
from sac_ae_ros.core.image import CompressedImage, Image
from sac_ae_ros.core.optics import Intrinsics

LONGEST_FRAME_ID = 256


def to_image(message: ImageMsg | CompressedImageMsg) -> Image | CompressedImage:
    """The pixels of either message; copies nothing."""
    if isinstance(message, CompressedImageMsg):
        return CompressedImage(message.data, message.format)
    size = message.height, message.width
    return Image(*size, message.encoding, message.step, bool(message.is_bigendian), message.data)


def from_rgb(rgb: NDArray[np.uint8], header: Header) -> ImageMsg:
    """An rgb8 message of uint8 RGB [H, W, 3]."""
    height, width, _ = rgb.shape
    message = ImageMsg(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array.array("B", rgb.tobytes())  # an ndarray would be copied number by number
    return message


def forward_header(header: Header) -> Header:
    """A foreign header for a message of our own: its stamp, and `frame_id` escaped as `printable` does.

    A `frame_id` of more than 256 characters is cut, and ends in "...".
    """
    return Header(stamp=header.stamp, frame_id=printable(header.frame_id, LONGEST_FRAME_ID))


def to_intrinsics(message: CameraInfo) -> Intrinsics:
    """The optics of the images that are published with this message.

    They follow from K, which holds for the sensor's full resolution, by the message's own roi and binning. K, not P:
    nothing tells whether the images are rectified, and the two are close.

    Raises:
        ImageError: the camera is not calibrated, or has no size.
    """
    roi, across, down = message.roi, max(message.binning_x, 1), max(message.binning_y, 1)
    width = (roi.width or max(message.width - roi.x_offset, 0)) // across
    height = (roi.height or max(message.height - roi.y_offset, 0)) // down
    if not (width and height):
        raise ImageError(f"camera_info: expected the image's size, got {message.height}x{message.width} pixels")
    fx, cx, fy, cy = (float(message.k[i]) for i in (0, 2, 4, 5))
    if not (fx > 0 and fy > 0 and all(map(math.isfinite, (fx, fy, cx, cy)))):
        uncalibrated = "the camera is uncalibrated: " if not any(message.k) else ""  # as CameraInfo.msg has it
        raise ImageError(
            f"camera_info: {uncalibrated}expected focal lengths, got {fx:g} and {fy:g}; calibrate the camera,"
            " or set camera_info.check: off"
        )
    return Intrinsics(height, width, fx / across, fy / down, (cx - roi.x_offset) / across, (cy - roi.y_offset) / down)


def to_ns(stamp: Time) -> int:
    """A stamp in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def from_ns(stamp_ns: int) -> Time:
    """A stamp of nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
