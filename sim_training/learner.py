"""The learner's side of a run: draws batches, updates the agent, and sees to it that no loss stops being a number."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training import checkpoint
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.cuda_graphs import GraphedUpdate
from sim_training.replay import Batch, Replay, ReplayConfig, Storage

if TYPE_CHECKING:
    from sim_training.envs.task_env import TaskEnv

BAD_BATCH = "bad_batch.npz"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


class _Unchecked(NamedTuple):
    """An update whose losses the host has not looked at yet: the batch can be put together again from `drawn`."""

    update_step: int
    drawn: NDArray[np.int64]
    finite: Tensor


class Learner:
    """Updates one agent from one replay buffer; `losses` holds the newest of each, on the device."""

    def __init__(
        self, config: TrainConfig, agent: SacAeAgent, replay: Replay, rng: np.random.Generator, run_dir: Path
    ) -> None:
        """`run_dir` is where a batch goes whose losses are not finite."""
        self.losses: dict[str, Tensor] = {}
        self._config, self._agent, self._replay, self._rng, self._run_dir = config, agent, replay, rng, run_dir
        on_gpu = config.run.device.startswith("cuda")
        self._update: Callable[[Batch], dict[str, Tensor]]
        self._update = GraphedUpdate(agent) if on_gpu and config.run.cuda_graphs else agent.update
        self._look_at_once = not on_gpu  # on a GPU looking means waiting for it, so it waits for `check`
        self._unchecked: list[_Unchecked] = []

    def update(self) -> None:
        """One update on a fresh batch.

        Raises:
            RunError: a loss is not finite (on a GPU, `check` says so).
        """
        drawn = self._replay.draw(self._config.learn.batch_size, self._rng)
        metrics = self._update(self._replay.batch(drawn))
        self.losses |= metrics
        finite = torch.isfinite(torch.stack([value for key, value in metrics.items() if key.endswith("_loss")])).all()
        self._unchecked.append(_Unchecked(self._agent.update_step, drawn, finite))
        if self._look_at_once:
            self.check()

    def check(self) -> None:
        """Looks at every loss since the last look.

        Raises:
            RunError: one is not finite; its batch has been saved.
        """
        if not self._unchecked:
            return
        finite = torch.stack([entry.finite for entry in self._unchecked]).cpu().numpy()
        if not finite.all():
            self._give_up(self._unchecked[int(np.argmin(finite))])
        self._unchecked.clear()

    def check_parameters(self) -> None:
        """Looks at every parameter too, as before a checkpoint.

        Raises:
            RunError: one is not finite.
        """
        self.check()
        for name, parameter in self._agent.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise RunError(
                    f"training: {name} is not finite after update {self._agent.update_step};"
                    f" the last checkpoint in {self._run_dir} is kept: try smaller learning rates in a new run"
                )

    def check_actions(self, actions: NDArray[np.float32]) -> None:
        """Looks at actions before the simulation takes them.

        Raises:
            RunError: one is not finite; the message names its cause where that is known.
        """
        if not np.isfinite(actions).all():
            self.check_parameters()
            raise RunError(f"training: the policy's action is not finite after update {self._agent.update_step}")

    def _give_up(self, entry: _Unchecked) -> None:
        batch = self._replay.batch(entry.drawn)
        arrays = {item.name: getattr(batch, item.name).cpu().numpy() for item in fields(Batch)}
        path = self._run_dir / BAD_BATCH
        try:
            np.savez(path, drawn=entry.drawn, update_step=entry.update_step, **arrays)
        except OSError as error:
            path = Path(f"none ({path}: {error.strerror})")
        raise RunError(
            f"training: expected finite losses, update {entry.update_step} gave one that is not; its batch (rewards"
            f" {batch.reward.min():g}..{batch.reward.max():g}) is in {path} and the last checkpoint is kept: try"
            " smaller learning rates, or rewards nearer to 1, in a new run"
        )


def make_replay(config: TrainConfig, env: TaskEnv, run_dir: Path, recorded: int = 0) -> Replay:
    """Room for what the budget can fill, beside `recorded` frames that are there before; of episodes of fewer than
    eight steps the oldest are forgotten."""
    learn, run = config.learn, config.run
    space = env.observation_space
    assert space.shape is not None
    assert space.dtype is not None
    pixels = config.env.obs == "pixels"
    steps = -(-run.env_steps // config.env.action_repeat) + env.task.episode_steps * run.envs
    frames = steps + steps // 8 + 64  # one more for each episode, if those have eight steps or more
    between = -(-run.checkpoint_every // config.env.action_repeat)
    shape = ReplayConfig(
        capacity=min(learn.replay_capacity, frames + recorded),
        frame_shape=(3, *space.shape[1:]) if pixels else space.shape,
        actions=len(env.task.actions),
        dtype=space.dtype,
        frame_stack=config.env.frame_stack if pixels else 1,
        lanes=run.envs,
        n_step=learn.n_step,
        gamma=learn.discount,
        margin=between * 9 // 8 // run.envs + 16,
    )
    return Replay(shape, Storage(run.replay, run_dir / checkpoint.FRAMES, run.device))


def require_device(name: str) -> None:
    """Raises ConfigError if torch cannot use this device here."""
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"run.device: expected one of the {torch.cuda.device_count()} GPUs that torch {torch.__version__} finds"
            f" here, got {name}; use --run.device=cpu, or install torch's CUDA build"
        )


def prepare_process(threads: int, device: str = "cpu") -> None:
    """Settles torch's CPU threads (0 leaves its own choice), its current GPU, and the C library's memory."""
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device).index or 0)
    if threads:
        torch.set_num_threads(threads)
    # glibc hands big buffers back to the kernel at every free, and the page faults of getting them again cost a
    # third of an update; keep them.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
