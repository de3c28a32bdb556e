"""Runs commands as processes side by side, each with its output in a log file, and stops them with care."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from sac_ae_ros.core.errors import RunError, SacAeError

POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """One command and the file that takes its output."""

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass
class Child:
    """A job's process; its output begins at byte `log_start` of the log."""

    job: Job
    process: subprocess.Popen[bytes]
    log_start: int

    def last_error(self) -> str:
        """The last line that names an error, or else the last line of the output."""
        with self.job.log.open("rb") as file:
            file.seek(self.log_start)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or ["no output"])[-1]


class Watcher(Protocol):
    """Whoever wants to know how the jobs are doing."""

    def starts(self, job: Job) -> Job | None:
        """A job may start, and no other process can before this returns: the job as it is now, or None to skip it.

        Raises:
            SacAeError: it cannot start; `left` is told, and the other jobs go on.
        """

    def left(self, job: Job, why: str) -> None:
        """A job was not started: another process runs it, or `starts` found that it cannot."""

    def ended(self, child: Child) -> None:
        """A job's process has ended."""

    def tick(self, running: Sequence[Job], stops: int) -> None:
        """Called a few times a second with the jobs under way; `stops` as in SideBySide."""


@dataclass
class SideBySide:
    """At most `limit` jobs at a time, in their order.

    The first SIGINT (or SIGTERM, SIGHUP) is passed to every child as one SIGINT, nothing new starts, and `run` waits
    for the children to end; the second kills them. Children have sessions of their own, so that the terminal's Ctrl-C
    reaches them only from here.

    Args:
        limit: how many at a time.
        stops: 0; 1 once the children were asked to end, 2 and more once they were killed.
    """

    limit: int
    stops: int = 0
    _signalled: bool = False
    _running: list[Child] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> None:
        """Runs all jobs, or those that start before a signal; what another process still runs is left alone."""
        waiting = list(jobs)
        with self._signals():
            try:
                while self._running or (waiting and not self._ending()):
                    while waiting and len(self._running) < self.limit and not self._ending():
                        self._start(waiting.pop(0), watcher)
                    watcher.tick([child.job for child in self._running], self.stops)
                    time.sleep(POLL_S)
                    self._pass_signals_on()
                    for child in [child for child in self._running if child.process.poll() is not None]:
                        self._running.remove(child)
                        watcher.ended(child)
            finally:
                self._end_rest()

    def _start(self, job: Job, watcher: Watcher) -> None:
        try:
            with _locked(job) as log:
                ready = watcher.starts(job)
                if ready is not None:
                    self._running.append(_spawn(ready, log))
        except SacAeError as error:
            watcher.left(job, str(error))

    def _end_rest(self) -> None:
        """After an error here: no child outlives this process. They are asked to end; the next signal kills them."""
        rest = [child for child in self._running if child.process.poll() is None]
        if not rest:
            return
        if not self.stops:  # a second SIGINT would keep a training from its checkpoint
            for child in rest:
                child.process.send_signal(signal.SIGINT)
        print(f"an error: waiting for {len(rest)} runs to end; a signal kills them", file=sys.stderr)
        self._signalled = False
        while any(child.process.poll() is None for child in rest):
            time.sleep(POLL_S)
            if self._signalled:
                for child in rest:
                    kill(child)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self._signalled = True

    def _ending(self) -> bool:
        return self._signalled or self.stops > 0

    def _pass_signals_on(self) -> None:
        if not self._signalled:
            return
        self._signalled = False  # several at once, as some wrappers send them, count as one
        self.stops += 1
        for child in self._running:
            if self.stops == 1:
                child.process.send_signal(signal.SIGINT)
            else:
                kill(child)


def start(job: Job) -> Child:
    """Starts a job; its process, and those that it starts, hold a lock on the log."""
    with _locked(job) as log:
        return _spawn(job, log)


@contextmanager
def _locked(job: Job) -> Iterator[BinaryIO]:
    """The job's log, locked until it is closed here and in all processes that inherit it."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"left alone, as another process still runs it ({job.log} is locked); wait for its end"
            ) from None
        yield log


def _spawn(job: Job, log: BinaryIO) -> Child:
    log.write(f"$ {shlex.join(job.command)}\n".encode())
    log.flush()
    log_start = log.tell()
    process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return Child(job, process, log_start)


def kill(child: Child) -> None:
    """Ends a child and all that it started, at once."""
    if child.process.poll() is None:
        os.killpg(child.process.pid, signal.SIGKILL)
