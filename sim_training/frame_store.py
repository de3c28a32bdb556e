"""Where a replay buffer's frames are: in memory, in a memory-mapped file, or on the learner's device.

Whatever the place, a run keeps its frames in one file of fixed-size slots. It is written at checkpoints (in `disk`
mode always), and only slots that no checkpoint needs are ever written over; so the last checkpoint stays whole.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from sac_ae_ros.core.errors import ConfigError, RunError


class FrameStore:
    """Slots [N, *shape] of one dtype, behind one torch tensor."""

    def __init__(
        self, kind: str, path: Path, shape: tuple[int, ...], dtype: DTypeLike, device: torch.device | str
    ) -> None:
        """Makes room for `shape[0]` slots; memory of `ram` is claimed as they fill, `disk` claims its file at once.

        Args:
            kind: `ram`, `disk` or `device`.
            path: the run's file of frames; its folder must exist for `disk`.
            shape: [N, *shape] of the slots.
            dtype: of a frame's numbers.
            device: where batches are wanted.

        Raises:
            ConfigError: there is no such room.
        """
        self._kind, self._path, self._shape, self._dtype = kind, path, shape, np.dtype(dtype)
        self._slot_bytes = int(np.prod(shape[1:])) * self._dtype.itemsize
        self._device = torch.device(device)
        self._found_bytes = path.stat().st_size if path.exists() else 0
        try:
            self._frames = self._make()
        except (MemoryError, RuntimeError, OSError, OverflowError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise ConfigError(
                f"learn.replay_capacity: {shape[0]} frames need {shape[0] * self._slot_bytes / 2**30:.1f} GiB"
                f" ({kind}, {path if kind == 'disk' else self._device}): {reason}; give a smaller one"
            ) from None

    def _make(self) -> Tensor:
        if self._kind == "device":
            empty = torch.from_numpy(np.empty(0, self._dtype))
            return torch.zeros(self._shape, dtype=empty.dtype, device=self._device)
        if self._kind == "ram":
            size = int(np.prod(self._shape)) * self._dtype.itemsize
            pages = mmap.mmap(
                -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )  # not malloc's: claimed when written
            return torch.from_numpy(np.frombuffer(pages, self._dtype).reshape(self._shape))
        with self._open() as file:  # a full disk is noticed here, not by a fatal signal when a page is written
            os.posix_fallocate(file.fileno(), 0, self._shape[0] * self._slot_bytes)
            self._map = mmap.mmap(file.fileno(), self._shape[0] * self._slot_bytes)
        return torch.from_numpy(np.frombuffer(self._map, self._dtype).reshape(self._shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._shape[0] * self._slot_bytes

    def write(self, slot: int, frame: NDArray) -> None:
        """Puts one frame, [*shape], into a slot."""
        self._frames[slot] = torch.from_numpy(np.ascontiguousarray(frame))

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """Frames [B, K, *shape] of slots [B, K], on the device."""
        if self._frames.device.type == "cpu":  # numpy copies on one thread, which is no slower here and disturbs nobody
            frames = torch.from_numpy(self._frames.numpy()[slots])
            return frames.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else frames
        index = torch.from_numpy(slots.ravel()).to(self._frames.device, non_blocking=True)
        return self._frames.index_select(0, index).view(*slots.shape, *self._shape[1:])

    def save(self, parts: Iterable[tuple[int, int]]) -> None:
        """Makes slots [begin, end) durable.

        Raises:
            RunError: the file cannot be written, for example as the disk is full.
        """
        try:
            if self._kind == "disk":
                self._map.flush()
                return
            with self._open() as file:
                for begin, end in parts:
                    file.seek(begin * self._slot_bytes)
                    file.write(self._frames[begin:end].cpu().numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"replay: cannot write {self._path} ({error.strerror or error})") from error

    def load(self, parts: Iterable[tuple[int, int]]) -> None:
        """Reads slots [begin, end) back.

        Raises:
            RunError: the file is missing or too short.
        """
        try:
            if self._kind == "disk":  # the map is the file
                if max((end for _, end in parts), default=0) * self._slot_bytes > self._found_bytes:
                    os.truncate(self._path, self._found_bytes)  # as it was: room was made for all slots
                    raise ValueError("it is too short")
                return
            with self._path.open("rb") as file:
                for begin, end in parts:
                    file.seek(begin * self._slot_bytes)
                    data = file.read((end - begin) * self._slot_bytes)
                    if len(data) != (end - begin) * self._slot_bytes:
                        raise ValueError("it is too short")
                    frames = np.frombuffer(bytearray(data), self._dtype).reshape(-1, *self._shape[1:])
                    self._frames[begin:end] = torch.from_numpy(frames).to(self._frames.device)
        except (OSError, ValueError) as error:
            raise RunError(f"resume: cannot read {self._path} ({error})") from None

    def _open(self):  # type: ignore[no-untyped-def]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("r+b" if self._path.exists() else "w+b")
