"""Replay buffer of single frames; stacks are put together when a batch is drawn, never stored.

A slot holds one frame and, if the episode went on from it, the transition that started there. An episode of T
steps takes T + 1 slots, so its last frame is kept too. Environments that collect side by side have a lane each: a
ring of its own, so that an episode's frames are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from sac_ae_ros.core.errors import RunError
from sim_training.frame_store import FrameStore

MOST_FRAMES = 2**53
MOST_DRAWS = 100_000  # of a batch, until each is a transition's first frame


@dataclass(frozen=True)
class Batch:
    """Transitions: obs and next_obs uint8 [B, 3K, H, W] or float32 [B, D], action float32 [B, A] in [-1, 1], reward
    float32 [B], terminated bool [B] (never true for a time limit), discount float32 [B].

    With n-step returns, reward is the discounted sum of the m rewards up to next_obs, m <= n, and discount gamma^m.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    discount: Tensor


@dataclass(frozen=True)
class ReplayConfig:
    """What is stored, and how it is drawn.

    Args:
        capacity: frames held, of all lanes together.
        frame_shape: (3, H, W), or (D,) for states.
        actions: size of the action vector.
        dtype: of a frame's numbers.
        frame_stack: frames of an observation.
        lanes: environments that collect side by side.
        n_step: greatest number of rewards in a transition that is drawn.
        gamma: discount of one step.
        margin: frames a lane may take between two checkpoints before it would write over what the first one needs.
    """

    capacity: int
    frame_shape: tuple[int, ...]
    actions: int
    dtype: DTypeLike = np.uint8
    frame_stack: int = 1
    lanes: int = 1
    n_step: int = 1
    gamma: float = 0.99
    margin: int = 0


@dataclass(frozen=True)
class Storage:
    """Where frames are kept and where batches are wanted; see FrameStore."""

    kind: str = "ram"
    path: Path = field(default=Path("frames.bin"))
    device: torch.device | str = "cpu"


