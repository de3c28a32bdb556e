"""Numbers over runs: what a run is judged by, and means with 95 % bootstrap intervals (rliable, arXiv 2108.13264)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPS = 2000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """What one complete run is judged by.

    Args:
        final: mean return of the last evaluation, the one at the budget, as published scores are.
        best: mean return of the best evaluation, that of the checkpoint which `sac-ae export` takes.
        seconds: how long the run took, evaluations included.
    """

    final: float
    best: float
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Scores over seeds; None where there are too few runs for a number.

    Args:
        mean: of the final evaluations' mean returns over seeds; over several tasks the mean of the tasks' means.
        sd: over seeds, with n - 1.
        iqm: interquartile mean of the final returns over seeds (and tasks): the mean without the lowest and the
            highest quarter. Of fewer than four numbers nothing is left out.
        iqm_low: lower end of its 95 % interval, by bootstrap over seeds, stratified by task.
        iqm_high: upper end of it.
        best_mean: as `mean`, of each run's best evaluation.
        hours: mean wall time of a run.
    """

    config: str
    row: str
    env_steps: int | None
    seeds: tuple[int, ...]
    mean: float | None
    sd: float | None
    iqm: float | None
    iqm_low: float | None
    iqm_high: float | None
    best_mean: float | None
    hours: float | None


def score(evaluations: Sequence[Mapping[str, float]], env_steps: int) -> Score | None:
    """Judges a run by the rows of its eval.csv; None if none of them is at the budget `env_steps` yet."""
    whole = [row for row in evaluations if "sd_return" in row]  # a crash may cut the last line short
    if not whole or whole[-1]["env_step"] < env_steps:
        return None
    best = max(whole, key=rank)["mean_return"]
    return Score(whole[-1]["mean_return"], best, whole[-1]["seconds"])


def rank(evaluation: Mapping[str, float]) -> tuple[bool, float]:
    """Sorts rows of eval.csv as best.pt is chosen: one with an episode that diverged comes after all others."""
    return not evaluation.get("diverged"), evaluation.get("mean_return", -math.inf)


def summarise(config: str, row: str, env_steps: int | None, tasks: Sequence[Mapping[int, Score]]) -> Summary:
    """Sums up the runs of one row: for each task its scores by seed; only seeds that every task has count."""
    seeds = tuple(sorted(set.intersection(*(set(task) for task in tasks)))) if tasks else ()
    if not seeds:
        return Summary(config, row, env_steps, (), None, None, None, None, None, None, None)
    final = np.array([[task[seed].final for task in tasks] for seed in seeds])  # [seeds, tasks]
    best = np.array([[task[seed].best for task in tasks] for seed in seeds])
    hours = np.array([[task[seed].seconds for task in tasks] for seed in seeds]) / 3600
    several = len(seeds) > 1
    low, high = interval(final, iqm)[:, 0] if several else (None, None)
    return Summary(
        config=config,
        row=row,
        env_steps=env_steps,
        seeds=seeds,
        mean=float(final.mean()),
        sd=float(final[:, 0].std(ddof=1)) if several and len(tasks) == 1 else None,
        iqm=float(iqm(final)[0]),
        iqm_low=None if low is None else float(low),
        iqm_high=None if high is None else float(high),
        best_mean=float(best.mean()),
        hours=float(hours.mean()),
    )


def iqm(scores: Array) -> Array:
    """Interquartile mean [1] of all scores [runs, tasks]."""
    from rliable import metrics  # type: ignore[import-untyped]

    return np.array([metrics.aggregate_iqm(scores)])


def interval(scores: Array, aggregate: Callable[[Array], Array], reps: int = REPS) -> Array:
    """95 % percentile bootstrap interval [2, M] of `aggregate`, which maps scores [runs, tasks] to M numbers.

    Runs are drawn anew for each task. The same scores give the same interval.
    """
    from rliable import library

    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got {scores}")
    with _seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arch's, for rliable's way of passing a random state
        _, intervals = library.get_interval_estimates({"": scores}, aggregate, reps=reps)
    return np.asarray(intervals[""])


@contextmanager
def _seeded() -> Iterator[None]:
    """rliable draws from numpy's global generator, whatever random state it is given."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def text(value: float | None, digits: int = 1) -> str:
    """A number for a table, or a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
