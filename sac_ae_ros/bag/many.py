"""Several bags and policies: side by side over the cores, going on where an interrupted scoring ended, one table."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sac_ae_ros.bag.evaluate import Options
from sac_ae_ros.bag.score import ALL, METRICS, Job, Outputs, inputs, score
from sac_ae_ros.core.errors import RunError, SacAeError, printable

INDEX, INDEX_MARK = "index.html", b"<title>Scores of recorded drives</title>"
MARK_WITHIN = 4096  # bytes


@dataclass(frozen=True)
class Scored:
    """What came of a job: facts as score gives them, or the error in one line."""

    job: Job
    facts: dict[str, Any] | None
    error: str = ""


def plan(
    bags: Sequence[Path],
    policies: Sequence[Path],
    out: Path | None = None,
    outputs: Outputs = ALL,
    merge: bool = False,
) -> list[Job]:
    """Every policy on every bag, or, to `merge`, on all bags as one.

    One pair writes into `out` itself, several into folders of their own there.

    Raises:
        RunError: a folder to write to is a file.
    """
    merged = tuple(bags[1:]) if merge else ()
    pairs = list(itertools.product(bags[:1] if merge else bags, policies))
    if out is None:
        return [Job(*pair, merged=merged) for pair in pairs]
    folders = [out] if len(pairs) == 1 else [out / name for name in _names(pairs)]
    for folder in (out, *folders):
        if folder.exists() and not folder.is_dir():
            raise RunError(f"--out: expected a folder, got the file {folder}; name another")
    return [Job(*pair, folder, outputs, merged) for pair, folder in zip(pairs, folders, strict=True)]


def finished(job: Job, options: Options, force: bool) -> dict[str, Any] | None:
    """What an earlier scoring of the same files left; None where there is nothing, or `force` is set.

    Raises:
        RunError: results of something else are there, or files of their names that no scoring left.
        ModelError: the policy file cannot be read.
    """
    if job.out is None or force:
        return None
    if not (job.out / METRICS).exists():
        if others := [name for name in job.outputs.names if os.path.lexists(job.out / name)]:
            raise RunError(
                f"--out: {job.out} has {', '.join(others)}, but no {METRICS} of a finished scoring;"
                " give --force to replace what is there, or another --out"
            )
        return None
    try:
        if not (job.out / METRICS).is_file():
            raise ValueError("a pipe, device or folder")
        facts = json.loads((job.out / METRICS).read_text())
        same = facts["inputs"] == inputs(job, options)
    except (ValueError, KeyError, TypeError, RecursionError):
        same = False
    if not same:
        raise RunError(
            f"--out: {job.out / METRICS} exists already, of other files or options, or of another version;"
            " give --force to replace it, or another --out"
        )
    return dict(facts)


def check_index(out: Path, force: bool) -> None:
    """Refuses a folder whose index.html is not a table of scores, unless `force` is set.

    Raises:
        RunError: that is so.
    """
    index = out / INDEX
    if force or not os.path.lexists(index):
        return
    if not index.is_file() or INDEX_MARK not in index.read_bytes()[:MARK_WITHIN]:
        raise RunError(
            f"--out: {index} is there, but no table of bag-eval; give --force to replace it, or another --out"
        )


def score_all(jobs: Sequence[Job], options: Options, workers: int, force: bool = False) -> list[Scored]:
    """Scores each job, in processes of their own where there are several; one that fails keeps no other from it.

    Raises:
        RunError: --out has results of something else, which is told before any work.
        SacAeError: the only job failed.
    """
    done = {job: Scored(job, facts) for job in jobs if (facts := finished(job, options, force)) is not None}
    todo = [job for job in jobs if job not in done]
    if len(jobs) == 1 and todo:
        return [Scored(todo[0], score(todo[0], options))]
    for scored in _bar(_in_processes(todo, options, min(workers, len(todo))), len(todo)):
        done[scored.job] = scored
    return [done[job] for job in jobs]


def _in_processes(jobs: Sequence[Job], options: Options, workers: int) -> Iterator[Scored]:
    if not jobs:
        return
    fresh = multiprocessing.get_context("spawn")  # onnxruntime's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
        running: dict[Future[Scored], Job] = {pool.submit(_try, job, options): job for job in jobs}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    yield Scored(job, None, "its process, or one beside it, was killed; is there enough memory?")


def _try(job: Job, options: Options) -> Scored:
    try:
        return Scored(job, score(job, options, with_bar=False))
    except (SacAeError, OSError) as error:
        return Scored(job, None, printable(" ".join(str(error).split())))


def _bar(found: Iterable[Scored], total: int) -> Iterator[Scored]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from found
        return
    from tqdm import tqdm

    yield from tqdm(found, total=total, unit="score", leave=False)


def _names(pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """A folder's name for each pair, unlike the others'."""
    names: list[str] = []
    for bag, policy in pairs:
        base = name = f"{bag.resolve().name}-{policy.stem}"
        numbers = itertools.count(2)
        while name in names:
            name = f"{base}-{next(numbers)}"
        names.append(name)
    return names
