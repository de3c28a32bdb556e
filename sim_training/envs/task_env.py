"""Any task as a Gymnasium environment; what is observed is left to subclasses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sim_training.envs import tasks

Numbers = Mapping[str, Any]  # dm_control's observation: arrays and scalars by name


class TaskEnv(gymnasium.Env[NDArray[Any], NDArray[np.floating]]):
    """Actions are physical, float32 [A]; observations are a subclass's.

    One step repeats its action `action_repeat` times and sums the rewards. Time limits truncate; only the task's
    own endings terminate. `info` has "env_steps", the number of simulator control steps that the step took.
    """

    def __init__(self, task: str, *, action_repeat: int = 1) -> None:
        """Loads `task` ("domain/task").

        Raises:
            SimError: unknown task.
        """
        self.task = tasks.load(task)
        self.action_repeat = action_repeat
        low, high = self.task.low.astype(np.float32), self.task.high.astype(np.float32)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    @property
    @abstractmethod
    def newest(self) -> NDArray[Any]:
        """What a replay slot stores of the newest observation; zeros before the first reset."""

    @abstractmethod
    def _restart(self, numbers: Numbers) -> NDArray[Any]:
        """The first observation of an episode."""

    @abstractmethod
    def _observe(self, numbers: Numbers) -> NDArray[Any]:
        """A later observation."""

    @property
    def control_period_s(self) -> float:
        """Seconds of simulation in one step."""
        return self.task.control_timestep_s * self.action_repeat

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts an episode; with a seed, it depends on the seed alone."""
        super().reset(seed=seed)
        if seed is not None:
            self.task.seed(seed)
        return self._restart(self.task.env.reset().observation), {"env_steps": 0}

    def step(self, action: NDArray[np.floating]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Takes a physical action, float [A]."""
        reward, env_steps = 0.0, 0
        for _ in range(self.action_repeat):
            timestep = self.task.env.step(np.asarray(action, np.float64))
            reward += float(timestep.reward or 0.0)
            env_steps += 1
            if timestep.last():
                break
        terminated = bool(timestep.last() and timestep.discount == 0)
        truncated = bool(timestep.last() and not terminated)
        return self._observe(timestep.observation), reward, terminated, truncated, {"env_steps": env_steps}
