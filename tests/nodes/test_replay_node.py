"""replay_node over real ROS 2: the live node's commands are bag-eval's, and a recording commands nobody."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bags as bags
import tiny_bag
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, ROOT, Heard, Network, Process
from rosbags.rosbag2 import StoragePlugin, Writer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String
from tiny_policy import write_policy

from sac_ae_ros.bag.evaluate import Tick, evaluate
from sac_ae_ros.bag.messages import header_stamp_ns
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.convert import to_ns

START_NS, MS = tiny_bag.START_NS, 1_000_000
ONCE = {"wait_s": 10.0}
# a busy machine may be late with anything; what is compared is not
PATIENT = {"watchdog_timeout_s": 20.0, "max_age_s": 5.0, "max_future_s": 5.0, "image.freeze_timeout_s": 0.0}


def drive(folder: Path, *, seconds: float = 2.2, image=tiny_bag.image) -> Path:
    """A recording of 30 Hz: images of random greys and jittered stamps, a gap of 0.6 s, an episode's end, commands."""
    rng = random.Random(7)
    messages, at_ns = [], START_NS
    for i in range(round(seconds * 30)):
        at_ns += (600 if i == 30 else 33) * MS
        stamp_ns = at_ns + rng.randrange(8 * MS)
        messages.append((stamp_ns + rng.randrange(1, 9) * MS, "/image", image(stamp_ns, rng.randrange(70, 190))))
        messages.append((at_ns + 20 * MS, "/cmd_vel", tiny_bag.twist(0.1, i / 1000)))
    messages.append((at_ns - 310 * MS, "/episode_end", tiny_bag.boolean(True)))
    messages.append((START_NS + 50 * MS, "/enable", tiny_bag.boolean(True)))
    return tiny_bag.write(folder, messages)


def noise(stamp_ns: int, seed: int) -> Any:
    """An rgb8 image of 320x180 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, 180 * 320 * 3, np.uint8)
    return tiny_bag.make("sensor_msgs/msg/Image", tiny_bag.header(stamp_ns), 180, 320, "rgb8", 0, 960, pixels)


def clock(at_ns: int) -> Any:
    return tiny_bag.make("rosgraph_msgs/msg/Clock", tiny_bag.header(at_ns).stamp)


def replay(network: Network, bag: Path, *remaps: str, **params: object) -> Process:
    return network.start("replay_node", {"bag": str(bag), **ONCE, **params}, remaps=("/image:=image", *remaps))


def armed(network: Network, policy: Path, **params: object) -> Heard:
    """A policy node that the next frame arms; returns what it will have sent."""
    executed = network.hear(JointState, "policy_node/executed")
    settings = {"policy": str(policy), "use_sim_time": True, "arm_on_activate": True, **PATIENT, **params}
    node = network.start("policy_node", settings)
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(lambda: network.node.count_publishers("policy_node/executed") == 1)
    network.listened(node)
    return executed


def sent(executed: Heard) -> dict[int, list[float]]:
    return {to_ns(message.header.stamp): list(message.position) for _, message in list(executed)}


def scored(bag: Path, policy: Path) -> list[Tick]:
    with Bag.open(bag) as opened:
        return evaluate(opened, OnnxPolicy.load(policy)).ticks


def records(bag: Path) -> dict[str, list[Any]]:
    """The messages of each topic."""
    found = defaultdict(list)
    with Bag.open(bag) as opened:
        for record in opened.records():
            found[record.topic].append(opened.message(record))
    return found


def test_live_commands_are_those_of_bag_eval_to_the_last_bit(network, tmp_path):
    bag, policy = drive(tmp_path / "drive"), write_policy(tmp_path / "tiny.onnx")
    ticks = scored(bag, policy)
    expected = {tick.stamp_ns: tick.values.tolist() for tick in ticks}
    assert len({tuple(values) for values in expected.values()}) > 15, "images that differ give commands that differ"
    assert sum(tick.restarted for tick in ticks) == 3, "at the start, after the gap, at the episode's end"
    executed = armed(network, policy)
    player = replay(network, bag, "/episode_end:=episode_end", rate=0.5)
    assert player.wait(40) == 0, player.log
    network.until(lambda: len(executed) >= len(expected), 10, f"{len(expected)} commands")
    assert sent(executed) == expected


def test_the_wait_before_the_first_message_stops_nothing(network, tmp_path):
    """What README has: a node in shadow that lives in the recording's time, and a player that stands still first."""
    bag, policy = drive(tmp_path / "drive"), write_policy(tmp_path / "tiny.onnx")
    expected = {tick.stamp_ns: tick.values.tolist() for tick in scored(bag, policy)}
    executed, clocks = network.hear(JointState, "policy_node/executed"), network.hear(Clock, "/clock")
    told = network.hear(String, "policy_node/state")
    readme = {"use_sim_time": True, "output": "shadow", "arm_on_activate": True}
    node = network.start("policy_node", {"policy": str(policy), **PATIENT, **readme, "watchdog_timeout_s": 2.0})
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(lambda: network.node.count_publishers("policy_node/executed") == 1)
    player = replay(network, bag, "/episode_end:=episode_end", rate=0.5, start_paused=True)
    network.until(lambda: clocks, 20, "/clock")
    time.sleep(5.0)  # longer than both, the watchdog's timeout and the wait for subscribers
    assert len({to_ns(clock.clock) for _, clock in list(clocks)}) == 1
    assert not executed
    assert network.trigger("replay_node/resume").success
    network.until(lambda: len(executed) >= len(expected), 20, f"{len(expected)} commands")
    assert sent(executed) == expected
    assert "stopped" not in node.log
    assert "frame not used" not in node.log
    assert all(json.loads(message.data)["stop"] is None for _, message in list(told))
    assert player.wait(20) == 0


