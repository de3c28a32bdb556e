"""Recorded transitions in a folder: written by `sac-ae bag-to-replay`, added to a run's replay by learn.replay_from.

DIR/frames.bin: the frames, uint8 [N, 3, H, W], one after the other. DIR/replay.npz: what Replay.save gives for one
lane of N frames, by frame: action float32 [N, A] in [-1, 1], reward float32 [N] and terminated bool [N] of the
transition that starts there, continues bool [N] (one does), episode_start int64 [N], and head int64 [1], which is N.
DIR/replay.json: what they are of, and counts.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ConfigError, RunError
from sac_ae_ros.core.spec import ActionSpec, PolicySpec
from sim_training import checkpoint
from sim_training.config import TrainConfig

if TYPE_CHECKING:
    from sim_training.envs.task_env import TaskEnv
    from sim_training.replay import Replay

FORMAT = 1
FRAMES, ARRAYS, FACTS = "frames.bin", "replay.npz", "replay.json"
KEY = "learn.replay_from"
MAX_FACTS_BYTES = 64 << 20  # of many recordings, each with a list of refused frames


class ReplayWriter:
    """Fills a folder frame by frame; it gets its name when `finish` is called, and nothing is left otherwise."""

    def __init__(self, folder: Path, spec: PolicySpec, *, force: bool = False) -> None:
        """`spec` says what the frames and actions are; `force` replaces a folder of this kind.

        Raises:
            RunError: the folder exists, and may not be replaced or is of another kind.
        """
        if folder.exists() and not (force and _is_replay(folder)):
            hint = "give --force to replace it, or" if _is_replay(folder) else "it holds no recorded transitions;"
            raise RunError(f"replay: {folder} exists already; {hint} name another folder")
        self._folder, self._spec = folder.absolute(), spec
        self._partial = self._folder.with_name(f"{self._folder.name}.{os.getpid()}.partial")
        self._action, self._reward, self._episode_start = array("f"), array("f"), array("q")
        self._terminated, self._continues = bytearray(), bytearray()

    def __enter__(self) -> Self:
        self._partial.mkdir(parents=True)
        self._file = (self._partial / FRAMES).open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return len(self._reward)

    def start(self, frame: NDArray[np.uint8]) -> None:
        """Opens an episode with its first frame, uint8 [3, H, W]."""
        self._write(frame, self.frames)

    def follow(self, frame: NDArray[np.uint8]) -> None:
        """Adds a frame that no transition led to; it only serves the stacks of those that follow."""
        self._write(frame, self._episode_start[-1])

    def add(self, action: NDArray[np.float32], reward: float, terminated: bool, next_frame: NDArray[np.uint8]) -> None:
        """Adds the transition from the newest frame to `next_frame`."""
        self._action[-len(action) :] = array("f", action.tolist())
        self._reward[-1], self._terminated[-1], self._continues[-1] = reward, terminated, True
        self._write(next_frame, self._episode_start[-1])

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Makes the folder appear, with `facts` beside what the policy's contract says.

        Raises:
            RunError: it cannot be written, for example as the disk is full.
        """
        spec = self._spec
        described = {
            "format": FORMAT,
            "frames": self.frames,
            "frame_shape": [3, spec.camera.height, spec.camera.width],
            "frame_stack": spec.frame_stack,
            "control_period_s": spec.control_period_s,
            "actions": [asdict(action) for action in spec.actions],
            "task": spec.task,
        }
        arrays: dict[str, NDArray[Any]] = {
            "head": np.array([self.frames], np.int64),
            "action": np.array(self._action, np.float32).reshape(self.frames, len(spec.actions)),
            "reward": np.array(self._reward, np.float32),
            "terminated": np.array(self._terminated, bool),
            "continues": np.array(self._continues, bool),
            "episode_start": np.array(self._episode_start, np.int64),
        }
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            checkpoint.write_arrays(self._partial / ARRAYS, arrays)
            (self._partial / FACTS).write_text(json.dumps({**described, **facts}, indent=2, allow_nan=False) + "\n")
            self._publish()
        except OSError as error:
            raise RunError(f"replay: cannot write {self._folder} ({error.strerror or error})") from error

    def _write(self, frame: NDArray[np.uint8], episode_start: int) -> None:
        camera = self._spec.camera
        assert (frame.shape, frame.dtype) == ((3, camera.height, camera.width), np.uint8)
        try:
            self._file.write(frame.tobytes())
        except OSError as error:
            raise RunError(f"replay: cannot write {self._folder} ({error.strerror or error})") from error
        self._action.extend([0.0] * len(self._spec.actions))
        self._reward.append(0.0)
        self._terminated.append(False)
        self._continues.append(False)
        self._episode_start.append(episode_start)

    def _publish(self) -> None:
        replaced = self._partial.with_suffix(".replaced")
        if self._folder.exists():
            self._folder.rename(replaced)
        self._partial.rename(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)


