"""RobotSim: a task advanced in physics ticks, for a robot whose camera and commands have rates of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.spec import ActionSpec
from sim_training.envs import tasks
from sim_training.envs.rendering import make_renderer


class RobotSim:
    """A dm_control task without its clockwork: the caller decides how many physics ticks pass."""

    def __init__(self, task: str, *, height: int, width: int, renderer: str = "fast") -> None:
        """Loads `task` ("domain/task") with a camera of height x width pixels.

        Raises:
            SimError: unknown task or renderer, or no rendering on this machine.
        """
        self._task = tasks.load(task)
        self._physics = self._task.env.physics
        self._renderer = make_renderer(renderer, self._physics, self._task.camera, height, width)
        self.actions: tuple[ActionSpec, ...] = self._task.actions
        self.control_timestep_s = self._task.control_timestep_s
        self.physics_timestep_s = self._task.physics_timestep_s
        self.episode_steps = self._task.episode_steps
        self.fovy_deg = self._task.fovy_deg

    def reset(self, seed: int) -> None:
        """Starts the episode of this seed, the same as PixelEnv.reset(seed=seed).

        Raises:
            SimError: the simulation diverged in every one of tasks.MAX_STARTS placements.
        """
        self._task.seed(seed)
        self._task.start()
        self._renderer.restart()

    def advance(self, action: NDArray[np.float64], ticks: int) -> None:
        """Lets `ticks` physics steps pass under a physical action, float64 [A], clipped to the task's range.

        Raises:
            SimError: the simulation has become invalid; `reset` starts another episode.
        """
        self._task.env.task.before_step(np.clip(action, self._task.low, self._task.high), self._physics)
        try:
            self._physics.step(ticks)
        except tasks.PhysicsError as error:
            raise SimError(f"simulation of {self._task.name}: {error}") from None
        self._task.env.task.after_step(self._physics)

    def image(self) -> NDArray[np.uint8]:
        """The camera's picture of this moment, uint8 RGB [height, width, 3]."""
        return self._renderer.render()

    def reward(self) -> float:
        """The task's reward of this moment; an episode's return adds one for each control step.

        Raises:
            SimError: it is none that `tasks` admits.
        """
        return self._task.reward(self._task.env.task.get_reward(self._physics))

    def terminated(self) -> bool:
        """Whether the task ended by itself, time limits aside.

        Raises:
            SimError: its discount is none that `tasks` admits.
        """
        came = self._task.env.task.get_termination(self._physics)
        if came is not None:
            self._task.discount(came)
        return came is not None

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()
