"""Many runs side by side: every config x profile or variant x seed, resumable, with one table at the end.

Several sweeps may share a folder: each takes the runs that no other process is at. `jobs` settles the threads of a
run, also of one that is resumed. Another number of threads sums in another order, so a run that is resumed with
another `jobs` is not bit for bit the one that it would have been.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sac_ae_ros.core.errors import RunError
from sim_training import config as configs
from sim_training import machine, table
from sim_training.side_by_side import Child, Job, SideBySide
from sim_training.sweep_plan import Request, Run, is_own_start, plan, score_of, state_of

BAD_INPUT = 2


def run(request: Request, command: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Runs what is not complete; returns the table, and the errors of the runs that failed or were left alone.

    Args:
        request: what to run.
        command: starts `sac-ae`; a verb follows.

    Raises:
        ConfigError, RunError: as `plan` and `state_of`, before anything is started.
        KeyboardInterrupt: a signal stopped it; the runs' checkpoints stand.
    """
    runs = plan(request)
    states = {each.name: state_of(each) for each in runs}
    pending = [each for each in runs if states[each.name] != "complete"]
    side_by_side = SideBySide(max(1, min(request.jobs or machine.cores() // 2, len(pending))))
    threads = max(1, machine.cores() // side_by_side.limit)
    jobs = [Job(each.name, tuple(command), each.log) for each in pending]  # the verb comes when it starts
    for each in runs:
        _write_row(each)
    with Progress(runs, states, side_by_side.limit, threads) as progress:
        side_by_side.run(jobs, progress)
    if side_by_side.stops:
        failed = "".join(f"{name} failed: {error}\n" for name, error in progress.failed.items())
        print(f"{failed}go on with the same command; {progress.text()}", file=sys.stderr)
        raise KeyboardInterrupt
    result = table.to_dict(table.read(request.out))
    table.write(request.out, result)
    return result, progress.failed


def _write_row(each: Run) -> None:
    facts = {"config": each.file.stem, "row": each.row, "file": str(each.file), "arguments": list(each.arguments)}
    each.folder.parent.mkdir(parents=True, exist_ok=True)
    configs.write_text(each.folder.parent / table.ROW_FILE, json.dumps(facts, indent=1) + "\n")


class Progress:
    """One bar over the env steps of all runs, a line for each run that ends, and what failed."""

    def __init__(self, runs: Sequence[Run], states: Mapping[str, str], jobs: int, threads: int) -> None:
        """Takes the runs, their states at the start by name, how many run side by side, and the threads of each."""
        self.failed: dict[str, str] = {}
        self._runs = {each.name: each for each in runs}
        self._jobs, self._threads, self._told = jobs, threads, 0
        self._steps = {each.name: _env_step(each) if states[each.name] != "start" else 0 for each in runs}
        self._done = sum(state == "complete" for state in states.values())
        self._next_look = 0.0
        self._bar = tqdm(
            total=sum(each.config.run.env_steps for each in runs),
            initial=sum(self._steps.values()),
            unit=" env steps",
            unit_scale=True,
            desc="sweep",
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def text(self) -> str:
        """How many runs are complete."""
        return f"{self._done} of {len(self._runs)} runs are complete"

    def starts(self, job: Job) -> Job | None:
        """Starts the run, goes on with it or skips it: by its state now, as another process may have been at it.

        An unfinished start is cleared, and the machine that the run is on is noted.

        Raises:
            ConfigError, RunError: as `state_of`.
        """
        each = self._runs[job.name]
        state = state_of(each)
        if state == "complete":
            self._done += 1
            self._steps[job.name] = each.config.run.env_steps
            self._say(f"{job.name}: another process has completed it; {self.text()}")
            return None
        if state == "start" and each.folder.exists():
            _clear(each.folder)
        note = each.folder.with_suffix(".machine.json")
        notes = json.loads(note.read_text()) if note.exists() and state == "resume" else []
        notes.append({**machine.facts(each.config.run.device), "side_by_side": self._jobs})
        configs.write_text(note, json.dumps(notes, indent=1) + "\n")
        return replace(job, command=(*job.command, *each.command(state, self._threads)))

    def left(self, job: Job, why: str) -> None:
        """Tells of a run that was not started."""
        self.failed[job.name] = why
        self._say(f"{job.name} was not started: {why}")

    def ended(self, child: Child) -> None:
        """Tells how a run ended."""
        name, code = child.job.name, child.process.returncode
        each = self._runs[name]
        try:
            score = score_of(each)
        except RunError as error:
            self.failed[name] = str(error)
            self._say(f"{name} failed: {error}")
            return
        if code == 0 and score is not None:
            self._done += 1
            self._steps[name] = each.config.run.env_steps
            self._say(f"{name}: return {score.final:.1f} after {score.seconds / 60:.1f} min; {self.text()}")
        elif code == BAD_INPUT or not self._told:
            self.failed[name] = f"{child.last_error()} (exit code {code}; see {child.job.log})"
            self._say(f"{name} failed: {self.failed[name]}")

    def tick(self, running: Sequence[Job], stops: int) -> None:
        """Moves the bar once a second, and says what is waited for after a signal."""
        if stops > self._told:
            self._told = stops
            waiting = f"waiting for the checkpoints of {len(running)} runs; once more kills them"
            self._say(waiting if stops == 1 else "killed")
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + 1
        shares = []
        for job in running:
            each = self._runs[job.name]
            self._steps[job.name] = _env_step(each)
            shares.append(f"{job.name} {self._steps[job.name] / each.config.run.env_steps:.0%}")
        self._bar.set_postfix_str(f"{self.text()}, now {', '.join(shares)}", refresh=False)
        self._bar.update(sum(self._steps.values()) - self._bar.n)

    def _say(self, line: str) -> None:
        self._bar.write(line, file=sys.stderr)


def _env_step(each: Run) -> int:
    """How far a run is, by the last whole line of its train.csv."""
    path = each.folder / "train.csv"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    cell = lines[-1].split(b",")[0] if lines else b""
    return min(int(float(cell)), each.config.run.env_steps) if cell[:1].isdigit() else 0


def _clear(folder: Path) -> None:
    """Removes an unfinished start, which `state_of` has vetted, and nothing else."""
    for path in [path for path in folder.iterdir() if is_own_start(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