class Replay:
    """For each lane a ring over its newest `capacity / lanes` frames; slot = index in the lane x lanes + lane."""

    def __init__(self, config: ReplayConfig, storage: Storage | None = None) -> None:
        """See ReplayConfig and Storage.

        Raises:
            ConfigError: there is no room for so many frames.
        """
        self._config, self._storage = config, storage or Storage()
        self._capacity = config.capacity // config.lanes
        self._slots = slots = self._capacity + config.margin
        total = slots * config.lanes
        self._frames = FrameStore(
            self._storage.kind,
            self._storage.path,
            (total, *config.frame_shape),
            config.dtype,
            self._storage.device,
        )
        self._action = np.zeros((total, config.actions), np.float32)
        self._reward = np.zeros(total, np.float32)
        self._terminated = np.zeros(total, bool)
        self._continues = np.zeros(total, bool)  # a transition starts at this slot
        self._episode_start = np.zeros(total, np.int64)  # index of the episode's first frame
        self._head = np.zeros(config.lanes, np.int64)  # frames written so far; the newest has index head - 1
        self._saved = np.zeros(config.lanes, np.int64)  # head at the last checkpoint

    def __len__(self) -> int:
        """Frames held."""
        return int(np.minimum(self._head, self._capacity).sum())

    @property
    def transitions(self) -> int:
        """Transitions held, those included whose stacks a wrap has cut."""
        return int(self._continues.sum())

    @property
    def slots(self) -> int:
        """Frames that there is room for, with those that wait for a checkpoint."""
        return self._slots * self._config.lanes

    @property
    def nbytes(self) -> int:
        """Bytes set aside for frames and all else."""
        return self._frames.nbytes + sum(getattr(self, f"_{name}").nbytes for name in self._columns)

    def start(self, frame: NDArray, lane: int = 0) -> None:
        """Opens an episode with its first frame, [3, H, W] or [D]."""
        self._write(lane, frame, int(self._head[lane]))

    def add(
        self, action: NDArray[np.float32], reward: float, terminated: bool, next_frame: NDArray, lane: int = 0
    ) -> None:
        """Adds the transition from the lane's newest frame to `next_frame`."""
        slot = self._slot(np.array(lane), self._head[lane] - 1)
        self._action[slot], self._reward[slot], self._terminated[slot] = action, reward, terminated
        self._continues[slot] = True
        self._write(lane, next_frame, int(self._episode_start[slot]))

    def follow(self, frame: NDArray, lane: int = 0) -> None:
        """Adds a frame that no transition led to; it only serves the stacks of those that follow."""
        newest = self._slot(np.array(lane), self._head[lane] - 1)
        self._write(lane, frame, int(self._episode_start[newest]))

    def draw(self, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draws transitions uniformly, with replacement: [2, B], their lanes and the indices of their first frames.

        Raises:
            RunError: there are none, or next to none among the frames.
        """
        held = np.minimum(self._head, self._capacity)
        # Of a full ring, the oldest frames lack the ones before them; the newest frame starts no transition.
        oldest = self._head - held + np.where(self._head > self._capacity, self._config.frame_stack - 1, 0)
        count = np.maximum(self._head - 1 - oldest, 0)
        ends = np.cumsum(count)

        def pick(size: int) -> NDArray[np.int64]:
            place = rng.integers(0, ends[-1], size)
            lane = np.searchsorted(ends, place, side="right")
            return np.stack([lane, oldest[lane] + place - (ends - count)[lane]])

        if not ends[-1]:
            raise RunError("replay: expected transitions to draw from, found none")
        drawn = pick(batch_size)
        for _ in range(MOST_DRAWS):
            good = self._continues[self._slot(drawn[0], drawn[1])]
            if good.all():
                return drawn
            drawn[:, ~good] = pick(int((~good).sum()))
        raise RunError(f"replay: expected transitions to draw from, found none in {MOST_DRAWS} draws")

    def batch(self, drawn: NDArray[np.int64]) -> Batch:
        """The transitions that `draw` chose, on the device."""
        lane, index = drawn
        slot = self._slot(lane, index)
        reward, steps, terminated = self._look_ahead(lane, index)
        discount = np.float32(self._config.gamma) ** steps.astype(np.float32)
        small = (self._action[slot], reward, terminated, discount)
        action, reward_, terminated_, discount_ = (
            torch.from_numpy(array).to(self._storage.device, non_blocking=True) for array in small
        )
        obs, next_obs = self._stacks(lane, index), self._stacks(lane, index + steps)
        return Batch(obs, action, reward_, next_obs, terminated_, discount_)

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draws a batch."""
        return self.batch(self.draw(batch_size, rng))

    def must_save(self) -> bool:
        """Whether the next step might write over one that the last checkpoint needs."""
        step = 2  # frames of a step that ends an episode
        wraps = self._head + step > self._slots
        return self._config.margin > 0 and bool((wraps & (self._head - self._saved + step > self._config.margin)).any())

    def save(self) -> dict[str, NDArray]:
        """Makes the frames since the last save durable; returns all else, as views to be written at once.

        Raises:
            RunError: the frames cannot be written.
        """
        self._frames.save(self._parts(np.maximum(self._saved, self._head - self._slots)))
        self._saved = self._head.copy()
        return {"head": self._head} | {name: getattr(self, f"_{name}") for name in self._columns}

    def load(self, state: dict[str, NDArray]) -> None:
        """Restores what `save` gave, and the frames. The configuration must be the same, but for the capacity of rings
        that have not wrapped: a run may be given more steps.

        Raises:
            RunError: the file of frames cannot be read, or the capacity has changed and cannot.
        """
        self._require_own(state)
        self._head = np.array(state["head"])
        self._saved = self._head.copy()
        before = len(state["reward"])
        kept = min(before, len(self._reward))
        if before != len(self._reward) and self._head.max() * len(self._head) > kept:
            raise RunError(
                "resume: the replay buffer's capacity would change; keep run.env_steps and run.checkpoint_every"
            )
        for name in self._columns:
            getattr(self, f"_{name}")[:kept] = state[name][:kept]
        self._frames.load(self._parts(np.maximum(0, self._head - self._slots)))

    def _require_own(self, state: dict[str, NDArray]) -> None:
        """Raises ValueError naming what `save` cannot have given; a checkpoint may come from anywhere."""
        lanes, count = self._config.lanes, len(state["reward"])
        for name, mine in (("head", self._head), *((name, getattr(self, f"_{name}")) for name in self._columns)):
            shape = mine.shape if name == "head" else (count, *mine.shape[1:])
            if (state[name].dtype, state[name].shape) != (mine.dtype, shape):
                raise ValueError(f"{name}: expected {mine.dtype} {shape}, got {state[name].dtype} {state[name].shape}")
        if count % lanes or count < lanes or ((state["head"] < 0) | (state["head"] > MOST_FRAMES)).any():
            raise ValueError(f"head: expected 0..{MOST_FRAMES} frames in each of {lanes} lanes, got {state['head']}")
        newest = (state["head"] - 1) % (count // lanes) * lanes + np.arange(lanes)
        if state["continues"][newest[state["head"] > 0]].any():
            raise ValueError("continues: expected no transition from a lane's newest frame")
        for name in ("action", "reward"):
            if not np.isfinite(state[name]).all():
                raise ValueError(f"{name}: expected finite numbers")

    _columns = ("action", "reward", "terminated", "continues", "episode_start")

    def _parts(self, since: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Slots of the lanes' frames from their index `since` to their newest, as ranges; a lane that is behind adds
        slots that have not changed."""
        begin, end, lanes = int(since.min()), int(self._head.max()), len(self._head)
        while begin < end:
            first = begin % self._slots
            count = min(end - begin, self._slots - first)
            yield first * lanes, (first + count) * lanes
            begin += count

    def _slot(self, lane: NDArray, index: NDArray) -> NDArray[np.int64]:
        return np.asarray(index % self._slots * len(self._head) + lane)

    def _write(self, lane: int, frame: NDArray, episode_start: int) -> None:
        slot = int(self._slot(np.array(lane), self._head[lane]))
        self._frames.write(slot, frame)
        self._continues[slot] = False
        self._episode_start[slot] = episode_start
        self._head[lane] += 1

    def _look_ahead(self, lane: NDArray, index: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Discounted sums of up to n rewards, how many they are, and whether the last one ended the task, [B] each.

        The sum stops at the episode's end, and at the newest frame.
        """
        reward, steps = np.zeros(len(index), np.float32), np.zeros(len(index), np.int64)
        terminated, going = np.zeros(len(index), bool), np.ones(len(index), bool)
        for k in range(self._config.n_step):
            slot = self._slot(lane, index + k)
            going &= self._continues[slot]  # false at the newest frame, so that no index passes it
            reward += np.where(going, np.float32(self._config.gamma**k) * self._reward[slot], 0)
            steps += going
            terminated |= going & self._terminated[slot]
        return reward, steps, terminated

    def _stacks(self, lane: NDArray, index: NDArray) -> Tensor:
        """Stacks [B, 3K, H, W] ending at these frames; an episode's first frame stands in for earlier ones."""
        start = self._episode_start[self._slot(lane, index)]
        offsets = np.arange(1 - self._config.frame_stack, 1)
        frames = self._slot(lane[:, None], np.maximum(index[:, None] + offsets, start[:, None]))  # [B, K]
        stacked = self._frames.read(frames)  # [B, K, *frame_shape]
        return stacked.flatten(1, 2) if stacked.ndim > 3 else stacked.flatten(1)
