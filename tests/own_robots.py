"""Robots of one's own, as a user would write them: a small arm in dm_control, with whatever a test needs to be odd."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sim_training.envs.rendering import choose_backend

choose_backend()

from dm_control import mujoco  # noqa: E402  (mujoco reads MUJOCO_GL when first imported)
from dm_control.rl import control  # noqa: E402
from dm_control.suite import base  # noqa: E402

JOINTS = ("shoulder", "elbow", "wrist")
CAMERAS = '<camera name="top" pos="0 0 3" fovy="30"/><camera name="gripper" pos="0 -3 1" euler="70 0 0" fovy="58"/>'
EPISODE_STEPS = 20


class Arm(base.Task):
    """Holds still for reward; what it says about itself is set from outside."""

    def initialize_episode(self, physics: mujoco.Physics) -> None:
        physics.data.qpos[:] = self.random.uniform(-0.1, 0.1, physics.model.nq)
        super().initialize_episode(physics)

    def get_observation(self, physics: mujoco.Physics) -> dict[str, np.ndarray]:
        return {"position": physics.position(), "velocity": physics.velocity()}

    def get_reward(self, physics: mujoco.Physics) -> float:
        return float(np.exp(-np.square(physics.velocity()).sum()))


class Exploding(Arm):
    """Its simulation becomes invalid in a step now and then: in each with probability `share`."""

    share = 0.1

    def before_step(self, action: np.ndarray, physics: mujoco.Physics) -> None:
        super().before_step(action, physics)
        if self.random.uniform() < self.share:
            physics.data.qvel[:] = 1e12


def actuators(count: int, limits: str = 'ctrlrange="-2 2"') -> str:
    return "".join(f'<motor name="{joint}_torque" joint="{joint}" {limits}/>' for joint in JOINTS[:count])


def xml(actuator: str, cameras: str = CAMERAS) -> str:
    """Three links in a chain."""
    inner = ""
    for joint in reversed(JOINTS):
        link = '<geom type="capsule" fromto="0 0 0 .3 0 0" size=".04" mass=".5" rgba=".8 .2 .1 1"/>'
        inner = f'<body pos=".3 0 0"><joint name="{joint}" axis="0 0 1" damping=".1"/>{link}{inner}</body>'
    world = f'<light pos="0 0 4"/><geom type="plane" size="3 3 .1" pos="0 0 -.5" rgba=".3 .4 .3 1"/>{cameras}{inner}'
    return f'<mujoco><option timestep="0.01"/><worldbody>{world}</worldbody><actuator>{actuator}</actuator></mujoco>'


def robot(
    actuator: str = actuators(2),
    *,
    cameras: str = CAMERAS,
    time_limit: float = EPISODE_STEPS * 0.05,
    task: type[base.Task] = Arm,
    **said: Any,
) -> Callable[..., control.Environment]:
    """A function for OWN_TASKS; `said` are attributes of its task."""

    def make(random: int | np.random.RandomState | None = None) -> control.Environment:
        own = task(random=random)
        for name, value in said.items():
            setattr(own, name, value)
        physics = mujoco.Physics.from_xml_string(xml(actuator, cameras))
        return control.Environment(physics, own, time_limit=time_limit, control_timestep=0.05)

    return make
