"""How far a policy's actions are from recorded commands, action by action; docs/bags.md has every definition."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.spec import ActionSpec

Floats = NDArray[np.float64]

DEADBAND = 0.05  # of the larger limit: commands nearer to 0 have no sign worth agreeing on
AT_LIMIT = 0.001  # of the range
SHIFTS_PER_PERIOD = 10
LEAST_SHARE = 0.5  # of the pairs without a shift, which a shift must leave to count
BASELINES = {"zero": "always 0", "mean": "always the mean", "repeat": "the last command again"}  # as people read them
OF_RANGE = ("mae", "rmse", "max", "mae_at_shift", "rmse_at_shift")  # errors that are also told as shares of the range
_EQUAL = 1e-3  # RMSEs nearer than this, relatively, differ by what is at the recording's ends
LEAP_S = 60.0  # stamps that go on by so much more than the recorder's clock are of a clock that was set
LONGEST_SHOWN_S = 3600.0
_SAME_S = 1e-6  # stamps nearer than this are the same: seconds since an epoch have no more digits


@dataclass(frozen=True)
class Baseline:
    """The errors of commands that see no image, in the action's unit; None where there is nothing to measure."""

    mae: float | None
    rmse: float | None


@dataclass(frozen=True)
class ActionErrors:
    """One action against its recorded command, in the action's unit; None where nothing could be measured.

    pairs: ticks with a finite action and a recorded command. best_shift_s: positive when the policy acts later than
    the recording. of_range: the error of the same name as a share of the action's range, high - low. baselines: by
    name, `zero`, `mean` and `repeat` of `baselines`; empty without pairs.
    """

    pairs: int
    mae: float | None = None
    rmse: float | None = None
    max: float | None = None
    r2: float | None = None
    sign_agreement: float | None = None
    saturation_policy: float | None = None
    saturation_recorded: float | None = None
    jerk_policy: float | None = None
    jerk_recorded: float | None = None
    best_shift_s: float | None = None
    mae_at_shift: float | None = None
    rmse_at_shift: float | None = None
    of_range: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)


def hold(stamps_s: Floats, recorded_stamps_s: Floats, recorded: Floats, longest_s: float) -> Floats:
    """The recorded command that holds at each stamp: the newest at or before it, float64 [N, A].

    Args:
        stamps_s: when, float64 [N], seconds.
        recorded_stamps_s: float64 [M], in any order.
        recorded: float64 [M, A].
        longest_s: an older command holds no more; the row is NaN then.
    """
    order = np.argsort(recorded_stamps_s, kind="stable")
    times = recorded_stamps_s[order]
    place = np.searchsorted(times, stamps_s + _SAME_S, side="right") - 1
    held = np.full((len(stamps_s), recorded.shape[1]), np.nan)
    found = place >= 0
    found[found] = stamps_s[found] - times[place[found]] <= longest_s + _SAME_S
    held[found] = recorded[order][place[found]]
    return held


@np.errstate(over="ignore", invalid="ignore")  # numbers near the largest float64 give infinite errors
def compare(
    stamps_s: Floats,
    policy: Floats,
    recorded_stamps_s: Floats,
    recorded: Floats,
    actions: Sequence[ActionSpec],
    period_s: float,
    max_shift_s: float = 1.0,
) -> dict[str, ActionErrors]:
    """Each action's errors, by name.

    Args:
        stamps_s: the ticks', float64 [N], seconds on the clock of `recorded_stamps_s`.
        policy: float64 [N, A], physical units; NaN where the policy had no command.
        recorded_stamps_s: the recorded commands', float64 [M].
        recorded: float64 [M, A]; what is not finite counts as not recorded.
        actions: their names and limits.
        period_s: the policy period.
        max_shift_s: how far the two are shifted against each other, either way.
    """
    longest_s = GAP_PERIODS * period_s
    held = hold(stamps_s, recorded_stamps_s, recorded, longest_s)
    steps = int(max_shift_s / period_s * SHIFTS_PER_PERIOD + 1e-9)
    shifts_s = [step * period_s / SHIFTS_PER_PERIOD for step in range(-steps, steps + 1)]
    shifted = [hold(stamps_s - shift_s, recorded_stamps_s, recorded, longest_s) for shift_s in shifts_s]
    errors = {}
    for i, action in enumerate(actions):
        at_shifts = [rows[:, i] for rows in shifted]
        found = _errors(stamps_s, policy[:, i], held[:, i], action, period_s)
        found |= _best_shift(policy[:, i], shifts_s, at_shifts)
        shares = {name: share_of_range(found[name], action) for name in OF_RANGE if found.get(name) is not None}
        errors[action.name] = ActionErrors(**found, of_range=shares)
    return errors


def baselines(stamps_s: Floats, held: Floats, period_s: float) -> dict[str, Baseline]:
    """Errors of three commands that see no image against the recorded ones; a policy should be better than each.

    zero: always 0. mean: always the mean of `held`. repeat: what was recorded one tick before; a tick after more than
    2.5 periods has none. An expert who moves slowly is hard to beat by `mean`, and a smooth one by `repeat`.

    Args:
        stamps_s: the paired ticks', float64 [N], N >= 1, seconds.
        held: the recorded command at each, finite, float64 [N].
        period_s: the policy period.
    """
    near = np.diff(stamps_s) <= GAP_PERIODS * period_s + _SAME_S
    errors = {"zero": held, "mean": held - held.mean(), "repeat": np.diff(held)[near]}
    return {
        name: Baseline(float(np.abs(error).mean()), float(np.sqrt((error**2).mean())))
        if len(error)
        else Baseline(None, None)
        for name, error in errors.items()
    }


