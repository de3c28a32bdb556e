"""A task whose state is observed directly: the upper bound that pixels are compared with."""

from __future__ import annotations

import reprlib
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
            SimError: unknown task, or its observation is no mapping from names to numbers.
        """
        super().__init__(task, action_repeat=action_repeat)
        environment = self.task.env
        self._obs = np.zeros_like(self._flat(environment.task.get_observation(environment.physics)))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, self._obs.shape, np.float32)

    @property
    def newest(self) -> NDArray[np.float32]:
        """The newest observation, float32 [D]; zeros before the first reset."""
        return self._obs

    def _restart(self, numbers: Numbers) -> NDArray[np.float32]:
        return self._observe(numbers)

    def _observe(self, numbers: Numbers) -> NDArray[np.float32]:
        before, self._obs = self._obs, self._flat(numbers)
        if self._obs.shape != before.shape:
            raise self._refusal(f"{len(before)} numbers, as before", str(len(self._obs)))
        if not np.isfinite(self._obs).all():
            bad = next(name for name in numbers if not np.isfinite(flatten({name: numbers[name]})).all())
            raise self._refusal("finite numbers of float32", f"{bad} = {numbers[bad]}")
        return self._obs

    def _flat(self, numbers: object) -> NDArray[np.float32]:
        """`flatten` of what the task's get_observation gave.

        Raises:
            SimError: it is no mapping from names to real numbers, or has none.
        """
        if not isinstance(numbers, Mapping):
            raise self._refusal("a mapping from names to numbers", type(numbers).__name__)
        for name, value in numbers.items():
            try:
                kind = np.asarray(value).dtype.kind
            except ValueError:  # ragged lists
                kind = "O"
            if kind not in "biuf":
                raise self._refusal("real numbers", f"{name} = {reprlib.repr(value)}")
        flat = flatten(numbers) if numbers else np.zeros(0, np.float32)
        if not flat.size:
            raise self._refusal("one number or more", "none")
        return flat

    def _refusal(self, expected: str, came: str) -> SimError:
        return SimError(f"task {self.task.name}: expected {expected}, got {came}; mend the task's get_observation")

    def _seen(self) -> dict[str, NDArray[Any]]:
        return {"obs": self._obs.copy()}

    def _see(self, seen: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        self._obs = seen["obs"].copy()
        return self._obs


def flatten(numbers: Numbers) -> NDArray[np.float32]:
    """Arrays and scalars by name, one after the other, float32 [D]; a scalar counts as one number."""
    with np.errstate(over="ignore"):  # an infinite one is refused by name
        return np.concatenate([np.ravel(np.asarray(value)) for value in numbers.values()]).astype(np.float32)
