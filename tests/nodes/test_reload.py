"""Hot reload over real ROS 2: what takes over, what is refused, and what a respawned node does."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_network import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Camera, Network
from std_msgs.msg import Bool, String
from tiny_policy import GAIN, SLOW_PIXEL, SPEC, expected_values, write_policy

from sac_ae_ros.core.model_store import ModelStore, to_json

PIXEL = 140


class Robot:
    """A node that moves, with a folder of versions."""

    def __init__(self, network: Network, folder: Path, **params: Any) -> None:
        self.network, self.folder = network, folder
        self.launched = write_policy(folder / "launched.onnx", slow=60)
        self.store = ModelStore(folder / "versions")
        settings = {"policy": str(self.launched), "policy_dir": str(folder / "versions"), "arm_on_activate": True}
        self.process = network.start(
            "policy_node", {**settings, "image": {"freeze_timeout_s": 0.0}, "novelty": {"every": 0}, **params}
        )
        self.camera = Camera(network)
        self.commands = network.hear(Twist, "cmd_vel")
        self.states = network.hear(String, "policy_node/state")

    def publish(self, **options: Any) -> Any:
        return self.store.publish(write_policy(self.folder / "new.onnx", **options).read_bytes(), "new.onnx")

    def moves_by(self, gain: float, since_s: float) -> bool:
        """Whether the newest command after then is that of a policy with this gain."""
        commands = self.commands.since(since_s)
        mean = 127.5 + (PIXEL - 127.5) * gain / GAIN
        return bool(commands) and abs(commands[-1].linear.x - expected_values(mean)[0]) < 1e-5

    def until_moves_by(self, gain: float) -> None:
        start_s = time.monotonic()
        self.network.until(lambda: self.moves_by(gain, start_s), 10, f"commands of gain {gain}")

    def state(self) -> dict[str, Any]:
        return json.loads(self.states[-1][1].data)


@pytest.fixture
def robot(network: Network, tmp_path: Path) -> Iterator[Robot]:
    robot = Robot(network, tmp_path)
    yield robot
    robot.camera.stop()


def start(robot: Robot) -> None:
    assert robot.network.change(CONFIGURE, ACTIVATE)
    robot.camera.start()
    robot.until_moves_by(GAIN)


def test_a_newer_version_takes_over_without_a_stop_and_can_be_rolled_back(robot):
    start(robot)
    nothing = robot.network.trigger("policy_node/reload")
    assert not nothing.success
    assert "publish a policy there first" in nothing.message
    robot.publish(gain=10.0)
    begun_s = time.monotonic()
    answer = robot.network.trigger("policy_node/reload")
    assert answer.success, answer.message
    assert "version 1 passed" in answer.message
    robot.until_moves_by(10.0)
    robot.network.until(lambda: robot.state()["stored_version"] == 1)
    assert robot.state()["armed"]
    back = robot.network.trigger("policy_node/rollback")
    assert back.success, back.message
    robot.until_moves_by(GAIN)
    assert not robot.network.trigger("policy_node/rollback").success
    assert not [twist for twist in robot.commands.since(begun_s) if twist == Twist()], "it never stopped"
    gaps_s = np.diff(robot.commands.times_since(begun_s))
    assert gaps_s.max() < 0.35, "nor did it stumble"


def test_an_announcement_loads_that_very_version_and_never_one_that_was_rolled_back(robot):
    start(robot)
    announcements = robot.network.node.create_publisher(String, "policy/latest", 1)
    robot.network.meet("policy_node")
    robot.network.until(announcements.get_subscription_count, 10, "the subscription")
    announced, _ = robot.publish(gain=10.0), robot.publish(gain=11.0)
    announcements.publish(String(data=to_json(announced)))
    robot.until_moves_by(10.0)
    assert robot.network.trigger("policy_node/rollback").success
    robot.until_moves_by(GAIN)
    announcements.publish(String(data=to_json(announced)))
    robot.network.until(lambda: "it was rolled back here" in robot.process.log, 5, "the refusal")
    for bad, says in (("no json", "expected"), (to_json(announced).replace("1", "7", 1), "version 7 refused")):
        announcements.publish(String(data=bad))
        robot.network.until(lambda says=says: says in robot.process.log, 5, says)
    robot.until_moves_by(GAIN)
    assert robot.network.trigger("policy_node/reload").success, "a person gets the newest"
    robot.until_moves_by(11.0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"gain": -GAIN}, "expected at most 0.5 off"),
        pytest.param({"spec": {"control_period_s": 0.2}}, "control_period_s", marks=pytest.mark.slow),
        pytest.param({"spec": {"actions": SPEC.actions[::-1]}}, "actions", marks=pytest.mark.slow),
        ({"slow_always": 6}, "expected most inferences within 50.0 ms"),
    ],
    ids=["acts too differently", "another period", "another order of actions", "too slow"],
)
def test_a_version_that_fails_its_checks_changes_nothing(robot, options, reason):
    robot.publish(**options)  # first, since it keeps this process's camera waiting
    start(robot)
    answer = robot.network.trigger("policy_node/reload")
    assert not answer.success
    assert reason in answer.message
    assert "the policy at start stays in use" in answer.message
    robot.until_moves_by(GAIN)
    robot.network.until(lambda: robot.state()["reload"] and not robot.state()["reload"]["ok"])


def test_a_version_can_wait_for_the_episodes_end(network, tmp_path):
    robot = Robot(network, tmp_path, reload={"swap": "episode_end"})
    ends = network.node.create_publisher(Bool, "episode_end", 10)
    start(robot)
    robot.network.meet("policy_node")
    robot.network.until(ends.get_subscription_count, 10, "the subscription")
    robot.publish(gain=10.0)
    assert network.trigger("policy_node/reload").success
    time.sleep(0.4)
    robot.until_moves_by(GAIN)
    ends.publish(Bool(data=False))
    robot.until_moves_by(10.0)
    robot.camera.stop()


def test_configured_anew_the_launched_policy_runs_and_the_newer_one_is_named(robot):
    robot.publish(gain=10.0)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    announcements = robot.network.node.create_publisher(String, "policy/latest", latched)
    announcements.publish(String(data=to_json(robot.store.latest())))
    start(robot)
    assert "policy_dir holds version 1" in robot.process.log
    robot.network.until(lambda: robot.state()["newer"] == 1)
    assert robot.network.trigger("policy_node/reload").success
    robot.until_moves_by(10.0)
    robot.network.until(lambda: robot.state()["newer"] is None)
    assert robot.network.change(DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE)
    robot.until_moves_by(GAIN)


def test_while_inactive_it_takes_over_at_once(robot):
    assert robot.network.change(CONFIGURE)
    robot.publish(gain=10.0)
    assert robot.network.trigger("policy_node/reload").success
    assert "now running policy" in robot.process.log
    assert robot.network.change(ACTIVATE)
    with robot.camera.running():
        robot.until_moves_by(10.0)


def test_without_a_policy_dir_reload_says_so(network, tmp_path):
    network.start("policy_node", {"policy": str(write_policy(tmp_path / "tiny.onnx"))})
    assert network.change(CONFIGURE)
    for service in ("reload", "rollback"):
        answer = network.trigger(f"policy_node/{service}")
        assert not answer.success
        assert "policy_dir" in answer.message


def test_a_stop_stays_latched_when_another_version_takes_over(robot):
    start(robot)
    robot.camera.pixel = SLOW_PIXEL
    robot.network.until(lambda: robot.state()["stop"] == "hung", 10, "a stop")
    robot.camera.pixel = PIXEL
    robot.network.until(lambda: not robot.state()["causes"], 10, "the end of the cause")
    robot.publish(gain=10.0)
    assert robot.network.trigger("policy_node/reload").success
    robot.network.until(lambda: robot.state()["stored_version"] == 1)
    taken_s = time.monotonic()
    time.sleep(0.5)
    assert not [twist for twist in robot.commands.since(taken_s) if twist != Twist()]
    assert robot.state()["stop"] == "hung"
