"""Whole files that other writers make in other ways: nothing of them is lost, and none is called damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import mcap.writer
import pytest
import small_bags as bags
import tiny_bag
import zstandard
from mcap.writer import CompressionType, IndexType
from rosbags.typesys import Stores, get_typestore

from sac_ae_ros.bag.playback import Playback
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import BagError

S, MS = tiny_bag.START_NS, 1_000_000
STORE = get_typestore(Stores.ROS1_NOETIC)


class Sizeless:
    """zstd as mcap's Go writer uses it: no content size in the frame."""

    @staticmethod
    def compress(data: bytes) -> bytes:
        return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def write(path: Path, *, profile="ros2", ros1=False, kind=bags.TWIST, others=(), chunks=True, index=IndexType.ALL):
    """100 commands in an mcap file of zstd chunks; others: topic, encoding, schema, its encoding."""
    with path.open("wb") as file:
        out = mcap.writer.Writer(file, 1024, CompressionType.ZSTD, index_types=index, use_chunking=chunks)
        out.start(profile, "test")
        store = STORE if ros1 else tiny_bag.STORE
        text, _ = store.generate_msgdef(bags.TWIST, ros_version=1 if ros1 else 2)
        schema = out.register_schema(kind, "ros1msg" if ros1 else "ros2msg", text.encode())
        channel = out.register_channel("/cmd_vel", "ros1" if ros1 else "cdr", schema)
        strange = [
            out.register_channel(topic, encoding, out.register_schema(name, form, b"{}"))
            for topic, encoding, name, form in others
        ]
        for i in range(100):
            message = bags.twist(i, ros1=ros1)
            raw = store.serialize_ros1(message, bags.TWIST) if ros1 else store.serialize_cdr(message, bags.TWIST)
            out.add_message(channel, S + i * MS, bytes(raw), S)
            for number in strange:
                out.add_message(number, S + i * MS, b"{}", S)
        out.finish()
    return path


def is_whole(path: Path) -> list[str]:
    """Reads all commands; returns the remarks."""
    with Bag.open(path) as bag:
        assert list(bag.topics) == ["/cmd_vel"]
        assert bag.topics["/cmd_vel"].messages == 100
        assert bag.topics["/cmd_vel"].type == bags.TWIST
        values = [bag.message(record).linear.x for record in bag.records()]
        assert values == [i / 1000 for i in range(100)]
        assert bag.salvage is None
        return bag.remarks


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_chunks_that_do_not_tell_their_size(index, tmp_path, monkeypatch):
    monkeypatch.setattr(mcap.writer, "zstandard", Sizeless)
    path = write(tmp_path / "go.mcap", index=index)
    data = path.read_bytes()
    assert zstandard.frame_content_size(data[data.index(b"\x28\xb5\x2f\xfd") :]) == -1
    assert is_whole(path) == []


@pytest.mark.parametrize("profile", ["", "ros1", "px4"])
@pytest.mark.parametrize("ros1", [False, True])
def test_any_profile_or_none(profile, ros1, tmp_path):
    assert is_whole(write(tmp_path / "drive.mcap", profile=profile, ros1=ros1)) == []


@pytest.mark.parametrize("chunks", [True, False])
def test_files_without_an_index(chunks, tmp_path):
    assert is_whole(write(tmp_path / "drive.mcap", chunks=chunks, index=IndexType.NONE)) == []


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_channels_of_other_encodings_are_ignored_and_named(index, tmp_path):
    others = [
        ("/gps", "json", "gps.Fix", "jsonschema"),
        ("/cam", "protobuf", "foxglove.CompressedImage", "protobuf"),
        ("/fake", "json", bags.IMAGE, "jsonschema"),
    ]
    path = write(tmp_path / "drive.mcap", others=others, index=index)
    told = "topics that are of no ROS are ignored: /gps (json), /cam (protobuf), /fake (json)"
    assert is_whole(path) == [told]
    with Bag.open(path) as bag, pytest.raises(BagError, match="there is /cmd_vel"):
        bag.topic("", {bags.IMAGE}, "images")


def test_records_of_an_extension_are_passed_over(tmp_path):
    path = write(tmp_path / "drive.mcap", chunks=False, index=IndexType.NONE)
    data = path.read_bytes()
    at = 8 + 9 + int.from_bytes(data[9:17], "little")  # behind the header
    path.write_bytes(data[:at] + b"\x80" + (5).to_bytes(8, "little") + b"hello" + data[at:-28] + bytes(20) + data[-8:])
    assert is_whole(path) == []


def test_chunks_too_large_to_be_read_at_once(tmp_path):
    pixels = bytes(1 << 20)
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        out = mcap.writer.Writer(file, 80 << 20, CompressionType.ZSTD)
        out.start("ros2", "test")
        channel = out.register_channel("/x", "cdr", out.register_schema("std_msgs/msg/Empty", "ros2msg", b""))
        for i in range(79):
            out.add_message(channel, S + i, pixels, S)
        out.finish()
    with Bag.open(path) as bag:
        assert sum(1 for _ in bag.records()) == 79
        assert bag.salvage is None


@pytest.mark.parametrize("name", ["drive?.db3", "drive#1.db3", "100%41.db3"])
def test_names_that_sqlite_takes_for_an_address(name, tmp_path):
    path = bags.write(tmp_path / "drive", "sqlite3", count=3).rename(tmp_path / name)
    with Bag.open(path) as bag:
        assert sum(1 for _ in bag.records()) == 6
        assert bag.salvage is None


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_type_names_without_msg_are_those_with_it(index, tmp_path):
    assert is_whole(write(tmp_path / "drive.mcap", kind="geometry_msgs/Twist", index=index)) == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_images_of_a_short_type_name_are_played_as_images(storage, tmp_path):
    if storage == "sqlite3":
        path = bags.write(tmp_path / "drive", storage, count=3)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE topics SET type = replace(type, '/msg/', '/')")
            connection.execute("UPDATE message_definitions SET topic_type = replace(topic_type, '/msg/', '/')")
            connection.commit()
    else:
        path = write_short(tmp_path / "short.mcap")
    with Bag.open(path) as bag:
        played = Playback(bag, image_topic="/camera/image")
        assert played.names["/image"] == "/camera/image"
        assert played.names["/cmd_vel"] == "/recorded/cmd_vel"
        assert [bag.message(record).height for record in bag.records(["/image"])] == [8] * 3


def write_short(path: Path) -> Path:
    """Three images and commands, whose types have no /msg/ in their names."""
    with path.open("wb") as file:
        out = mcap.writer.Writer(file)
        out.start("ros2", "test")
        for topic, kind, make in (("/image", bags.IMAGE, bags.image), ("/cmd_vel", bags.TWIST, bags.twist)):
            text, _ = tiny_bag.STORE.generate_msgdef(kind, ros_version=2)
            schema = out.register_schema(kind.replace("/msg/", "/"), "ros2msg", text.encode())
            channel = out.register_channel(topic, "cdr", schema)
            for i in range(3):
                out.add_message(channel, S + i, bytes(tiny_bag.STORE.serialize_cdr(make(i), kind)), S)
        out.finish()
    return path
