"""Recorded messages to core types."""

from __future__ import annotations

from typing import Any

from sac_ae_ros.core.image import CompressedImage, Image

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


def to_image(message: Any) -> Image | CompressedImage:
    """The pixels of a sensor_msgs Image or CompressedImage as Bag.message gives it; copies nothing."""
    if not hasattr(message, "encoding"):
        return CompressedImage(message.data)
    size = message.height, message.width
    return Image(*size, message.encoding, message.step, bool(message.is_bigendian), message.data)


def header_stamp_ns(message: Any) -> int | None:
    """The header's stamp in ns; None without a header, or where the header's is zero."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        return None
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec) or None
