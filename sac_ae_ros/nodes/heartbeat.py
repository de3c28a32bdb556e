"""Heartbeat: a signal that must keep coming, and be good, or the robot stops."""

from __future__ import annotations

import threading
import time

from sac_ae_ros.core.command import SafetyGate, Stop


class Heartbeat:
    """One such signal; the callback that hears it and the watchdog may use it at once.

    Before it is first heard it reports nothing: a gate that must wait for it is made with its cause.
    """

    def __init__(
        self, gate: SafetyGate, cause: Stop, timeout_s: float | None, title: str = "", bad: str = "bad"
    ) -> None:
        """`timeout_s`: how long it may be silent, steady seconds; None: for ever. `title`, `bad`: it, in words."""
        self._gate, self.cause, self._timeout_s = gate, cause, timeout_s
        self._title, self._bad = title or cause.value, bad
        self._good = True
        self._heard_s: float | None = None
        self._lock = threading.Lock()

    def heard(self, good: bool) -> None:
        """Notes the signal; a bad one stops the robot at once."""
        with self._lock:
            self._good, self._heard_s = good, time.monotonic()
            self._gate.report(self.cause, not good)

    def look(self, now_s: float) -> float:
        """Reports whether it is bad or silent; returns the seconds after which it would be too silent."""
        with self._lock:
            if self._heard_s is None:
                return float("inf")
            left_s = float("inf") if self._timeout_s is None else self._timeout_s - (now_s - self._heard_s)
            self._gate.report(self.cause, not self._good or left_s <= 0)
            return left_s if left_s > 0 else float("inf")

    def text(self, now_s: float) -> str:
        """What is wrong with it, in words; empty if nothing is."""
        with self._lock:
            if self._heard_s is None:
                return f"{self._title}: nothing heard yet"
            if not self._good:
                return f"{self._title} {self._bad}"
            silent_s = now_s - self._heard_s
            late = self._timeout_s is not None and silent_s > self._timeout_s
            return f"{self._title} silent for {silent_s:.2f} s" if late else ""
