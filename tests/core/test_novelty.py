"""Scores by hand, both sides of both statistics, and m of n."""

import math
import re

import numpy as np
import pytest

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.core.novelty import FLOOR, Level, NoveltyGuard, NoveltyLimits, frame_variance
from sac_ae_ros.core.spec import NoveltyStats

STATS = NoveltyStats(
    100, {"0.001": 0.01, "0.5": 0.015, "0.999": 0.02, "1.0": 9.0}, {"0.001": 0.1, "0.5": 0.2, "0.999": 0.25}
)
LIMITS = NoveltyLimits(warn=1.5, stop=3.0, m=2, n=3)
USUAL = 0.015


def striped(low: int, high: int) -> np.ndarray:
    """A grey frame [4, 6, 3] whose columns are `low` and `high` by turns."""
    frame = np.full((4, 6, 3), low, np.uint8)
    frame[:, ::2] = high
    return frame


FRAME = striped(13, 242)  # 229 apart, so its variance is (229 / 510)^2 = 0.2016


@pytest.mark.parametrize(
    ("frame", "variance"),
    [
        (striped(0, 255), 0.25),
        (striped(77, 77), 0.0),
        (np.full((4, 6, 3), (200, 0, 30), np.uint8), 0.0),  # a coloured cloth over the lens is as blank as a grey one
        (striped(0, 255) * np.array([1, 0, 0], np.uint8), 0.25 / 3),
    ],
)
def test_variance_is_each_colours_over_the_pixels(frame, variance):
    assert frame_variance(frame) == pytest.approx(variance)


@pytest.mark.parametrize(
    ("error", "frame", "score", "says"),
    [
        (0.04, FRAME, 2.0, r"reconstruction error 0\.04 above 0\.02, quantile 0\.999 of the held-out frames"),
        (0.002, FRAME, 5.0, r"reconstruction error 0\.002 below 0\.01, quantile 0\.001"),
        (0.018, FRAME, 0.9, r"reconstruction error 0\.018 within 0\.02"),
        (USUAL, striped(77, 77), 0.1 / FLOOR, r"frame variance 0 below 0\.1"),
        (USUAL, striped(102, 153), 10.0, r"frame variance 0\.01 below 0\.1"),
        (0.0, FRAME, 0.01 / FLOOR, "reconstruction error 0 below"),
        (math.inf, FRAME, math.inf, "error is inf, expected a finite number"),
        (math.nan, FRAME, math.inf, "error is nan, expected a finite number"),
    ],
)
def test_the_farthest_of_both_statistics_is_named(error, frame, score, says):
    guard = NoveltyGuard(STATS, LIMITS)
    reading = guard.judge(error, frame)
    assert reading.score == pytest.approx(score)
    np.testing.assert_equal((reading.error, reading.variance), (error, frame_variance(frame)))
    assert guard.reading is reading
    assert re.search(says, reading.cause)


def test_too_much_variance_is_novel_too():
    stats = NoveltyStats(1, {}, {"0.001": 0.01, "0.999": 0.1})
    assert NoveltyGuard(stats, LIMITS).judge(USUAL, striped(0, 255)).score == pytest.approx(2.5)


def test_a_quantile_of_zero_gives_a_finite_score():
    stats = NoveltyStats(1, {"0.001": 0.0, "0.999": 0.0}, {"0.001": 0.0, "0.999": 0.0})
    guard = NoveltyGuard(stats, LIMITS)
    assert guard.judge(0.0, striped(9, 9)).score == 1.0
    assert guard.judge(0.5, striped(9, 9)).score == pytest.approx(0.5 / FLOOR)


def scores(guard: NoveltyGuard, *values: float) -> list[Level]:
    """Levels after readings of these scores."""
    levels = []
    for value in values:
        guard.judge(0.02 * value, FRAME)
        levels.append(guard.level)
    return levels


def test_levels_need_m_of_the_last_n():
    normal, warn, stop = Level
    guard = NoveltyGuard(STATS, LIMITS)
    assert scores(guard, 2, 0.9, 2, 0.9, 0.9, 2) == [normal, normal, warn, normal, normal, normal]
    assert scores(guard, 4, 4, 0.9, 2) == [warn, stop, stop, warn]
    assert scores(NoveltyGuard(STATS, LIMITS), 1.4, 1.4, 1.4) == [normal] * 3
    assert scores(NoveltyGuard(STATS, LIMITS), 4, 2) == [normal, warn]  # both are above warn, one above stop


def test_nan_counts_towards_a_stop():
    guard = NoveltyGuard(STATS, LIMITS)
    assert scores(guard, math.nan, math.nan) == [Level.NORMAL, Level.STOP]


@pytest.mark.parametrize(
    ("warn", "stop", "level"), [(1.5, 0, Level.WARN), (0, 3, Level.STOP), (0, 50, Level.NORMAL), (0, 0, Level.NORMAL)]
)
def test_zero_is_never(warn, stop, level):
    assert scores(NoveltyGuard(STATS, NoveltyLimits(warn, stop, 1, 1)), 40)[-1] is level


def test_reset_forgets():
    guard = NoveltyGuard(STATS, LIMITS)
    scores(guard, 9, 9)
    guard.reset()
    assert (guard.level, guard.reading) == (Level.NORMAL, None)
    assert scores(guard, 9, 9) == [Level.NORMAL, Level.STOP]


def test_only_what_the_file_knows_is_judged():
    older = NoveltyGuard(NoveltyStats(1, {"0.5": 0.015, "0.999": 0.02}), LIMITS)
    assert older.judge(1e-9, striped(0, 0)).score < 1
    assert older.judge(0.04, striped(0, 0)).score == 2
    assert not older.blind
    blind = NoveltyGuard(NoveltyStats(0, {}), LIMITS)
    assert blind.blind
    reading = blind.judge(9.0, FRAME)
    assert (reading.score, reading.cause) == (0.0, "nothing to judge by: the policy file has no novelty statistics")
    assert blind.judge(math.nan, FRAME).score == math.inf


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((-1, 0, 1, 1), "novelty.warn: expected a score, or 0 for never, got -1"),
        ((1, math.nan, 1, 1), "novelty.stop: expected a score"),
        ((2, 1.5, 1, 1), "novelty.stop: expected at least novelty.warn = 2, or 0, got 1.5"),
        ((1, 2, 0, 1), "novelty.m: expected 1 to novelty.n = 1, got 0"),
        ((1, 2, 4, 3), "novelty.m: expected 1 to novelty.n = 3, got 4"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        NoveltyLimits(*values)
