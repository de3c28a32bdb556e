"""Which clock stamped the messages of a topic, by how far their stamps are from when they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.messages import LEAP_NS

SAME_CLOCK_S = 0.5  # more is no difference in transport, of clocks that are synchronised
LEAST_PERCENTILE = 5  # not the least itself, so that a few stamps of 0 or of the future do not decide


@dataclass(frozen=True)
class Clock:
    """How much later than its stamps a topic's messages were recorded, seconds.

    least_s: the 5th percentile. Transport and queues only add to it, so it tells the clock. median_s, most_s: likewise.
    """

    least_s: float
    median_s: float
    most_s: float

    @classmethod
    def of(cls, late_s: NDArray[np.float64]) -> Clock:
        """From what `lateness` gives of its messages, N >= 1."""
        return cls(float(np.percentile(late_s, LEAST_PERCENTILE)), float(np.median(late_s)), float(late_s.max()))

    @property
    def is_recorders(self) -> bool:
        """Whether it is, as far as can be told, the clock of the log times."""
        return abs(self.least_s) <= SAME_CLOCK_S

    def ahead_of(self, other: Clock) -> float:
        """By how much its stamps are later than the other's at one moment, s."""
        return other.least_s - self.least_s

    def is_apart_from(self, other: Clock) -> bool:
        """Whether the two cannot be one clock."""
        return abs(self.ahead_of(other)) > SAME_CLOCK_S


def lateness(
    logs_ns: NDArray[np.int64], shifts_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much later than its stamp each message was recorded, float64 [N], seconds.

    Where log times leap, stamps may leap with them or not: of the log time as recorded, and as shifted to leave the
    leap out, the one nearer to the stamp counts.

    Args:
        logs_ns: log times without leaps, int64 [N].
        shifts_ns: what was added to them for that, int64 [N].
        stamps_ns: int64 [N].
    """
    joined_ns = logs_ns - stamps_ns
    recorded_ns = joined_ns - shifts_ns
    return np.asarray(np.where(np.abs(recorded_ns) < np.abs(joined_ns), recorded_ns, joined_ns) * 1e-9, np.float64)


def leaps(stamps_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Before which of these times, int64 [N] in the order of recording, the clock was set by more than an hour."""
    return np.flatnonzero(np.abs(np.diff(stamps_ns)) > LEAP_NS) + 1


def describe_leaps(topic: str, stamps_ns: NDArray[np.int64]) -> Iterator[str]:
    """Yield a remark for each way in which stamps, int64 [N] as recorded, leap or go back; zeros are no stamps."""
    there = stamps_ns[stamps_ns != 0]
    steps_ns, places = np.diff(there), leaps(there)
    if len(places):
        first = int(places[0])
        times = f" {len(places)} times, first" if len(places) > 1 else ""
        length = duration(abs(int(steps_ns[first - 1])) * 1e-9)
        yield f"stamps on {topic} leap{times} by {length} after {first} messages"
    back_s = -steps_ns[(steps_ns < 0) & (steps_ns >= -LEAP_NS)] * 1e-9
    if count := int((back_s > SAME_CLOCK_S).sum()):
        yield f"stamps on {topic} go back by up to {back_s.max():.1f} s" + (f", {count} times" if count > 1 else "")


def duration(seconds: float) -> str:
    """A long time for people: "53.9 years"."""
    for unit, length_s in (("years", 365 * 86400), ("days", 86400), ("hours", 3600)):
        if seconds >= length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"
