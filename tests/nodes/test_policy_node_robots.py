"""policy_node as different robots use it: a dry run, an arm that holds where it is, cameras of other kinds."""

import array
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fault_publishers import Switch
from geometry_msgs.msg import Twist, TwistWithCovarianceStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_network import ACTIVATE, CONFIGURE, DEACTIVATE, Camera, Network
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Int16MultiArray, String
from tiny_policy import expected_values, write_policy
from trajectory_msgs.msg import JointTrajectory

from sac_ae_ros.core.spec import ActionSpec

JOINTS = ["shoulder", "elbow"]
ARM = {
    "type": "trajectory_msgs/msg/JointTrajectory",
    "fields": ["points[0].positions[0]", "points[0].positions[1]"],
    "constants": ["joint_names=[shoulder, elbow]"],
    "stop": "hold_measured",
    "joints": JOINTS,
}
LIVELY = {"image": {"freeze_timeout_s": 0.0}}


def start(network: Network, folder: Any, spec: dict[str, Any] | None = None, **params: Any) -> Any:
    policy = write_policy(folder / "tiny.onnx", spec=spec)
    process = network.start("policy_node", {"policy": str(policy), **LIVELY, **params})
    assert network.change(CONFIGURE, ACTIVATE), process.log
    return process


def state(network: Network) -> Any:
    """Reads the newest ~/state."""
    heard = network.hear(String, "policy_node/state")
    network.meet("policy_node")
    return lambda: json.loads(heard[-1][1].data) if heard else {"stop": None, "armed": None}


def test_a_dry_run_publishes_to_its_own_topic_only(network, tmp_path):
    process = start(network, tmp_path, output="shadow")
    shadow, commands = network.hear(Twist, "policy_node/shadow_cmd"), network.hear(Twist, "cmd_vel")
    camera = Camera(network)
    with camera.running():
        time.sleep(0.3)
        assert not shadow, "a rehearsal arms as well"
        network.arm()
        network.until(lambda: len(shadow) > 3, 10, "shadow commands")
    network.until(lambda: shadow[-1][1] == Twist(), 3, "a shadow stop")
    assert not commands
    assert not network.node.count_publishers("/tested/cmd_vel")
    assert "shadow_cmd only" in process.log


def test_a_constant_velocity_is_in_commands_and_in_no_stop(network, tmp_path):
    start(network, tmp_path, command={"constants": ["linear.y=5.0"]})
    commands, camera = network.hear(Twist, "cmd_vel"), Camera(network)
    with camera.running():
        network.arm()
        network.until(lambda: len(commands) > 3, 10, "commands")
        assert all(command.linear.y == 5 for _, command in commands)
        assert network.trigger("policy_node/disarm").success
        network.until(lambda: commands[-1][1] == Twist(), 3, "a stop of zeros")


def test_a_twist_with_covariance_needs_its_type_alone_and_stops_at_zeros(network, tmp_path):
    start(network, tmp_path, command={"type": "geometry_msgs/msg/TwistWithCovarianceStamped"})
    commands, camera = network.hear(TwistWithCovarianceStamped, "cmd_vel"), Camera(network)
    with camera.running():
        network.until(lambda: network.trigger("policy_node/arm").success, 10, "arming")
        network.until(lambda: len(commands) > 3, 10, "commands")
        twist = commands[-1][1].twist.twist
        assert np.allclose((twist.linear.x, twist.angular.z), expected_values(camera.pixel), atol=1e-5)
    network.until(lambda: commands[-1][1].twist.twist == Twist(), 3, "a stop of zeros")


class Arm:
    """Publishes joint states, with a joint too many and in another order."""

    def __init__(self, network: Network) -> None:
        self.publisher = network.node.create_publisher(JointState, "joint_states", 10)

    def say(self, shoulder: float, elbow: float) -> None:
        names = ["gripper", *reversed(JOINTS)]
        self.publisher.publish(JointState(name=names, position=[9.0, elbow, shoulder]))


