"""InputWatch: what came in on the image topic, and in words why no frame is used. Without ROS."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

RATE_OVER_S = 5.0


@dataclass(frozen=True)
class InputFacts:
    """Images since activation. rate_hz: over the last 5 s; age_s: of the frame used last, when its command was out.

    received: all that came; used: those that a tick needed; refused: due, but not usable; silent_s: since one came.
    """

    received: int
    used: int
    refused: int
    rate_hz: float
    age_s: float | None
    silent_s: float | None


class InputWatch:
    """Counts images; one thread tells it, another asks."""

    def __init__(self) -> None:
        """Starts without a past."""
        self._lock = threading.Lock()
        self._arrivals_s: deque[float] = deque(maxlen=1000)
        self._received = self._used = self._refused = 0
        self._age_s: float | None = None
        self._used_s: float | None = None
        self._refusal = ""
        self._refused_s = 0.0
        self._stamp_ns: int | None = None
        self._stamp_moved_s = 0.0

    def received(self, now_s: float, stamp_ns: int) -> None:
        """An image came, stamped so; seconds by the steady clock."""
        with self._lock:
            self._received += 1
            self._arrivals_s.append(now_s)
            if stamp_ns != self._stamp_ns:
                self._stamp_ns, self._stamp_moved_s = stamp_ns, now_s

    def used(self, now_s: float, age_s: float) -> None:
        """A frame went through the policy; `age_s`: from its stamp until its command was out."""
        with self._lock:
            self._used += 1
            self._used_s, self._age_s = now_s, age_s

    def refused(self, now_s: float, reason: str) -> None:
        """A frame could not be used."""
        with self._lock:
            self._refused += 1
            self._refused_s, self._refusal = now_s, reason

    def facts(self, now_s: float) -> InputFacts:
        """The numbers at this moment."""
        with self._lock:
            recent = [at_s for at_s in self._arrivals_s if now_s - at_s <= RATE_OVER_S]
            rate_hz = (
                (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
            )
            silent_s = now_s - self._arrivals_s[-1] if self._arrivals_s else None
            if silent_s is not None and silent_s > 1.0 and silent_s * rate_hz > 3:
                rate_hz = 0.0
            return InputFacts(self._received, self._used, self._refused, rate_hz, self._age_s, silent_s)

    def why_unused(self, now_s: float, within_s: float) -> str:
        """Why no frame was used for `within_s` seconds; empty if one was."""
        with self._lock:
            if self._used_s is not None and now_s - self._used_s <= within_s:
                return ""
            if not self._arrivals_s:
                return "no image has come yet"
            silent_s = now_s - self._arrivals_s[-1]
            still_s = now_s - self._stamp_moved_s
            if still_s > within_s and self._arrivals_s[-1] - self._stamp_moved_s > within_s / 2:
                return f"image stamps have stood still for {still_s:.2f} s; restart the camera driver"
            if self._refusal and now_s - self._refused_s <= within_s:
                return self._refusal
            if silent_s > within_s / 2:
                return f"no image for {silent_s:.2f} s"
            return "no image was due"