@pytest.mark.slow
def test_live_commands_of_a_shipped_policy_are_those_of_bag_eval(network, tmp_path):
    bag, policy = drive(tmp_path / "drive", seconds=20.0, image=noise), ROOT / "models" / "rover_chase_ball.onnx"
    ticks = scored(bag, policy)
    assert len(ticks) > 190
    executed = armed(network, policy)
    player = replay(network, bag, "/episode_end:=episode_end", rate=0.7)
    assert player.wait(80) == 0, player.log
    network.until(lambda: len(executed) >= len(ticks), 10, f"{len(ticks)} commands")
    assert sent(executed) == {tick.stamp_ns: tick.values.tolist() for tick in ticks}


def test_a_recording_of_a_simulation_drives_by_its_own_clock(network, tmp_path):
    """Stamps of a simulation at half the speed of real time, /clock beside them."""
    messages = []
    for i in range(14):
        log_ns, stamp_ns = START_NS + i * 100 * MS, 5_000 * MS + i * 50 * MS
        messages.append((log_ns, "/clock", clock(stamp_ns)))
        messages.append((log_ns + 10 * MS, "/image", tiny_bag.image(stamp_ns, 80 + 4 * i)))
    bag, policy = tiny_bag.write(tmp_path / "drive", messages), write_policy(tmp_path / "tiny.onnx")
    executed = armed(network, policy)
    clocks = network.hear(Clock, "/clock")
    player = replay(network, bag, start_paused=True)
    network.until(lambda: clocks, 20, "/clock")
    network.trigger("replay_node/resume")
    assert player.wait(30) == 0, player.log
    expected = {tick.stamp_ns: tick.values.tolist() for tick in scored(bag, policy)}
    network.until(lambda: len(executed) >= len(expected), 10, f"{len(expected)} commands")
    assert sent(executed) == expected
    times = [to_ns(each.clock) for _, each in clocks]
    assert set(times) <= {5_000 * MS + i * 50 * MS for i in range(14)}, "nothing but what was recorded"
    assert times[-1] == 5_000 * MS + 13 * 50 * MS


