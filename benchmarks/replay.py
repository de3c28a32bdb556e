#!/usr/bin/env python3
"""Memory and speed of the replay buffer beside one that stores stacks of frames twice, as the authors' code does.

"bytes_ratio" is the bytes of a stored transition over those of one raw frame, in a full buffer (a run sets a quarter
more aside: for short episodes, and for the frames between two checkpoints). "samples_per_s" counts transitions drawn in
batches, alternating between the places in one process. The buffer on disk is closed and opened again first.

Examples:
  python benchmarks/replay.py --json
  python benchmarks/replay.py --device cuda --frames 100000
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sim_training import machine
from sim_training.learner import prepare_process
from sim_training.replay import Replay, ReplayConfig, Storage

ACTIONS = 6
STACK = 3
EPISODE_STEPS = 250  # a thousand simulator steps with an action repeat of four
PUBLISHED_FRAMES = 2000  # its six times as many bytes are to fit beside ours


@dataclass(frozen=True)
class Place:
    """One buffer that is measured."""

    sample: Callable[[], object]
    bytes_per_transition: float


class Stacked:
    """obs and next_obs stored as whole stacks, uint8 [N, 3K, H, W] each."""

    def __init__(self, count: int, size: int) -> None:
        shape = (count, 3 * STACK, size, size)
        rng = np.random.default_rng(0)
        self.obs, self.next_obs = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
        self.action = np.zeros((count, ACTIONS), np.float32)
        self.reward, self.not_done = np.zeros((count, 1), np.float32), np.zeros((count, 1), np.float32)

    def arrays(self) -> list[NDArray]:
        """Everything it stores."""
        return [self.obs, self.next_obs, self.action, self.reward, self.not_done]

    def sample(self, batch_size: int, rng: np.random.Generator, device: str) -> list[torch.Tensor]:
        """A batch on the device."""
        index = rng.integers(0, len(self.obs), batch_size)
        return [torch.from_numpy(array[index]).to(device) for array in self.arrays()]


def fill(replay: Replay, frames: int, size: int) -> None:
    """Random frames in episodes of EPISODE_STEPS."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (97, 3, size, size), dtype=np.uint8)
    action = np.zeros(ACTIONS, np.float32)
    for i in tqdm(range(frames), desc="filling", leave=False, disable=None):
        if i % (EPISODE_STEPS + 1) == 0:
            replay.start(pictures[i % 97])
        else:
            replay.add(action, 1.0, False, pictures[i % 97])


def filled_and_reopened(layout: ReplayConfig, storage: Storage, size: int) -> Replay:
    """The buffer as a later process finds it; its batches must be the very same."""
    replay = Replay(layout, storage)
    fill(replay, layout.capacity, size)
    state = {name: array.copy() for name, array in replay.save().items()}
    first = replay.sample(64, np.random.default_rng(2))
    del replay  # with it, its map of the file
    again = Replay(layout, storage)
    again.load(state)
    second = again.sample(64, np.random.default_rng(2))
    if not (torch.equal(first.obs, second.obs) and torch.equal(first.next_obs, second.next_obs)):
        raise SystemExit("error: the buffer on disk did not survive its restart")
    return again


def places(size: int, frames: int, batch_size: int, device: str, folder: Path) -> dict[str, Place]:
    """Every place on this machine, filled."""
    found: dict[str, Place] = {}
    kinds = ["ram", "disk", *(["gpu"] if device.startswith("cuda") else [])]
    layout = ReplayConfig(frames, (3, size, size), ACTIONS, frame_stack=STACK)
    for kind in kinds:
        storage = Storage("device" if kind == "gpu" else kind, folder / kind / "frames.bin", device)
        if kind == "disk":
            replay = filled_and_reopened(layout, storage, size)
        else:
            replay = Replay(layout, storage)
            fill(replay, frames, size)
        found[kind] = Place(_sampler(replay, batch_size), replay.nbytes / replay.transitions)
    stacked, rng = Stacked(min(frames, PUBLISHED_FRAMES), size), np.random.default_rng(1)
    per_transition = sum(array.nbytes for array in stacked.arrays()) / len(stacked.obs)
    found["published"] = Place(lambda: stacked.sample(batch_size, rng, device), per_transition)
    return found


def _sampler(replay: Replay, batch_size: int) -> Callable[[], object]:
    rng = np.random.default_rng(1)
    return lambda: replay.sample(batch_size, rng)


def samples_per_s(place: Place, batches: int, batch_size: int, device: str) -> float:
    """Transitions per second of wall time."""
    started = time.perf_counter()
    for _ in range(batches):
        place.sample()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return batches * batch_size / (time.perf_counter() - started)


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=84, help="image height and width, pixels (default: 84)")
    parser.add_argument("--frames", type=int, default=20_000, help="frames stored in each place (default: 20000)")
    parser.add_argument("--batch-size", type=int, default=128, help="transitions in a batch (default: 128)")
    parser.add_argument("--device", default="cpu", help="where batches are wanted, cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (default: 5)")
    parser.add_argument("--batches", type=int, default=50, help="batches in a round (default: 50)")
    parser.add_argument("--folder", type=Path, help="where the buffer on disk is put (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    prepare_process(0)
    with TemporaryDirectory(dir=args.folder) as folder:
        found = places(args.size, args.frames, args.batch_size, args.device, Path(folder))
        for place in found.values():
            samples_per_s(place, 5, args.batch_size, args.device)
        rounds = [
            {name: samples_per_s(place, args.batches, args.batch_size, args.device) for name, place in found.items()}
            for _ in tqdm(range(args.rounds), desc="rounds", disable=args.json)
        ]
    raw = 3 * args.size * args.size
    rates = {name: statistics.median(row[name] for row in rounds) for name in found}
    ratios = {name: place.bytes_per_transition / raw for name, place in found.items()}
    if args.json:
        ours = max(ratio for name, ratio in ratios.items() if name != "published")
        result = {"bytes_ratio": ours, "samples_per_s": rates, "bytes_ratios": ratios, "frames": args.frames}
        print(json.dumps({**result, "size": args.size, "batch_size": args.batch_size, **machine.facts(args.device)}))
        return
    print(f"{'':<12}{'samples/s':>12}{'bytes / raw frame':>20}")
    for name, rate in rates.items():
        print(f"{name:<12}{rate:>12.0f}{ratios[name]:>20.3f}")


if __name__ == "__main__":
    main()