def share_of_range(error: float, action: ActionSpec) -> float:
    """An error as a share of the action's range."""
    return error / (action.high - action.low)


def _errors(stamps_s: Floats, policy: Floats, held: Floats, action: ActionSpec, period_s: float) -> dict[str, Any]:
    valid = np.isfinite(policy) & np.isfinite(held)
    found: dict[str, Any] = {
        "pairs": int(valid.sum()),
        "saturation_policy": saturation(policy, action),
        "saturation_recorded": saturation(held, action),
        "jerk_policy": jerk(stamps_s, policy, period_s),
        "jerk_recorded": jerk(stamps_s, held, period_s),
    }
    if not valid.any():
        return found
    mine, theirs = policy[valid], held[valid]
    error = mine - theirs
    spread = float(((theirs - theirs.mean()) ** 2).sum())
    meant = np.abs(theirs) > DEADBAND * max(abs(action.low), abs(action.high))
    return found | {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "max": float(np.abs(error).max()),
        "r2": 1 - float((error**2).sum()) / spread if np.ptp(theirs) > 0 else None,
        "sign_agreement": float((mine * theirs > 0)[meant].mean()) if meant.any() else None,
        "baselines": baselines(stamps_s[valid], theirs, period_s),
    }


def _best_shift(policy: Floats, shifts_s: Sequence[float], at_shifts: Sequence[Floats]) -> dict[str, float | None]:
    """The shift of the least RMSE among those that leave enough pairs; `shifts_s` ascend, 0 is in their middle."""
    both = [np.isfinite(policy) & np.isfinite(held) for held in at_shifts]
    zero = len(shifts_s) // 2
    enough = max(1.0, LEAST_SHARE * np.count_nonzero(both[zero]))
    errors = [(policy - held)[valid] for held, valid in zip(at_shifts, both, strict=True)]
    rmses = np.array([np.sqrt((error**2).mean()) if len(error) >= enough else np.inf for error in errors])
    if not np.isfinite(rmses[zero]):
        return {}
    equal = rmses <= rmses.min() * (1 + _EQUAL)
    if np.ptp(at_shifts[zero][both[zero]]) == 0 or equal[np.isfinite(rmses)].all():  # nothing tells one shift by
        best = zero
    else:
        best = min(map(int, np.flatnonzero(equal)), key=lambda i: abs(shifts_s[i]))
        # A held command fits for as long as it holds. It was new where the shift is largest.
        most = min(best + SHIFTS_PER_PERIOD, len(shifts_s)) - 1
        while best < most and equal[best + 1]:
            best += 1
    mae = float(np.abs(errors[best]).mean())
    return {"rmse_at_shift": float(rmses[best]), "best_shift_s": shifts_s[best], "mae_at_shift": mae}


def saturation(values: Floats, action: ActionSpec) -> float | None:
    """The share of finite values [N] at the action's limits or beyond them."""
    values = values[np.isfinite(values)]
    margin = AT_LIMIT * (action.high - action.low)
    at_limit = (values <= action.low + margin) | (values >= action.high - margin)
    return float(at_limit.mean()) if len(values) else None


def jerk(stamps_s: Floats, values: Floats, period_s: float) -> float | None:
    """Mean absolute second difference of values [N] per period², over three ticks in a row without a gap."""
    if len(values) < 3:
        return None
    near = np.diff(stamps_s) <= GAP_PERIODS * period_s
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are infinite, which do not count
        second = np.diff(values, 2)
    second = second[near[1:] & near[:-1] & np.isfinite(second)]
    return float(np.abs(second).mean()) / period_s**2 if len(second) else None


def gaps(stamps_s: Floats, period_s: float) -> list[tuple[float, float]]:
    """Start and length, seconds, of what is longer than 2.5 periods between two stamps [N]."""
    lengths = np.diff(stamps_s)
    return [(float(stamps_s[i]), float(lengths[i])) for i in np.flatnonzero(lengths > GAP_PERIODS * period_s + _SAME_S)]


def shown_times(stamps_ns: NDArray[np.int64], logs_ns: NDArray[np.int64]) -> tuple[Floats, NDArray[np.intp]]:
    """When a page and a video show each tick, float64 [N], s since the first one; and before which stamps leap, [L].

    Time goes on with the stamps. Where these go back, or leap ahead by over a minute more than the recorder's clock, it
    goes on with that clock. A pause of more than an hour is shown as an hour.

    Args:
        stamps_ns: the ticks' stamps in the order in which they were recorded, int64 [N], N >= 1.
        logs_ns: when they were recorded, int64 [N].
    """
    steps_s, logged_s = np.diff(stamps_ns) * 1e-9, np.diff(logs_ns) * 1e-9
    leaps = (steps_s <= 0) | (steps_s > logged_s + LEAP_S)
    steps_s = np.clip(np.where(leaps, logged_s, steps_s), 0.0, LONGEST_SHOWN_S)
    return np.concatenate([[0.0], np.cumsum(steps_s)]), np.flatnonzero(leaps) + 1


def pace(episodes_s: Sequence[Floats]) -> float | None:
    """The camera's own pace, seconds: the median interval of the stamps [N] of all episodes; None without any."""
    intervals = np.concatenate([np.diff(stamps_s) for stamps_s in episodes_s])
    ahead = intervals[intervals > 0]
    return float(np.median(ahead)) if len(ahead) else None


def dropped(stamps_s: Floats, pace_s: float | None) -> list[tuple[float, int]]:
    """Where frames are missing among stamps [N] by the camera's own pace, which `pace` tells: since when, how many."""
    if pace_s is None:
        return []
    missing = np.rint(np.diff(stamps_s) / pace_s) - 1
    return [(float(stamps_s[i]), int(missing[i])) for i in np.flatnonzero(missing > 0)]