def test_what_was_recorded_comes_at_its_pace_and_commands_nobody(network, tmp_path):
    bag = drive(tmp_path / "drive", seconds=2.0)
    commands, enable = network.hear(Twist, "/recorded/cmd_vel"), network.hear(Bool, "/recorded/enable")
    unwanted = [network.hear(Twist, "/cmd_vel"), network.hear(Bool, "/enable"), network.hear(Twist, "cmd_vel")]
    clocks = network.hear(Clock, "/clock")
    player = replay(network, bag, rate=2.0, wait_s=30.0)
    network.meet("replay_node")
    network.until(lambda: len(clocks) > 50, 20, "/clock")
    assert len({to_ns(each.clock) for _, each in clocks}) == 1, "it waits for somebody who hears the images"
    network.until(lambda: network.node.count_publishers("image"), 10, "the player")
    images = network.hear(Image, "image")
    network.until(lambda: len(images) == 60, 30, "all images")
    assert player.wait() == 0
    recorded = records(bag)
    stamps = [to_ns(each.header.stamp) for _, each in images]
    assert stamps == [header_stamp_ns(each) for each in recorded["/image"]]
    assert [bytes(each.data) for _, each in images] == [each.data.tobytes() for each in recorded["/image"]]
    assert [each.angular.z for _, each in commands] == [each.angular.z for each in recorded["/cmd_vel"]]
    assert len(enable) == 1
    assert unwanted == [[], [], []]
    took_s = images[-1][0] - images[0][0]
    assert 1.2 < took_s < 2.5, "2.6 s of recording at twice the speed"
    times = [to_ns(each.clock) for _, each in clocks]
    assert times == sorted(times)
    assert START_NS < times[0] < times[-1] < START_NS + 3_000 * MS
    gap_ns = stamps[29] + 50 * MS, stamps[30] - 50 * MS
    assert len([at_ns for at_ns in times if gap_ns[0] < at_ns < gap_ns[1]]) > 10, "/clock goes on without messages"
    assert "played 122 messages" in player.log
    assert "WARN" not in player.log


def test_it_pauses_and_goes_on_where_it_was(network, tmp_path):
    bag = drive(tmp_path / "drive", seconds=1.0)
    images, clocks = network.hear(Image, "image"), network.hear(Clock, "/clock")
    player = replay(network, bag, start_paused=True)
    network.until(lambda: len(clocks) > 100, 20, "/clock")
    assert not images
    assert network.trigger("replay_node/resume").message == "playing"
    network.until(lambda: len(images) > 3, 10, "images")
    assert network.trigger("replay_node/pause").message == "paused"
    time.sleep(0.2)  # what was under way
    paused_s, heard = time.monotonic(), len(images)
    time.sleep(0.5)
    assert len(images) == heard < 30
    assert len({to_ns(each.clock) for each in clocks.since(paused_s)}) == 1
    for says in ("playing", "paused", "playing"):
        assert network.trigger("replay_node/toggle_paused").message == says
    assert player.wait() == 0
    network.until(lambda: len(images) == 30, 10, "all images")
    stamps = [to_ns(each.header.stamp) for _, each in images]
    assert stamps == sorted(set(stamps))


def test_in_a_loop_stamps_and_clock_go_on_growing_and_episodes_end(network, tmp_path):
    bag = drive(tmp_path / "drive", seconds=1.0)
    images, clocks = network.hear(Image, "image"), network.hear(Clock, "/clock")
    ends = network.hear(Bool, "/episode_end")
    player = replay(network, bag, rate=2.0, loop=True)
    network.until(lambda: len(images) > 70, 30, "a third round")
    player.popen.send_signal(signal.SIGINT)
    assert player.wait() == 0
    stamps, times = [to_ns(each.header.stamp) for _, each in images], [to_ns(each.clock) for _, each in clocks]
    assert all(a < b for a, b in pairwise(stamps))
    assert all(a <= b for a, b in pairwise(times))
    assert max(b - a for a, b in pairwise(times)) < 1_900 * MS, "no jump that would stop a robot"
    round_ns = stamps[30] - stamps[0]
    assert stamps[30:60] == [stamp + round_ns for stamp in stamps[:30]]
    assert stamps[30] - stamps[29] > 900 * MS
    assert [end.data for _, end in ends[:4]] == [True, False, True, False]


def test_as_recorded_plays_commands_and_says_so(network, tmp_path):
    commands, stored = network.hear(Twist, "cmd_vel"), network.hear(Twist, "/recorded/cmd_vel")
    remaps = ("/cmd_vel:=cmd_vel",)
    bag = drive(tmp_path / "drive", seconds=1.0)
    player = replay(network, bag, *remaps, rate=10.0, wait_s=0.2, as_recorded=True, loop=True)
    network.until(lambda: commands, 20, "commands")  # a single round may be over before they are heard
    player.popen.send_signal(signal.SIGINT)
    assert player.wait(20) == 0
    assert not stored
    assert "expected 1 subscribers within 0.2 s, got 0" in player.log
    assert len([line for line in player.log.splitlines() if "WARN" in line and "as_recorded" in line]) == 1


