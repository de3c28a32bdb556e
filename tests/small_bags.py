"""Small recordings for tests: 300 Image of 8x8 on /image and 300 Twist on /cmd_vel, in turn, ten of each a second."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
IMAGE, TWIST = "sensor_msgs/msg/Image", "geometry_msgs/msg/Twist"
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}
_ROS1, _ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)


def image(i: int, side: int = 8, ros1: bool = False) -> Any:
    """The i-th rgb8 image, of noise that only i decides; its header's stamp is 5 ms before the log time."""
    types = (_ROS1 if ros1 else _ROS2).types
    sec, nanosec = divmod(START_NS + i * PERIOD_NS - 5_000_000, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec, nanosec)
    extra = {"seq": i} if ros1 else {}
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **extra)
    pixels = np.random.default_rng(i).integers(0, 256, side * side * 3, np.uint8)
    return types[IMAGE](header, side, side, "rgb8", 0, 3 * side, pixels)


def twist(i: int, ros1: bool = False) -> Any:
    """The i-th command: forward at i mm/s."""
    types = (_ROS1 if ros1 else _ROS2).types
    vector = types["geometry_msgs/msg/Vector3"]
    return types[TWIST](vector(i / 1000, 0.0, 0.0), vector(0.0, 0.0, -i / 1000))


def write(
    folder: Path, storage: str = "mcap", mode: str = "none", first: int = 0, count: int = 300, side: int = 8
) -> Path:
    """Writes a rosbag2 folder with metadata.yaml; returns its only data file.

    Args:
        storage: "mcap" or "sqlite3".
        mode: "none", "file", "message", or "storage" (mcap's chunks), compressed with zstd.
    """
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if mode != "none":
        writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
    with writer:
        images = writer.add_connection("/image", IMAGE, typestore=_ROS2)
        twists = writer.add_connection("/cmd_vel", TWIST, typestore=_ROS2)
        for i in range(first, first + count):
            at = START_NS + i * PERIOD_NS
            writer.write(images, at, _ROS2.serialize_cdr(image(i, side), IMAGE))
            writer.write(twists, at + 1_000_000, _ROS2.serialize_cdr(twist(i), TWIST))
    return next(p for p in folder.iterdir() if p.name != "metadata.yaml")


def write_mcap(
    path: Path,
    count: int = 300,
    chunk_bytes: int = 1 << 20,
    side: int = 8,
    compression: str = "LZ4",
    chunked: bool = True,
) -> Path:
    """Writes one mcap file as mcap's own writer does: chunks of any size with LZ4, ZSTD or NONE, or no chunks."""
    from mcap.writer import CompressionType
    from mcap.writer import Writer as McapWriter

    with path.open("wb") as file:
        writer = McapWriter(
            file, chunk_size=chunk_bytes, compression=CompressionType[compression], use_chunking=chunked
        )
        writer.start("ros2", "test")
        channels = []
        for topic, kind in (("/image", IMAGE), ("/cmd_vel", TWIST)):
            text, _ = _ROS2.generate_msgdef(kind, ros_version=2)
            channels.append(
                writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", text.encode()))
            )
        for i in range(count):
            at = START_NS + i * PERIOD_NS
            writer.add_message(channels[0], at, bytes(_ROS2.serialize_cdr(image(i, side), IMAGE)), at)
            at += 1_000_000
            writer.add_message(channels[1], at, bytes(_ROS2.serialize_cdr(twist(i), TWIST)), at)
        writer.finish()
    return path


def write_ros1(path: Path, compression: str = "", count: int = 300) -> Path:
    """Writes a ROS 1 .bag; compression "bz2", "lz4" or none."""
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression.upper()])
    with writer:
        images = writer.add_connection("/image", IMAGE, typestore=_ROS1)
        twists = writer.add_connection("/cmd_vel", TWIST, typestore=_ROS1)
        for i in range(count):
            at = START_NS + i * PERIOD_NS
            writer.write(images, at, _ROS1.serialize_ros1(image(i, ros1=True), IMAGE))
            writer.write(twists, at + 1_000_000, _ROS1.serialize_ros1(twist(i, ros1=True), TWIST))
    return path


def cut(path: Path, part: float = 0.3) -> Path:
    """Takes this part of a file off its end."""
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * (1 - part))])
    return path


def leave_in_wal(path: Path, count: int) -> None:
    """Adds `count` more commands to a .db3 as a writer killed before its checkpoint does: they are in -wal only."""
    live = path.with_name("live.db3")
    live.write_bytes(path.read_bytes())
    connection = sqlite3.connect(live)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    (topic,) = connection.execute("SELECT id FROM topics WHERE name = '/cmd_vel'").fetchone()
    for i in range(300, 300 + count):
        raw = bytes(_ROS2.serialize_cdr(twist(i), TWIST))
        row = (topic, START_NS + i * PERIOD_NS, raw)
        connection.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    connection.commit()
    path.write_bytes(live.read_bytes())  # before closing, which would empty the log
    path.with_name(path.name + "-wal").write_bytes(live.with_name("live.db3-wal").read_bytes())
    connection.close()
    live.unlink()
