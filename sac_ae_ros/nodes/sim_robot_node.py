"""sim_robot_node: a dm_control robot behind ROS topics; docs/ros.md has its interface."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool, Float64, Header
from std_srvs.srv import Trigger

from sac_ae_ros.core.errors import ConfigError, SimError
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.convert import from_ns, from_rgb
from sac_ae_ros.nodes.mapping import CommandMapping
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.sim_loop import TICK_NS, SimLoop
from sac_ae_ros.nodes.sim_params import SimParams

MAX_LAG_S = 0.1  # of real time; what is later than that is given up, so that a slow machine stays steady
MIN_TIMER_S = 0.005
CATCH_UP = 3  # times the wanted speed, at most, so that commands are heard between ticks
REPORT_EVERY_S = 10.0
ENOUGH = 0.95
LOG_EVERY_S = 2.0
ALL_OF_THEM = QoSProfile(depth=1000)
NEWEST = QoSProfile(depth=1)


class SimRobotNode(Node):
    """Publishes what a real robot would, takes its commands, and scores it."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Loads the task and starts its first episode.

        `arguments`: the process's command line.

        Raises:
            SacAeError: unknown parameters or task, no rendering here, or a command mapping that does not fit the task.
        """
        super().__init__("sim_robot_node")
        declare(self, SimParams, arguments=arguments)
        self._params = params = read(self, SimParams)
        sim = _make_sim(params)
        self._sim = sim
        heard = CommandParams(**asdict(params.command))
        self._mapping = CommandMapping(heard, [action.name for action in sim.actions])
        self._images = self.create_publisher(Image, "image", NEWEST)
        self._camera_infos = self.create_publisher(CameraInfo, "camera_info", NEWEST)
        self._rewards = self.create_publisher(Float64, "reward", ALL_OF_THEM)
        self._episode_ends = self.create_publisher(Bool, "episode_end", ALL_OF_THEM)
        self._clock_pub = self.create_publisher(ClockMsg, "/clock", NEWEST) if params.publish_clock else None
        self._camera_info = _camera_info(params.image_height, params.image_width, sim.fovy_deg)
        self._loop = SimLoop(
            sim,
            self,
            camera_rate_hz=params.camera_rate_hz,
            command_timeout_s=params.command_timeout_s,
            auto_reset=params.auto_reset,
            seed=params.episode_seed,
        )
        self._pace = _Pace(params.real_time_factor)
        self.create_subscription(self._mapping.message_class, "cmd_vel", self._on_command, NEWEST)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.add_post_set_parameters_callback(self._on_parameters)
        period_s = max(MIN_TIMER_S, TICK_NS * 1e-9 / params.real_time_factor)
        self._most_ticks = math.ceil(CATCH_UP * period_s * params.real_time_factor / (TICK_NS * 1e-9))
        self.create_timer(period_s, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"{params.task}: episode with seed {params.episode_seed} begins")

    def on_image(self, rgb: NDArray[np.uint8], stamp_ns: int) -> None:
        """Publishes a picture and the camera's optics."""
        header = Header(stamp=from_ns(stamp_ns), frame_id=self._params.camera_frame_id)
        self._publish_clock()
        self._images.publish(from_rgb(rgb, header))
        self._camera_info.header = header
        self._camera_infos.publish(self._camera_info)

    def on_reward(self, reward: float) -> None:
        """Publishes a control step's reward."""
        self._rewards.publish(Float64(data=reward))

    def on_episode_end(self, terminated: bool) -> None:
        """Publishes the border between two episodes."""
        self._episode_ends.publish(Bool(data=terminated))

    def on_command_timeout(self) -> None:
        """Says that the robot stopped by itself."""
        self.get_logger().warning(f"stopped: no command for {self._params.command_timeout_s:g} s of simulated time")

    def close(self) -> None:
        """Frees the renderer, before the process ends."""
        self._sim.close()

    def _on_timer(self) -> None:
        episodes = self._loop.episodes
        for _ in range(min(self._pace.ticks(), self._most_ticks)):
            self._pace.passed(self._loop.tick())
            if self._loop.episodes != episodes:  # a reset takes long: the new episode owes no time for it
                self._pace.restart()
                break
        self._publish_clock()
        factor = self._pace.too_slow()
        if factor is not None:
            self.get_logger().warning(
                f"real_time_factor: expected {self._params.real_time_factor:g}, got {factor:.2f};"
                " this machine cannot do more"
            )

    def _on_command(self, message: Any) -> None:
        try:
            values = self._mapping.values(message)
        except ConfigError as error:
            self.get_logger().warning(f"command not used: {error}", throttle_duration_sec=LOG_EVERY_S)
            return
        self._loop.command(values)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        seed = read(self, SimParams).episode_seed
        self._loop.restart(seed)
        self._pace.restart()
        response.success, response.message = True, f"episode with seed {seed} begins"
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "episode_seed":
                self._loop.next_seed = parameter.value

    def _publish_clock(self) -> None:
        if self._clock_pub is not None:
            self._clock_pub.publish(ClockMsg(clock=from_ns(self._loop.time_ns)))


class _Pace:
    """How many ticks are due by the steady clock, and whether the machine keeps up."""

    def __init__(self, real_time_factor: float) -> None:
        self._factor = real_time_factor
        self._start_s = self._report_s = time.monotonic()
        self._passed_s = self._reported_s = 0.0  # simulated

    def restart(self) -> None:
        """Forgives what is late."""
        self._start_s = time.monotonic() - self._passed_s / self._factor

    def ticks(self) -> int:
        """The ticks that are due now."""
        now_s = time.monotonic()
        lag_s = now_s - self._start_s - self._passed_s / self._factor
        if lag_s > MAX_LAG_S:
            self._start_s += lag_s - MAX_LAG_S
            lag_s = MAX_LAG_S
        return int(lag_s * self._factor * 1e9 / TICK_NS)

    def passed(self, simulated_ns: int) -> None:
        """Notes what a tick took."""
        self._passed_s += simulated_ns * 1e-9

    def too_slow(self) -> float | None:
        """From time to time, the factor that was reached if it was not enough."""
        now_s = time.monotonic()
        if now_s - self._report_s < REPORT_EVERY_S:
            return None
        reached = (self._passed_s - self._reported_s) / (now_s - self._report_s)
        self._report_s, self._reported_s = now_s, self._passed_s
        return reached if reached < ENOUGH * self._factor else None


def _make_sim(params: SimParams) -> Any:
    try:
        from sim_training.envs.robot import RobotSim
    except ImportError as error:
        raise ConfigError(f"simulation: expected dm_control and mujoco, got {error}; install the extra `sim`") from None
    return RobotSim(params.task, height=params.image_height, width=params.image_width, renderer=params.renderer)


def _camera_info(height: int, width: int, fovy_deg: float) -> CameraInfo:
    """An ideal pinhole camera with square pixels, its axis through the image's centre."""
    focal_px = height / 2 / math.tan(math.radians(fovy_deg) / 2)
    k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5, k=k, r=r, p=p)


def _use(node: SimRobotNode, end: process.EndRequest) -> int:
    """Spins in the main thread, which the renderer belongs to; 1 if the task turns out to be faulty."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        while not end.wait(0):
            executor.spin_once(timeout_sec=0.1)
    except SimError as error:
        node.get_logger().fatal(str(error))
        code = 1
    executor.shutdown()
    node.close()
    return code


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until a signal asks for its end; returns the process's exit code."""
    return process.run(SimRobotNode, _use, args)


if __name__ == "__main__":
    raise SystemExit(main())
