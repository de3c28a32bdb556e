"""Stamps that are moved without deserialising the message."""

import struct

import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.serialization import deserialize_message, serialize_message

from sac_ae_ros.nodes.convert import from_ns, to_ns
from sac_ae_ros.nodes.replay_outputs import shift_stamp

STAMP_NS, BY_NS = 1_700_000_000_900_000_000, 2_200_000_000


def message(stamp_ns: int) -> bytes:
    stamped = TwistStamped()
    stamped.header.stamp, stamped.header.frame_id, stamped.twist.linear.x = from_ns(stamp_ns), "base", 0.25
    return serialize_message(stamped)


def test_a_stamp_is_moved_and_nothing_else():
    moved = deserialize_message(shift_stamp(message(STAMP_NS), BY_NS), TwistStamped)
    assert to_ns(moved.header.stamp) == STAMP_NS + BY_NS
    assert (moved.header.frame_id, moved.twist.linear.x) == ("base", 0.25)


def test_big_endian_stamps_are_moved_too():
    raw = b"\0\0\0\0" + struct.pack(">iI", 5, 900_000_000) + b"rest"
    assert shift_stamp(raw, BY_NS) == b"\0\0\0\0" + struct.pack(">iI", 8, 100_000_000) + b"rest"


@pytest.mark.parametrize(
    "raw",
    [message(0), b"\0\1\0\0abc", b"\0\1\0\0" + struct.pack("<iI", 2**31 - 1, 0)],
    ids=["no time", "too short", "too late"],
)
def test_what_is_no_stamp_stays(raw):
    assert shift_stamp(raw, BY_NS) == raw


def test_without_a_shift_the_bytes_stay_the_very_ones():
    raw = message(STAMP_NS)
    assert shift_stamp(raw, 0) is raw
