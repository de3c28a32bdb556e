#!/usr/bin/env python3
"""Measures everything that needs a GPU in one go: its tests, speeds, and scores of the six published tasks.

Stages run in the order of their value, each with a share of the time; what one leaves over goes to the next ones. Every
number is in a JSON file under --out as soon as it is there, so a cut at any moment loses only what was under way. Exit
code 0 also when the budget cut stages, 1 when one failed, 2 for wrong arguments, 130 after Ctrl-C.

  tests.json             the tests marked `cuda`, by name
  speed.json             ceilings, updates/s, env steps/s, trainings at once
  scores.json            runs with their learning curves
  day.json               machine, versions, revision, stages
  curves.png, reconstructions.png, policies.zip, log.txt

Examples:
  python benchmarks/gpu_day.py --budget-s 540 --out runs/gpu
  python benchmarks/gpu_day.py --budget-s 170 --out runs/rehearsal --device cpu --tiny    # all of it, small
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu import artefacts, checks, child, store, table, updates
from gpu.scores import Scores, plan

from sac_ae_ros.core.errors import RunError
from sim_training import machine

LAST_S = 8.0  # kept for pictures, policies and the table
SHARES_S = {"tests": 60.0, "updates": 30.0, "envs": 12.0, "together": 18.0}
BFLOAT16_GAIN = 1.2  # scores are learned in bfloat16 if it is that much faster
SMALL_SHARES_S = {"tests": 30.0, "updates": 25.0, "envs": 15.0, "together": 15.0}
START_S = 5.0  # until a process has imported torch


@dataclass
class Day:
    """One measurement: where it writes, and until when it may work."""

    out: Path
    work: Path
    device: str
    tiny: bool
    ends_s: float
    log: IO[str]

    def shares(self, stage: str) -> float:
        """Reading of time.monotonic at which a stage is cut."""
        share = (SMALL_SHARES_S if self.tiny else SHARES_S)[stage]
        return min(time.monotonic() + share, self.ends_s - LAST_S)

    def tests(self) -> str:
        """The tests that need a GPU."""
        return checks.run(self.out / "tests.json", self.log, self.work, self.shares("tests"))

    def updates(self) -> str:
        """Updates a second."""
        until = self.shares("updates")
        seconds = max(1.0, until - time.monotonic() - START_S)
        state = self._part("updates", ["--device", self.device, f"--seconds={seconds}", *self._small()], until)
        count, wanted = (
            len(store.read(self.out / "speed.json").get("updates", [])),
            len([*updates.variants(self.device)]),
        )
        return f"cut, {count} of {wanted} variants" if state == "done" and count < wanted else state

    def envs(self) -> str:
        """Env steps a second."""
        return self._part("envs", ["--count=2", "--size=24", "--seconds=2"] if self.tiny else [], self.shares("envs"))

    def together(self) -> str:
        """Trainings at once."""
        small = ["--counts", "2", "1", "--seconds=1", *self._small()] if self.tiny else []
        precision = ["--bfloat16"] if self._bfloat16() else []
        arguments = [*small, "--device", self.device, *precision]
        return self._part("together", arguments, self.shares("together"), self._renderer())

    def scores(self) -> str:
        """The six tasks."""
        renderer = self._renderer()
        limit = store.read(self.out / "speed.json").get("together", {}).get("default", 6)
        arguments = ["--device", self.device, *(["--bfloat16"] if self._bfloat16() else []), *self._small()]
        least_s = 15.0 if self.tiny else 45.0
        scores = Scores(self.work / "runs", self.out / "scores.json", limit, arguments, renderer, least_s, self.log)
        store.put(self.out / "scores.json", at_once=limit, bfloat16=self._bfloat16(), renderer=renderer, runs=[])
        failed = scores.run(plan([1] if self.tiny else None), self.ends_s - LAST_S)
        return f"failed: {'; '.join(f'{name} {why}' for name, why in failed.items())}" if failed else scores.state()

    def pictures(self) -> str:
        """Curves, reconstructions and policies of the runs."""
        rows = store.read(self.out / "scores.json").get("runs", [])
        runs = self.work / "runs"
        artefacts.curves(rows, self.out / "curves.png")
        artefacts.strips(runs, self.out / "reconstructions.png")
        left_out = artefacts.policies(runs, self.out / "policies.zip")
        store.put(self.out / "day.json", policies_left_out=left_out)
        return "done"

    def _renderer(self) -> dict[str, str]:
        """Environment variables of the renderer that `envs` found to be the faster one."""
        envs = store.read(self.out / "speed.json").get("envs", {})
        return dict(envs.get("renderers", {}).get(envs.get("default"), {}).get("environment", {}))

    def _small(self) -> list[str]:
        return ["--tiny"] if self.tiny else []

    def _bfloat16(self) -> bool:
        rates = {
            row["bfloat16"]: row["updates_per_s"]
            for row in store.read(self.out / "speed.json").get("updates", [])
            if (row["schedule"], row["batch"]) == ("best", 128) and row["cuda_graphs"] == self.device.startswith("cuda")
        }
        return self.device.startswith("cuda") and len(rates) == 2 and rates[True] > BFLOAT16_GAIN * rates[False]

    def _part(self, module: str, arguments: Sequence[str], until_s: float, env: Mapping[str, str] | None = None) -> str:
        command = ["-m", f"gpu.{module}", f"--out={self.out / 'speed.json'}", *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        code = child.wait(child.start(command, env=env, **pipes), until_s)
        return "cut" if code is None else "done" if code == 0 else f"failed: gpu.{module} ended with code {code}"


def run(day: Day, stages: dict[str, Callable[[], str]]) -> list[str]:
    """Runs the stages one after another; returns those that failed. day.json has how each ended."""
    states: dict[str, dict[str, object]] = {name: {"state": "not begun"} for name in stages}
    failed = []
    for name, stage in stages.items():
        if time.monotonic() >= day.ends_s - (0 if name == "pictures" else LAST_S):
            states[name] = {"state": "cut", "seconds": 0.0}
            continue
        states[name] = {"state": "running"}
        store.put(day.out / "day.json", stages=states)
        started = time.monotonic()
        try:
            state = stage()
        except Exception as error:  # the other stages' results must not go with it
            state = f"failed: {type(error).__name__}: {error}"
        states[name] = {"state": state, "seconds": round(time.monotonic() - started, 1)}
        store.put(day.out / "day.json", stages=states)
        print(f"{name}: {state} after {states[name]['seconds']} s", file=sys.stderr, flush=True)
        if state.startswith("failed"):
            failed.append(name)
    return failed


def summary(out: Path) -> str:
    """The table."""
    speed, runs = store.read(out / "speed.json"), store.read(out / "scores.json").get("runs", [])
    stages = [["stage", "seconds", "state"]]
    for name, row in store.read(out / "day.json")["stages"].items():
        stages.append([name, str(row.get("seconds", "–")), str(row["state"])])
    tests = table.tests(store.read(out / "tests.json"))
    parts = [stages, tests, table.updates(speed), table.renderers(speed), table.together(speed), table.scores(runs)]
    text = "\n\n".join(table.plain(part) for part in parts if len(part) > 1)
    return f"{text}\n\n× published: the median over rounds of the ratio in the same round, not that of the medians."


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget-s", type=float, default=540, help="seconds for everything (default: 540)")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="small images, networks and budgets: a rehearsal")
    parser.add_argument("--revision", help="of the source, where git cannot tell it")
    args = parser.parse_args()
    if not 30 <= args.budget_s < math.inf:
        parser.error(f"--budget-s: expected at least 30 seconds, got {args.budget_s:g}")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        parser.error(f"--out: expected a new or empty folder, {args.out} is neither; nothing was changed")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error(f"--device: torch {torch.__version__} finds no GPU here; --device cpu --tiny rehearses")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: cannot make {args.out} ({error.strerror})")
    return args


def main() -> int:
    """Runs all stages and prints the table."""
    started = time.monotonic()
    args = arguments()
    args.out = args.out.absolute()
    # A shell starts what is in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    facts = {**machine.facts(args.device), "device": args.device, "tiny": args.tiny, "budget_s": args.budget_s}
    facts |= {"driver": machine.driver(), "revision": args.revision or facts["revision"]}
    try:
        store.put(args.out / "day.json", **facts, stages={})
    except (RunError, OSError) as error:
        print(f"error: --out: {error}", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="gpu_day_"))
    os.environ["TMPDIR"] = str(work)  # of the children, so that theirs goes too
    try:
        with (args.out / "log.txt").open("a") as log:
            day = Day(args.out, work, args.device, args.tiny, started + args.budget_s, log)
            names = ("tests", "updates", "envs", "together", "scores", "pictures")
            failed = run(day, {name: getattr(day, name) for name in names})
    except KeyboardInterrupt:
        print("stopped; what was measured is stored", file=sys.stderr)
        return 130
    except (RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(BrokenPipeError):
        tell(args, started)
    return 1 if failed else 0


def tell(args: argparse.Namespace, started: float) -> None:
    """Prints the table and where everything is."""
    print(summary(args.out))
    if args.tiny:
        print("\nA rehearsal at small sizes: its numbers say nothing about the learner.")
    print(f"\n{time.monotonic() - started:.0f} of {args.budget_s:.0f} s; everything is in {args.out}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