class StoredReplay:
    """A folder that ReplayWriter made; frames are read from the disk as they are needed."""

    def __init__(self, folder: Path) -> None:
        """Opens it.

        Raises:
            RunError: something is missing or damaged.
        """
        self.folder = folder
        if not folder.is_dir():
            raise RunError(f"{KEY}: expected a folder that `sac-ae bag-to-replay` made, there is none at {folder}")
        try:
            self.facts: dict[str, Any] = _read_facts(folder / FACTS)
            if self.facts["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, got {self.facts['format']}")
            self.frame_stack, self.control_period_s = (
                int(self.facts["frame_stack"]),
                float(self.facts["control_period_s"]),
            )
            self.actions = tuple(_action(**action) for action in self.facts["actions"])
            count, self.frame_shape = int(self.facts["frames"]), tuple(self.facts["frame_shape"])
            if len(self.frame_shape) != 3 or not all(type(n) is int and 0 < n < 1 << 16 for n in self.frame_shape):
                raise ValueError(f"expected a frame's shape, got {self.facts['frame_shape']!r:.80}")
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise RunError(f"{KEY}: {folder} holds no recorded transitions ({reason})") from None
        self.arrays = checkpoint.load_arrays(folder / ARRAYS, KEY)
        self._check_arrays(count)
        try:
            if not (folder / FRAMES).is_file():
                raise ValueError("no such file")
            self._frames = np.memmap(folder / FRAMES, np.uint8, "c").reshape(count, *self.frame_shape)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise RunError(f"{KEY}: {folder / FRAMES}: expected {count} frames ({error}); fill a folder anew") from None

    @property
    def transitions(self) -> int:
        """How many there are."""
        return int(self.arrays["continues"].sum())

    def room(self, lanes: int) -> int:
        """Frames that a replay of so many lanes must have room for: each lane as many as the fullest takes."""
        return lanes * max(sum(end - begin for begin, end in lane) for lane in self._lanes(lanes))

    def fill(self, replay: Replay, lanes: int) -> None:
        """Adds everything to a replay buffer, whole episodes to its lanes in turn."""
        action, reward, terminated = (self.arrays[name] for name in ("action", "reward", "terminated"))
        for number, lane in enumerate(self._lanes(lanes)):
            for begin, end in lane:
                replay.start(self._frames[begin], number)
                for i in range(begin, end - 1):
                    if self.arrays["continues"][i]:
                        replay.add(action[i], float(reward[i]), bool(terminated[i]), self._frames[i + 1], number)
                    else:
                        replay.follow(self._frames[i + 1], number)

    def _check_arrays(self, count: int) -> None:
        expected = {
            "head": (np.int64, (1,)),
            "action": (np.float32, (count, len(self.actions))),
            "reward": (np.float32, (count,)),
            "terminated": (np.bool_, (count,)),
            "continues": (np.bool_, (count,)),
            "episode_start": (np.int64, (count,)),
        }
        arrays = self.arrays
        fits = count > 0 and all(
            name in arrays and (arrays[name].dtype, arrays[name].shape) == kind for name, kind in expected.items()
        )
        if fits:
            index = np.arange(count)
            begins = arrays["episode_start"] == index
            fits = bool(begins[0] and (np.maximum.accumulate(begins * index) == arrays["episode_start"]).all())
            fits &= not arrays["continues"][np.roll(begins, -1)].any()  # an episode's last frame leads nowhere
            fits &= bool(np.isfinite(arrays["reward"]).all() and (np.abs(arrays["action"]) <= 1).all())
        if not fits:
            raise RunError(f"{KEY}: {self.folder / ARRAYS} is damaged, or of other frames; fill a folder anew")

    def _lanes(self, lanes: int) -> list[list[tuple[int, int]]]:
        """For each lane its episodes, first frame and the one after the last; each goes where least is yet."""
        starts = self.arrays["episode_start"]
        begins = np.flatnonzero(starts == np.arange(len(starts))).tolist()
        found: list[list[tuple[int, int]]] = [[] for _ in range(lanes)]
        counts = [0] * lanes
        for begin, end in zip(begins, [*begins[1:], len(starts)], strict=True):
            lane = counts.index(min(counts))
            found[lane].append((begin, end))
            counts[lane] += end - begin
        return found


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > MAX_FACTS_BYTES:
        raise ValueError(f"expected {path.name}, a file of at most {MAX_FACTS_BYTES} bytes")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _action(name: str, unit: str, low: float, high: float) -> ActionSpec:
    return ActionSpec(str(name), str(unit), float(low), float(high))


def open_for(config: TrainConfig, env: TaskEnv) -> StoredReplay:
    """Opens what learn.replay_from names.

    Raises:
        RunError: there is no such folder, or it is damaged.
        ConfigError: it does not fit the environment, or the replay buffer's capacity.
    """
    stored = StoredReplay(Path(config.learn.replay_from))
    sides = {
        "frames": (stored.frame_shape, (3, config.env.height, config.env.width)),
        "frame_stack": (stored.frame_stack, config.env.frame_stack),
        "a period of seconds": (round(stored.control_period_s, 9), round(env.control_period_s, 9)),
        "actions": (_named(stored.actions), _named(env.task.actions)),
    }
    for what, (theirs, ours) in sides.items():
        if theirs != ours:
            raise ConfigError(
                f"{KEY}: {stored.folder} has {what} {theirs}, this run {ours}; fill a folder with the --policy of such"
                " a run, or change env.*"
            )
    room = stored.room(config.run.envs)
    if room > config.learn.replay_capacity:
        raise ConfigError(
            f"{KEY}: {stored.folder} needs room for {room} frames, learn.replay_capacity is"
            f" {config.learn.replay_capacity}; give a larger one"
        )
    return stored


def _named(actions: tuple[ActionSpec, ...]) -> str:
    return ", ".join(f"{each.name} {each.low:g}..{each.high:g} {each.unit}" for each in actions)


def _is_replay(folder: Path) -> bool:
    return (folder / FACTS).is_file() and (folder / ARRAYS).is_file()
