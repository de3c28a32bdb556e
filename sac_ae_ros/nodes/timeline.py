"""Timeline: where a replay is, in recorded time that passes at a rate of the steady clock's. Without ROS."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# What is later than that is given up: messages that all come at once would be lost on subscribers of depth 1.
MOST_LATE_S = 0.1
# Log times that go back by less are a disorder in the file, by more another piece of it.
DISORDER_NS = 1_000_000_000


class Timeline:
    """Tells when each message is due. Not safe for several threads.

    latest_s: how late the latest message was, s. given_up_s: how much longer the replay takes because of that, s.
    """

    def __init__(self, rate: float, now_s: Callable[[], float] = time.monotonic) -> None:
        """`rate`: recorded seconds per second. Time passes from `begin` on."""
        self._rate, self._clock_s = rate, now_s
        self._from_s, self._from_ns = now_s(), 0
        self._newest_ns = 0
        self.paused = False
        self.latest_s = self.given_up_s = 0.0

    def begin(self, at_ns: int) -> None:
        """Goes on from that recorded time."""
        self._from_s, self._from_ns = self._clock_s(), at_ns
        self._newest_ns = at_ns

    def pause(self) -> None:
        """Stops the time."""
        if not self.paused:
            self._from_ns = self.at_ns()
            self.paused = True

    def resume(self) -> None:
        """Goes on from where `pause` stopped it."""
        if self.paused:
            self._from_s, self.paused = self._clock_s(), False

    def at_ns(self) -> int:
        """The recorded time at this moment."""
        if self.paused:
            return self._from_ns
        return self._from_ns + round((self._clock_s() - self._from_s) * self._rate * 1e9)

    def left_s(self, log_ns: int) -> float:
        """How long to wait, s, until a message of that log time is due; infinite while paused, 0 if it is late."""
        if self.paused:
            return math.inf
        return max(0.0, (log_ns - self.at_ns()) * 1e-9 / self._rate)

    def played(self, log_ns: int) -> None:
        """Notes that the message of that log time was published at this moment."""
        if log_ns < self._newest_ns - DISORDER_NS:
            self.begin(log_ns)
            return
        self._newest_ns = max(self._newest_ns, log_ns)
        late_s = (self.at_ns() - self._newest_ns) * 1e-9 / self._rate
        self.latest_s = max(self.latest_s, late_s)
        if late_s > MOST_LATE_S:
            self.given_up_s += late_s
            self.begin(self._newest_ns)
