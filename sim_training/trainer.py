"""Trains one agent in one run folder; `Trainer.run` reads top to bottom as the algorithm."""

from __future__ import annotations

import contextlib
import fcntl
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sac_ae_ros.core.errors import RunError, SimError, printable
from sim_training import checkpoint, machine, offline
from sim_training import config as configs
from sim_training.agent import make_agent
from sim_training.collect import Async, Collector, Lockstep, Outcome, newest_frame
from sim_training.config import TrainConfig
from sim_training.envs.make import make_env
from sim_training.evaluate import EVAL_SEED, Returns, run_episodes, to_physical
from sim_training.interrupt import StopRequest
from sim_training.learner import Learner, make_replay, prepare_process, require_device
from sim_training.metrics import TRAIN_FIELDS, Metrics
from sim_training.pictures import draw_reconstructions
from sim_training.progress import Progress
from sim_training.replay import Replay

STRIP_FRAMES = 8
REST_BYTES = 2**30  # of memory: libraries, networks, their optimisers and gradients
DIVERGED_IN_A_ROW = 10  # episodes, after which a run gives up


def is_free(run_dir: Path) -> bool:
    """Whether a run may be written there: no such path yet, or an empty folder."""
    return not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir()))


class Trainer:
    """One run: environments, agent, replay, counters and random states."""

    def __init__(self, config: TrainConfig, run_dir: Path, *, resume: bool = False) -> None:
        """Opens a new run folder, or an old one to go on exactly where its last checkpoint stands.

        Raises:
            RunError: the folder exists already (or, on resume, has no checkpoint).
            ConfigError: there is no such device, or no room for the replay buffer.
        """
        if not resume and not is_free(run_dir):
            can_go_on = checkpoint.exists(run_dir)
            way = f"; resume it (--resume {run_dir}) or" if can_go_on else ", without a checkpoint to resume from;"
            raise RunError(f"run folder: {run_dir} exists already{way} choose another")
        require_device(config.run.device)
        if resume and not run_dir.is_dir():
            raise RunError(
                f"resume: expected a checkpoint under {run_dir / 'checkpoints'}, found none; start a new run"
            )
        self.config, self.run_dir = config, run_dir
        made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(run_dir)
        try:
            self._open(checkpoint.load(run_dir, config.run.device) if resume else None)
        except BaseException:
            self._lock.close()
            if not resume:
                shutil.rmtree(run_dir, ignore_errors=True)  # it was empty, or did not exist
                with contextlib.suppress(OSError):  # a parent is not empty: by now somebody else uses it
                    for folder in made[1:]:
                        folder.rmdir()
            raise

    def _open(self, saved: tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]] | None) -> None:
        config, run_dir = self.config, self.run_dir
        torch.manual_seed(config.run.seed)
        prepare_process(config.run.threads, config.run.device)
        self.env = make_env(config.env)  # for evaluations
        self.agent = make_agent(config, self.env)
        self.rng = np.random.default_rng(config.run.seed)
        recorded = offline.open_for(config, self.env) if config.learn.replay_from and saved is None else None
        self._recorded = _recorded(saved[0]) if saved else recorded.room(config.run.envs) if recorded else 0
        self.replay = make_replay(config, self.env, run_dir, self._recorded)
        if config.run.replay == "ram" or (config.run.replay == "device" and config.run.device == "cpu"):
            _warn_of_memory(self.replay)
        if recorded is not None:
            recorded.fill(self.replay, config.run.envs)
            folder = printable(str(recorded.folder))
            print(f"replay: begins with {recorded.transitions} transitions of {folder}", file=sys.stderr)
        self.learner = Learner(config, self.agent, self.replay, self.rng, run_dir)
        self.collector: Collector = (
            Lockstep(config.env) if config.run.collect == "lockstep" else Async(config.env, config.run.envs)
        )
        self.env_step = self.agent_step = self.episode = 0
        self.owed = 0  # updates that the schedule asks for and that are still to be done
        self.diverged = self._diverged_in_a_row = 0  # episodes that an invalid simulation cut short
        self.best = -np.inf
        self._seconds = 0.0
        self._lanes = [_Lane() for _ in range(config.run.envs)]
        self._held = np.zeros((config.run.envs, len(self.env.task.actions)), np.float32)
        self._next_eval = config.run.eval_every or config.run.env_steps
        self._evaluated = 0  # env step of the last evaluation
        self._next_checkpoint = config.run.checkpoint_every
        self._next_log = config.run.log_every  # agent step
        self._revision = machine.source_revision()
        if saved is not None:
            try:
                self._restore(*saved)
            except (
                *(KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError),
            ) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
                raise RunError(
                    f"resume: the checkpoint in {run_dir} does not fit its config.yaml ({reason})"
                ) from error
        configs.save(config, run_dir / "config.yaml")
        self.metrics = Metrics(run_dir, saved[0]["metrics"] if saved else None, self.env_step)

    def run(self, stop_at_s: float = math.inf) -> Returns:
        """Trains until the budget is spent or the time is up; evaluates, and returns the last evaluation.

        Args:
            stop_at_s: reading of `time.monotonic` at which the last evaluation begins even if env steps are left; the
                checkpoint that follows can be resumed as any other.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written (not after a second signal).
            RunError: a loss is not finite, the disk is full, or the simulation diverges all the time (after a
                checkpoint); the last checkpoint is kept.
            SimError: a reward is not finite.
        """
        result = Returns((float("nan"),))
        name, budget = self.config.env.task, self.config.run.env_steps
        self.stop_at_s = stop_at_s  # may be moved while the run lasts
        self._progress = Progress(name, budget, self.env_step, self._seconds)
        say = "stopping: this step and a checkpoint are finished first; once more stops at once"
        with self._progress, StopRequest(say) as self._stop, self._saving_what_async_leaves():
            while True:
                over = self.env_step >= budget or time.monotonic() >= self.stop_at_s
                if over or not self.collector.overlaps:
                    self._update()
                    # no further step before the updates that this time has cut off
                    over = over or time.monotonic() >= self.stop_at_s
                if self._evaluation_due(over):
                    result = self._evaluate() or result
                stopping = self._stop.requested  # looked at once: a signal may come between two looks
                if over or stopping or self._checkpoint_due():
                    self._checkpoint()
                if stopping:
                    raise KeyboardInterrupt
                if over:
                    break
                self._start_episodes()
                self.collector.begin(to_physical(self.env, self._explore()))
                if self.collector.overlaps:
                    self._update()
                with self._progress.waiting():
                    outcomes = self.collector.finish()
                self._store(outcomes)
                self._require_simulation()
        self.metrics.close()
        return result

    @property
    def finished(self) -> bool:
        """Whether the budget was spent and the last evaluation made before this run was opened, or since."""
        return self.env_step >= self.config.run.env_steps and self._evaluated >= self.env_step and not self.owed

    def close(self) -> None:
        """Frees the renderers, ends the processes and lets others have the folder."""
        self.collector.close()
        self.env.close()
        self._lock.close()

    def _start_episodes(self) -> None:
        seeds = {}
        for number, lane in enumerate(self._lanes):
            if lane.over:
                seeds[number] = episode_seed(self.config.run.seed, self.episode)
                lane.over, lane.episode_return = False, 0.0
                self.episode += 1
        if seeds:
            self.collector.reset(seeds)
        for number in seeds:
            self.replay.start(newest_frame(self.collector.obs[number]), number)

    def _explore(self) -> NDArray[np.float32]:
        """Actions [N, A]: at first random ones, each held for a while, then the policy's."""
        if self.agent_step >= self.config.learn.random_steps:
            self._actions = self.agent.act_batch(self.collector.obs, sample=True)
            self.learner.check_actions(self._actions)
            return self._actions
        if self.agent_step // len(self._lanes) % self.config.learn.random_hold == 0:
            self._held = self.rng.uniform(-1, 1, self._held.shape).astype(np.float32)
        self._actions = self._held
        return self._actions

    def _store(self, outcomes: list[Outcome]) -> None:
        """Keeps what came of a step, and notes the updates that it asks for.

        An episode whose simulation diverges ends as by a time limit, with the step before: agent steps count what can
        be learned from, env steps everything.
        """
        learn, before = self.config.learn, self.env_step
        for number, (lane, outcome) in enumerate(zip(self._lanes, outcomes, strict=True)):
            self.env_step += outcome.env_steps
            lane.over = outcome.over
            if outcome.diverged:
                self.diverged += 1
                self._diverged_in_a_row += 1
                self._episode_over(lane)
                continue
            frame = newest_frame(self.collector.obs[number])
            self.replay.add(self._actions[number], outcome.reward, outcome.terminated, frame, number)
            self.agent_step += 1
            if self.agent_step == learn.random_steps:
                self.owed += learn.random_steps
            elif self.agent_step > learn.random_steps:
                self.owed += learn.updates_per_step
            lane.episode_return += outcome.reward
            if lane.over:
                self._diverged_in_a_row = 0
                self._episode_over(lane)
        self._progress.stepped(self.env_step - before)

    def _update(self) -> None:
        """Does the updates that are owed; a stop leaves the rest for the resumed run."""
        catching_up = self.owed >= self.config.learn.random_steps > 1
        while self.owed and not self._stop.requested and time.monotonic() < self.stop_at_s:
            self.learner.update()
            self._progress.updated()
            self.owed -= 1
            if catching_up and self.owed % 10 == 0:
                self._progress.tell(f"catch-up, {self.owed} to go", self.best)
        if not self.owed and self.learner.losses and self.agent_step >= self._next_log:
            self._log()

    # What follows is bookkeeping.

    def _episode_over(self, lane: _Lane) -> None:
        row = {"episode_return": lane.episode_return, "diverged": self.diverged}
        self.metrics.train({**self._counters(), **row})
        diverged = f", {self.diverged} episodes diverged" if self.diverged else ""
        self._progress.tell(f"return {lane.episode_return:.1f}{diverged}", self.best)

    def _require_simulation(self) -> None:
        """Gives up, with a checkpoint, where one episode after the other diverges."""
        if self._diverged_in_a_row < DIVERGED_IN_A_ROW:
            return
        self._diverged_in_a_row = 0  # a resumed run tries as often again
        self._checkpoint()
        raise RunError(
            f"training: the simulation of {self.config.env.task} diverged in {DIVERGED_IN_A_ROW} episodes in a row, the"
            f" last at env step {self.env_step}; the run is saved: mend the model (a smaller timestep, weaker"
            f" actuators), then go on with --resume {self.run_dir}"
        )

    @contextlib.contextmanager
    def _saving_what_async_leaves(self) -> Iterator[None]:
        """A process that simulates may end; what was learned until then is saved, as episodes start anew anyway."""
        try:
            yield
        except SimError:
            if self.collector.overlaps:
                self._checkpoint()
            raise

    def _counters(self) -> dict[str, Any]:
        return {
            "env_step": self.env_step,
            "agent_step": self.agent_step,
            "update_step": self.agent.update_step,
            "seconds": self._progress.seconds,
        }

    def _log(self) -> None:
        """The one place where the host waits for the device."""
        self.learner.check()
        losses = {key: float(value) for key, value in self.learner.losses.items()}
        self.metrics.train({**self._counters(), **losses, **self._progress.speeds()})
        self._next_log = (self.agent_step // self.config.run.log_every + 1) * self.config.run.log_every

    def _evaluation_due(self, over: bool) -> bool:
        due = over and self._evaluated < self.env_step
        due |= self.config.run.eval_every > 0 and self.env_step >= self._next_eval
        return due and not self._stop.requested

    def _evaluate(self) -> Returns | None:
        """Judges the mean action; None if a stop cut it short, and the resumed run does it again."""
        self.learner.check_parameters()
        seeds = range(EVAL_SEED, EVAL_SEED + self.config.run.eval_episodes)
        stacks: list[NDArray[Any]] = []  # of the first episode
        episodes = 0

        def on_reset() -> None:
            nonlocal episodes
            episodes += 1

        def act(obs: NDArray[Any]) -> NDArray[np.float64]:
            if episodes == 1:
                stacks.append(obs)
            return to_physical(self.env, self.agent.act(obs, sample=False))

        def on_step() -> None:
            if self._stop.requested:
                raise _EvaluationStopped

        try:
            with self._progress.aside():
                result = run_episodes(self.env, act, seeds, on_reset=on_reset, on_step=on_step)
        except _EvaluationStopped:
            return None
        row = {"episodes": len(result.returns), "mean_return": result.mean, "sd_return": result.sd}
        row["diverged"] = result.diverged
        self.metrics.evaluation({**self._counters(), **row})
        if self.agent.decoder is not None:
            strip = np.stack(stacks[:: max(1, len(stacks) // STRIP_FRAMES)][:STRIP_FRAMES])
            path = self.run_dir / "reconstructions" / f"{self.env_step:09d}.png"
            self.metrics.picture("reconstructions", draw_reconstructions(self.agent, strip, path), self.env_step)
            frames = np.stack([newest_frame(obs) for obs in stacks]).transpose(0, 2, 3, 1)
            self.metrics.video("episode", frames, self.env.control_period_s, self.env_step)
        # a cut return is none to choose by: where rewards are negative, it would be the best
        chosen = result.mean > self.best and not result.diverged
        if chosen or not (self.run_dir / "best.pt").exists():
            self.best = result.mean if chosen else self.best
            facts = {"env_step": self.env_step, "eval_return_mean": result.mean, "revision": self._revision}
            checkpoint.save_tensors(self.run_dir / "best.pt", {"agent": self.agent.state_dict(), **facts})
        self._evaluated = self.env_step
        while self._next_eval <= self.env_step:
            self._next_eval += self.config.run.eval_every or self.config.run.env_steps
        return result

    def _checkpoint_due(self) -> bool:
        return self.env_step >= self._next_checkpoint or self.replay.must_save()

    def _checkpoint(self) -> None:
        self.learner.check_parameters()
        while self._next_checkpoint <= self.env_step:
            self._next_checkpoint += self.config.run.checkpoint_every
        with self._progress.aside():
            arrays = {"replay": self.replay.save()}  # frames first: the checkpoint points at them
            if isinstance(self.collector, Lockstep) and not self._lanes[0].over:
                arrays["env"] = self.collector.snapshot()
            checkpoint.save(self.run_dir, self.env_step, self._state(), arrays)

    def _state(self) -> dict[str, Any]:
        return {
            "agent": self.agent.state_dict(),
            **self.agent.optimizer_state(),
            "counters": [getattr(self, name) for name in _COUNTERS],
            "lanes": [[lane.over, lane.episode_return] for lane in self._lanes],
            "losses": dict(self.learner.losses),
            "metrics": self.metrics.sizes(),
            "seconds": self._progress.seconds,
            "best": float(self.best),
            "diverged": [self.diverged, self._diverged_in_a_row],
            "held": self._held.tolist(),
            "recorded": self._recorded,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.config.run.device.startswith("cuda") else None,
            "numpy_rng": checkpoint.big_ints_to_text(self.rng.bit_generator.state),
        }

    def _restore(self, state: dict[str, Any], arrays: dict[str, dict[str, NDArray[Any]]]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.agent.load_optimizer_state(state)
        self.replay.load(arrays["replay"])
        for name, value in zip(_COUNTERS, state["counters"], strict=True):
            setattr(self, name, _count(value))
        for lane, (over, episode_return) in zip(self._lanes, state["lanes"], strict=True):
            lane.over, lane.episode_return = bool(over), float(episode_return)
        if isinstance(self.collector, Lockstep):
            if "env" in arrays:
                self.collector.restore(arrays["env"])
        else:
            print(
                "async collection: the resumed run starts new episodes, so it is not the same bit for bit",
                file=sys.stderr,
            )
            self._lanes = [_Lane() for _ in self._lanes]
        self.learner.losses = _scalars(state["losses"])
        self._seconds, self.best = float(state["seconds"]), float(state["best"])
        counts = state.get("diverged", (0, 0))  # older versions knew none
        self.diverged, self._diverged_in_a_row = map(_count, counts)
        self._held[:] = np.array(state["held"], np.float32).reshape(self._held.shape)
        torch.set_rng_state(state["torch_rng"].cpu())
        if self.config.run.device.startswith("cuda") and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu())
        self.rng.bit_generator.state = checkpoint.text_to_big_ints(state["numpy_rng"])


_COUNTERS = ("env_step", "agent_step", "episode", "owed", "_next_eval", "_evaluated", "_next_checkpoint", "_next_log")


def _warn_of_memory(replay: Replay) -> None:
    """Memory is claimed as frames come: where there is too little, a run would be killed hours after its start."""
    free = machine.free_memory_bytes()
    if free is not None and replay.nbytes + REST_BYTES > free:
        print(
            f"warning: replay: {replay.slots} frames need {replay.nbytes / 2**30:.3g} GiB of memory beside about"
            f" {REST_BYTES / 2**30:g} for all else, {free / 2**30:.3g} GiB are free, and the run is killed when these"
            " are full: give --run.replay=disk, or a smaller --learn.replay_capacity",
            file=sys.stderr,
        )


def _recorded(state: dict[str, Any]) -> int:
    value = state.get("recorded", 0)
    if type(value) is not int or not 0 <= value < 2**40:
        raise RunError(f"resume: expected the checkpoint to say how many frames were recorded, got {value!r}")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"expected a count, got {value!r}")
    return value


def _scalars(losses: dict[str, Any]) -> dict[str, torch.Tensor]:
    for name, value in losses.items():
        if name not in TRAIN_FIELDS or not isinstance(value, torch.Tensor) or value.ndim:
            raise ValueError(f"losses: expected a number for each of {', '.join(TRAIN_FIELDS)}, got another {name!r}")
    return dict(losses)


def _lock(run_dir: Path) -> IO[bytes]:
    """Keeps others from running in this folder for as long as the file is open."""
    file = (run_dir / ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(f"run folder: {run_dir} is in use by another process; wait for it or stop it") from None
    return file


class _EvaluationStopped(Exception):  # noqa: N818  (no error: it unwinds)
    pass


class _Lane:
    """One environment's episode."""

    def __init__(self) -> None:
        self.over = True
        self.episode_return = 0.0


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of a training episode: apart for every run and episode, and from those of evaluations."""
    return int(np.random.SeedSequence([run_seed, episode]).generate_state(1)[0]) | 1 << 31
