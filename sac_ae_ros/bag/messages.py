"""Recorded messages to core types."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from sac_ae_ros.core.image import CompressedImage, Image

if TYPE_CHECKING:
    from sac_ae_ros.bag.records import Record

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
PICTURE_TYPES = (*IMAGE_TYPES, FFMPEG_PACKET)  # of recordings; live nodes hear only the others
# For recordings without definitions. The encoding begins with the codec; what follows are pixel formats.
FFMPEG_PACKET_FIELDS = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data
"""
EPISODE_END, BOOL = "episode_end", "std_msgs/msg/Bool"
OTHER_CLOCK_S = 3600.0  # a frame cannot be recorded so late; its stamp is of another clock, a simulation's
LEAP_NS = 3600 * 10**9  # no camera pauses for longer: the clock was set, or nothing was recorded for a while


def to_image(message: Any) -> Image | CompressedImage:
    """The pixels of a sensor_msgs Image or CompressedImage as Bag.message gives it; copies nothing."""
    if not hasattr(message, "encoding"):
        return CompressedImage(message.data, message.format)
    size = message.height, message.width
    return Image(*size, message.encoding, message.step, bool(message.is_bigendian), message.data)


def header_stamp_ns(message: Any) -> int | None:
    """The header's stamp in ns; None without a header, or where the header's is zero."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        return None
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec) or None


def peek_stamp_ns(record: Record) -> int | None:
    """The header's stamp of a message that begins with a header, without deserialising it; None where it is cut."""
    try:
        if record.ros1:
            _, sec, nanosec = struct.unpack_from("<3I", record.raw)
        else:  # behind four bytes, of which the second tells the byte order
            sec, nanosec = struct.unpack_from("<iI" if record.raw[1] & 1 else ">iI", record.raw, 4)
    except (struct.error, IndexError):
        return None
    return int(sec) * 1_000_000_000 + int(nanosec)
