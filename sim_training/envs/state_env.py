"""A task whose state is observed directly: the upper bound that pixels are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sim_training.envs.task_env import Numbers, TaskEnv


class StateEnv(TaskEnv):
    """Observations are the simulator's own numbers, float32 [D], in dm_control's order; see TaskEnv for the rest."""

    def __init__(self, task: str, *, action_repeat: int = 1) -> None:
        """Loads `task` ("domain/task").

        Raises:
            SimError: unknown task.
        """
        super().__init__(task, action_repeat=action_repeat)
        environment = self.task.env
        self._obs = np.zeros_like(flatten(environment.task.get_observation(environment.physics)))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, self._obs.shape, np.float32)

    @property
    def newest(self) -> NDArray[np.float32]:
        """The newest observation, float32 [D]; zeros before the first reset."""
        return self._obs

    def _restart(self, numbers: Numbers) -> NDArray[np.float32]:
        return self._observe(numbers)

    def _observe(self, numbers: Numbers) -> NDArray[np.float32]:
        self._obs = flatten(numbers)
        if not np.isfinite(self._obs).all():
            bad = next(name for name in numbers if not np.isfinite(flatten({name: numbers[name]})).all())
            raise SimError(
                f"task {self.task.name}: expected finite numbers of float32, got {bad} = {numbers[bad]};"
                " mend the task's get_observation"
            )
        return self._obs

    def _seen(self) -> dict[str, NDArray[Any]]:
        return {"obs": self._obs.copy()}

    def _see(self, seen: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        self._obs = seen["obs"].copy()
        return self._obs


def flatten(numbers: Numbers) -> NDArray[np.float32]:
    """Arrays and scalars by name, one after the other, float32 [D]; a scalar counts as one number."""
    return np.concatenate([np.ravel(np.asarray(value)) for value in numbers.values()]).astype(np.float32)
