"""ReplayOutputs: the publishers of a replay, and what is checked and changed before a recorded message is sent."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable

from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.fields import message_class

RECEIPT_S = 0.5
BIG = QoSProfile(depth=5)  # several images, within the shared memory of config/dds/fastdds_shm.xml
ALL_OF_THEM = QoSProfile(depth=1000)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STAMPED = ("std_msgs/Header", "builtin_interfaces/Time")  # as the first field of a message


class ReplayOutputs:
    """One reliable publisher for each recorded topic, known by its recorded name."""

    def __init__(self, node: Node) -> None:
        """Makes none yet."""
        self._node = node
        self._publishers: dict[str, Publisher] = {}
        self._stamped: set[str] = set()
        self._episode_ends: list[str] = []

    def add(self, recorded: str, name: str, message_type: str, *, latched: bool) -> None:
        """Makes the publisher for a recorded topic; `latched`: late subscribers get the last messages too.

        Raises:
            ConfigError: the type is not installed, or ROS 2 has no such topic names.
        """
        kind = message_class(message_type, recorded)
        qos = LATCHED if latched else BIG if kind in (Image, CompressedImage) else ALL_OF_THEM
        try:
            self._publishers[recorded] = self._node.create_publisher(kind, name, qos)
        except InvalidTopicNameException as error:
            raise ConfigError(f"{recorded}: expected a topic name as ROS 2 has them, got {error}; remap it") from None
        if next(iter(kind.get_fields_and_field_types().values()), "") in STAMPED:
            self._stamped.add(recorded)
        if message_type == "std_msgs/msg/Bool" and recorded.rpartition("/")[2] == "episode_end":
            self._episode_ends.append(recorded)

    @property
    def names(self) -> list[str]:
        """The topics that are published, remapped where they are."""
        return [str(publisher.topic_name) for publisher in self._publishers.values()]

    def names_of(self, recorded: Iterable[str]) -> list[str]:
        """The same of these recorded topics, as far as they are published."""
        return [str(self._publishers[each].topic_name) for each in recorded if each in self._publishers]

    def subscribers(self, recorded: Iterable[str]) -> int:
        """How many subscriptions these recorded topics have at this moment, together."""
        return sum(self._publishers[each].get_subscription_count() for each in recorded if each in self._publishers)

    def publish(self, recorded: str, raw: bytes, shift_ns: int) -> bool:
        """Publishes a serialized message, its stamp moved by `shift_ns`; returns whether that topic is published.

        Raises:
            Exception: whatever rclpy raises for bytes that are no such message; sent, they would end its subscribers.
        """
        publisher = self._publishers.get(recorded)
        if publisher is None:
            return False
        deserialize_message(raw, publisher.msg_type)
        publisher.publish(shift_stamp(raw, shift_ns) if recorded in self._stamped else raw)
        return True

    def end_episodes(self) -> None:
        """Publishes an episode's end wherever episodes' ends were recorded."""
        for recorded in self._episode_ends:
            self._publishers[recorded].publish(Bool(data=False))

    def wait_acknowledged(self) -> None:
        """Waits, but not for long, until reliable subscribers have everything."""
        until_s = time.monotonic() + RECEIPT_S
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, until_s - time.monotonic())))


def shift_stamp(raw: bytes, by_ns: int) -> bytes:
    """A serialized message (CDR) that begins with a header or a time, that much later; a stamp of zero stays."""
    if not by_ns or len(raw) < 12:
        return raw
    form = "<iI" if raw[1] & 1 else ">iI"  # behind four bytes, of which the second tells the byte order
    sec, nanosec = struct.unpack_from(form, raw, 4)
    if not (sec or nanosec):
        return raw
    sec, nanosec = divmod(sec * 10**9 + nanosec + by_ns, 10**9)
    if not -(2**31) <= sec < 2**31:  # no stamp at all
        return raw
    return raw[:4] + struct.pack(form, sec, nanosec) + raw[12:]