def test_an_arm_holds_where_it_was_measured_when_the_stop_began(network, tmp_path):
    actions = tuple(ActionSpec(name, "rad", -1.0, 1.0) for name in JOINTS)
    limits = {"max_slew": [1.0, 1.0]}
    start(network, tmp_path, spec={"actions": actions}, command=ARM, limits=limits)
    read, sent, arm, camera = state(network), network.hear(JointTrajectory, "cmd_vel"), Arm(network), Camera(network)
    camera.pixel = 230  # both joints to their ends
    with camera.running():
        refused = network.trigger("policy_node/arm")
        assert not refused.success
        assert "joint_states: nothing heard yet" in refused.message
        network.meet("policy_node")
        network.until(arm.publisher.get_subscription_count, 10, "the subscription")
        diagnostics = network.hear(DiagnosticArray, "/diagnostics")
        outside = threading.Event()

        def lift() -> None:
            while not outside.wait(0.1):
                arm.say(1.2, 0.0)

        lifting = threading.Thread(target=lift)
        lifting.start()
        try:
            network.barred_as_diagnosed(diagnostics, "within the limits")
        finally:
            outside.set()
            lifting.join()

        def arm_up() -> bool:
            arm.say(0.4, -0.3)
            return network.trigger("policy_node/arm").success

        network.until(arm_up, 10, "arming")
        network.until(lambda: (arm.say(0.45, -0.35), len(sent) > 2)[1], 10, "commands")
        first = sent[0][1].points[0]
        assert np.allclose(first.positions, [0.5, -0.4], atol=1e-6), "slew begins where the arm is"
        assert first.time_from_start.nanosec == 100_000_000
        assert sent[0][1].joint_names == JOINTS
    network.until(lambda: read()["stop"] == "stale", 3, "a stop")
    arm.say(0.7, 0.7)
    time.sleep(0.3)
    arm.say(0.8, 0.8)
    time.sleep(0.3)
    stops = [message.points[0].positions.tolist() for _, message in sent[-3:]]
    assert np.allclose(stops, [[0.45, -0.35]] * 3), "the place of that moment, however the arm sags later"


def test_motors_that_take_integers_get_the_nearest_ones(network, tmp_path):
    actions = tuple(ActionSpec(name, "pwm", -200.5, 200.5) for name in ("left", "right"))
    pwm = {"type": "std_msgs/msg/Int16MultiArray", "fields": ["data[0]", "data[1]"], "stop": "zero"}
    policy = write_policy(tmp_path / "tiny.onnx", spec={"actions": actions})
    process = network.start("policy_node", {"policy": str(policy), **LIVELY, "command": pwm})
    assert not network.change(CONFIGURE)
    assert "limits.low: expected an integer, as 'data[0]' is a int16, got -200.5" in process.log
    assert not network.set("policy_node", limits__low=[-200.0, -200.0], limits__high=[200.0, 200.0])
    assert network.change(CONFIGURE, ACTIVATE), process.log
    sent, executed = network.hear(Int16MultiArray, "cmd_vel"), network.hear(JointState, "policy_node/executed")
    camera = Camera(network)
    with camera.running():
        network.arm()
        network.until(lambda: len(executed) > 2 and len(sent) > 2, 10, "commands")
        assert any(sent[0][1].data)
        assert sent[0][1].data.tolist() == [round(value) for value in executed[0][1].position]
    network.until(lambda: sent[-1][1].data.tolist() == [0, 0], 3, "a stop")


def test_silent_joint_states_stop_an_arm(network, tmp_path):
    actions = tuple(ActionSpec(name, "rad", -1.0, 1.0) for name in JOINTS)
    start(network, tmp_path, spec={"actions": actions}, command=ARM)
    read, sent, arm = state(network), network.hear(JointTrajectory, "cmd_vel"), Arm(network)
    network.until(arm.publisher.get_subscription_count, 10, "the subscription")
    with Camera(network).running():
        network.until(lambda: (arm.say(0.0, 0.0), network.trigger("policy_node/arm").success)[1], 10, "arming")
        network.until(lambda: (arm.say(0.1, 0.1), len(sent) > 2)[1], 10, "commands")
        network.until(lambda: read()["stop"] == "joints", 3, "a stop")
        assert "joint_states: silent" in read()["detail"]
        assert not network.trigger("policy_node/arm").success


