"""Trains one agent in one run folder; `Trainer.run` reads top to bottom as the algorithm."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sac_ae_ros.core import command
from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training import checkpoint
from sim_training import config as configs
from sim_training.agent import SacAeAgent
from sim_training.config import EnvConfig, TrainConfig
from sim_training.envs.pixel_env import PixelEnv
from sim_training.evaluate import EVAL_SEED, Returns, run_episodes
from sim_training.metrics import Metrics
from sim_training.replay import Replay

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def make_env(config: EnvConfig) -> PixelEnv:
    """The environment of a config."""
    return PixelEnv(
        config.task,
        height=config.height,
        width=config.width,
        frame_stack=config.frame_stack,
        action_repeat=config.action_repeat,
        supersample=config.supersample,
        renderer=config.renderer,
    )


def is_free(run_dir: Path) -> bool:
    """Whether a run may be written there: no such path yet, or an empty folder."""
    return not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir()))


def to_physical(env: PixelEnv, action: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps an action [A] in [-1, 1] onto the task's range."""
    return command.to_physical(action, env.task.low, env.task.high)


class Trainer:
    """One run: environment, agent, replay, counters and random states."""

    def __init__(self, config: TrainConfig, run_dir: Path, *, resume: bool = False) -> None:
        """Opens a new run folder, or an old one to go on exactly where its last checkpoint stands.

        Raises:
            RunError: the folder exists already (or, on resume, has no checkpoint).
        """
        if not resume and not is_free(run_dir):
            raise RunError(f"run folder: {run_dir} exists already; resume it (--resume {run_dir}) or choose another")
        self.config, self.run_dir = config, run_dir
        _prepare_process(config)
        self.env = make_env(config.env)
        self.agent = SacAeAgent(config, len(self.env.task.actions))
        self.replay = self._make_replay()
        self.rng = np.random.default_rng(config.run.seed)
        self.env_step = self.agent_step = self.episode = 0
        self.seconds = 0.0
        self.best = -np.inf
        self._revision = checkpoint.source_revision()
        self._held = np.zeros(len(self.env.task.actions), np.float32)
        self._next_eval = config.run.eval_every or config.run.env_steps
        self._next_checkpoint = config.run.checkpoint_every
        if resume:
            self._restore(checkpoint.load(run_dir, self.replay, config.run.device))
        else:
            run_dir.mkdir(parents=True, exist_ok=True)
            configs.save(config, run_dir / "config.yaml")
        self.metrics = Metrics(run_dir, self.env_step)

    def _make_replay(self) -> Replay:
        """Room for no more than the budget can fill: a frame for each step and, at worst, one more for each."""
        env, learn, actions = self.config.env, self.config.learn, len(self.env.task.actions)
        steps = -(-self.config.run.env_steps // env.action_repeat) + self.env.task.episode_steps
        capacity = min(learn.replay_capacity, 2 * steps)
        try:
            return Replay(capacity, (3, env.height, env.width), actions, env.frame_stack)
        except MemoryError:
            needed = capacity * 3 * env.height * env.width / 2**30
            raise ConfigError(
                f"learn.replay_capacity: {capacity} frames need {needed:.0f} GiB; give a smaller one"
            ) from None

    def run(self) -> Returns:
        """Trains until the budget is spent; returns the last evaluation. Checkpoints stand at episodes' ends."""
        result = Returns((float("nan"),))
        with self._progress() as bar:
            while self.env_step < self.config.run.env_steps:
                episode_return = self._episode(bar)
                self._log_episode(episode_return)
                self._tell(bar, f"return {episode_return:.1f}")
                over = self.env_step >= self.config.run.env_steps
                if over or self.env_step >= self._next_eval:
                    result = self._evaluate()
                if over or self.env_step >= self._next_checkpoint:
                    self._checkpoint()
        self.metrics.close()
        return result

    def close(self) -> None:
        """Frees the renderer."""
        self.env.close()

    def _episode(self, bar: tqdm) -> float:
        """One episode: act, store, update."""
        obs, _ = self.env.reset(seed=episode_seed(self.config.run.seed, self.episode))
        self.replay.start(obs[-3:])
        total, over = 0.0, False
        while not over:
            action = self._explore(obs)
            obs, reward, terminated, truncated, info = self.env.step(to_physical(self.env, action))
            self.replay.add(action, reward, terminated, obs[-3:])
            self.env_step += info["env_steps"]
            self.agent_step += 1
            total += reward
            over = terminated or truncated
            self._update(bar)
            bar.update(info["env_steps"])
        self.episode += 1
        return total

    def _explore(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.agent_step >= self.config.learn.random_steps:
            return self.agent.act(obs, sample=True)
        if self.agent_step % self.config.learn.random_hold == 0:
            self._held = self.rng.uniform(-1, 1, len(self.env.task.actions)).astype(np.float32)
        return self._held

    def _update(self, bar: tqdm) -> None:
        learn = self.config.learn
        if self.agent_step < learn.random_steps:
            return
        catching_up = self.agent_step == learn.random_steps
        for i in range(learn.random_steps if catching_up else learn.updates_per_step):
            self._losses |= self.agent.update(self.replay.sample(learn.batch_size, self.rng, self.config.run.device))
            self._updates += 1
            if catching_up and i % 10 == 0:
                self._tell(bar, f"catch-up {i} of {learn.random_steps}")
        if self.agent_step % self.config.run.log_every == 0:
            self._log_losses()

    # What follows is bookkeeping.

    _losses: dict[str, Tensor]

    def _progress(self) -> tqdm:
        self._losses, self._updates, self._rate = {}, 0, 0.0
        self._started = self._log_started = time.monotonic()
        self._interactive = sys.stderr.isatty()
        return tqdm(
            total=self.config.run.env_steps,
            initial=self.env_step,
            unit=" env steps",
            desc=f"train {self.config.env.task}",
            mininterval=0.5 if self._interactive else 15,  # a log file wants a line now and then
            dynamic_ncols=True,
        )

    def _tell(self, bar: tqdm, text: str) -> None:
        best = f"{self.best:.1f}" if np.isfinite(self.best) else "none yet"
        bar.set_postfix_str(f"{self._rate:.0f} updates/s, {text}, best eval {best}", refresh=self._interactive)

    def _counters(self) -> dict[str, Any]:
        return {
            "env_step": self.env_step,
            "agent_step": self.agent_step,
            "update_step": self.agent.update_step,
            "seconds": self._elapsed_s(),
        }

    def _elapsed_s(self) -> float:
        """Seconds spent in this run, those before a resume included."""
        return self.seconds + time.monotonic() - self._started

    def _log_losses(self) -> None:
        """The one place where the host waits for the device."""
        losses = {key: float(value) for key, value in self._losses.items()}
        now = time.monotonic()
        self._rate = self._updates / (now - self._log_started)
        self._log_started, self._updates = now, 0
        self.metrics.train({**self._counters(), **losses, "updates_per_s": self._rate})

    def _log_episode(self, episode_return: float) -> None:
        self.metrics.train({**self._counters(), "episode_return": episode_return})

    def _evaluate(self) -> Returns:
        started = time.monotonic()
        seeds = range(EVAL_SEED, EVAL_SEED + self.config.run.eval_episodes)
        result = run_episodes(self.env, lambda obs: to_physical(self.env, self.agent.act(obs, sample=False)), seeds)
        row = {"episodes": len(result.returns), "mean_return": result.mean, "sd_return": result.sd}
        self.metrics.evaluation({**self._counters(), **row})
        if result.mean > self.best:
            self.best = result.mean
            facts = {"env_step": self.env_step, "eval_return_mean": result.mean, "revision": self._revision}
            checkpoint.save_tensors(self.run_dir / "best.pt", {"agent": self.agent.state_dict(), **facts})
        while self._next_eval <= self.env_step:
            self._next_eval += self.config.run.eval_every or self.config.run.env_steps
        self._log_started += time.monotonic() - started
        return result

    def _checkpoint(self) -> None:
        while self._next_checkpoint <= self.env_step:
            self._next_checkpoint += self.config.run.checkpoint_every
        started = time.monotonic()
        checkpoint.save(self.run_dir, self.env_step, self._state(), self.replay)
        self._log_started += time.monotonic() - started

    def _state(self) -> dict[str, Any]:
        return {
            "agent": self.agent.state_dict(),
            **self.agent.optimizer_state(),
            "counters": [self.env_step, self.agent_step, self.episode, self._next_eval, self._next_checkpoint],
            "seconds": self._elapsed_s(),
            "best": float(self.best),
            "held": self._held.tolist(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy_rng": _big_ints_to_text(self.rng.bit_generator.state),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.agent.load_optimizer_state(state)
        self.env_step, self.agent_step, self.episode, self._next_eval, self._next_checkpoint = state["counters"]
        self.seconds, self.best = state["seconds"], state["best"]
        self._held = np.array(state["held"], np.float32)
        torch.set_rng_state(state["torch_rng"].cpu())
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
        self.rng.bit_generator.state = _text_to_big_ints(state["numpy_rng"])


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of a training episode: apart for every run and episode, and from those of evaluations."""
    return int(np.random.SeedSequence([run_seed, episode]).generate_state(1)[0]) | 1 << 31


def _prepare_process(config: TrainConfig) -> None:
    torch.manual_seed(config.run.seed)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    # glibc hands big buffers back to the kernel at every free, and the page faults of getting them again cost a
    # third of an update; keep them.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _big_ints_to_text(value: Any) -> Any:
    """numpy's generators have 128-bit integers, which torch.save(weights_only) does not know."""
    if isinstance(value, dict):
        return {key: _big_ints_to_text(item) for key, item in value.items()}
    return f"int:{value}" if isinstance(value, int) else value


def _text_to_big_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _text_to_big_ints(item) for key, item in value.items()}
    return int(value[4:]) if isinstance(value, str) and value.startswith("int:") else value
