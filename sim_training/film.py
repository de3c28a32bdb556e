"""One episode of a run's best networks, as pictures larger than those that the policy sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.command import to_physical
from sim_training.config import EnvConfig
from sim_training.envs.make import make_env
from sim_training.envs.rendering import make_renderer
from sim_training.envs.tasks import Task
from sim_training.evaluate import HELD_OUT_SEED
from sim_training.export import load_agent

SEED = HELD_OUT_SEED + 1
HEIGHT_PX = 320


@dataclass(frozen=True)
class Shot:
    """One control period: uint8 RGB [h, w, 3], the physical action [A] taken on it, and what came before."""

    picture: NDArray[np.uint8]
    action: NDArray[np.float64]
    time_s: float
    return_so_far: float


class Film:
    """The held-out episode `seed` of a run, acted by the mean; its frames come one by one from `shots`."""

    def __init__(self, run_dir: Path, seed: int = SEED) -> None:
        """Loads the networks and their environment.

        Raises:
            RunError: not a run folder, nothing was evaluated yet, or best.pt does not fit config.yaml.
            SimError: unknown task, or no rendering on this machine.
        """
        config, self._agent, facts = load_agent(run_dir)
        self.env_step, self.seed, self.episode_return = int(facts["env_step"]), seed, 0.0
        self._env = make_env(config.env)
        self.actions, self.period_s = self._env.task.actions, self._env.control_period_s
        self._config = config.env

    def shots(self) -> Iterator[Shot]:
        """The episode from its first picture to its last, which repeats the last action; adds up `episode_return`.

        Raises:
            SimError: this machine cannot render.
        """
        task = self._env.task
        obs, _ = self._env.reset(seed=self.seed)
        self.episode_return, time_s, over = 0.0, 0.0, False
        with _Camera(self._config, task) as camera:
            while not over:
                action = to_physical(self._agent.act(obs, sample=False), task.low, task.high)
                yield Shot(camera.render(), action, time_s, self.episode_return)
                obs, reward, terminated, truncated, _ = self._env.step(action)
                self.episode_return += reward
                time_s, over = time_s + self.period_s, terminated or truncated
            yield Shot(camera.render(), action, time_s, self.episode_return)

    def close(self) -> None:
        """Frees the environment."""
        self._env.close()


class _Camera:
    """The task's camera at a film's size, in a copy of the simulation: renderers change the model that they draw."""

    def __init__(self, config: EnvConfig, task: Task) -> None:
        """To be made after a reset, which may change the model."""
        self._original, self._copy = task.env.physics, task.env.physics.copy()
        self._renderer = make_renderer(config.renderer, self._copy, task.camera, *size(config))

    def __enter__(self) -> _Camera:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderer.close()

    def render(self) -> NDArray[np.uint8]:
        import mujoco

        mujoco.mj_copyData(self._copy.data.ptr, self._copy.model.ptr, self._original.data.ptr)
        return self._renderer.render()


def size(config: EnvConfig) -> tuple[int, int]:
    """Height and width of a film's pictures, pixels: in the proportion of the policy's."""
    return HEIGHT_PX, max(1, round(HEIGHT_PX * config.width / config.height))