@pytest.mark.parametrize("messages_before", [0, 1000])
def test_two_publishers_of_a_joint_stop_an_arm_where_the_first_measured_it(network, tmp_path, messages_before):
    actions = tuple(ActionSpec(name, "rad", -1.0, 1.0) for name in JOINTS)
    start(network, tmp_path, spec={"actions": actions}, command=ARM)
    read, sent, arm = state(network), network.hear(JointTrajectory, "cmd_vel"), Arm(network)
    hand = network.neighbour("hand").create_publisher(JointState, "joint_states", 10)
    network.until(arm.publisher.get_subscription_count, 10, "the subscription")
    network.until(hand.get_subscription_count, 10, "the hand's subscription")
    for _ in range(messages_before):
        hand.publish(JointState(name=["finger"], position=[5.0]))
    speaking, astray = threading.Event(), threading.Event()

    def speak() -> None:
        while speaking.is_set():
            arm.say(0.1, 0.2)
            other = ["shoulder", "finger"] if astray.is_set() else ["finger"]
            hand.publish(JointState(name=other, position=[-0.8, 5.0][-len(other) :]))
            time.sleep(0.02)

    speaking.set()
    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        with Camera(network).running():
            network.arm()
            network.until(lambda: len(sent) > 2, 10, "commands")
            time.sleep(0.5)
            assert read()["stop"] is None, "each joint has one publisher"
            astray.set()
            network.until(lambda: read()["stop"] == "joints", 3, "a stop")
            assert "joint_states: expected one publisher of joint 'shoulder', got two" in read()["detail"]
            begun_s = time.monotonic()
            time.sleep(0.5)
            stops = [message.points[0].positions.tolist() for message in sent.since(begun_s)]
            assert len(stops) > 2
            assert np.allclose(stops, [[0.1, 0.2]] * len(stops)), "where the first says that it is"
            refused = network.trigger("policy_node/arm")
            assert not refused.success
            assert "one publisher of joint 'shoulder'" in refused.message
            astray.clear()
            network.arm()
            assert time.monotonic() - begun_s > 2.0
    finally:
        speaking.clear()
        speaker.join()


def camera_info(focal_px: float) -> CameraInfo:
    return CameraInfo(height=8, width=8, k=[focal_px, 0.0, 4.0, 0.0, focal_px, 4.0, 0.0, 0.0, 1.0])


FITTING_PX = 4 / np.tan(np.radians(75) / 2)


@pytest.mark.parametrize("check", ["warn", "refuse"])
def test_a_camera_with_other_optics_is_named_and_refused_where_wanted(network, tmp_path, check):
    process = start(network, tmp_path, camera_info={"check": check})
    diagnostics = network.hear(DiagnosticArray, "/diagnostics")
    infos = network.node.create_publisher(CameraInfo, "camera_info", 1)
    network.meet("policy_node")
    network.until(infos.get_subscription_count, 10, "the subscription")
    with Camera(network).running():
        if check == "warn":
            network.arm()
        else:
            unheard = "stop, but this lasts: camera (camera_info: nothing heard yet)"
            network.until(lambda: unheard in network.trigger("policy_node/arm").message, 10, "a refusal")
        infos.publish(camera_info(2 * FITTING_PX))
        network.until(lambda: "camera_info: " in process.log, 10, "a warning")
        assert "75.0" in process.log
        found = lambda: [  # noqa: E731
            status.message for _, array in diagnostics for status in array.status if "camera_info" in status.message
        ]
        network.until(found, 10, "a diagnostic")
        if check == "warn":
            return
        assert "contradicts" in network.trigger("policy_node/arm").message
        infos.publish(CameraInfo(height=8, width=8))
        unknown = "camera (camera_info: the camera is uncalibrated: expected focal lengths"
        network.until(lambda: unknown in network.trigger("policy_node/arm").message, 10, "another reason")
        infos.publish(camera_info(FITTING_PX))
        network.arm()


def test_matching_reliability_follows_the_publisher(network, tmp_path):
    process = start(network, tmp_path, image={"freeze_timeout_s": 0.0, "reliability": "match"}, arm_on_activate=True)
    executed = network.hear(JointState, "policy_node/executed")
    camera = Camera(network)
    with camera.running():
        network.until(lambda: executed, 10, "commands from a best-effort camera")
    camera.close()
    publisher = network.node.create_publisher(Image, "image", QoSProfile(depth=5))
    network.until(lambda: "subscribed reliable" in process.log, 10, "another subscription")
    fresh = Camera(network)
    network.until(lambda: publisher.get_subscription_count(), 10, "the match")

    def arm_again() -> bool:  # between the cameras there was none
        publisher.publish(fresh.message())
        return network.trigger("policy_node/arm").success

    network.until(arm_again, 10, "arming")
    start_s = time.monotonic()
    network.until(lambda: (publisher.publish(fresh.message()), executed.since(start_s))[1], 10, "a reliable camera's")
    infos = network.node.get_subscriptions_info_by_topic("/tested/image")
    assert [info.qos_profile.reliability for info in infos] == [ReliabilityPolicy.RELIABLE]


