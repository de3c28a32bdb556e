"""Updates a second of every schedule, alternating in one process: `python -m gpu.updates`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from learner import ACTIONS, Published, fill
from torch import nn

from gpu import costs, sizes, store
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.learner import Learner, prepare_process
from sim_training.replay import Replay

BATCHES = (128, 512)
SLICE_S = 0.3  # of each variant in each round
WARM_UP = 16  # updates: graphs are recorded in them
UNTIMED = 4  # updates before each slice: recording a graph elsewhere gives memory back, which eager ones then ask for


class Variant(NamedTuple):
    """One way to learn."""

    schedule: str
    batch: int
    cuda_graphs: bool
    bfloat16: bool


def variants(device: str) -> Iterator[Variant]:
    """All of them, in the order in which they are worth knowing."""
    for batch in BATCHES:
        yield Variant("published", batch, False, False)
    for graphs, bfloat16 in ((True, False), (True, True), (False, False), (False, True)):
        if device.startswith("cuda") or not graphs:
            for batch in BATCHES:
                for schedule in ("best", "plain"):
                    yield Variant(schedule, batch, graphs, bfloat16)


class Bench:
    """Makes contestants, which share their replay buffers."""

    def __init__(self, device: str, tiny: bool, folder: Path) -> None:
        self.device, self._tiny, self._folder = device, tiny, folder
        self._replays: dict[int, Replay] = {}

    def config(self, variant: Variant, device: str) -> TrainConfig:
        """Of a variant, on any device."""
        profile = "plain" if variant.schedule == "published" else variant.schedule
        arguments = [f"--profile={profile}", f"--learn.batch_size={variant.batch}"]
        arguments += [f"--learn.bfloat16={str(variant.bfloat16).lower()}"]
        arguments += [f"--run.cuda_graphs={str(variant.cuda_graphs and device != 'cpu').lower()}"]
        return sizes.config("cheetah_run", arguments, device=device, tiny=self._tiny)

    def contestant(self, variant: Variant) -> Callable[[], None]:
        """One update of a variant."""
        config = self.config(variant, self.device)
        with quick_weights():
            return self._contestant(variant, config)

    def _contestant(self, variant: Variant, config: TrainConfig) -> Callable[[], None]:
        n_step = config.learn.n_step
        if n_step not in self._replays:
            self._replays[n_step] = fill(config, 1000)
        rng = np.random.default_rng(1)
        if variant.schedule == "published":
            return Published(config, self._replays[n_step], rng).update
        return Learner(config, SacAeAgent(config, ACTIONS), self._replays[n_step], rng, self._folder).update

    def cost(self, variant: Variant) -> costs.Cost:
        """Operations and bytes of one update of it."""
        with quick_weights():
            return costs.cost(self.config(variant, "cpu"), ACTIONS, variant.batch)


@contextmanager
def quick_weights() -> Iterator[None]:
    """Small random weights instead of orthogonal ones, which take seconds and change no speed."""
    before = nn.init.orthogonal_
    nn.init.orthogonal_ = lambda tensor, gain=1.0: nn.init.normal_(tensor, std=0.02)
    try:
        yield
    finally:
        nn.init.orthogonal_ = before


def rate(update: Callable[[], None], seconds: float, least: int, device: str) -> float:
    """Updates a second, the device's work included; the host looks once in four updates."""
    costs.synchronize(device)
    started, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - started < seconds:
        for _ in range(4 if device.startswith("cuda") else 1):
            update()
            count += 1
        costs.synchronize(device)
    return count / max(time.perf_counter() - started, 1e-9)


def measure(bench: Bench, seconds: float, out: Path) -> None:
    """Rounds over all variants until the time is up; each number is stored when it is there.

    In the first round variants join one by one, so that a cut leaves the first of them measured.
    """
    device, deadline = bench.device, time.monotonic() + seconds
    rates = costs.ceilings(device)
    store.put(out, ceilings=rates)
    contestants: dict[Variant, Callable[[], None]] = {}
    seen: dict[Variant, list[float]] = {}
    needs: dict[Variant, costs.Cost] = {}
    least = 2 if device.startswith("cuda") else 1
    slice_s = SLICE_S
    while True:
        for variant in variants(device):
            if variant not in contestants:
                contestants[variant] = bench.contestant(variant)
                rate(contestants[variant], 0, WARM_UP if device.startswith("cuda") else 2, device)
                needs[variant], seen[variant] = bench.cost(variant), []
            rate(contestants[variant], 0, UNTIMED if device.startswith("cuda") else 0, device)
            seen[variant].append(rate(contestants[variant], slice_s, least, device))
            store.put(out, updates=rows(seen, needs, rates))
            if time.monotonic() >= deadline:
                return


def rows(
    seen: dict[Variant, list[float]], needs: dict[Variant, costs.Cost], ceilings: dict[str, float]
) -> list[dict[str, object]]:
    """A JSON row for each variant: medians over rounds; ratios to the published schedule of the same round."""
    found = []
    for variant, rates in seen.items():
        if not rates:
            continue
        own = statistics.median(rates)
        published = seen[Variant("published", variant.batch, False, False)]
        ratio = statistics.median(a / b for a, b in zip(rates, published, strict=False))
        need = needs[variant]
        shares = costs.shares(need, own, ceilings, bfloat16=variant.bfloat16)
        row = {"updates_per_s": own, "ratio": ratio, "rounds": len(rates), "lowest": min(rates), "highest": max(rates)}
        found.append({**variant._asdict(), **row, "flops": need.flops, "bytes": need.nbytes, **shares})
    return found


def main() -> None:
    """Measures and stores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="speed.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=26)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    prepare_process(1 if args.device == "cpu" else 0, args.device)
    with TemporaryDirectory() as folder:
        measure(Bench(args.device, args.tiny, Path(folder)), args.seconds, args.out)


if __name__ == "__main__":
    main()
