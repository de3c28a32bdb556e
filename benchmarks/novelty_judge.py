"""What a novelty guard makes of recorded readings: detection rates and times, and false alarms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from novelty_record import ERROR, REWARD, VARIANCE, onset_of
from numpy.typing import NDArray
from scipy.stats import chi2

from sac_ae_ros.core.novelty import NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.spec import NoveltyStats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Persistence:
    """A level is reached when `m` of the last `n` readings, one on every `every`-th tick, are above its threshold."""

    every: int
    m: int
    n: int


@dataclass(frozen=True)
class Scored:
    """Records, [episodes, ticks, 3], with the guard's score of each tick, and whether the variance caused it."""

    records: NDArray[np.float64]
    scores: NDArray[np.float64]
    by_variance: NDArray[np.bool_]


def score(stats: NoveltyStats, records: NDArray[np.float64]) -> Scored:
    """Scores recorded readings with the guard itself."""
    guard = NoveltyGuard(stats, NoveltyLimits(warn=0, stop=0, m=1, n=1))
    readings = [guard.judge_measured(row[ERROR], row[VARIANCE]) for row in records.reshape(-1, records.shape[-1])]
    shape = records.shape[:2]
    scores = np.array([reading.score for reading in readings]).reshape(shape)
    causes = np.array([reading.cause.startswith("frame variance") for reading in readings]).reshape(shape)
    return Scored(records, scores, causes)


def reached(scores: NDArray[np.float64], threshold: float, how: Persistence) -> NDArray[np.bool_]:
    """Whether the level is reached after each reading, [..., readings], of scores on every tick, [..., ticks]."""
    above = scores[..., :: how.every] > threshold
    total = np.cumsum(above, axis=-1)
    before = np.zeros_like(total)
    before[..., how.n :] = total[..., : -how.n]
    return np.asarray(total - before >= how.m)


def false_alarms(unchanged: Scored, threshold: float, how: Persistence, period_s: float) -> dict[str, float]:
    """Alarms per hour, with their one-sided 95 % bound, when the episodes are one long drive."""
    level = reached(unchanged.scores.reshape(-1), threshold, how)
    alarms = int(level[0]) + int(np.count_nonzero(level[1:] & ~level[:-1]))
    hours = unchanged.scores.size * period_s / 3600
    bound = float(chi2.ppf(CONFIDENCE, 2 * alarms + 2)) / 2 / hours
    return {"alarms": alarms, "per_hour": alarms / hours, "at_most_per_hour": bound}


def delays(scored: Scored, threshold: float, how: Persistence, period_s: float) -> list[float | None]:
    """Seconds from each episode's first disturbed frame to the frame that raised the alarm; None: it never came."""
    level = reached(scored.scores, threshold, how)
    found: list[float | None] = []
    for episode, row in enumerate(level):
        ticks = np.flatnonzero(row) * how.every - onset_of(episode)
        late = ticks[ticks >= 0]
        found.append(float(late[0] * period_s) if late.size else None)
    return found


def detection(scored: Scored, threshold: float, how: Persistence, period_s: float) -> dict[str, float | None]:
    """Share of the episodes with an alarm, and the median and longest delay of those, s."""
    found = [delay for delay in delays(scored, threshold, how, period_s) if delay is not None]
    median, longest = (float(np.median(found)), max(found)) if found else (None, None)
    return {"share": len(found) / len(scored.scores), "median_s": median, "max_s": longest}


def after_onset(scored: Scored, values: NDArray[Any]) -> NDArray[Any]:
    """`values`, [episodes, ticks], of the disturbed ticks, flat."""
    return np.concatenate([row[onset_of(episode) :] for episode, row in enumerate(values)])


def disturbance_row(scored: Scored, calm: Scored, limits: NoveltyLimits, every: int, period_s: float) -> dict[str, Any]:
    """One disturbance: what it does to driving, its scores, and how soon it is warned of and stopped.

    `calm` are the same episodes, undisturbed.
    """
    how = Persistence(every, limits.m, limits.n)
    reward, usual = (float(after_onset(each, each.records[..., REWARD]).mean()) for each in (scored, calm))
    return {
        "episodes": len(scored.scores),
        "reward_share": reward / usual,
        "median_score": float(np.median(after_onset(scored, scored.scores))),
        "variance_share": float(after_onset(scored, scored.by_variance).mean()),
        "warn": detection(scored, limits.warn, how, period_s),
        "stop": detection(scored, limits.stop, how, period_s),
    }


def unchanged_facts(unchanged: Scored, limits: NoveltyLimits, every: int, period_s: float) -> dict[str, Any]:
    """False alarms, and how far the readings of undisturbed frames reach."""
    how, readings = Persistence(every, limits.m, limits.n), unchanged.scores.reshape(-1)[::every]
    return {
        "episodes": len(unchanged.scores),
        "hours": unchanged.scores.size * period_s / 3600,
        "warn": false_alarms(unchanged, limits.warn, how, period_s),
        "stop": false_alarms(unchanged, limits.stop, how, period_s),
        "share_above_1": float((readings > 1).mean()),
        "highest_score": float(unchanged.scores.max()),
        "highest_persistent_score": highest_persistent(unchanged.scores.reshape(-1), how),
    }


def highest_persistent(scores: NDArray[np.float64], how: Persistence) -> float:
    """The largest threshold below which there would have been an alarm: the m-th largest of any n readings."""
    readings = scores[:: how.every]
    windows = np.lib.stride_tricks.sliding_window_view(readings, min(how.n, len(readings)))
    return float(np.partition(windows, -how.m, axis=-1)[:, -how.m].max()) if how.m <= len(readings) else -math.inf
