"""Processes of a stage: they end with the process that started them, and at their deadline at the latest."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
PR_SET_PDEATHSIG = 1
POLL_S = 0.1
_libc = ctypes.CDLL(None)


def start(command: Sequence[str], *, env: Mapping[str, str] | None = None, **pipes: Any) -> subprocess.Popen[str]:
    """Starts `python ARGUMENTS` that finds this repository, computes on one CPU thread, and dies with its parent."""
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    path = os.pathsep.join(filter(None, [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **(env or {}), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        text=True,
        preexec_fn=die_with_parent,
        **pipes,
    )


def wait(process: subprocess.Popen[str], deadline_s: float) -> int | None:
    """The exit code; None if the process was killed because `time.monotonic` reached `deadline_s`."""
    while process.poll() is None:
        if time.monotonic() >= deadline_s:
            process.kill()
            process.wait()
            return None
        time.sleep(POLL_S)
    return process.returncode


class Pool:
    """Workers that are started together, say when they are ready, and then work when told to, as many as told.

    A worker prints one JSON object when it is ready and one for each line `SECONDS` on its stdin (see `serve`).
    """

    def __init__(
        self, module: str, count: int, arguments: Sequence[str], log: IO[str], env: Mapping[str, str] | None = None
    ) -> None:
        """Starts `count` processes `python -m MODULE`, whose stderr goes to `log`."""
        self._command, self._log, self._env = ["-m", module, *arguments], log, env
        self._workers: list[subprocess.Popen[str]] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        """Starts more workers until there are `count`; `answers` says when they are ready."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        while len(self._workers) < count:
            self._workers.append(start(self._command, env=self._env, **pipes))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()

    def answers(self, count: int, timeout_s: float, begin: int = 0) -> list[dict[str, Any]]:
        """One answer of each of the workers `begin` to `count`, an object in a line; other lines are skipped.

        Raises:
            RuntimeError: a worker ended, or did not answer in time.
        """
        deadline_s = time.monotonic() + timeout_s
        return [_answer(worker, deadline_s) for worker in self._workers[begin:count]]

    def work(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """Has the first `count` workers work for so long, all at the same time; errors as in `answers`."""
        for worker in self._workers[:count]:
            assert worker.stdin is not None
            try:
                print(seconds, file=worker.stdin, flush=True)
            except OSError as error:
                raise RuntimeError(f"a worker has ended ({error.strerror}); log.txt has its messages") from None
        return self.answers(count, seconds + 30)


def _answer(worker: subprocess.Popen[str], deadline_s: float) -> dict[str, Any]:
    assert worker.stdout is not None
    line = "-"
    while line and not line.startswith("{"):  # libraries print, too
        readable, _, _ = select.select([worker.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
        line = worker.stdout.readline() if readable else ""
    if not line:
        how = f"ended with code {worker.wait()}" if readable else "did not answer in time"
        raise RuntimeError(f"a worker {how}; log.txt has its messages")
    return dict(json.loads(line))


def serve(ready: Mapping[str, object], step: Any) -> None:
    """A worker's main loop: prints `ready`, then for each line of seconds how often `step` ran in that time."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < float(line):
            count += step()
        print(json.dumps({"count": count, "seconds": time.perf_counter() - started}), flush=True)
