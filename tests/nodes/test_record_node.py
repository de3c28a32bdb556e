"""record_node in a process of its own: nothing is lost, kill -9 costs a second at most, and every type is readable."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_network import ROOT, Camera, Network
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, JointState
from std_msgs.msg import Bool, Empty, Float64, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.nodes.convert import to_ns
from sac_ae_ros.nodes.definition import definition
from sac_ae_ros.nodes.fields import type_name


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path)
    yield network
    network.close()


def begin(network: Network, out: Path, *topics: str, **params):
    """A recorder that has heard of each topic."""
    node = network.start("record_node", {"out": str(out), **params})
    for topic in topics:
        network.until(lambda topic=topic: f"recording /tested/{topic} (" in node.log, 20, f"{topic} in {node.log}")
        network.until(lambda topic=topic: network.node.count_subscribers(topic), 10, f"the recorder on {topic}")
    network.meet("record_node")
    return node


def arrived(*publishers) -> None:
    """Waits until reliable messages are where the recorder takes them from."""
    for publisher in publishers:
        assert publisher.wait_for_all_acked(Duration(seconds=10))


def end(node) -> str:
    node.popen.send_signal(signal.SIGINT)
    assert node.wait(20) == 0
    return node.log


@pytest.mark.parametrize("transport", ["compressed", "compressedDepth"])
def test_the_images_of_a_transport_are_recorded(network, tmp_path, transport):
    camera = network.node.create_publisher(CompressedImage, f"image/{transport}", 10)
    node = begin(network, tmp_path / "drive", f"image/{transport}", transport=transport)
    camera.publish(CompressedImage(format="as it was", data=b"12"))
    arrived(camera)
    end(node)
    with Bag.open(tmp_path / "drive") as bag:
        (record,) = bag.records([f"/tested/image/{transport}"])
        assert (bag.message(record).format, bag.message(record).data.tobytes()) == ("as it was", b"12")


def test_everything_that_is_sent_is_there_as_it_was_sent(network, tmp_path):
    camera = Camera(network)
    commands = network.node.create_publisher(Twist, "cmd_vel", 10)
    executed = network.node.create_publisher(JointState, "policy_node/executed", 10)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    state = network.node.create_publisher(String, "policy_node/state", latched)
    state.publish(String(data="before the recorder came"))
    odom = network.node.create_publisher(Odometry, "wheels/odom", 10)
    node = begin(
        network, tmp_path / "drive", "image", "cmd_vel", "policy_node/executed", "policy_node/state", "wheels/odom",
        topics=["wheels/odom"],
    )  # fmt: skip
    sent, begun_ns = [], time.time_ns()
    for i in range(40):
        sent.append(camera.publish())
        commands.publish(Twist())
        executed.publish(JointState(header=sent[-1].header, name=["a"], position=[0.1 * i]))
        odom.publish(Odometry(child_frame_id=str(i)))
        time.sleep(0.02)
    arrived(commands, executed, odom)
    log = end(node)
    assert "next: sac-ae bag-eval" in log
    assert "lost" in log
    with Bag.open(tmp_path / "drive") as bag:
        assert bag.salvage is None
        counts = {topic.name.removeprefix("/tested/"): topic.messages for topic in bag.topics.values()}
        assert counts == {
            "image": 40, "cmd_vel": 40, "policy_node/executed": 40, "policy_node/state": 1, "wheels/odom": 40,
        }  # fmt: skip
        records = {name: list(bag.records([f"/tested/{name}"])) for name in counts}
        images = [bag.message(record) for record in records["image"]]
        assert [each.data.tobytes() for each in images] == [bytes(each.data) for each in sent]
        stamps = [to_ns(each.header.stamp) for each in sent]
        assert [each.header.stamp.sec * 10**9 + each.header.stamp.nanosec for each in images] == stamps
        logs = [record.stamp_ns for record in records["image"]]
        assert all(0 < later - earlier < 10**9 for earlier, later in pairwise(logs))
        assert 0 <= logs[0] - begun_ns < 10**9
        positions = [bag.message(record).position[0] for record in records["policy_node/executed"]]
        assert positions == [0.1 * i for i in range(40)]
        assert bag.message(records["policy_node/state"][0]).data == "before the recorder came"
        assert [bag.message(record).child_frame_id for record in records["wheels/odom"]] == [str(i) for i in range(40)]
    with AnyReader([tmp_path / "drive"]) as reader:
        assert reader.message_count == 161
        digests = {connection.msgtype: connection.digest for connection in reader.connections}
    known = get_typestore(Stores.ROS2_JAZZY)
    assert digests == {name: known.hash_rihs01(name) for name in digests}
    camera.close()


def test_kill_9_costs_a_second_at_most(network, tmp_path):
    numbers = network.node.create_publisher(Float64, "reward", 1000)
    node = begin(network, tmp_path / "drive", "reward")
    sent: dict[int, float] = {}
    until_s, i = time.monotonic() + 3.0, 0
    while time.monotonic() < until_s:
        sent[i] = time.monotonic()
        numbers.publish(Float64(data=float(i)))
        time.sleep(0.01)
        i += 1
    killed_s = time.monotonic()
    node.kill()
    with Bag.open(tmp_path / "drive") as bag:
        found = [round(bag.message(record).data) for record in bag.records(["/tested/reward"])]
        assert "no footer" in bag.salvage.reason
    assert found == list(range(len(found)))
    assert all(number in found for number, at_s in sent.items() if at_s < killed_s - 1.0)


def test_a_publisher_that_comes_later_and_less_reliable_is_heard(network, tmp_path):
    first = network.neighbour("first").create_publisher(Float64, "reward", 10)
    node = begin(network, tmp_path / "drive", "reward")
    first.publish(Float64(data=1.0))
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    second = network.neighbour("second").create_publisher(Float64, "reward", best_effort)
    network.until(lambda: second.get_subscription_count(), 10, "the recorder")
    time.sleep(0.5)
    second.publish(Float64(data=2.0))
    network.until(lambda: first.get_subscription_count(), 10, "the recorder")
    first.publish(Float64(data=3.0))
    time.sleep(0.3)  # best effort: nobody tells when it is there
    end(node)
    with Bag.open(tmp_path / "drive") as bag:
        assert [bag.message(record).data for record in bag.records(["/tested/reward"])] == [1.0, 2.0, 3.0]


def test_no_images_are_told_with_those_that_there_are(network, tmp_path):
    other = Camera(network, topic="front/image_raw")
    node = begin(network, tmp_path / "drive")
    with other.running():
        told = "/tested/image: nobody publishes there; there is /tested/front/image_raw. Remap `image` (--image-topic)"
        network.until(lambda: told in node.log, 20, "a warning")
        assert "set transport: compressed (--compressed)" in node.log
    node.popen.send_signal(signal.SIGINT)
    assert node.wait(20) == 1
    assert "nothing was recorded" in node.log
    assert not (tmp_path / "drive").exists()
    other.close()


def test_what_cannot_begin_is_one_line(network, tmp_path):
    node = network.start("record_node", {"out": str(tmp_path)})
    assert node.wait(20) == 2
    assert node.log.strip() == f"error: recording: {tmp_path} exists already; name another folder"
    node = network.start("record_node", {"out": str(tmp_path / "new"), "topics": ["a b"]})
    assert node.wait(20) == 2
    (line,) = node.log.strip().splitlines()
    assert line.startswith("error: topics: expected topic names as ROS 2 has them")
    node = network.start("record_node", {"out": str(tmp_path / "new"), "keep_free_mb": 1_000_000_000})
    assert node.wait(20) == 2
    assert "MB are left on the disk" in node.log
    assert not (tmp_path / "new").exists()


def test_a_write_that_fails_ends_it_and_the_table_tells_what_is_there(network, tmp_path):
    numbers = network.node.create_publisher(Float64MultiArray, "numbers", 1000)
    node = begin(network, tmp_path / "drive", "numbers", topics=["numbers"])
    network.until(numbers.get_subscription_count, 10, "the recorder")
    resource.prlimit(node.popen.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    for i in range(10_000):
        numbers.publish(Float64MultiArray(data=np.random.default_rng(i).random(20)))
        time.sleep(0.002)
        if node.popen.poll() is not None:
            break
    assert node.wait(20) == 1, node.log
    assert re.search(r"cannot write .*drive_0\.mcap \(File too large\); stopped after 0\.\d MB", node.log)
    assert "Traceback" not in node.log
    (told,) = re.findall(r"/tested/numbers +(\d+) ", node.log)
    with Bag.open(tmp_path / "drive") as bag:
        assert sum(1 for _ in bag.records()) == int(told) > 10


def test_the_command_line_records_what_it_is_asked_for(network, tmp_path):
    commands = network.node.create_publisher(Twist, "/base/cmd", 10)
    more = network.node.create_publisher(Bool, "/tested/more", 10)
    arguments = ["--command-topic", "/base/cmd", "--namespace", "tested", "--topic", "more", "--out", tmp_path / "2024"]
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "sac_ae_ros.cli", "record", *map(str, arguments)]
        process = subprocess.Popen(command, env=network.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    wanted = ("recording /base/cmd (", "recording /tested/more (")
    network.until(lambda: all(each in (tmp_path / "log").read_text() for each in wanted), 20, "both topics")
    for publisher in (commands, more):
        network.until(publisher.get_subscription_count, 10, "the recorder")
    commands.publish(Twist())
    more.publish(Bool(data=True))
    arrived(commands, more)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    with Bag.open(tmp_path / "2024") as bag:
        assert {topic.name: topic.messages for topic in bag.topics.values()} == {"/base/cmd": 1, "/tested/more": 1}


@pytest.mark.parametrize("has_info", [True, False])
def test_camera_info_stands_beside_the_topic_of_all_transports(network, tmp_path, has_info):
    images = network.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    infos = network.node.create_publisher(CameraInfo, "/camera/camera_info" if has_info else "/lens/camera_info", 10)
    arguments = ["--image-topic", "/camera/image_raw/compressed", "--out", str(tmp_path / "2024")]
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "sac_ae_ros.cli", "record", *arguments]
        process = subprocess.Popen(command, env=network.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    expected = (
        "recording /camera/camera_info ("
        if has_info
        else "/camera/camera_info: nobody publishes there; there is /lens/camera_info. Remap `camera_info`"
    )
    told = ("recording /camera/image_raw/compressed (", expected)
    network.until(lambda: all(each in (tmp_path / "log").read_text() for each in told), 30, "both topics")
    network.until(images.get_subscription_count, 10, "the recorder")
    images.publish(CompressedImage(format="jpeg", data=b"12"))
    arrived(images, infos)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_a_rule_of_the_users_own_wins_over_those_of_the_options(network, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        arguments = ["--remap", "camera_info:=/lens/info", "--out", str(tmp_path / "2024")]
        command = [sys.executable, "-m", "sac_ae_ros.cli", "record", *arguments]
        process = subprocess.Popen(command, env=network.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    network.until(lambda: "as soon as they appear" in (tmp_path / "log").read_text(), 20, "the start")
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert "/lens/info" in (tmp_path / "log").read_text()


KINDS = [CameraInfo, Empty, Float64MultiArray, Image, Imu, JointState, JointTrajectory, Odometry, Twist]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_definitions_are_those_of_the_types_themselves(kind):
    store = get_typestore(Stores.EMPTY)
    found = get_types_from_msg(definition(kind), type_name(kind))
    store.register(found)
    known = get_typestore(Stores.ROS2_JAZZY)
    for name in found:
        assert store.fielddefs[name][1] == known.fielddefs[name][1], name


@pytest.mark.slow
def test_raw_images_of_640x480_at_30_hz_are_recorded_without_loss(network, tmp_path):
    """The camera is a process of its own; both have the shipped DDS profile."""
    code = CAMERA.format(domain=network.domain_id)
    camera = subprocess.Popen(
        [sys.executable, "-c", code], env=network.env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    node = begin(network, tmp_path / "drive", "image")
    sent = int(camera.communicate(timeout=60)[0])
    time.sleep(0.5)
    print(end(node))
    with Bag.open(tmp_path / "drive") as bag:
        found = [int(np.frombuffer(bag.message(r).data[:4], np.int32)[0]) for r in bag.records(["/tested/image"])]
    assert found[-1] == sent - 1
    assert found == list(range(found[0], sent))
    assert len(found) > 550


CAMERA = """
import array, time
import numpy as np, rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init(args=[], domain_id={domain})
node = Node("camera", namespace="/tested")
publisher = node.create_publisher(Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(1)
rng = np.random.default_rng(0)
pictures = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(7)]
begun, count = time.monotonic(), 600
for i in range(count):
    data = pictures[i % 7].tobytes()
    data = np.int32(i).tobytes() + data[4:]
    image = Image(height=480, width=640, encoding="rgb8", step=1920)
    image.header.stamp = node.get_clock().now().to_msg()
    image.data = array.array("B", data)
    publisher.publish(image)
    time.sleep(max(0, begun + (i + 1) / 30 - time.monotonic()))
time.sleep(1)
print(count)
"""


def test_a_camera_that_falls_silent_is_told_at_once_and_a_switch_that_is_not_pressed_is_not(network, tmp_path):
    camera, e_stop = Camera(network), network.node.create_publisher(Bool, "e_stop", 10)
    node = begin(network, tmp_path / "drive", "image", "e_stop")
    camera.start()
    for i in range(5):  # edges, now and then
        e_stop.publish(Bool(data=bool(i % 2)))
        time.sleep(0.9)
    stopped_s = camera.stop()
    words = r"/tested/image: silent for \d\.\d s, since \d\d:\d\d:\d\d \(\d+ s into the recording\); it came at \d\d"
    network.until(lambda: re.search(words, node.log), 10, f"a warning in {node.log}")
    assert time.monotonic() - stopped_s < 3.0
    camera.start()
    network.until(
        lambda: re.search(r"/tested/image: messages again, after \d\.\d s of silence", node.log), 5, "its return"
    )
    time.sleep(4.0)
    camera.close()
    network.until(lambda: "nobody publishes it any more" in node.log, 5, f"another warning in {node.log}")
    assert node.log.count("silent for") == 2, "the switch is no steady topic"
    end(node)
