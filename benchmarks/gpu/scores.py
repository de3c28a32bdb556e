"""Trains the six tasks, several runs at a time, until the time is up, and keeps the result of each."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpu import child, sizes, store
from gpu.store import RESULT
from sim_training import metrics

PROFILES = ("best", "plain")
CURVE_POINTS = 60
LOOK_S = 1.0
MOST_RUNS = 1000
NOTHING: dict[str, Any] = {"env_steps": 0, "update_steps": 0, "seconds": 0.0, "evaluations": [], "training": []}
MOST_FAILURES = 3  # then no run is started any more


class Run(NamedTuple):
    """One training."""

    task: str
    profile: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task}-{self.profile}-seed{self.seed}"


def plan(seeds: Iterable[int] | None = None) -> Iterator[Run]:
    """All six tasks with `best`, then with `plain`, for each seed: 1, 2 and so on without end if none are given."""
    for seed in seeds or itertools.count(1):
        for profile in PROFILES:
            for task in sizes.TASKS:
                yield Run(task, profile, seed)


@dataclass
class Scores:
    """The runs of this day.

    Args:
        folder: where runs lie.
        out: scores.json.
        limit: how many at once.
        arguments: of `gpu.train`, the same for all.
        env: environment variables, such as the renderer's.
        least_s: time that must be left for a run to start.
        log: what the runs print.
    """

    folder: Path
    out: Path
    limit: int
    arguments: list[str]
    env: Mapping[str, str]
    least_s: float
    log: IO[str]
    _running: dict[Run, subprocess.Popen[str]] = field(default_factory=dict)
    _rows: dict[Run, dict[str, Any]] = field(default_factory=dict)

    def run(self, runs: Iterable[Run], until_s: float) -> dict[str, str]:
        """Works until `time.monotonic` reads `until_s` or no run is left; returns what failed, with a reason."""
        failed: dict[str, str] = {}
        waiting = deque(itertools.islice(runs, MOST_RUNS))
        try:
            while time.monotonic() < until_s:
                may_start = until_s - time.monotonic() >= self.least_s and len(failed) < MOST_FAILURES
                while waiting and may_start and len(self._running) < self.limit and self._may_join(waiting[0]):
                    self._start(waiting.popleft(), until_s)
                self._look()
                failed |= self._collect_ended()
                if not self._running and (not may_start or not waiting):
                    break
                time.sleep(LOOK_S)
        finally:
            for process in self._running.values():
                process.kill()
            for process in self._running.values():
                process.wait()
        self._look()
        for run in self._running:
            self._rows.setdefault(run, {**NOTHING, **run._asdict(), "state": "running"})
        store.put(self.out, runs=list(self._rows.values()))
        return failed

    def _may_join(self, run: Run) -> bool:
        """Whether a run may start beside those under way: nothing slows down the first six, which matter most."""
        first = [each for each in self._running if (each.profile, each.seed) == (PROFILES[0], 1)]
        return not first or (run.profile, run.seed) == (PROFILES[0], 1)

    def _start(self, run: Run, until_s: float) -> None:
        which = [f"--task={run.task}", f"--profile={run.profile}", f"--seed={run.seed}", f"--until={until_s}"]
        command = ["-m", "gpu.train", f"--out={self.folder / run.name}", *which, *self.arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        print(f"{run.name} starts", file=self.log, flush=True)
        self._running[run] = child.start(command, env=self.env, **pipes)

    def _collect_ended(self) -> dict[str, str]:
        ended = [run for run, process in self._running.items() if process.poll() is not None]
        codes = {run: self._running.pop(run).returncode for run in ended}
        self._look(ended)
        failed = {run: _why(code) for run, code in codes.items() if code}
        for run, why in failed.items():
            self._rows[run] = {**(self._rows.get(run) or NOTHING | run._asdict()), "state": "failed", "reason": why}
            print(f"{run.name} {why}", file=self.log, flush=True)
        if failed:
            store.put(self.out, runs=list(self._rows.values()))
        return {run.name: why for run, why in failed.items()}

    def state(self) -> str:
        """`done` once every task and profile has a complete run."""
        complete = {(run.task, run.profile) for run, row in self._rows.items() if row["state"] == "complete"}
        wanted = len(sizes.TASKS) * len(PROFILES)
        unjudged = [run.name for run, row in self._rows.items() if "mean" not in row]
        never = f"; never judged: {', '.join(unjudged)}" if unjudged else ""
        text = "done" if len(complete) == wanted else f"cut, {len(complete)} of {wanted} rows have a complete run"
        return text + never

    def _look(self, also: list[Run] | None = None) -> None:
        """Reads the runs under way, and stores what has changed."""
        found = {run: row_of(run, self.folder / run.name) for run in (*self._running, *(also or ()))}
        news = {run: row for run, row in found.items() if row and row != self._rows.get(run)}
        if news:
            self._rows |= news
            store.put(self.out, runs=list(self._rows.values()))


def _why(code: int) -> str:
    return f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"


def row_of(run: Run, folder: Path) -> dict[str, Any] | None:
    """Reads the newest numbers of a run; None before its first one. A row under way has `state: running`."""
    try:
        evaluations, rows = metrics.read(folder / "eval.csv"), metrics.read(folder / "train.csv")
    except ValueError:  # a line that is being written
        return None
    if not rows and not evaluations:
        return None
    result = store.read(folder / RESULT)
    state = "running" if not result else "complete" if result["env_steps"] >= result["budget"] else "cut"
    last = max(rows + evaluations, key=lambda row: row["env_step"])
    judged = [row for row in evaluations if "mean_return" in row]
    row = {"env_steps": int(last["env_step"]), "update_steps": int(last["update_step"]), "seconds": last["seconds"]}
    if judged:
        at, episodes = int(judged[-1]["env_step"]), int(judged[-1]["episodes"])
        row |= {"judged_at": at, "mean": judged[-1]["mean_return"], "sd": judged[-1]["sd_return"], "episodes": episodes}
    training = [[int(row["env_step"]), row["episode_return"]] for row in rows if "episode_return" in row]
    return {
        **run._asdict(),
        "state": state,
        **row,
        "evaluations": [[int(each["env_step"]), each["mean_return"]] for each in judged],
        "training": training[:: -(-len(training) // CURVE_POINTS) or 1],
    }
