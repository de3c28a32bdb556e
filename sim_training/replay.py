"""Replay buffer of single uint8 frames; stacks are put together when a batch is drawn, never stored.

A slot holds one frame and, if the episode went on from it, the transition that started there. An episode of T
steps takes T + 1 slots, so its last frame is kept too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions: obs and next_obs uint8 [B, 3K, H, W], action float32 [B, A] in [-1, 1], reward float32 [B],
    terminated bool [B] (never true for a time limit)."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor


class Replay:
    """A ring over the newest `capacity` frames."""

    def __init__(self, capacity: int, frame_shape: tuple[int, int, int], actions: int, frame_stack: int) -> None:
        """`frame_shape` is (3, H, W). Memory is claimed as the ring fills."""
        self._capacity, self._frame_stack = capacity, frame_stack
        self._frames = np.zeros((capacity, *frame_shape), np.uint8)
        self._action = np.zeros((capacity, actions), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, bool)
        self._continues = np.zeros(capacity, bool)  # a transition starts at this slot
        self._episode_start = np.zeros(capacity, np.int64)  # index of the episode's first frame
        self._head = 0  # frames written so far; the newest has index head - 1

    def __len__(self) -> int:
        """Frames held."""
        return min(self._head, self._capacity)

    def start(self, frame: NDArray[np.uint8]) -> None:
        """Opens an episode with its first frame, uint8 [3, H, W]."""
        self._write(frame, self._head)

    def add(self, action: NDArray[np.float32], reward: float, terminated: bool, next_frame: NDArray[np.uint8]) -> None:
        """Adds the transition from the newest frame to `next_frame`, uint8 [3, H, W]."""
        slot = (self._head - 1) % self._capacity
        self._action[slot], self._reward[slot], self._terminated[slot] = action, reward, terminated
        self._continues[slot] = True
        self._write(next_frame, int(self._episode_start[slot]))

    def sample(self, batch_size: int, rng: np.random.Generator, device: torch.device | str = "cpu") -> Batch:
        """Draws transitions uniformly, with replacement, from all whose stacks are whole."""
        index = self._draw(batch_size, rng)
        slot = index % self._capacity
        tensors = (
            self._stacks(index),
            self._action[slot],
            self._reward[slot],
            self._stacks(index + 1),
            self._terminated[slot],
        )
        return Batch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in tensors))

    def state(self) -> dict[str, NDArray]:
        """Everything needed to go on exactly; the arrays are views, to be written at once."""
        count = len(self)
        return {
            "head": np.array(self._head),
            "frames": self._frames[:count],
            "action": self._action[:count],
            "reward": self._reward[:count],
            "terminated": self._terminated[:count],
            "continues": self._continues[:count],
            "episode_start": self._episode_start[:count],
        }

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Restores what `state` gave; the capacity must be the same."""
        self._head = int(state["head"])
        for name in ("frames", "action", "reward", "terminated", "continues", "episode_start"):
            getattr(self, f"_{name}")[: len(self)] = state[name]

    def _write(self, frame: NDArray[np.uint8], episode_start: int) -> None:
        slot = self._head % self._capacity
        self._frames[slot] = frame
        self._continues[slot] = False
        self._episode_start[slot] = episode_start
        self._head += 1

    def _draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        oldest = self._head - len(self)
        if oldest > 0:  # the frames before these have been overwritten
            oldest += self._frame_stack - 1
        newest = self._head - 1  # exclusive: no transition starts at the newest frame
        index = rng.integers(oldest, newest, count)
        while not (good := self._continues[index % self._capacity]).all():
            index[~good] = rng.integers(oldest, newest, int((~good).sum()))
        return index

    def _stacks(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Stacks [B, 3K, H, W] ending at these frames; an episode's first frame stands in for earlier ones."""
        start = self._episode_start[index % self._capacity]
        offsets = np.arange(1 - self._frame_stack, 1)
        frames = np.maximum(index[:, None] + offsets, start[:, None]) % self._capacity  # [B, K]
        stacked = self._frames[frames]  # [B, K, 3, H, W]
        return stacked.reshape(len(index), -1, *stacked.shape[3:])
