"""SafetyGate: the only way from a policy's action to a robot's command.

The gate maps actions to physical units, keeps them within limits, and decides whether anything may be sent at
all. It is not safety-rated; see docs/safety.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ArmError, ConfigError
from sac_ae_ros.core.shaping import CommandShaper
from sac_ae_ros.core.spec import ActionSpec

Values = NDArray[np.float64]


class Stop(StrEnum):
    """Why an armed robot was stopped; what latches, and what a user reads in the log."""

    STALE = "stale"  # no fresh frame was used for too long
    ENABLE = "enable"  # the deadman is false or silent
    E_STOP = "e_stop"  # the emergency stop is pressed, or silent where it must be heard
    NOVELTY = "novelty"  # images unlike those that the policy was judged on
    NAN = "nan"  # the policy's action was not finite
    CLOCK = "clock"  # the clock jumped or stands still, or stamps come from the future
    HUNG = "hung"  # inference does not come back
    CAMERA = "camera"  # camera_info contradicts the policy, where that is refused
    JOINTS = "joints"  # measured positions, which a stop would hold, are missing
    RIVAL = "rival"  # another node commands the same robot, where that stops it


CLEARED_BY_EDGE = frozenset({Stop.STALE, Stop.ENABLE})


@dataclass(frozen=True)
class Limits:
    """The robot's own limits, one number for each action in its unit; empty means none.

    low, high: where commands end; the tighter of these and the policy's wins. low_pass_s: time constants.
    deadband: what is nearer to 0 is sent as 0. max_slew, max_jerk: greatest change per second, and of that.
    """

    low: Sequence[float] = ()
    high: Sequence[float] = ()
    low_pass_s: Sequence[float] = ()
    deadband: Sequence[float] = ()
    max_slew: Sequence[float] = ()
    max_jerk: Sequence[float] = ()


@dataclass(frozen=True)
class GateState:
    """A consistent picture of the gate.

    stop: what stopped the armed robot first. latched: every cause since. causes: what lasts at this moment.
    held: causes since the last arming that `arm` alone clears; where there is no enable edge, all that stopped it.
    """

    armed: bool
    stop: Stop | None
    latched: frozenset[Stop] = frozenset()
    causes: frozenset[Stop] = frozenset()
    held: frozenset[Stop] = frozenset()


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
        limits: Limits | None = None,
        *,
        rest: Callable[[], Values] | None = None,
        measured: bool = False,
        has_edge: bool = True,
        causes: Iterable[Stop] = (),
        held: Iterable[Stop] = (),
    ) -> None:
        """Starts disarmed.

        Args:
            actions: the policy's actions, with the range that -1..1 stands for.
            period_s: the policy period, seconds.
            limits: the robot's own.
            rest: gives what a stop sends at that moment, [A]; commands start from there. None: zeros.
            measured: `rest` is where the robot is; arming is refused while that lies outside the limits, since the
                first command would jump there.
            has_edge: whether `arm_by_edge` may be called, which clears some stops as well.
            causes: what bars arming until it is reported to have ended.
            held: what the gate before this one left for `arm` to clear.

        Raises:
            ConfigError: a limit has the wrong length or leaves no room.
        """
        limits = limits or Limits()
        names = [action.name for action in actions]
        self._policy_low = np.array([action.low for action in actions])
        self._policy_high = np.array([action.high for action in actions])
        self.low = np.maximum(self._policy_low, _limit("limits.low", limits.low, names, -np.inf))
        self.high = np.minimum(self._policy_high, _limit("limits.high", limits.high, names, np.inf))
        if (self.low > self.high).any():
            raise ConfigError(f"limits: expected low <= high for {names}, got {self.low} and {self.high}")
        self._shaper = CommandShaper(
            period_s,
            self.low,
            self.high,
            low_pass_s=limits.low_pass_s,
            deadband=limits.deadband,
            max_slew=limits.max_slew,
            max_jerk=limits.max_jerk,
        )
        self._rest, self._measured, self._names = rest or (lambda: np.zeros(len(names))), measured, names
        self._cleared_by_edge = CLEARED_BY_EDGE if has_edge else frozenset()
        self._lock = threading.Lock()
        self._armed = False
        self._stop: Stop | None = None
        self._latched: frozenset[Stop] = frozenset()
        self._causes = frozenset(causes)
        self._held = frozenset(held)
        self._closed = False
        self.stops = 0  # how often a stop has latched
        self.stop_values = self._stop_values()
        self.on_stop: Callable[[], None] = lambda: None  # called, under the lock, when a stop latches; must not wait

    @property
    def state(self) -> GateState:
        """The state at this moment."""
        with self._lock:
            return GateState(self._armed, self._stop, self._latched, self._causes, self._held)

    def arm(self) -> None:
        """Lets commands pass and clears every latch.

        Raises:
            ArmError: the cause of a stop lasts.
        """
        with self._lock:
            self._arm()

    def check_arming(self) -> None:
        """Raises ArmError where `arm` would; arms nothing."""
        with self._lock:
            self._check_arming()

    def arm_by_edge(self) -> None:
        """Arms as the enable topic does: only stale and enable stops are cleared by it.

        Raises:
            ArmError: the cause of a stop lasts, or something has happened since the last arming that needs `arm`.
        """
        with self._lock:
            if self._held:
                raise ArmError(f"enable cannot clear this stop, call ~/arm: {_list(self._held)}")
            self._arm()

    def disarm(self) -> bool:
        """Lets nothing pass any more; returns whether the gate was armed, so that the caller sends stops."""
        with self._lock:
            return self._disarm()

    def close(self) -> bool:
        """Disarms for good: no thread can arm it any more. Returns as `disarm` does."""
        with self._lock:
            self._closed = True
            return self._disarm()

    def report(self, cause: Stop, lasts: bool) -> bool:
        """Says that a cause to stop has begun or ended; returns whether this latched a stop just now."""
        with self._lock:
            return self._report(cause, lasts)

    def pass_on(
        self,
        action: NDArray[np.float32],
        send: Callable[[Values], None],
        late: Callable[[], Stop | None] = lambda: None,
    ) -> Verdict:
        """Maps an action [A] in [-1, 1] to physical values and calls `send` with them if they may pass.

        What is sent is also shaped: filtered, and limited in slew and jerk against what was sent before, and
        against rest after a stop. `send` runs under the gate's lock, so that no command can follow a stop that
        another thread has just latched. `late` is asked under the lock, immediately before and after `send`, for a
        reason to stop: a process that was paused there stops the robot. It must not use the gate.
        """
        with self._lock:
            values = _physical(action, self._policy_low, self._policy_high)
            self._report(Stop.NAN, values is None)
            if values is None:
                return Verdict(None, False)
            if not self._is_moving():
                return Verdict(np.clip(values, self.low, self.high), False)
            values = self._shaper.step(values)
            self._report_late(late())
            if not self._is_moving():
                return Verdict(values, False)
            send(values)
            self._report_late(late())
            return Verdict(values, True)

    def _is_moving(self) -> bool:
        return self._armed and self._stop is None

    def _report_late(self, cause: Stop | None) -> None:
        if cause is not None:
            self._report(cause, True)

    def _disarm(self) -> bool:
        if self._armed and self._stop is None:
            self.stop_values = self._stop_values()
        was_armed, self._armed = self._armed, False
        self._stop, self._latched = None, frozenset()
        return was_armed

    def _check_arming(self) -> Values | None:
        """Returns from where commands would start; None where they would go on from the last one."""
        if self._closed:
            raise ArmError("arm refused: expected an active node, but this one is being deactivated")
        if self._causes:
            raise ArmError(f"arm refused: expected no cause to stop, but this lasts: {_list(self._causes)}")
        return None if self._is_moving() else self._start()

    def _arm(self) -> None:
        start = self._check_arming()
        if start is not None:
            self._shaper.reset(start)
        self._armed, self._stop = True, None
        self._latched = self._held = frozenset()

    def _stop_values(self) -> Values:
        """What a stop sends from now on: a measured place is held within the limits, whatever a sensor says."""
        at = self._rest()
        return np.clip(at, self.low, self.high) if self._measured else at

    def _start(self) -> Values:
        """From where commands start."""
        at = self._rest()
        outside = (at < self.low) | (at > self.high)
        if self._measured and outside.any():
            where = ", ".join(
                f"{name} at {at[i]:.3g}, limits {self.low[i]:.3g}..{self.high[i]:.3g}"
                for i, name in enumerate(self._names)
                if outside[i]
            )
            raise ArmError(
                f"arm refused: expected measured positions within the limits, got {where}; move it there first"
            )
        return at

    def _report(self, cause: Stop, lasts: bool) -> bool:
        if not lasts:
            self._causes -= {cause}
            return False
        self._causes |= {cause}
        if cause not in CLEARED_BY_EDGE:
            self._held |= {cause}
        if not self._armed:
            return False
        self._latched |= {cause}
        self._held |= {cause} - self._cleared_by_edge
        if self._stop is not None:
            return False
        self._stop = cause
        self.stops += 1
        self.stop_values = self._stop_values()
        self.on_stop()
        return True


def to_physical(action: NDArray[np.float32], low: Values, high: Values) -> Values:
    """Maps an action [A] in [-1, 1] onto low..high [A]; training and robot share this line."""
    return np.asarray(low + (np.clip(action.astype(np.float64), -1, 1) + 1) / 2 * (high - low), np.float64)


def _physical(action: NDArray[np.float32], low: Values, high: Values) -> Values | None:
    """As `to_physical`; None where the action, or what it stands for, is not finite."""
    if not np.isfinite(action).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # a range of +-1e308 is wider than a float64
        values = to_physical(action, low, high)
    return values if np.isfinite(values).all() else None


def from_physical(values: Values, low: Values, high: Values) -> NDArray[np.float32]:
    """What `to_physical` gives `values` [..., A] for; beyond -1..1 where they lie outside of low..high."""
    return np.asarray(2 * (values - low) / (high - low) - 1, np.float32)


def _list(causes: Iterable[Stop]) -> str:
    return ", ".join(sorted(cause.value for cause in causes))


def _limit(name: str, values: Sequence[float], names: list[str], default: float) -> Values:
    if not len(values):
        return np.full(len(names), default)
    limits = np.array(values, np.float64)
    if len(limits) != len(names) or np.isnan(limits).any():
        raise ConfigError(f"{name}: expected a number for each of {names}, got {list(values)}")
    return limits
