"""Any task as a Gymnasium environment; what is observed is left to subclasses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.spec import MAX_PERIOD_S, MIN_PERIOD_S
from sim_training.envs import tasks
from sim_training.envs.tasks import PhysicsError

Numbers = Mapping[str, Any]  # dm_control's observation: arrays and scalars by name


class TaskEnv(gymnasium.Env[NDArray[Any], NDArray[np.floating]]):
    """Actions are physical, float32 [A]; observations are a subclass's.

    One step repeats its action `action_repeat` times and sums the rewards. Time limits truncate; only the task's
    own endings terminate. `info` has "env_steps", the number of simulator control steps that the step took, and
    "diverged": whether the simulation became invalid (dm_control's PhysicsError). Such a step truncates the episode,
    gives no reward, and repeats the last observation.
    """

    def __init__(self, task: str, *, action_repeat: int = 1) -> None:
        """Loads `task` ("domain/task").

        Raises:
            SimError: unknown task, or an action_repeat that its episodes or a policy's contract have no room for.
        """
        self.task = tasks.load(task)
        self.action_repeat = action_repeat
        self._require_timing()
        low, high = self.task.low.astype(np.float32), self.task.high.astype(np.float32)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self._obs: NDArray[Any]  # the newest observation, of a subclass's space
        self._start_random: NDArray[np.float64] | None = None  # the task's, from which the last reset drew

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

    @abstractmethod
    def _seen(self) -> dict[str, NDArray[Any]]:
        """What later observations, `newest` and `render` take from earlier moments, for a snapshot."""

    @abstractmethod
    def _see(self, seen: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Takes over what `_seen` gave; returns the observation of that moment."""

    @property
    def control_period_s(self) -> float:
        """Seconds of simulation in one step."""
        return self.task.control_timestep_s * self.action_repeat

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts an episode; with a seed, it depends on the seed alone.

        Raises:
            SimError: the simulation diverged in every one of tasks.MAX_STARTS placements.
        """
        super().reset(seed=seed)
        if seed is not None:
            self.task.seed(seed)
        return self._restart(self._begin()), {"env_steps": 0, "diverged": False}

    def step(self, action: NDArray[np.floating]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Takes a physical action, float [A].

        Raises:
            SimError: no episode is under way, or the task's reward or discount is none that `tasks` admits.
        """
        if self.task.env._reset_next_step:  # dm_control would start an episode by itself
            raise SimError("step: expected an episode under way, got none or one that is over; call reset first")
        reward, env_steps = 0.0, 0
        for _ in range(self.action_repeat):
            env_steps += 1
            try:
                timestep = self.task.env.step(np.asarray(action, np.float64))
            except PhysicsError:
                self.task.env._reset_next_step = True
                return self._obs, 0.0, False, True, {"env_steps": env_steps, "diverged": True}
            reward += self.task.reward(timestep.reward)
            discount = self.task.discount(timestep.discount)
            if timestep.last():
                break
        terminated = bool(timestep.last() and discount == 0)
        truncated = bool(timestep.last() and not terminated)
        info = {"env_steps": env_steps, "diverged": False}
        return self._observe(timestep.observation), reward, terminated, truncated, info

    def _require_timing(self) -> None:
        if self.action_repeat > self.task.episode_steps:
            raise SimError(
                f"env.action_repeat: expected at most {self.task.episode_steps}, the control steps of an episode of"
                f" {self.task.name}, got {self.action_repeat}"
            )
        if not MIN_PERIOD_S <= self.control_period_s <= MAX_PERIOD_S:
            raise SimError(
                f"env.action_repeat: expected a policy period of {MIN_PERIOD_S:g}..{MAX_PERIOD_S:g} s, got"
                f" {self.control_period_s:g} s: {self.action_repeat} control steps of {self.task.name}"
            )

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """All that the future depends on, for `restore`; arrays without objects, as np.savez wants them.

        Raises:
            SimError: there was no reset yet.
        """
        if self._start_random is None:
            raise SimError("snapshot: expected an episode under way, got none yet; call reset first")
        environment = self.task.env
        return {
            "task": np.array(self.task.name),
            "start_random": self._start_random,
            "random": self._random(),
            "physics": environment.physics.get_state(_physics_state()),
            "clock": np.array([environment._step_count, environment._reset_next_step], np.int64),
            **self._seen(),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Goes on where `snapshot` was taken, bit for bit, also in another process; returns that moment's observation.

        The environment must have been made as the one of the snapshot was.

        Raises:
            SimError: the snapshot is of another task or of an environment made otherwise.
        """
        self.reset()
        _require_fit(snapshot, self.snapshot())
        self._set_random(snapshot["start_random"])
        self._begin()  # a reset changes the model too, such as a target's place: have it done again
        environment = self.task.env
        environment.physics.set_state(snapshot["physics"], _physics_state())
        environment.physics.forward()  # a step begins with what the last one derived from positions and velocities
        environment._step_count = int(snapshot["clock"][0])
        environment._reset_next_step = bool(snapshot["clock"][1])
        self._set_random(snapshot["random"])
        return self._see(snapshot)

    def _begin(self) -> Numbers:
        """Has dm_control start an episode."""

        def remember() -> None:
            self._start_random = self._random()

        return self.task.start(remember)

    def _random(self) -> NDArray[np.float64]:
        """State of the task's generator, float64 [627]: MT19937's 624 words, its place in them, a spare Gaussian."""
        _, words, *rest = self.task.env.task.random.get_state()
        return np.array([*words, *rest], np.float64)

    def _set_random(self, state: NDArray[np.float64]) -> None:
        words, (place, has_spare, spare) = state[:-3].astype(np.uint32), state[-3:]
        self.task.env.task.random.set_state(("MT19937", words, int(place), int(has_spare), float(spare)))


def _physics_state() -> int:
    """Which of MuJoCo's numbers a step starts from: time, positions, velocities, activations, controls, mocap bodies,
    and what the constraint solver starts its search from."""
    import mujoco  # which reads MUJOCO_GL when first imported, and tasks sets that

    return int(mujoco.mjtState.mjSTATE_INTEGRATION)


def _require_fit(snapshot: Mapping[str, NDArray[Any]], own: Mapping[str, NDArray[Any]]) -> None:
    task = snapshot.get("task")
    if str(task) != str(own["task"]):
        raise SimError(f"snapshot: expected one of {own['task']}, got one of {task}; make the environment of that task")
    for key, mine in own.items():
        expected, came = ((array.dtype.str, array.shape) for array in (mine, np.asarray(snapshot.get(key))))
        if expected != came:
            raise SimError(f"snapshot: expected {key} {expected}, got {came}; make the environment as its own was made")
