"""SafetyGate: the only way from a policy's action to a robot's command.

The gate maps actions to physical units, keeps them within limits, and decides whether anything may be sent at
all. It is not safety-rated; see docs/safety.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ArmError, ConfigError
from sac_ae_ros.core.spec import ActionSpec

Values = NDArray[np.float64]


class Stop(StrEnum):
    """Why an armed robot was stopped; what latches, and what a user reads in the log."""

    STALE = "stale"  # no fresh frame was used for too long
    NAN = "nan"  # the policy's action was not finite


@dataclass(frozen=True)
class GateState:
    """A consistent picture of the gate: `stop` is the latched reason, `causes` what lasts at this moment."""

    armed: bool
    stop: Stop | None
    causes: frozenset[Stop]


@dataclass(frozen=True)
class Verdict:
    """What became of one action: physical `values` [A] (None when not finite), and whether they were sent."""

    values: Values | None
    sent: bool


class SafetyGate:
    """Limits commands and holds the latch; a callback thread and a watchdog thread may use it at once."""

    def __init__(
        self,
        actions: Sequence[ActionSpec],
        period_s: float,
        *,
        low: Sequence[float] = (),
        high: Sequence[float] = (),
        max_slew: Sequence[float] = (),
        rest: Sequence[float] = (),
    ) -> None:
        """Starts disarmed.

        Args:
            actions: the policy's actions, with the range that -1..1 stands for.
            period_s: the policy period, seconds.
            low, high: the robot's limits in the actions' units; empty means the policy's. The tighter wins.
            max_slew: greatest change per second, in the actions' units; empty means unlimited.
            rest: what a stop sends, from where slew starts after it; empty means zeros.

        Raises:
            ConfigError: a limit has the wrong length or leaves no room.
        """
        self._policy_low = np.array([action.low for action in actions])
        self._policy_high = np.array([action.high for action in actions])
        names = [action.name for action in actions]
        self.low = np.maximum(self._policy_low, _limit("limits.low", low, names, -np.inf))
        self.high = np.minimum(self._policy_high, _limit("limits.high", high, names, np.inf))
        if (self.low > self.high).any():
            raise ConfigError(f"limits: expected low <= high for {names}, got {self.low} and {self.high}")
        self._max_step = _limit("limits.max_slew", max_slew, names, np.inf) * period_s
        if not (self._max_step > 0).all():
            raise ConfigError(f"limits.max_slew: expected positive numbers for {names}, got {list(max_slew)}")
        self._lock = threading.Lock()
        self._armed = False
        self._stop: Stop | None = None
        self._causes: set[Stop] = set()
        self.rest = _limit("stop values", rest, names, 0.0)
        if not np.isfinite(self.rest).all():
            raise ConfigError(f"stop values: expected finite numbers for {names}, got {list(rest)}")
        self._previous = self.rest

    @property
    def state(self) -> GateState:
        """The state at this moment."""
        with self._lock:
            return GateState(self._armed, self._stop, frozenset(self._causes))

    def arm(self) -> None:
        """Lets commands pass and clears the latch.

        Raises:
            ArmError: the cause of a stop lasts.
        """
        with self._lock:
            if self._causes:
                causes = ", ".join(sorted(cause.value for cause in self._causes))
                raise ArmError(f"arm refused: expected no cause to stop, but this lasts: {causes}")
            if not self._armed or self._stop is not None:
                self._previous = self.rest  # a robot that moves goes on from its last command
            self._armed, self._stop = True, None

    def disarm(self) -> bool:
        """Lets nothing pass any more; returns whether the gate was armed, so that the caller sends stops."""
        with self._lock:
            was_armed, self._armed, self._stop = self._armed, False, None
            return was_armed

    def report(self, cause: Stop, lasts: bool) -> bool:
        """Says that a cause to stop has begun or ended; returns whether this latched a stop just now."""
        with self._lock:
            return self._report(cause, lasts)

    def pass_on(self, action: NDArray[np.float32], send: Callable[[Values], None]) -> Verdict:
        """Maps an action [A] in [-1, 1] to physical values and calls `send` with them if they may pass.

        Slew is limited against what was sent last, and against rest after a stop. `send` runs under the
        gate's lock, so that no command can follow a stop that another thread has just latched.
        """
        with self._lock:
            finite = bool(np.isfinite(action).all())
            self._report(Stop.NAN, not finite)
            if not finite:
                return Verdict(None, False)
            values = self._limited(action)
            if not self._armed or self._stop is not None:
                return Verdict(values, False)
            self._previous = values
            send(values)
            return Verdict(values, True)

    def _report(self, cause: Stop, lasts: bool) -> bool:
        if not lasts:
            self._causes.discard(cause)
            return False
        self._causes.add(cause)
        if not self._armed or self._stop is not None:
            return False
        self._stop = cause
        self._previous = self.rest
        return True

    def _limited(self, action: NDArray[np.float32]) -> Values:
        values = to_physical(action, self._policy_low, self._policy_high)
        values = np.clip(values, self._previous - self._max_step, self._previous + self._max_step)
        return np.clip(values, self.low, self.high)


def to_physical(action: NDArray[np.float32], low: Values, high: Values) -> Values:
    """Maps an action [A] in [-1, 1] onto low..high [A]; training and robot share this line."""
    return np.asarray(low + (np.clip(action.astype(np.float64), -1, 1) + 1) / 2 * (high - low), np.float64)


def _limit(name: str, values: Sequence[float], names: list[str], default: float) -> Values:
    if not len(values):
        return np.full(len(names), default)
    limits = np.array(values, np.float64)
    if len(limits) != len(names) or np.isnan(limits).any():
        raise ConfigError(f"{name}: expected a number for each of {names}, got {list(values)}")
    return limits
