"""sim_robot_node over real ROS 2: the same episodes as in process, and a robot that stops by itself."""

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, Heard, Network
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool, Float64
from tiny_policy import SPEC, write_policy

pytest.importorskip("dm_control", reason="the extra `sim` is not installed: no simulated robot")
from sac_ae_ros.core.image import decode
from sac_ae_ros.nodes.convert import to_image, to_ns
from sim_training.envs.robot import RobotSim

SIZE = {"image_height": 48, "image_width": 64}
STEPS = 100
FAST = 10.0


class SimulatedRobot:
    def __init__(self, network: Network, **params: object) -> None:
        self.network = network
        self.rewards = network.hear(Float64, "reward")
        self.ends = network.hear(Bool, "episode_end")
        self.images = network.hear(Image, "image", depth=10)
        self.commands = network.node.create_publisher(Twist, "cmd_vel", 1)
        self.process = network.start("sim_robot_node", {**SIZE, **params})

    def episode(self, number: int) -> list[float]:
        """Rewards of the episode that ends with the end of this number."""
        ends = [at_s for at_s, _ in self.ends]
        return [message.data for at_s, message in self.rewards if ends[number - 1] < at_s <= ends[number]]

    def moves(self) -> bool:
        """Whether the last rewards differ, and not for an episode's end alone."""
        rewards = [message.data for _, message in self.rewards[-3:]]
        return len(rewards) == 3 and np.abs(np.diff(rewards)).min() > 1e-3

    def command(self, linear: float, angular: float) -> None:
        twist = Twist()
        twist.linear.x, twist.angular.z = linear, angular
        self.commands.publish(twist)


def in_process(seed: int, action: tuple[float, float] = (0.0, 0.0)) -> tuple[list[float], np.ndarray]:
    """The rewards of an episode under one action, and its first picture."""
    sim = RobotSim("rover/chase_ball", height=48, width=64)
    sim.reset(seed)
    first = sim.image()
    ticks = round(sim.control_timestep_s / sim.physics_timestep_s)
    rewards = []
    for _ in range(STEPS):
        sim.advance(np.array(action), ticks)
        rewards.append(sim.reward())
    sim.close()
    return rewards, first


def test_episodes_of_a_seed_are_those_in_process(network):
    infos, clock = network.hear(CameraInfo, "camera_info"), network.hear(Clock, "/clock")
    robot = SimulatedRobot(network, real_time_factor=FAST, episode_seed=3)
    network.until(lambda: robot.rewards, 20, "a reward")
    assert not network.set("sim_robot_node", episode_seed=41)
    answer = network.trigger("sim_robot_node/reset")
    assert answer.success
    assert "41" in answer.message
    border = len(robot.ends) - 1
    network.until(lambda: len(robot.ends) > border + 2, 20, "two episodes")
    for number, seed in ((1, 41), (2, 42)):
        assert robot.episode(border + number) == in_process(seed)[0]
    expected = in_process(41)[1].astype(int)
    differences = [np.abs(decode(to_image(image)) - expected).max() for image in _first_pictures(robot.images)]
    assert min(differences) <= 1, "the same picture, but for rounding"
    assert all(not end.data for _, end in robot.ends), "time limits"
    _check_camera(infos, robot.images)
    _check_stamps(clock, robot.images)
    assert "image_height" in network.set("sim_robot_node", image_height=50)
    robot.process.popen.send_signal(signal.SIGTERM)
    assert robot.process.wait() == 0
    assert "Traceback" not in robot.process.log


def _first_pictures(images: Heard) -> list[Image]:
    """Those before which the stamps jump, as they do between episodes; topics do not arrive in order."""
    pairs = pairwise(message for _, message in images)
    return [later for earlier, later in pairs if to_ns(later.header.stamp) - to_ns(earlier.header.stamp) > 900_000_000]


