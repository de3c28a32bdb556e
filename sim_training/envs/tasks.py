"""`domain/task` names to dm_control environments: our own robots first, then the suite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.spec import ActionSpec
from sim_training.envs.rendering import choose_backend

choose_backend()

from dm_control import mujoco, suite  # noqa: E402  (mujoco reads MUJOCO_GL when first imported)
from dm_control.rl import control  # noqa: E402

from sim_training.envs import rover  # noqa: E402

OWN_TASKS = {"rover/chase_ball": rover.chase_ball}


@dataclass(frozen=True)
class Task:
    """One loaded task and what a robot's contract needs to know of it; times in seconds."""

    name: str
    env: control.Environment
    actions: tuple[ActionSpec, ...]
    camera: int
    control_timestep_s: float
    physics_timestep_s: float
    episode_steps: int
    fovy_deg: float

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower limits of the actions, float64 [A]."""
        return np.array([action.low for action in self.actions])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper limits of the actions, float64 [A]."""
        return np.array([action.high for action in self.actions])

    def seed(self, seed: int) -> None:
        """Makes the next reset depend on `seed` alone."""
        self.env.task._random = np.random.RandomState(seed % 2**32)  # the suite has no public way


def task_names() -> list[str]:
    """Every `domain/task` that `load` knows."""
    endless = {"lqr"}  # episodes without a time limit, which no return can be taken over
    return [*OWN_TASKS, *(f"{domain}/{task}" for domain, task in suite.ALL_TASKS if domain not in endless)]


def load(name: str, seed: int = 0) -> Task:
    """Loads a task.

    Raises:
        SimError: no task of that name.
    """
    if name not in task_names():
        raise SimError(f"task: expected `domain/task` such as {', '.join(task_names()[:3])}; got {name!r}")
    domain, task = name.split("/")
    if name in OWN_TASKS:
        env = OWN_TASKS[name](random=seed)
        camera = env.physics.model.name2id("front", "camera")
        named = list(zip(rover.ACTION_NAMES, rover.ACTION_UNITS, strict=True))
    else:
        env = suite.load(domain, task, task_kwargs={"random": seed})
        if env.physics.model.nhfield:
            _disown_contexts(env.physics)
        camera = 2 if domain == "quadruped" else 0  # as in the published pixel results
        named = [(f"action_{i}", "1") for i in range(env.action_spec().shape[0])]
    spec = env.action_spec()
    lows, highs = np.broadcast_to(spec.minimum, spec.shape), np.broadcast_to(spec.maximum, spec.shape)
    actions = tuple(
        ActionSpec(label, unit, float(low), float(high))
        for (label, unit), low, high in zip(named, lows, highs, strict=True)
    )
    return Task(
        name=name,
        env=env,
        actions=actions,
        camera=camera,
        control_timestep_s=float(env.control_timestep()),
        physics_timestep_s=float(env.physics.timestep()),
        episode_steps=round(env._step_limit),  # likewise private
        fovy_deg=float(env.physics.model.cam_fovy[camera]),
    )


def _disown_contexts(physics: mujoco.Physics) -> None:
    """Hides dm_control's own OpenGL context from a physics.

    With terrain, every reset would make one and copy the terrain into whichever context is current, be it another
    environment's.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})
