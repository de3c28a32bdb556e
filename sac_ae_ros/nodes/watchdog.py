"""Watchdog: its own thread on the steady clock, which stops an armed robot and keeps stopping it.

It touches only the time of the last used frame, the gate and the stop publisher: neither a paused /clock nor
a hung inference nor a blocked log can silence it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sac_ae_ros.core.command import SafetyGate, Stop

LAST_STOPS_S = 0.5


class Watchdog:
    """Sends every stop of one activation."""

    def __init__(self, gate: SafetyGate, stop: Callable[[], None], *, period_s: float, timeout_s: float) -> None:
        """Starts the thread.

        Args:
            gate: is told when frames are stale, and asked whether a stop is latched.
            stop: publishes one stop; called from the thread only.
            period_s: the policy period, at which stops are repeated.
            timeout_s: how long after the last used frame an armed robot is stopped.
        """
        self._gate, self._stop = gate, stop
        self._period_s, self._timeout_s = period_s, timeout_s
        self._used_s: float | None = None  # None until the first frame has begun
        self._last_stops_until_s: float | None = None
        self._ended = False
        self.trouble: str | None = None  # why the last stop could not be sent
        self._wake = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def frame_begun(self) -> None:
        """Notes that a frame is about to be worked on: the first one starts the clock, since even it may hang."""
        if self._used_s is None:
            self._used_s = time.monotonic()

    def frame_used(self) -> None:
        """Notes that a frame has gone through the policy: ends the cause of a stale stop, not the latch."""
        self._used_s = time.monotonic()
        self._gate.report(Stop.STALE, False)

    def wake(self) -> None:
        """Makes the thread look at once, since a stop was latched elsewhere."""
        self._wake.set()

    def last_stops(self) -> None:
        """Sends stops for half a second and then nothing, since the gate has just been disarmed."""
        self._done.clear()
        self._last_stops_until_s = time.monotonic() + LAST_STOPS_S
        self._wake.set()

    def cancel_last_stops(self) -> None:
        """Forgets `last_stops`, since the gate is about to be armed again."""
        self._last_stops_until_s = None

    def wait_last_stops(self) -> None:
        """Waits until the stops that `last_stops` began are over."""
        self._done.wait(LAST_STOPS_S + 0.5)

    def end(self) -> None:
        """Ends the thread; nothing is sent any more."""
        self._ended = True
        self._wake.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._ended:
            wait_s = self._look()
            self._wake.wait(wait_s)
            self._wake.clear()

    def _look(self) -> float:
        """Sends a stop if one is needed; returns the seconds until the next look."""
        now_s, used_s, until_s = time.monotonic(), self._used_s, self._last_stops_until_s
        left_s = self._timeout_s - (now_s - used_s) if used_s is not None else self._timeout_s
        if used_s is not None:
            self._gate.report(Stop.STALE, left_s <= 0)
        state = self._gate.state
        stopped = state.armed and state.stop is not None
        if until_s is not None and now_s >= until_s:
            self._last_stops_until_s = until_s = None
            self._done.set()
        if stopped or until_s is not None:
            self._send_stop()
        waits = [self._period_s]
        if left_s > 0:
            waits.append(left_s)
        if until_s is not None:
            waits.append(until_s - now_s)
        return max(min(waits), 0.001)

    def _send_stop(self) -> None:
        try:
            self._stop()
            self.trouble = None
        except Exception as error:  # whatever it is, the next stop must still be tried
            self.trouble = str(error)
