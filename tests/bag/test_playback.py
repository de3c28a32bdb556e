"""What of a recording is played, under which names, and at what time by /clock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bags as bags
import tiny_bag
from rosbags.typesys import Stores, get_typestore

from sac_ae_ros.bag.playback import ROUND_GAP_NS, Playback, PlayedClock, name_of
from sac_ae_ros.bag.reader import Bag, Topic
from sac_ae_ros.core.errors import BagError

S, MS = tiny_bag.START_NS, 1_000_000
SIM_NS = 5_000_000_000  # where a simulation's clock was when the recording began


@contextlib.contextmanager
def playback(path: Path, *topics: str, **options: Any) -> Iterator[Playback]:
    with Bag.open(path) as bag:
        yield Playback(bag, topics, **options)


def clock(at_ns: int) -> Any:
    return tiny_bag.make("rosgraph_msgs/msg/Clock", tiny_bag.header(at_ns).stamp)


def drive(folder: Path, *, offset_ns: int = 0, speed: float = 1.0, with_clock: bool = False) -> Path:
    """Ten images, 100 ms apart by log time, stamped by a clock that runs at that speed, 5 ms before they are logged."""
    messages = []
    for i in range(10):
        at_ns = i * 100 * MS
        stamp_ns = S - offset_ns + round(at_ns * speed)
        messages.append((S + at_ns + 5 * MS, "/image", tiny_bag.image(stamp_ns, 100)))
        if with_clock:
            messages.append((S + at_ns + 2 * MS, "/clock", clock(stamp_ns)))
    return tiny_bag.write(folder, messages)


@pytest.mark.parametrize(
    ("name", "type_", "played_as"),
    [
        ("/camera/image_raw", "sensor_msgs/msg/Image", "/camera/image_raw"),
        ("/camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage", "/camera/image_raw/compressed"),
        ("/camera/camera_info", "sensor_msgs/msg/CameraInfo", "/camera/camera_info"),
        ("/joint_states", "sensor_msgs/msg/JointState", "/recorded/joint_states"),
        ("/arm/joint_states", "sensor_msgs/msg/JointState", "/recorded/arm/joint_states"),
        ("/arm/joint_command", "sensor_msgs/msg/JointState", "/recorded/arm/joint_command"),
        ("/policy_node/executed", "sensor_msgs/msg/JointState", "/recorded/policy_node/executed"),
        ("/episode_end", "std_msgs/msg/Bool", "/episode_end"),
        ("/sim/reward", "std_msgs/msg/Float64", "/sim/reward"),
        ("/enable", "std_msgs/msg/Bool", "/recorded/enable"),
        ("/e_stop", "std_msgs/msg/Bool", "/recorded/e_stop"),
        ("/reward", "geometry_msgs/msg/Twist", "/recorded/reward"),
        ("/cmd_vel", "geometry_msgs/msg/Twist", "/recorded/cmd_vel"),
        ("/policy/latest", "std_msgs/msg/String", "/recorded/policy/latest"),
        ("cmd_vel", "geometry_msgs/msg/Twist", "/recorded/cmd_vel"),
        ("/clock", "std_msgs/msg/Float64", "/recorded/clock"),
    ],
)
def test_only_what_commands_nobody_keeps_its_name(name, type_, played_as):
    topic = Topic(name, type_, 1)
    assert name_of(topic, as_recorded=False, with_images=True) == played_as
    assert name_of(topic, as_recorded=True, with_images=True) == f"/{name.lstrip('/')}"


def test_episodes_ends_and_rewards_keep_their_names_only_beside_the_images_they_belong_to(tmp_path):
    """Else they would restart the frame stack of a node that sees by a live camera."""
    end, reward = tiny_bag.make("std_msgs/msg/Bool", True), tiny_bag.make("std_msgs/msg/Float64", 1.0)
    messages = [(S, "/image", tiny_bag.image(S, 9)), (S, "/episode_end", end), (S, "/sim/reward", reward)]
    path = tiny_bag.write(tmp_path / "drive", messages)
    with playback(path) as played:
        assert played.names == {name: name for name in ("/image", "/episode_end", "/sim/reward")}
    with playback(path, "/episode_end", "/sim/reward") as played:
        assert played.names == {name: f"/recorded{name}" for name in ("/episode_end", "/sim/reward")}
    with playback(path, "/episode_end", as_recorded=True) as played:
        assert played.names == {"/episode_end": "/episode_end"}


def test_images_move_with_the_camera_info_beside_them(tmp_path):
    optics = [np.zeros(n) for n in (5, 9, 9, 12)]
    region = tiny_bag.make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
    info = tiny_bag.make("sensor_msgs/msg/CameraInfo", tiny_bag.header(S), 8, 8, "plumb_bob", *optics, 0, 0, region)
    raw = tiny_bag.write(
        tmp_path / "raw",
        [(S, "/a/image", tiny_bag.image(S, 9)), (S, "/a/camera_info", info), (S, "/camera_info", info)],
    )
    with playback(raw, image_topic="/b/picture") as played:
        assert played.names == {
            "/a/image": "/b/picture", "/a/camera_info": "/b/camera_info", "/camera_info": "/camera_info"
        }  # fmt: skip
    compressed = tiny_bag.write(tmp_path / "png", [(S, "/a/image/compressed", tiny_bag.png(S, 9))])
    for wanted in ("image", "image/compressed"):
        with playback(compressed, image_topic=wanted) as played:
            assert played.names == {"/a/image/compressed": "image/compressed"}


def test_images_of_two_topics_do_not_become_one(tmp_path):
    path = tiny_bag.write(tmp_path / "two", [(S, f"/{side}", tiny_bag.image(S, 9)) for side in ("left", "right")])
    with (
        pytest.raises(BagError, match="got /left, /right; choose it with topics"),
        playback(path, image_topic="/image"),
    ):
        pass
    with playback(path, "left", image_topic="/image") as played:
        assert played.names == {"/left": "/image"}


def test_a_topic_that_is_not_there_is_told_with_what_is(tmp_path):
    path = drive(tmp_path / "drive")
    with pytest.raises(BagError, match=r"got /camera; there is /image \(sensor_msgs/msg/Image, 10\)"):
        playback(path, "/camera").__enter__()


def test_start_and_duration_choose_a_part_by_log_time(tmp_path):
    path = drive(tmp_path / "drive")
    with playback(path, start_s=0.2, duration_s=0.3) as played:
        assert [r.stamp_ns - S for r in played.records()] == [i * 100 * MS + 5 * MS for i in (2, 3, 4, 5)]
    with pytest.raises(BagError, match=r"start_s: expected less than the 0.9 s that were recorded, got 3"):
        playback(path, start_s=3.0).__enter__()


def test_a_part_is_not_followed_by_reading_the_rest(tmp_path, monkeypatch):
    messages = [(S + i * 1000 * MS, "/image", tiny_bag.image(S, 100)) for i in range(60)]
    read = []
    really = Bag.records
    monkeypatch.setattr(Bag, "records", lambda *a: (read.append(r.stamp_ns) or r for r in really(*a)))
    with playback(tiny_bag.write(tmp_path / "drive", messages), duration_s=2.0) as played:
        assert len(list(played.records())) == 3
    assert len(read) < 20


def play(played: Playback, rounds: int = 1) -> list[tuple[int, int]]:
    """The time and the shift at every message, waiting in between as the player does."""
    time, found = PlayedClock(played), []
    for number in range(rounds):
        if number:
            time.next_round()
        before = None
        for record in played.records():
            if before is not None:
                found.append((time.at((before + record.stamp_ns) // 2), time.shift_ns))
            found.append((time.take(record), time.shift_ns))
            before = record.stamp_ns
    return found


def test_the_clock_is_log_time_and_goes_on_in_the_next_round(tmp_path):
    with playback(drive(tmp_path / "drive")) as played:
        found = play(played, rounds=3)
    assert [now for now, _ in found[:3]] == [S + 5 * MS, S + 55 * MS, S + 105 * MS]
    assert all(a < b for (a, _), (b, _) in pairwise(found))
    assert {shift for _, shift in found} == {number * (900 * MS + ROUND_GAP_NS) for number in range(3)}
    assert found[19][0] - found[18][0] == ROUND_GAP_NS


def test_the_clock_follows_stamps_of_another_clock(tmp_path):
    with playback(drive(tmp_path / "drive", offset_ns=S - SIM_NS)) as played:
        found = [now for now, _ in play(played)]
    assert found[::2] == [SIM_NS + i * 100 * MS for i in range(10)]
    assert found[1] == SIM_NS + 50 * MS


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_it_follows_them_at_any_speed_and_never_back(tmp_path, speed):
    with playback(drive(tmp_path / "drive", offset_ns=S - SIM_NS, speed=speed)) as played:
        times = [now for now, _ in play(played, rounds=2)]
    assert all(a <= b for a, b in pairwise(times))
    stamps = [SIM_NS + round(i * 100 * MS * speed) for i in range(10)]
    late_ns = [now - stamp for now, stamp in zip(times[:19:2], stamps, strict=True)]
    assert all(0 <= each <= 100 * MS for each in late_ns), "no image is from the future, or old"


def test_a_recorded_clock_is_what_the_clock_says(tmp_path):
    with playback(drive(tmp_path / "drive", offset_ns=S - SIM_NS, with_clock=True, speed=2.0)) as played:
        assert "/clock" not in played.names
        assert PlayedClock(played).at(S) == SIM_NS, "known before the first message"
        found = play(played, rounds=2)
    assert {now for now, shift in found if not shift} == {SIM_NS + i * 200 * MS for i in range(10)}
    assert max(now for now, shift in found if not shift) + ROUND_GAP_NS == min(now for now, shift in found if shift)


def test_a_clock_of_ros_1_is_read_without_a_header(tmp_path):
    path = tmp_path / "drive.bag"
    store = get_typestore(Stores.ROS1_NOETIC)
    kind = "rosgraph_msgs/msg/Clock"
    with bags.Ros1Writer(path) as writer:
        connection = writer.add_connection("/clock", kind, typestore=store)
        images = writer.add_connection("/image", bags.IMAGE, typestore=store)
        time = store.types["builtin_interfaces/msg/Time"](12, 34)
        writer.write(connection, S, store.serialize_ros1(store.types[kind](time), kind))
        writer.write(images, S, store.serialize_ros1(bags.image(0, ros1=True), bags.IMAGE))
    with playback(path) as played:
        assert PlayedClock(played).at(S) == 12_000_000_034
