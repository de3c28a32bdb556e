"""Messages to core types and back."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from sac_ae_ros.core.image import CompressedImage, Image


def to_image(message: ImageMsg | CompressedImageMsg) -> Image | CompressedImage:
    """The pixels of either message; copies nothing."""
    if isinstance(message, CompressedImageMsg):
        return CompressedImage(message.data)
    size = message.height, message.width
    return Image(*size, message.encoding, message.step, bool(message.is_bigendian), message.data)


def from_rgb(rgb: NDArray[np.uint8], header: Header) -> ImageMsg:
    """An rgb8 message of uint8 RGB [H, W, 3]."""
    height, width, _ = rgb.shape
    message = ImageMsg(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array.array("B", rgb.tobytes())  # an ndarray would be copied number by number
    return message


def to_ns(stamp: Time) -> int:
    """A stamp in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def from_ns(stamp_ns: int) -> Time:
    """A stamp of nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
