"""Steps environments for the trainer: one in lockstep with the learner, or several in processes of their own.

Both are used alike: `begin` hands over actions, `finish` brings what came of them. In lockstep `finish` simulates and
draws; side by side that happens in the processes meanwhile.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sim_training.config import EnvConfig
from sim_training.envs.make import make_env, make_vector_env
from sim_training.envs.task_env import TaskEnv


@dataclass(frozen=True)
class Outcome:
    """What came of one environment's step; `over` when the episode has ended, for whatever reason.

    Where the simulation has `diverged`, nothing came of it: there is no reward and no observation.
    """

    reward: float
    terminated: bool
    over: bool
    env_steps: int
    diverged: bool = False


class Collector(Protocol):
    """Environments side by side, a lane each."""

    obs: NDArray[Any]  # newest observations, [N, ...]
    overlaps: bool  # whether steps go on while the learner updates

    def reset(self, seeds: Mapping[int, int]) -> None:
        """Starts episodes: lane -> seed."""

    def begin(self, actions: NDArray[np.floating]) -> None:
        """Hands over physical actions, [N, A]."""

    def finish(self) -> list[Outcome]:
        """Waits for the step; `obs` then holds what came after it, an episode's last observation included."""

    def close(self) -> None:
        """Frees renderers and processes."""


class Lockstep:
    """One environment in this process; it can be saved and restored exactly."""

    overlaps = False

    def __init__(self, config: EnvConfig) -> None:
        """Loads the environment; errors as in make_env."""
        self.env: TaskEnv = make_env(config)
        space = self.env.observation_space
        assert space.shape is not None
        self.obs: NDArray[Any] = np.zeros((1, *space.shape), space.dtype)
        self._action: NDArray[np.floating] = np.zeros(0)

    def reset(self, seeds: Mapping[int, int]) -> None:
        """See Collector."""
        self.obs = self.env.reset(seed=seeds[0])[0][None]

    def begin(self, actions: NDArray[np.floating]) -> None:
        """See Collector."""
        self._action = actions[0]

    def finish(self) -> list[Outcome]:
        """See Collector."""
        obs, reward, terminated, truncated, info = self.env.step(self._action)
        self.obs = obs[None]
        return [Outcome(reward, terminated, terminated or truncated, info["env_steps"], info["diverged"])]

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Everything that the rest of the episode depends on."""
        return self.env.snapshot()

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Goes on where the snapshot was taken."""
        self.obs = self.env.restore(snapshot)[None]

    def close(self) -> None:
        """See Collector."""
        self.env.close()


class Async:
    """N environments in processes of their own; observations come through shared memory."""

    overlaps = True

    def __init__(self, config: EnvConfig, count: int) -> None:
        """Starts the processes.

        Raises:
            SimError: one of them could not make its environment.
        """
        try:
            self._envs = make_vector_env(config, count)
        except Exception as error:  # whatever the worker raised comes back as it is
            raise SimError(f"async collection: cannot start {count} environments ({error})") from error
        self._count, self._broken = count, False
        space = self._envs.observation_space
        assert space.shape is not None
        self.obs: NDArray[Any] = np.zeros(space.shape, space.dtype)

    def reset(self, seeds: Mapping[int, int]) -> None:
        """See Collector."""
        mask = np.array([lane in seeds for lane in range(self._count)])
        every = [seeds.get(lane) for lane in range(self._count)]
        with self._processes_living():
            self.obs = self._envs.reset(seed=every, options={"reset_mask": mask})[0]

    def begin(self, actions: NDArray[np.floating]) -> None:
        """See Collector."""
        with self._processes_living():
            self._envs.step_async(actions.astype(np.float32))

    def finish(self) -> list[Outcome]:
        """See Collector."""
        with self._processes_living():
            self.obs, reward, terminated, truncated, infos = self._envs.step_wait()
        over = terminated | truncated
        columns = (reward, terminated, over, infos["env_steps"], infos["diverged"])
        return [Outcome(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def close(self) -> None:
        """See Collector."""
        if not self._broken:
            self._envs.close(timeout=5)
            return
        for process in self._envs.processes:
            process.kill()
            process.join()
        self._envs.closed = True

    @contextlib.contextmanager
    def _processes_living(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # with tracebacks of an error that comes back as it is
                yield
        except SimError:
            self._broken = True
            raise
        except (EOFError, OSError) as error:
            self._broken = True
            raise SimError(
                f"async collection: an environment's process has ended ({type(error).__name__}): killed, or out of"
                " memory? Resume the run"
            ) from error


def newest_frame(obs: NDArray[Any]) -> NDArray[Any]:
    """What the replay buffer stores of an observation: the newest of stacked frames, or the state itself."""
    return obs[-3:] if obs.ndim == 3 else obs
