"""Whole recordings of every kind, read through one door."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import small_bags as bags
import tiny_bag
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sac_ae_ros.bag.messages import header_stamp_ns, to_image
from sac_ae_ros.bag.playback import Playback
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import BagError

KINDS = [
    ("mcap", "none"),
    ("mcap", "file"),
    ("mcap", "message"),
    ("mcap", "storage"),
    ("sqlite3", "none"),
    ("sqlite3", "file"),
    ("sqlite3", "message"),
]


def check_all(path, ros1=False):
    """All 600 messages, in time order, with the contents that were written."""
    with Bag.open(path) as bag:
        assert {t.name: (t.type, t.messages) for t in bag.topics.values()} == {
            "/image": (bags.IMAGE, 300),
            "/cmd_vel": (bags.TWIST, 300),
        }
        assert bag.start_ns == bags.START_NS
        assert bag.end_ns == bags.START_NS + 299 * bags.PERIOD_NS + 1_000_000
        records = list(bag.records())
        assert [r.stamp_ns for r in records] == sorted(r.stamp_ns for r in records)
        assert len(records) == 600
        frames = [bag.message(r) for r in bag.records(["/image"])]
        commands = [bag.message(r) for r in bag.records(["/cmd_vel"])]
        assert [c.linear.x for c in commands] == [i / 1000 for i in range(300)]
        assert len(frames) == 300
        for i in (0, 150, 299):
            picture = to_image(frames[i])
            assert (picture.height, picture.width, picture.encoding, picture.step) == (8, 8, "rgb8", 24)
            np.testing.assert_array_equal(picture.data, bags.image(i, ros1=ros1).data)
            assert header_stamp_ns(frames[i]) == bags.START_NS + i * bags.PERIOD_NS - 5_000_000
        return bag.salvage


@pytest.mark.parametrize(("storage", "mode"), KINDS)
def test_whole_bags_are_read_with_metadata_without_and_as_single_files(storage, mode, tmp_path):
    file = bags.write(tmp_path / "drive", storage, mode)
    before = sorted(p.name for p in file.parent.iterdir())

    assert check_all(file.parent) is None
    assert check_all(file) is None
    assert sorted(p.name for p in file.parent.iterdir()) == before

    (file.parent / "metadata.yaml").unlink()
    assert check_all(file.parent) is None
    with Bag.open(file.parent) as bag:
        assert bag.remarks == ["no metadata.yaml"]


def test_lz4_chunks_are_read(tmp_path):
    assert check_all(bags.write_mcap(tmp_path / "drive.mcap", chunk_bytes=8192)) is None


@pytest.mark.parametrize("compression", ["", "bz2", "lz4"])
def test_ros1_bags_are_read(compression, tmp_path):
    assert check_all(bags.write_ros1(tmp_path / "drive.bag", compression), ros1=True) is None


def test_a_damaged_metadata_file_is_done_without(tmp_path):
    file = bags.write(tmp_path / "drive")
    (file.parent / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert "damaged metadata.yaml" in check_all(file.parent).reason


def test_a_pipe_in_place_of_metadata_is_not_waited_for(tmp_path):
    file = bags.write(tmp_path / "drive")
    (file.parent / "metadata.yaml").unlink()
    os.mkfifo(file.parent / "metadata.yaml")
    assert "damaged metadata.yaml" in check_all(file.parent).reason


def several(folder, numbers=(2, 10)):
    """A bag of files drive_2, drive_10, ...: 30 pairs each, later ones later; metadata.yaml of the first."""
    for i, number in enumerate(numbers):
        file = bags.write(folder / str(number), first=30 * i, count=30)
        file.rename(folder / f"drive_{number}.mcap")
    return folder


def test_several_files_follow_each_other_by_number_without_metadata(tmp_path):
    with Bag.open(several(tmp_path)) as bag:
        values = [bag.message(r).linear.x for r in bag.records(["/cmd_vel"])]
    assert values == [i / 1000 for i in range(60)]


def test_several_files_follow_the_order_of_the_metadata(tmp_path):
    several(tmp_path, (10, 2))
    text = "rosbag2_bagfile_information: {relative_file_paths: [drive_10.mcap, drive_2.mcap]}"
    (tmp_path / "metadata.yaml").write_text(text)
    with Bag.open(tmp_path) as bag:
        assert [bag.message(r).linear.x for r in bag.records(["/cmd_vel"])] == [i / 1000 for i in range(60)]
        assert bag.salvage is None


def test_metadata_that_contradicts_the_folder_is_told(tmp_path):
    several(tmp_path)
    text = "rosbag2_bagfile_information: {relative_file_paths: [drive_2.mcap, drive_3.mcap]}"
    (tmp_path / "metadata.yaml").write_text(text)
    with Bag.open(tmp_path) as bag:
        assert len(list(bag.records())) == 120
        assert "names drive_3.mcap, not there" in bag.salvage.reason
        assert "does not name drive_10.mcap" in bag.salvage.reason


def test_one_damaged_file_of_several_costs_only_itself(tmp_path):
    several(tmp_path, (1, 2, 3))
    (tmp_path / "drive_2.mcap").write_bytes(b"nonsense" * 100)
    with Bag.open(tmp_path) as bag:
        assert len(list(bag.records())) == 120
        assert bag.salvage.messages == 120
        assert "drive_2.mcap" in bag.salvage.reason


def test_what_is_there_is_named_when_nothing_can_be_read(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BagError, match=r"got notes\.txt"):
        Bag.open(tmp_path)
    with pytest.raises(BagError, match="got another file"):
        Bag.open(tmp_path / "notes.txt")
    with pytest.raises(BagError, match="nothing is there"):
        Bag.open(tmp_path / "drive")
    (tmp_path / "drives").mkdir()
    with pytest.raises(BagError, match=r"got notes\.txt, drives/"):
        Bag.open(tmp_path)
    (tmp_path / "drive.db3").write_bytes(b"x" * 5000)
    with pytest.raises(BagError, match=r"drive\.db3: does not start like an SQLite database"):
        Bag.open(tmp_path)


def test_topics_are_chosen_by_type_or_named_with_what_is_there(tmp_path):
    with Bag.open(bags.write(tmp_path / "drive", count=2)) as bag:
        assert bag.topic("", [bags.IMAGE], "images").name == "/image"
        assert bag.topic("image", [bags.IMAGE], "images").name == "/image"
        with pytest.raises(
            BagError, match=r"expected images on /camera, there is /cmd_vel \(geometry_msgs/msg/Twist, 2\)"
        ):
            bag.topic("/camera", [bags.IMAGE], "images")
        with pytest.raises(BagError, match=r"/cmd_vel: expected sensor_msgs/msg/Image for images, got geometry_msgs"):
            bag.topic("/cmd_vel", [bags.IMAGE], "images")
        with pytest.raises(BagError, match="expected scans"):
            bag.topic("", ["sensor_msgs/msg/LaserScan"], "scans")
        with pytest.raises(BagError, match="several topics may be things: /cmd_vel, /image; name one"):
            bag.topic("", [bags.IMAGE, bags.TWIST], "things")


def test_bytes_that_are_no_message_are_one_error(tmp_path):
    with Bag.open(bags.write(tmp_path / "drive", count=2)) as bag:
        record = next(iter(bag.records(["/image"])))
        broken = type(record)(record.topic, record.type, 0, record.raw[:20], False)
        with pytest.raises(BagError, match="/image: expected a message of sensor_msgs/msg/Image"):
            bag.message(broken)


def test_messages_of_ros_1_are_given_as_ros_2_sends_them(tmp_path):
    with Bag.open(bags.write_ros1(tmp_path / "drive.bag", count=3)) as bag:
        found = [(record.topic, bag.cdr(record)) for record in bag.records()]
    store = get_typestore(Stores.ROS2_JAZZY)
    for i in range(3):
        image = store.deserialize_cdr(found[2 * i][1], bags.IMAGE)
        assert found[2 * i][0] == "/image"
        assert header_stamp_ns(image) == bags.START_NS + i * bags.PERIOD_NS - 5_000_000
        np.testing.assert_array_equal(image.data, bags.image(i).data)
        assert store.deserialize_cdr(found[2 * i + 1][1], bags.TWIST).linear.x == i / 1000


def test_messages_of_ros_2_are_given_as_they_are(tmp_path):
    with Bag.open(bags.write(tmp_path / "drive", count=2)) as bag:
        assert all(bag.cdr(record) == bytes(record.raw) for record in bag.records())


def test_what_ros_2_has_otherwise_is_refused_with_the_topic(tmp_path):
    with Bag.open(bags.write_ros1(tmp_path / "drive.bag", count=1)) as bag:
        record = next(bag.records())
        with pytest.raises(BagError, match="/image: expected sensor_msgs/msg/Image as ROS 2 has it, got 30 bytes"):
            bag.cdr(dataclasses.replace(record, raw=bytes(record.raw)[:30]))


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_latched_topics_are_known_as_such(storage, tmp_path):
    offered = Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, *[QosTime(0, 0)] * 2,
        QosLiveliness.AUTOMATIC, QosTime(0, 0), False,
    )  # fmt: skip
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "drive", version=9, storage_plugin=StoragePlugin[storage]) as writer:
        for topic, profiles in (("/map", [offered]), ("/scan", [])):
            connection = writer.add_connection(topic, bags.TWIST, typestore=store, offered_qos_profiles=profiles)
            writer.write(connection, bags.START_NS, store.serialize_cdr(bags.twist(0), bags.TWIST))
    with Bag.open(tmp_path / "drive") as bag:
        assert {name: topic.latched for name, topic in bag.topics.items()} == {"/map": True, "/scan": False}


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_topics_with_names_that_are_none_are_only_counted(storage, tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    message = store.serialize_cdr(bags.twist(0), bags.TWIST)
    names = ("/cmd_vel", "/x\x1b[31m\nerror: forged", "/" + "x" * 1000)
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        for i, name in enumerate(names):
            writer.write(writer.add_connection(name, bags.TWIST, typestore=store), i + 1, message)
    with Bag.open(tmp_path / "bag") as bag:
        assert list(bag.topics) == ["/cmd_vel"]
        assert [record.topic for record in bag.records()] == ["/cmd_vel"]
        assert "2 topics whose names are none are left out" in bag.salvage.reason
        with pytest.raises(BagError, match=r"there is /cmd_vel \(geometry_msgs/msg/Twist, 1\)$"):
            bag.topic("", {"sensor_msgs/msg/Image"}, "images")


def test_a_list_of_thousands_of_topics_is_cut_and_names_the_flag(tmp_path):
    messages = [(i + 1, f"/camera_{i:04}", tiny_bag.image(i + 1, 9)) for i in range(3000)]
    with Bag.open(tiny_bag.write(tmp_path / "bag", messages)) as bag:
        with pytest.raises(BagError, match=r"/camera_0009 and 2990 more; name one with --image-topic$") as several:
            bag.topic("", [bags.IMAGE], "images", flag="--image-topic")
        with pytest.raises(BagError, match=r"and 2990 more; name one with --image-topic$") as missing:
            bag.topic("/x", [bags.IMAGE], "images", flag="--image-topic")
        with pytest.raises(BagError, match=r"and 2990 more; name them with --topic$") as unknown:
            Playback(bag, ["/x"])
    assert max(len(str(error.value)) for error in (several, missing, unknown)) < 700


def leaping(first_ns: int, count: int) -> list[tuple]:
    """`count` images logged from that time on, 100 ms apart, then ten more as tests log them."""
    begun_ns = tiny_bag.START_NS
    early = [
        (first_ns + i * 100_000_000, "/image", tiny_bag.image(begun_ns - (count - i) * 100_000_000, i))
        for i in range(count)
    ]
    return early + [
        (begun_ns + i * 100_000_000, "/image", tiny_bag.image(begun_ns + i * 100_000_000, 50 + i)) for i in range(10)
    ]


@pytest.mark.parametrize(("first_ns", "count"), [(0, 1), (0, 3), (40 * 10**9, 5)])
def test_a_leap_of_the_log_times_is_left_out_and_told(first_ns, count, tmp_path):
    with Bag.open(tiny_bag.write(tmp_path / "bag", leaping(first_ns, count))) as bag:
        logs = [record.stamp_ns for record in bag.records()]
        assert bag.end_ns == logs[-1] == tiny_bag.START_NS + 900_000_000
        assert bag.start_ns == logs[0] == tiny_bag.START_NS - (count - 1) * 100_000_000
        assert logs == sorted(logs)
        assert bag.remarks == [f"log times leap by 53.9 years after {count} messages, which is left out"]
        assert bag.salvage is None
        played = Playback(bag)
        assert played.end_ns - played.start_ns == 900_000_000 + (count - 1) * 100_000_000
        assert len(list(played.records())) == 10 + count


@pytest.mark.parametrize(
    ("leap_ns", "says"),
    [(300 * 86400 * 10**9, "300.0 days"), (2 * 3600 * 10**9, "2.0 hours"), (1800 * 10**9, None)],
)
@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_only_more_than_an_hour_is_a_leap(leap_ns, says, storage, tmp_path):
    times = [tiny_bag.START_NS + i * 100_000_000 + (leap_ns if i >= 3 else 0) for i in range(20)]
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection("/ended", "std_msgs/msg/Bool", typestore=tiny_bag.STORE)
        for at_ns in times:
            writer.write(connection, at_ns, b"\0\1\0\0\1")
    with Bag.open(tmp_path / "bag") as bag:
        intervals = np.diff([record.stamp_ns for record in bag.records()]).tolist()
        assert sorted(intervals) == [0, *[100_000_000] * 18] if says else [*[100_000_000] * 18, leap_ns + 100_000_000]
        leap = f"log times leap by {says} after 3 messages, which is left out"
        assert bag.remarks == ([leap] if says else [])


def test_merged_recordings_of_different_years_are_not_joined(tmp_path):
    """A leap within one of them is still left out."""
    later_ns = tiny_bag.START_NS + 5 * 365 * 86400 * 10**9
    early = tiny_bag.write(tmp_path / "early", leaping(0, 3))
    late = tiny_bag.write(tmp_path / "late", [(later_ns + i, "/ended", tiny_bag.boolean(True)) for i in range(9)])
    for first, second in ((early, late), (late, early)):
        with Bag.open(first, second) as bag:
            logs = [record.stamp_ns for record in bag.records()]
            assert logs == sorted(logs)
            assert logs[-9:] == [later_ns + i for i in range(9)]
            assert (logs[0], bag.start_ns) == (tiny_bag.START_NS - 200_000_000,) * 2
            assert sorted(bag.remarks) == [
                "early.mcap: log times leap by 53.9 years after 3 messages, which is left out",
                "late.mcap begins 5.0 years after early.mcap ends: merged, they have no time in common",
            ]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1", "cut"])
def test_log_times_that_go_back_within_a_file_are_told(storage, tmp_path):
    times = [bags.START_NS + i * 100_000_000 - (2_000_000_000 if i >= 30 else 0) for i in range(60)]
    make = Ros1Writer(tmp_path / "bag") if storage == "ros1" else None
    plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
    with make or Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        store = get_typestore(Stores.ROS1_NOETIC) if make else tiny_bag.STORE
        connection = writer.add_connection("/cmd_vel", bags.TWIST, typestore=store)
        for i, at_ns in enumerate(times):
            message = bags.twist(i, ros1=bool(make))
            serialize = store.serialize_ros1 if make else store.serialize_cdr
            writer.write(connection, at_ns, serialize(message, bags.TWIST))
    if storage == "cut":
        bags.cut(next((tmp_path / "bag").glob("*.mcap")), 0.02)
    with Bag.open(tmp_path / "bag") as bag:
        assert bag.remarks == []
        assert [record.stamp_ns for record in bag.records()] == sorted(times)
        (told,) = bag.remarks
    assert "log times go back by 1.9 s within the file, on /cmd_vel: the recorder's clock was set back" in told


def test_a_part_is_chosen_by_log_times_without_the_leap(tmp_path):
    with Bag.open(tiny_bag.write(tmp_path / "bag", leaping(0, 3))) as bag:
        bag.limit(0.1, 0.3)
        assert [(record.stamp_ns - tiny_bag.START_NS) // 10**6 for record in bag.records()] == [-100, 0, 0, 100, 200]


def test_of_a_leap_the_longer_side_stays_as_it_is(tmp_path):
    begun_ns = tiny_bag.START_NS
    late = [(2**62, "/image", tiny_bag.image(begun_ns, 9)), (2**62 + 5, "/image", tiny_bag.image(begun_ns, 9))]
    with Bag.open(tiny_bag.write(tmp_path / "bag", leaping(0, 0) + late)) as bag:
        assert (bag.start_ns, bag.end_ns) == (begun_ns, begun_ns + 900_000_005)
        assert [record.stamp_ns for record in bag.records()][-3:] == [begun_ns + 900_000_000] * 2 + [
            begun_ns + 900_000_005
        ]


def test_a_part_of_a_recording_by_log_time(tmp_path):
    with Bag.open(bags.write(tmp_path / "bag").parent) as bag:
        bag.limit(10, 5)
        found = [(record.stamp_ns - bags.START_NS) // 10**6 for record in bag.records(["/image"])]
        assert found == list(range(10_000, 15_001, 100))
        bag.limit(29.85, 0)
        assert [record.topic for record in bag.records()] == ["/image", "/cmd_vel"]
        with pytest.raises(BagError, match=r"--start: expected less than the 29\.9 s that were recorded, got 30"):
            bag.limit(30, 0)