def _check_camera(infos: Heard, images: Heard) -> None:
    info = infos[-1][1]
    focal_px = 24 / np.tan(np.radians(75.0) / 2)
    assert (info.height, info.width) == (48, 64)
    assert np.allclose(info.k, [focal_px, 0, 32, 0, focal_px, 24, 0, 0, 1])
    assert {to_ns(image.header.stamp) for _, image in images} & {to_ns(info.header.stamp) for _, info in infos}


def _check_stamps(clock: Heard, images: Heard) -> None:
    times = [to_ns(message.clock) for _, message in clock]
    assert all(later >= earlier for earlier, later in pairwise(times))
    stamps = [to_ns(image.header.stamp) for _, image in images]
    assert all(later > earlier for earlier, later in pairwise(stamps))
    assert {round((later - earlier) / 1e6) for earlier, later in pairwise(stamps)} & {50}


def test_commands_move_it_and_their_end_stops_it(network):
    robot = SimulatedRobot(network, real_time_factor=2.0, episode_seed=5, command_timeout_s=0.5)
    network.until(lambda: robot.rewards, 20, "a reward")
    network.trigger("sim_robot_node/reset")
    start_s = time.monotonic()
    while time.monotonic() < start_s + 1.0:
        robot.command(0.6, 0.3)
        time.sleep(0.05)
    last_s = time.monotonic()
    network.until(lambda: "stopped: no command" in robot.process.log, 3, "the robot's own stop")
    assert time.monotonic() - last_s < 0.5 / 2.0 + 0.5
    time.sleep(0.5)
    rewards = [message.data for message in robot.rewards.since(start_s)]
    assert np.abs(np.diff(rewards[:8])).max() > 1e-3, "it moved"
    assert np.abs(np.diff(rewards[-4:])).max() < 1e-3, "it stands"
    assert robot.process.log.count("stopped: no command") == 1


def test_a_killed_policy_node_lets_the_robot_stop_by_its_own_timeout(network, tmp_path: Path):
    policy = write_policy(tmp_path / "tiny.onnx")
    params = {"policy": str(policy), "arm_on_activate": True, "use_sim_time": True}
    params["command"] = {"allow_publishers": ["/tested/test"]}
    robot = SimulatedRobot(network, real_time_factor=1.0)
    node = network.start("policy_node", params)
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(lambda: robot.moves(), 20, "a robot that moves")
    node.kill()
    killed_s = time.monotonic()
    network.until(lambda: "stopped: no command" in robot.process.log, 5, "the robot's own stop")
    assert time.monotonic() - killed_s < 0.5 + SPEC.control_period_s + 0.5


def test_a_task_that_is_unknown_ends_the_process_in_one_line(network):
    process = network.start("sim_robot_node", {"task": "rover/fly"})
    assert process.wait(20) == 2
    lines = [line for line in process.log.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "rover/fly" in lines[0]


def test_a_suite_task_takes_arrays(network):
    command = {"type": "std_msgs/msg/Float64MultiArray", "fields": ["data[0]"]}
    params = {**SIZE, "task": "cartpole/swingup", "command": command, "real_time_factor": FAST}
    rewards = network.hear(Float64, "reward")
    process = network.start("sim_robot_node", params)
    network.until(lambda: len(rewards) > 20, 20, "rewards")
    assert "Traceback" not in process.log


FAULTY = """
import own_robots
from sim_training.envs import tasks

class Silent(own_robots.Arm):
    def get_reward(self, physics):
        return None

tasks.OWN_TASKS["arm/hold"] = own_robots.robot(task=Silent)
"""


def test_a_task_without_a_reward_ends_the_node_with_one_line(network, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(map(str, (tmp_path, root / "tests", root)))
    robot = network.start("sim_robot_node", {**SIZE, "task": "arm/hold"}, PYTHONPATH=path)
    assert robot.wait(60) == 1
    assert "task arm/hold: expected a finite reward" in robot.log
    assert "got None 0.05 s into an episode; mend the task's get_reward" in robot.log
    assert "Traceback" not in robot.log
