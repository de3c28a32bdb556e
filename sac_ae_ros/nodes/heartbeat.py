"""Heartbeat: a signal that must keep coming, and be good, or the robot stops."""

from __future__ import annotations

import threading
import time

from sac_ae_ros.core.command import SafetyGate, Stop

NEVER_S = float("inf")


class Heartbeat:
    """One such signal; the callback that hears it and the watchdog may use it at once.

    Before it is first heard it lets the gate's own causes stand: a gate that must wait for it is made with its cause.
    """

    def __init__(self, cause: Stop, title: str, bad: str, *, settle_s: float = 0.0, presumed: bool = False) -> None:
        """Starts without a gate to tell.

        Args:
            cause: what the gate is told.
            title, bad: in words what it is, and what is wrong when it is bad.
            settle_s: it counts as bad for so long after it was said to be.
            presumed: as long as it was never heard it is taken for good, unless it is required.
        """
        self.cause, self._title, self._bad, self._settle_s = cause, title, bad, settle_s
        self._presumed = presumed
        self._gate: SafetyGate | None = None
        self._timeout_s: float | None = None
        self._good = True
        self._why = ""  # it is bad, where more is known than `bad`
        self._doubt = ""  # why it cannot be believed, whatever it says
        self._was_bad = False  # since it was last told to a gate
        self._bad_until_s = 0.0
        self._heard_s: float | None = None
        self._lock = threading.Lock()

    def attach(self, gate: SafetyGate, timeout_s: float | None) -> None:
        """Tells this gate from now on. `timeout_s`: how long it may be silent, steady seconds; None: for ever."""
        with self._lock:
            self._gate, self._timeout_s = gate, timeout_s
            if self._was_bad:  # while nobody listened: the gate remembers it
                gate.report(self.cause, True)
                self._was_bad = False
            self._report(time.monotonic())

    def detach(self) -> None:
        """Tells no gate any more, and keeps for the next one what it ought to know."""
        with self._lock:
            self._gate = None

    def heard(self, good: bool, why: str = "") -> None:
        """Notes the signal; a bad one stops the robot at once. `why` says more than `bad` in the constructor."""
        with self._lock:
            now_s = time.monotonic()
            self._good, self._heard_s, self._why = good, now_s, why
            if not good:
                self._bad_until_s = now_s + self._settle_s
                self._was_bad |= self._gate is None
            self._report(now_s)

    def doubt(self, why: str) -> None:
        """Counts it as bad from now on, whatever it says, and for that reason; with an empty one no longer."""
        with self._lock:
            had, self._doubt = self._doubt, why
            if why or had:
                self._report(time.monotonic())

    def look(self, now_s: float) -> float:
        """Reports whether it is bad or silent; returns the seconds after which that may change."""
        with self._lock:
            self._report(now_s)
            if self._heard_s is None:
                return NEVER_S
            silence_s = NEVER_S if self._timeout_s is None else self._heard_s + self._timeout_s - now_s
            settling_s = self._bad_until_s - now_s
            return min(left for left in (silence_s, settling_s, NEVER_S) if left > 0)

    def text(self, now_s: float) -> str:
        """What is wrong with it, in words; empty if nothing is."""
        with self._lock:
            if self._doubt:
                return self._doubt
            if self._heard_s is None:
                return f"{self._title}: nothing heard yet"
            if self._is_bad(now_s):
                return f"{self._title}: {self._why}" if self._why else f"{self._title} {self._bad}"
            return f"{self._title}: silent for {now_s - self._heard_s:.2f} s" if self._is_late(now_s) else ""

    def _report(self, now_s: float) -> None:
        if self._gate is None:
            return
        if self._heard_s is not None or self._doubt:
            self._gate.report(self.cause, self._is_bad(now_s) or self._is_late(now_s))
        elif self._timeout_s is None and self._presumed:
            self._gate.report(self.cause, False)

    def _is_bad(self, now_s: float) -> bool:
        return bool(self._doubt) or not self._good or now_s < self._bad_until_s

    def _is_late(self, now_s: float) -> bool:
        return self._timeout_s is not None and self._heard_s is not None and now_s - self._heard_s > self._timeout_s
