"""rover/chase_ball: a differential-drive robot that turns to and drives at a red ball, seen by its camera.

Actions are what a robot's base takes (geometry_msgs/Twist, REP 103): linear velocity in m/s along x, angular
velocity in rad/s about z.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite import base
from dm_env import specs
from numpy.typing import NDArray

CONTROL_TIMESTEP_S = 0.1
EPISODE_STEPS = 100
ACTION_NAMES = ("linear", "angular")
ACTION_UNITS = ("m/s", "rad/s")
ACTION_LOW = (-0.2, -1.5)
ACTION_HIGH = (0.6, 1.5)
WHEEL_RADIUS_M = 0.06
TRACK_WIDTH_M = 0.26
BALL_RADIUS_M = 0.15
BALL_DISTANCE_M = (1.2, 3.0)
BALL_BEARING_RAD = 1.6


class RoverPhysics(mujoco.Physics):
    """The rover and the ball, in SI units."""

    def ball_in_rover_frame(self) -> NDArray[np.float64]:
        """Horizontal position of the ball's centre from the rover's, [2]: x forward, y left, metres."""
        offset = self.named.data.xpos["ball"][:2] - self.named.data.xpos["rover"][:2]
        heading = self.named.data.xmat["rover"].reshape(3, 3)[:2, 0]
        heading = heading / np.linalg.norm(heading)
        left = np.array([-heading[1], heading[0]])
        return np.array([offset @ heading, offset @ left])

    def velocity(self) -> NDArray[np.float64]:
        """The rover's measured forward velocity (m/s) and yaw rate (rad/s), [2]."""
        yaw = math.atan2(*self.named.data.xmat["rover"].reshape(3, 3)[1::-1, 0])
        qvel = self.named.data.qvel["root"]
        return np.array([qvel[0] * math.cos(yaw) + qvel[1] * math.sin(yaw), qvel[5]])


class ChaseBall(base.Task):
    """Reward per step: f/2 + f/2 * exp(-max(0, d - 0.4)), f = exp(-(bearing/0.5)^2), d in metres; at most 1."""

    action_units = ACTION_UNITS
    camera = "front"

    def action_spec(self, physics: RoverPhysics) -> specs.BoundedArray:
        """Linear and angular velocity, [2], in m/s and rad/s."""
        return specs.BoundedArray((2,), np.float64, ACTION_LOW, ACTION_HIGH, name="\t".join(ACTION_NAMES))

    def initialize_episode(self, physics: RoverPhysics) -> None:
        """Puts the rover at a random place and heading, and the ball 1.2 to 3 m away within +-1.6 rad."""
        x, y = self.random.uniform(-1, 1, 2)
        yaw = self.random.uniform(-math.pi, math.pi)
        distance = self.random.uniform(*BALL_DISTANCE_M)
        bearing = yaw + self.random.uniform(-BALL_BEARING_RAD, BALL_BEARING_RAD)
        physics.named.data.qpos["root"][:] = [x, y, WHEEL_RADIUS_M, math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
        ball = [x + distance * math.cos(bearing), y + distance * math.sin(bearing), BALL_RADIUS_M]
        physics.named.data.mocap_pos["ball"] = ball
        super().initialize_episode(physics)

    def before_step(self, action: NDArray[np.float64], physics: RoverPhysics) -> None:
        """Turns the base's velocities into wheel speeds, rad/s."""
        linear, angular = np.clip(action, ACTION_LOW, ACTION_HIGH)
        difference = angular * TRACK_WIDTH_M / 2
        physics.set_control(np.array([linear - difference, linear + difference]) / WHEEL_RADIUS_M)

    def get_observation(self, physics: RoverPhysics) -> OrderedDict[str, NDArray[np.float64]]:
        """The true state, for judging only: pixel policies never see it."""
        return OrderedDict(ball=physics.ball_in_rover_frame(), velocity=physics.velocity())

    def get_reward(self, physics: RoverPhysics) -> float:
        """The reward of this instant, 0..1."""
        forward, left = physics.ball_in_rover_frame()
        facing = math.exp(-((math.atan2(left, forward) / 0.5) ** 2))
        return 0.5 * facing + 0.5 * facing * math.exp(-max(0.0, math.hypot(forward, left) - 0.4))


def chase_ball(random: int | np.random.RandomState | None = None) -> control.Environment:
    """The task as a dm_control environment: 10 Hz, 100 steps; `random` seeds the placement."""
    physics = RoverPhysics.from_xml_path(str(Path(__file__).with_name("rover.xml")))
    return control.Environment(
        physics,
        ChaseBall(random=random),
        time_limit=EPISODE_STEPS * CONTROL_TIMESTEP_S,
        control_timestep=CONTROL_TIMESTEP_S,
    )
