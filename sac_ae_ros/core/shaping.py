"""CommandShaper: bends a sequence of wanted commands into one that a machine can follow.

Each action on its own, and in this order: low-pass, deadband, slew and jerk, limits. Where they contradict each
other, limits win over slew, slew over jerk, and jerk over not overshooting the target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ConfigError

Values = NDArray[np.float64]

# Braking is planned with this part of the jerk less than is allowed, so that rounding never asks for more.
_SPARE = 1e-6
_UNLIMITED = 1e300  # stands for inf where inf would make nan


class CommandShaper:
    """Holds what was sent last and how fast it was changing; not thread-safe, the gate's lock guards it."""

    def __init__(
        self,
        period_s: float,
        low: Values,
        high: Values,
        *,
        low_pass_s: Sequence[float] = (),
        deadband: Sequence[float] = (),
        max_slew: Sequence[float] = (),
        max_jerk: Sequence[float] = (),
    ) -> None:
        """Starts at rest at 0, or at the limit nearest to it.

        Args:
            period_s: time between two steps, seconds.
            low, high: limits [A] of each action, in its unit.
            low_pass_s: time constants of first-order filters, seconds; 0 filters nothing.
            deadband: wanted values nearer to 0 than this become 0; what slew passes on its way does not.
            max_slew: greatest change per second; inf means unlimited.
            max_jerk: greatest change per second of the slew; inf means unlimited.
            An empty sequence switches its stage off.

        Raises:
            ConfigError: a sequence has the wrong length, or holds what makes no sense.
        """
        self._low, self._high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if self._low.ndim != 1 or self._low.shape != self._high.shape or not (self._low <= self._high).all():
            raise ConfigError(f"limits.low: expected numbers up to limits.high, {high}; got {low}")
        if not 0 < period_s < np.inf:
            raise ConfigError(f"limits: expected a positive period, got {period_s} s")
        count = len(self._low)
        low_pass = _setting("limits.low_pass_s", low_pass_s, count, 0.0)
        self._decay = np.exp(-period_s / np.maximum(low_pass, 1e-12))  # exact; 0 without a filter
        self._deadband = _setting("limits.deadband", deadband, count, 0.0)
        if (self._deadband > 0)[(self._low > 0) | (self._high < 0)].any():
            limits = f"{self._low.tolist()}..{self._high.tolist()}"
            raise ConfigError(f"limits.deadband: expected 0 for actions that cannot be 0, got {deadband} for {limits}")
        self._max_step = _setting("limits.max_slew", max_slew, count, np.inf) * period_s
        self._max_change = _setting("limits.max_jerk", max_jerk, count, np.inf) * period_s**2
        self._brake = np.minimum(self._max_change * (1 - _SPARE), _UNLIMITED)
        self.reset(np.clip(np.zeros(count), self._low, self._high))

    def reset(self, at: Values) -> None:
        """Starts anew, at rest at `at` [A]; from outside the limits the first step goes straight to them."""
        self._value = np.array(at, np.float64)
        self._filtered = np.clip(self._value, self._low, self._high)
        self._step = np.zeros_like(self._value)

    def step(self, target: Values) -> Values:
        """What to send for `target` [A], float64, finite; both in the actions' units.

        The target is kept within limits first, so that neither the filter nor a brake lags behind what cannot be.
        """
        target = np.clip(target, self._low, self._high)
        self._filtered = target + (self._filtered - target) * self._decay
        wanted = np.where(np.abs(self._filtered) < self._deadband, 0.0, self._filtered)
        aim = self._braked(wanted)
        least = self._value + np.maximum(self._step - self._max_change, -self._max_step)
        most = self._value + np.minimum(self._step + self._max_change, self._max_step)
        value = np.clip(np.clip(aim, least, most), self._low, self._high)
        # a jump into the limits from outside is no motion that goes on
        self._step = value - np.clip(self._value, self._low, self._high)
        self._value = value
        return value.copy()

    def _braked(self, target: Values) -> Values:
        """The farthest value towards `target` from which it can still be stopped at.

        With j the greatest change of a step, the greatest first step s is the one whose s + (s - j) + (s - 2j) + ...
        is the way to go. It takes n steps, the smallest n with j n (n + 1) / 2 >= way, and s = way / n + j (n - 1) / 2;
        what is left after it, way - s, is exactly 0 for n = 1.
        """
        way = target - self._value
        length = np.abs(way)
        steps = np.maximum(np.ceil((np.sqrt(1 + 8 * (length / self._brake)) - 1) / 2), 1)
        left = np.maximum((steps - 1) * (length / steps - self._brake / 2), 0)
        return np.asarray(target - np.copysign(left, way), np.float64)


def _setting(name: str, values: Sequence[float], count: int, off: float) -> Values:
    """One number for each action; `off`, which switches the stage off, tells which numbers make sense."""
    if not len(values):
        return np.full(count, off)
    numbers = np.array(values, np.float64)
    positive = off == np.inf
    sensible = numbers > 0 if positive else (numbers >= 0) & (numbers < np.inf)
    if numbers.shape != (count,) or not sensible.all():
        kind = "positive numbers (.inf: unlimited)" if positive else "finite numbers from 0"
        raise ConfigError(f"{name}: expected {count} {kind}, one for each action; got {list(values)}")
    return numbers
