"""NoveltyGuard: tells frames unlike those that the policy was judged on, by how well they are reconstructed.

Two-sided: a strange frame is reconstructed badly, a blank one (a covered lens) surprisingly well. The frame's own
variance, which needs no network, is judged beside it. docs/novelty.md has what it detects and what it does not.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.core.spec import NoveltyStats

LOW, HIGH = "0.001", "0.999"
# The variance of rounding to 8 bits, pixels / 255: less than this is no measurement, and a quantile may be 0.
FLOOR = 1 / (12 * 255**2)


class Level(IntEnum):
    """How novel the frames are, the worst last."""

    NORMAL = 0
    WARN = 1
    STOP = 2


@dataclass(frozen=True)
class NoveltyLimits:
    """Scores above `warn` or `stop` count (0: never); a level is reached when `m` of the last `n` readings count."""

    warn: float
    stop: float
    m: int
    n: int

    def __post_init__(self) -> None:
        """Raises ConfigError naming the ROS parameter that does not hold."""
        for name in ("warn", "stop"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"novelty.{name}: expected a score, or 0 for never, got {value}")
        if not 1 <= self.m <= self.n:
            raise ConfigError(f"novelty.m: expected 1 to novelty.n = {self.n}, got {self.m}")
        if 0 < self.stop < self.warn:
            raise ConfigError(f"novelty.stop: expected at least novelty.warn = {self.warn}, or 0, got {self.stop}")


@dataclass(frozen=True)
class Reading:
    """One measurement.

    error: mean squared reconstruction error, pixels / 255. variance: of the frame, see frame_variance. score: above 1
    when one of the two lies beyond the held-out frames, and the larger the farther; inf for an error that is no
    number. cause: which of them is farthest out, and where.
    """

    error: float
    variance: float
    score: float
    cause: str


@dataclass(frozen=True)
class _Side:
    """One way out of the held-out range."""

    name: str
    bound: float
    above: bool

    def score(self, value: float) -> float:
        """The ratio of value and bound, above 1 beyond the bound."""
        value, bound = max(value, FLOOR), max(self.bound, FLOOR)
        return value / bound if self.above else bound / value

    def words(self, value: float) -> str:
        """Value and bound, for people."""
        edge = HIGH if self.above else LOW
        relation = ("above" if self.above else "below") if self.score(value) > 1 else "within"
        return f"{self.name} {value:.3g} {relation} {self.bound:.3g}, quantile {edge} of the held-out frames"


def frame_variance(frame: NDArray[np.uint8]) -> float:
    """Variance over the pixels of a frame, uint8 [H, W, 3], of each colour / 255; the mean of the colours'.

    Each colour by itself, so that a lens under a red cloth is as blank as one under a grey one.
    """
    return float(frame.reshape(-1, frame.shape[-1]).var(axis=0, dtype=np.float64).mean()) / 255**2


class NoveltyGuard:
    """Scores frames against a policy's statistics, and wants `m` of the last `n` scores before it says so."""

    def __init__(self, stats: NoveltyStats, limits: NoveltyLimits) -> None:
        """Sides whose quantile the policy file lacks are not judged; see `blind`."""
        self._error_sides = _sides("reconstruction error", stats.quantiles)
        self._variance_sides = _sides("frame variance", stats.variance_quantiles)
        self._limits = limits
        self._scores: deque[float] = deque(maxlen=limits.n)
        self._reading: Reading | None = None

    @property
    def blind(self) -> bool:
        """Whether the policy file has no statistics to judge by; the score is then 0, or inf for a NaN."""
        return not self._error_sides and not self._variance_sides

    @property
    def level(self) -> Level:
        """What the last n readings amount to."""
        for level, threshold in ((Level.STOP, self._limits.stop), (Level.WARN, self._limits.warn)):
            if threshold > 0 and sum(score > threshold for score in self._scores) >= self._limits.m:
                return level
        return Level.NORMAL

    @property
    def reading(self) -> Reading | None:
        """The last one since the start or reset."""
        return self._reading

    def judge(self, error: float, frame: NDArray[np.uint8]) -> Reading:
        """Takes the next measurement: the error of `frame`, uint8 RGB [H, W, 3] as the policy gets it."""
        return self.judge_measured(error, frame_variance(frame))

    def judge_measured(self, error: float, variance: float) -> Reading:
        """The same for a frame whose variance is known, such as one of a recording."""
        reading = self._read(error, variance)
        self._scores.append(reading.score)
        self._reading = reading
        return reading

    def presume_novel(self) -> None:
        """Counts what was not read yet as novel, so that only normal readings lead back to a normal level."""
        self._scores.extend([math.inf] * self._limits.n)

    def reset(self) -> None:
        """Forgets all readings."""
        self._scores.clear()
        self._reading = None

    def _read(self, error: float, variance: float) -> Reading:
        if not math.isfinite(error):
            return Reading(error, variance, math.inf, f"reconstruction error is {error}, expected a finite number")
        measured = [(side, error) for side in self._error_sides] + [(side, variance) for side in self._variance_sides]
        if not measured:
            return Reading(error, variance, 0.0, "nothing to judge by: the policy file has no novelty statistics")
        side, value = max(measured, key=lambda pair: pair[0].score(pair[1]))
        return Reading(error, variance, side.score(value), side.words(value))


def _sides(name: str, quantiles: dict[str, float]) -> list[_Side]:
    return [_Side(name, quantiles[key], key == HIGH) for key in (LOW, HIGH) if key in quantiles]
