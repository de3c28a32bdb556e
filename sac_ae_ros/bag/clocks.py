"""Which clock stamped the messages of a topic, by how far their stamps are from when they were recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    def of(cls, logs_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> Clock:
        """From log times and stamps of the same messages, int64 [N], N >= 1."""
        late_s = (logs_ns - stamps_ns) * 1e-9
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