def test_a_turned_region_of_a_depth_image_becomes_the_policys_picture(network, tmp_path):
    image = {"freeze_timeout_s": 0.0, "roi": [4, 0, 8, 8], "rotate_deg": 90, "value_range": [0.0, 2.0]}
    start(network, tmp_path, image=image, arm_on_activate=True)
    executed = network.hear(JointState, "policy_node/executed")
    scores = network.hear(Float64, "policy_node/novelty")
    camera = Camera(network)

    def depth(message: Image) -> None:
        metres = np.full((8, 16), 9.0, np.float32)
        metres[:, 4:12] = 1.0 + 1 / 256
        message.width, message.encoding, message.step = 16, "32FC1", 64
        message.data = array.array("B", metres.tobytes())

    camera.change = depth
    with camera.running():
        position = network.until(lambda: executed, 10, "a command")[0][1].position
        network.until(lambda: scores, 10, "a novelty score")
    assert np.allclose(position, expected_values(128), atol=1e-5)


@pytest.mark.parametrize(("enable_required", "needs_arm"), [(False, ["stale"]), (True, [])])
def test_what_needs_arm_lists_is_what_only_arming_clears(network, tmp_path, enable_required, needs_arm):
    process = start(network, tmp_path, enable_required=enable_required)
    read, camera = state(network), Camera(network)
    deadman = Switch(network.node, "enable", True)
    deadman.start()
    try:
        with camera.running():
            network.arm()
            network.until(lambda: read()["armed"], 10, "~/state")
            assert read()["needs_arm"] == []
        network.until(lambda: read()["stop"] == "stale", 5, "a stop")
        assert read()["needs_arm"] == needs_arm
        assert ("or release and press enable" in process.log) is enable_required
        assert network.trigger("policy_node/disarm").success
        assert network.change(DEACTIVATE)
        network.until(lambda: read()["lifecycle"] == "inactive", 5, "~/state")
        network.until(lambda: read()["needs_arm"] == needs_arm, 5, "what it needs")
        assert network.change(ACTIVATE)
        with camera.running():
            deadman.say(False)
            time.sleep(0.8)
            deadman.say(True)
            if enable_required:
                network.until(lambda: read()["armed"], 5, "an edge that arms")
            time.sleep(0.5)
            assert read()["armed"] is enable_required
            network.arm()
            network.until(lambda: read()["armed"] and not read()["needs_arm"], 5, "~/state")
    finally:
        deadman.close()


def test_diagnostics_tell_the_robot_the_images_the_policy_and_the_commands(network, tmp_path):
    start(network, tmp_path, hardware_id="rover-7")
    read = state(network)
    heard = network.hear(DiagnosticArray, "/diagnostics")
    commands = network.hear(Twist, "cmd_vel")

    def newest() -> dict[str, Any]:
        return {status.name.partition(": ")[2]: status for status in heard[-1][1].status}

    with Camera(network).running():
        network.arm()
        network.until(lambda: commands, 10, "commands")
        count = len(heard)
        network.until(lambda: len(heard) > count + 2, 10, "diagnostics of a moving robot")
        found = newest()
    assert set(found) == {"safety", "images", "policy", "command"}
    assert {status.hardware_id for status in found.values()} == {"rover-7"}
    assert {name: status.level for name, status in found.items()} == dict.fromkeys(found, b"\x00")
    assert found["safety"].message == "armed"
    values = {pair.key: pair.value for pair in found["images"].values}
    assert 25 < float(values["rate (Hz)"]) < 35
    assert "/tested/test (sensor_msgs/msg/Image, best effort, volatile)" in values["publishers"]
    network.until(lambda: read()["armed"], 10, "~/state")
    assert read()["policy"]["name"] == "tiny"
    times_s = [at_s for at_s, _ in heard][-3:]
    assert np.diff(times_s).max() < 1.5, "once a second"
    network.until(lambda: newest()["images"].level == b"\x03", 5, "STALE")
    assert newest()["safety"].level == b"\x02"
    assert newest()["safety"].message.startswith("stopped: stale: no image for")
