"""The parameter files of config/robots and of the simulation, as ROS reads them, and real nodes with them."""

import dataclasses
import re
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from geometry_msgs.msg import TwistStamped
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_network import ACTIVATE, CONFIGURE, Camera, Network
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from tiny_policy import SPEC, write_policy
from trajectory_msgs.msg import JointTrajectory

from sac_ae_ros.core.spec import ActionSpec
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.policy_params import PolicyParams

CONFIG = Path(__file__).resolve().parents[2] / "config"
FILES = [*sorted((CONFIG / "robots").glob("*.yaml")), CONFIG / "policy_sim.yaml", CONFIG / "policy.yaml"]
PERIOD_S = SPEC.control_period_s
SIX_JOINTS = tuple(ActionSpec(f"joint_{i}", "rad", -3.1, 3.1) for i in range(6))


def contents(file: Path) -> dict:
    return yaml.safe_load(file.read_text())["/**"]["ros__parameters"]


def names(values: dict, prefix: str = "") -> set[str]:
    nested = (
        names(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
        for name, value in values.items()
    )
    return set().union(*nested)


def as_ros_reads(file: Path | None) -> PolicyParams:
    arguments = ["--ros-args", "--params-file", str(file)] if file else []
    context = Context()
    rclpy.init(context=context, domain_id=98, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node("policy_node", context=context, cli_args=arguments)
        declare(node, PolicyParams)
        params = read(node, PolicyParams)
        node.destroy_node()
    finally:
        context.shutdown()
    return params


@pytest.fixture(autouse=True)
def on_this_machine_only(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path)
    yield network
    network.close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_name_in_the_file_is_a_parameter(file):
    declared = names(dataclasses.asdict(PolicyParams()))
    assert names(contents(file)) <= declared


def test_the_simulations_file_differs_from_the_defaults_where_it_must():
    params, default = as_ros_reads(CONFIG / "policy_sim.yaml"), as_ros_reads(None)
    assert (params.image.freeze_timeout_s, params.max_future_s, params.watchdog_timeout_s) == (0.0, 2.0, 10.0)
    assert params.image.min_rate_share == 0.0
    usual = {name: getattr(default.image, name) for name in ("freeze_timeout_s", "min_rate_share")}
    image = dataclasses.replace(params.image, **usual)
    same = {name: getattr(default, name) for name in ("max_future_s", "watchdog_timeout_s")}
    assert dataclasses.replace(params, image=image, **same) == default


def test_policy_yaml_holds_the_defaults():
    assert as_ros_reads(CONFIG / "policy.yaml") == as_ros_reads(None)


@pytest.mark.parametrize("name", ["diff_drive", "arm"])
def test_a_robot_moves_only_while_a_person_holds_the_deadman(name):
    params = as_ros_reads(CONFIG / "robots" / f"{name}.yaml")
    assert params.enable_required
    assert not params.arm_on_activate
    assert params.limits.max_slew
    assert params.limits.max_jerk


def test_the_base_drives_by_the_deadman(network, tmp_path):
    file = CONFIG / "robots" / "diff_drive.yaml"
    limits = contents(file)["limits"]
    policy = write_policy(tmp_path / "tiny.onnx")
    node = network.start("policy_node", {**contents(file), "policy": str(policy)})
    commands = network.hear(TwistStamped, "cmd_vel")
    enable = network.node.create_publisher(Bool, "enable", 10)
    assert network.change(CONFIGURE, ACTIVATE), node.log
    network.listened(node)
    refused = network.trigger("policy_node/arm")
    assert not refused.success
    assert "enable" in refused.message
    camera = Camera(network)
    camera.pixel = 250
    camera.change = noise
    with camera.running():
        network.until(enable.get_subscription_count)
        for _ in range(10):  # at a joystick's rate: only the newest message counts
            enable.publish(Bool(data=False))
            time.sleep(0.05)
        network.until(lambda: hold(enable) and commands, what="commands")
        network.until(lambda: hold(enable) and len(commands) > 10)
        network.until(lambda: re.search("stopped: enable: .*silent.*or release and press enable", node.log))
        network.until(lambda: commands[-1][1].twist.linear.x == 0, what="the stop once nobody holds the deadman")
    speeds = np.array([[each.twist.linear.x, each.twist.angular.z] for _, each in list(commands)])
    assert commands[0][1].header.frame_id == "base_link"
    assert (speeds >= limits["low"]).all()
    assert (speeds <= limits["high"]).all()
    assert np.abs(speeds[0]).max() <= limits["max_slew"][1] * PERIOD_S + 1e-9


def test_the_arm_starts_where_it_is_and_holds_there(network, tmp_path):
    file = CONFIG / "robots" / "arm.yaml"
    params = contents(file)
    joints, limits = params["command"]["joints"], params["limits"]
    policy = write_policy(tmp_path / "tiny.onnx", spec={"actions": SIX_JOINTS})
    # the tiny camera publishes no camera_info
    node = network.start("policy_node", {**params, "camera_info": {"check": "off"}, "policy": str(policy)})
    commands = network.hear(JointTrajectory, "cmd_vel")
    publishers = {name: network.node.create_publisher(Bool, name, 10) for name in ("enable", "e_stop")}
    states = network.node.create_publisher(JointState, "joint_states", 10)
    measured = [(low + high) / 2 for low, high in zip(limits["low"], limits["high"], strict=True)]

    def live(enabled: bool = True) -> bool:
        states.publish(JointState(name=joints, position=measured))
        publishers["e_stop"].publish(Bool(data=False))
        publishers["enable"].publish(Bool(data=enabled))
        return True

    assert network.change(CONFIGURE, ACTIVATE), node.log
    network.listened(node)
    refused = network.trigger("policy_node/arm").message
    assert all(cause in refused for cause in ("enable", "e_stop", "joints"))
    camera = Camera(network)
    camera.pixel = 250
    camera.change = noise
    with camera.running():
        network.until(lambda: all(each.get_subscription_count() for each in (*publishers.values(), states)))
        for _ in range(10):
            live(False)
            time.sleep(0.05)
        assert not network.trigger("policy_node/arm").success
        network.until(lambda: live() and commands, what="commands")
        network.until(lambda: live() and len(commands) > 5)
        first = commands[0][1]
        publishers["e_stop"].publish(Bool(data=True))
        network.until(lambda: list(commands[-1][1].points[0].positions) == measured, what="the stop")
    assert list(first.joint_names) == joints
    assert (first.points[0].time_from_start.nanosec, first.points[0].time_from_start.sec) == (100_000_000, 0)
    way = np.abs(np.array(first.points[0].positions) - measured)
    assert way.max() > 0
    assert (way <= np.array(limits["max_slew"]) * PERIOD_S + 1e-9).all()


def hold(enable) -> bool:
    enable.publish(Bool(data=True))
    return True


def noise(image) -> None:
    """A real camera's: no two images are the same."""
    image.data[0] = image.header.stamp.nanosec // 1_000_000 % 256


def test_the_deadman_is_one_button_everywhere():
    root = CONFIG.parent
    pages = [*root.glob("docs/*.md"), *root.glob("config/**/*.yaml"), root / "README.md"]
    buttons = {number for page in pages for number in re.findall(r"buttons\[(\d+)\]", page.read_text())}
    assert buttons == {"9"}
