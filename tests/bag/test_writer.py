"""Recordings as they are written: readable by others, by whole chunks at any moment, and never over anything."""

import os
import shutil

import numpy as np
import pytest
import yaml
from full_disk import largest_file
from rosbags.highlevel import AnyReader
from tiny_bag import START_NS, STORE, image, twist

from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.writer import RecordingWriter
from sac_ae_ros.core.errors import RunError

IMAGE, TWIST = "sensor_msgs/msg/Image", "geometry_msgs/msg/Twist"
LATCHED = yaml.safe_dump([{
    "history": "unknown", "depth": 0, "reliability": "reliable", "durability": "transient_local",
    "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 0, "nsec": 0}, "avoid_ros_namespace_conventions": False,
}])  # fmt: skip


def open_writer(folder, **options) -> RecordingWriter:
    writer = RecordingWriter(folder, **options)
    for topic, kind, qos in (("/image", IMAGE, ""), ("/cmd_vel", TWIST, LATCHED)):
        writer.add_topic(topic, kind, STORE.generate_msgdef(kind, ros_version=2)[0], qos)
    return writer


def fill(writer: RecordingWriter, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        at = START_NS + i * 10**8
        writer.write("/image", at + 5, at, bytes(STORE.serialize_cdr(image(at, i % 200), IMAGE)))
        writer.write("/cmd_vel", at + 9, at + 7, bytes(STORE.serialize_cdr(twist(0.001 * i, 0.0), TWIST)))


def read(path) -> tuple[list[int], list[int]]:
    with Bag.open(path) as bag:
        records = list(bag.records())
        commands = [round(1000 * bag.message(r).linear.x) for r in records if r.topic == "/cmd_vel"]
        return commands, [r.stamp_ns for r in records if r.topic == "/image"]


def test_what_was_written_is_read_by_us_and_by_others(tmp_path):
    with open_writer(tmp_path / "a" / "drive") as writer:
        fill(writer, 20)
    folder = tmp_path / "a" / "drive"
    assert sorted(path.name for path in folder.iterdir()) == ["drive_0.mcap", "metadata.yaml"]
    assert read(folder) == (list(range(20)), [START_NS + i * 10**8 + 5 for i in range(20)])
    with Bag.open(folder) as bag:
        assert bag.salvage is None
        assert {name: (topic.type, topic.messages, topic.latched) for name, topic in bag.topics.items()} == {
            "/image": (IMAGE, 20, False),
            "/cmd_vel": (TWIST, 20, True),
        }
    assert "&id" not in (folder / "metadata.yaml").read_text()
    with AnyReader([folder]) as reader:
        assert (reader.message_count, reader.start_time) == (40, START_NS + 5)
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)


def test_flushed_chunks_survive_whatever_happens_to_the_writer(tmp_path):
    writer = open_writer(tmp_path / "drive")
    fill(writer, 10)
    writer.flush()
    fill(writer, 10, 10)  # these are only in memory
    shutil.copytree(tmp_path / "drive", tmp_path / "killed")
    assert read(tmp_path / "killed")[0] == list(range(10))
    writer.close()
    assert read(tmp_path / "drive")[0] == list(range(20))


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine").write_text("keep")
    for name in ("", "mine", "mine/below"):
        with pytest.raises(RunError, match="name another folder"):
            RecordingWriter(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "keep"


def test_a_disk_with_too_little_room_ends_it_and_what_was_recorded_stays(tmp_path):
    with pytest.raises(RunError, match="MB are left on the disk"):
        RecordingWriter(tmp_path / "never", keep_free_bytes=1 << 60)
    assert list(tmp_path.iterdir()) == []
    writer = open_writer(tmp_path / "drive")
    writer._keep_free_bytes = 1 << 60  # as if others had filled it
    fill(writer, 5)
    with pytest.raises(RunError, match=r"MB are left on the disk.*make room, or lower keep_free_mb"):
        writer.flush()
    writer.close()
    assert read(tmp_path / "drive")[0] == list(range(5))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of its own")
def test_a_full_disk_is_one_error_and_leaves_a_readable_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=300k tmpfs {disk} 2>/dev/null"):
        pytest.skip("no disk may be mounted here")
    try:
        writer = open_writer(disk / "drive")
        with pytest.raises(RunError, match="No space left on device"):
            _fill_with_noise(writer)
        writer.close()
        commands, _ = read(disk / "drive")
        assert len(commands) >= 50
        assert commands == list(range(len(commands)))
    finally:
        os.system(f"umount {disk}")


def _fill_with_noise(writer: RecordingWriter) -> None:
    """Commands that do not compress to nothing."""
    for i in range(10_000):
        noisy = STORE.serialize_cdr(twist(0.001 * i, int.from_bytes(os.urandom(6)) / 1e9), TWIST)
        writer.write("/cmd_vel", START_NS + i, START_NS + i, bytes(noisy))
        if i % 50 == 49:
            writer.flush()


def test_closing_twice_is_once(tmp_path):
    writer = open_writer(tmp_path / "drive")
    fill(writer, 1)
    writer.close()
    writer.close()
    assert read(tmp_path / "drive")[0] == [0]


def noise(i: int) -> bytes:
    """More than a megabyte, so that four make a chunk."""
    return np.random.default_rng(i).bytes(1_050_000)


def test_a_file_that_cannot_grow_ends_with_its_newest_whole_chunk(tmp_path):
    writer = open_writer(tmp_path / "drive")
    for i in range(7):
        writer.write("/image", START_NS + i, START_NS, noise(i))
    with largest_file(6_000_000), pytest.raises(RunError, match=r"File too large\); stopped after 4\.2 MB"):
        writer.flush()
    with pytest.raises(RunError, match="stopped after"):  # though there is room by now
        writer.write("/cmd_vel", START_NS, START_NS, b"")
    writer.close()
    assert writer.counts == {"/image": 4, "/cmd_vel": 0}
    assert writer.unwritten == {"/image": 3}
    assert [path.name for path in (tmp_path / "drive").iterdir()] == ["drive_0.mcap"]
    with Bag.open(tmp_path / "drive") as bag:
        assert [bytes(record.raw) for record in bag.records()] == [noise(i) for i in range(4)]
        assert bag.salvage.reason == "drive_0.mcap: no footer: its writer did not finish it"


def test_an_end_that_cannot_be_written_leaves_whole_chunks(tmp_path):
    writer = open_writer(tmp_path / "drive")
    fill(writer, 10)
    writer.flush()
    with largest_file(writer.bytes_written + 10), pytest.raises(RunError, match="reads nevertheless"):
        writer.close()
    assert read(tmp_path / "drive")[0] == list(range(10))