@pytest.mark.slow
def test_a_recording_of_ros_1_and_what_is_left_of_a_cut_one_are_played(network, tmp_path):
    ros1 = bags.write_ros1(tmp_path / "drive.bag", count=20)
    cut = bags.cut(bags.write_mcap(tmp_path / "cut.mcap", count=100, chunk_bytes=2_000))
    for bag, least, says in ((ros1, 20, "played 40 messages"), (cut, 50, "damaged: ")):
        images = network.hear(Image, "image")
        player = replay(network, bag, rate=20.0, image_topic="image")
        assert player.wait(30) == 0, player.log
        assert says in player.log
        network.until(lambda images=images, least=least: len(images) >= least, 10, "images")
        for i, (_, image) in enumerate(images):
            assert bytes(image.data) == bags.image(i).data.tobytes()
            assert to_ns(image.header.stamp) == bags.START_NS + i * bags.PERIOD_NS - 5 * MS


def test_bytes_that_are_no_such_message_are_left_out_and_told(network, tmp_path):
    bag = tmp_path / "drive"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/Image"
        images = writer.add_connection("/image", kind, typestore=tiny_bag.STORE)
        unknown = writer.add_connection("/strange", "no_such_msgs/msg/Odd", msgdef="bool odd", rihs01="0")
        for i in range(4):
            raw = tiny_bag.STORE.serialize_cdr(tiny_bag.image(START_NS + i, 90), kind)
            writer.write(images, START_NS + i * 10 * MS, bytes(raw)[: 20 if i == 2 else None])
        writer.write(unknown, START_NS, b"\0\1\0\0\1")
    heard = network.hear(Image, "image")
    player = replay(network, bag)
    assert player.wait(20) == 0
    network.until(lambda: len(heard) == 3, 10, "three images")
    assert "/image: a message of 20 bytes is left out" in player.log
    assert "left out 1 that are no such messages" in player.log
    assert "not played: /strange: expected an installed message type" in player.log


def sac_ae(network: Network, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As from a shell, where the wheels of ROS start the process anew."""
    env = {key: value for key, value in network.env.items() if not key.startswith("_ROS_WHEELS")}
    command = [sys.executable, "-m", "sac_ae_ros.cli", "replay", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_plays_what_it_is_asked_for(network, tmp_path):
    bag = drive(tmp_path / "1e3", seconds=1.0)
    options = "--rate 8 --wait-for 0 --topic image --topic /cmd_vel --remap /recorded/cmd_vel:=/stored --no-clock"
    clocks = network.hear(Clock, "/clock")
    done = sac_ae(network, bag, "--image-topic", "/lens", "--start", "0.2", *options.split())
    assert done.returncode == 0, done.stderr
    assert "0.8 s at rate 8: /lens, /stored\n" in done.stderr
    assert "played 47 messages" in done.stderr
    assert not clocks


def test_several_recordings_are_played_as_one(network, tmp_path):
    camera = [(START_NS + 100 * i * MS, "/image", tiny_bag.image(START_NS + 100 * i * MS, i)) for i in range(5)]
    robot = [(START_NS + (100 * i + 50) * MS, "/cmd_vel", tiny_bag.twist(0.1 * i, 0.0)) for i in range(5)]
    paths = tiny_bag.write(tmp_path / "camera", camera), tiny_bag.write(tmp_path / "robot", robot)
    done = sac_ae(network, *paths, "--merge", "--rate", "8", "--wait-for", "0")
    assert done.returncode == 0, done.stderr
    assert "at rate 8: /recorded/cmd_vel, /image\n" in done.stderr
    assert "played 10 messages" in done.stderr


def test_what_cannot_be_played_is_one_line_and_exit_code_2(network, tmp_path):
    bag = drive(tmp_path / "drive", seconds=0.2)
    for arguments, says in (
        ([tmp_path / "none.mcap"], "none.mcap: expected a recording, nothing is there"),
        ([bag, "--remap", "nonsense"], "nonsense"),
        ([bag, "--rate", "0"], "expected 0.01..100, got 0"),
    ):
        done = sac_ae(network, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert says in done.stderr
