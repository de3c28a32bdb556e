"""Watchdog: its own thread on the steady clock, which stops an armed robot and keeps stopping it.

It touches only the times of the last used frame and of the heartbeats, the gate and the stop publisher:
neither a paused /clock nor a hung inference nor a blocked log can silence it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sac_ae_ros.core.command import SafetyGate, Stop, Values
from sac_ae_ros.nodes.heartbeat import Heartbeat

LAST_STOPS_S = 0.5
ABOUT_FRAMES = frozenset({Stop.STALE, Stop.CLOCK, Stop.HUNG})


class Watchdog:
    """Sends every stop of one activation."""

    def __init__(
        self,
        gate: SafetyGate,
        stop: Callable[[Values], None],
        heartbeats: Sequence[Heartbeat] = (),
        *,
        period_s: float,
        timeout_s: float,
    ) -> None:
        """Starts the thread.

        Args:
            gate: is told when frames are stale, and asked whether a stop is latched.
            stop: publishes one stop, the gate's stop_values; called from the thread only.
            heartbeats: signals that must keep coming.
            period_s: the policy period, at which stops are repeated.
            timeout_s: how long after the last used frame an armed robot is stopped.
        """
        self._gate, self._stop, self._heartbeats = gate, stop, heartbeats
        self._period_s, self._timeout_s = period_s, timeout_s
        self._since_s: float | None = None  # when a frame was used last, or the first one began; None before that
        self._seen = False  # whether a frame has gone through the policy yet
        self._begun_s: float | None = None  # None while no frame is being worked on
        self._blame = Stop.STALE
        self.late_s = 0.0  # for how long no frame was used, when that was last too long
        self._due_s = float("inf")  # when the thread means to look again
        self._overslept_s = 0.0  # by how much it came too late for that at most, since a frame was used
        self.paused = False  # whether that alone made the frame of `late_s` late
        self._frames_lock = threading.Lock()
        self._last_stops_until_s: float | None = None
        self._next_stop_s = 0.0
        self._was_stopping, self._stops_seen = False, 0
        self._ended = False
        self.trouble: str | None = None  # why the last stop could not be sent
        self._wake = threading.Event()
        self._done = threading.Event()  # unless last stops are under way
        self._done.set()
        gate.on_stop = self._wake.set
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    @property
    def working_s(self) -> float:
        """How long a frame has been worked on; 0 if none is."""
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def frame_begun(self) -> None:
        """Notes that a frame is about to be worked on: the first one starts the clock, since even it may hang."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        self._look_at_frames(now_s)  # this process may have slept: a late frame moves nothing
        self._begun_s = now_s

    def frame_inferred(self) -> bool:
        """Notes that the policy has seen the frame that is worked on; returns whether that was in time."""
        now_s = time.monotonic()
        in_time = self._look_at_frames(now_s) != float("inf")
        with self._frames_lock:
            if in_time and not self._seen:
                self._seen = True
                self._gate.report(Stop.STALE, False)
        return in_time

    def late(self) -> Stop | None:
        """What a command that is sent at this moment is too late for; takes no lock, since the gate's is held."""
        since_s, begun_s, now_s = self._since_s, self._begun_s, time.monotonic()
        if since_s is None or now_s - since_s < self._timeout_s:
            return None
        return Stop.HUNG if begun_s is not None and now_s - begun_s > self._period_s else self._blame

    def frame_ended(self) -> None:
        """Notes that the frame is done with, whether it was used or not."""
        self._begun_s = None

    def frame_used(self) -> None:
        """Notes that a frame has gone through the policy: ends the causes of a late frame, not the latch.

        If it comes late all the same, as after a pause of the whole process, the robot is stopped first.
        """
        now_s = time.monotonic()
        self._look_at_frames(now_s)
        with self._frames_lock:
            self._since_s, self._blame, self._seen = now_s, Stop.STALE, True
            self._overslept_s = 0.0
            for cause in ABOUT_FRAMES:
                self._gate.report(cause, False)

    def blame(self, cause: Stop) -> None:
        """Says what a late frame is to be put down to, stale or clock, until one is used again."""
        self._blame = cause

    def last_stops(self) -> None:
        """Sends stops for half a second, or until the gate is armed again, since it has just been disarmed."""
        self._done.clear()
        self._last_stops_until_s = time.monotonic() + LAST_STOPS_S
        self._wake.set()

    def wait_last_stops(self) -> None:
        """Waits until the stops that `last_stops` began are over, if it did."""
        self._done.wait(LAST_STOPS_S + 0.5)

    def end(self) -> None:
        """Ends the thread; nothing is sent any more."""
        self._ended = True
        self._wake.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._ended:
            try:
                wait_s = self._look(time.monotonic())
            except Exception as error:  # this thread never ends: whatever is wrong, stopping is right
                self._send_stop()
                self.trouble, wait_s = f"a defect in the watchdog: {error}", self._period_s
            wait_s = max(wait_s, 0.001)
            self._due_s = time.monotonic() + wait_s
            self._wake.wait(wait_s)
            self._wake.clear()

    def _look(self, now_s: float) -> float:
        """Sends a stop if one is due; returns the seconds until the next look."""
        most_s = self._period_s / 2  # so that a pause of the process is noticed
        wait_s = min(self._look_at_frames(now_s), *(beat.look(now_s) for beat in self._heartbeats), most_s)
        stopping, left_s = self._is_stopping(now_s)
        stops = self._gate.stops
        anew, self._stops_seen = stopping and (stops != self._stops_seen or not self._was_stopping), stops
        if anew or (stopping and now_s >= self._next_stop_s):
            self._send_stop()
            self._next_stop_s = now_s + self._period_s
        if stopping:
            left_s = min(left_s, self._next_stop_s - now_s)
        self._was_stopping = stopping
        return min(wait_s, left_s)

    def _look_at_frames(self, now_s: float) -> float:
        """Reports what makes frames late; returns the seconds until they would be, infinity if they are."""
        with self._frames_lock:
            since_s, begun_s = self._since_s, self._begun_s
            if since_s is None:
                return self._period_s
            left_s = self._timeout_s - (now_s - since_s)
            late = left_s <= 0
            # of the whole process: whichever thread goes on first notices
            self._overslept_s = max(self._overslept_s, now_s - max(self._due_s, since_s))
            hung = late and begun_s is not None and now_s - begun_s > self._period_s
            cause = Stop.HUNG if hung else self._blame
            if late:  # before another cause ends, so that arming is barred all the time
                self.late_s, overslept_s = now_s - since_s, self._overslept_s
                self.paused = overslept_s > self._period_s / 2 and self.late_s - overslept_s < self._timeout_s
                self._gate.report(cause, True)
            for other in ABOUT_FRAMES:
                # a gate that is made with a cause keeps it until a frame has been used
                if not (late and other is cause) and (late or self._seen):
                    self._gate.report(other, False)
            return left_s if left_s > 0 else float("inf")

    def _is_stopping(self, now_s: float) -> tuple[bool, float]:
        """Whether stops are to be sent now, and the seconds until that may change."""
        state, until_s = self._gate.state, self._last_stops_until_s
        armed_again = state.armed and state.stop is None
        if until_s is not None and (now_s >= until_s or armed_again):
            self._last_stops_until_s = until_s = None
            self._done.set()
        latched = state.armed and state.stop is not None
        return latched or until_s is not None, float("inf") if until_s is None else until_s - now_s

    def _send_stop(self) -> None:
        try:
            self._stop(self._gate.stop_values)
            self.trouble = None
        except Exception as error:  # whatever it is, the next stop must still be tried
            self.trouble = str(error)
