"""Small recordings for tiny_policy: 8x8 pictures of one grey each, and what was sent for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
STORE = get_typestore(Stores.ROS2_JAZZY)


def make(type_: str, *fields: Any) -> Any:
    """A message by its fields in order."""
    return STORE.types[type_](*fields)


def header(stamp_ns: int) -> Any:
    stamp = make("builtin_interfaces/msg/Time", stamp_ns // 10**9, stamp_ns % 10**9)
    return make("std_msgs/msg/Header", stamp, "camera")


def image(stamp_ns: int, grey: int) -> Any:
    pixels = np.full(8 * 8, grey, np.uint8)
    return make("sensor_msgs/msg/Image", header(stamp_ns), 8, 8, "mono8", 0, 8, pixels)


def png(stamp_ns: int, grey: int) -> Any:
    data = cv2.imencode(".png", np.full((8, 8), grey, np.uint8))[1].ravel()
    return make("sensor_msgs/msg/CompressedImage", header(stamp_ns), "png", data)


def rgb_image(stamp_ns: int, rgb: np.ndarray) -> Any:
    return make("sensor_msgs/msg/Image", header(stamp_ns), *rgb.shape[:2], "rgb8", 0, 3 * rgb.shape[1], rgb.ravel())


def coded_image(stamp_ns: int, coded: np.ndarray, suffix: str, text: str) -> Any:
    """What OpenCV makes of the array, which it takes for blue, green, red, with that format text."""
    data = cv2.imencode(suffix, coded, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].ravel()
    return make("sensor_msgs/msg/CompressedImage", header(stamp_ns), text, data)


def twist(linear: float, angular: float) -> Any:
    vectors = [make("geometry_msgs/msg/Vector3", *v) for v in ((linear, 0.0, 0.0), (0.0, 0.0, angular))]
    return make("geometry_msgs/msg/Twist", *vectors)


def joints(stamp_ns: int, names: Sequence[str], positions: Sequence[float]) -> Any:
    none = np.zeros(0)
    return make("sensor_msgs/msg/JointState", header(stamp_ns), list(names), np.array(positions, float), none, none)


def boolean(value: bool) -> Any:
    return make("std_msgs/msg/Bool", value)


def float64(value: float) -> Any:
    return make("std_msgs/msg/Float64", value)


def write(path: Path, messages: Sequence[tuple[int, str, Any]]) -> Path:
    """Writes a new bag, a folder with one mcap file, of (log_ns, topic, message)."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[tuple[str, str], Any] = {}
        for log_ns, topic, message in sorted(messages, key=lambda each: each[0]):
            kind = message.__msgtype__
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic, kind], log_ns, STORE.serialize_cdr(message, kind))
    return path
