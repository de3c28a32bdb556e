"""InputWatch: what came in on the image topic, and in words why no frame is used. Without ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from sac_ae_ros.core.frames import GAP_PERIODS

RATE_OVER_S = 5.0
# The rate at which the policy gets frames is judged over so many of its periods, and a second at least.
TICKS = 10
TICKS_S = 1.0
FEWEST_TICKS = 3
LATENESS_TOLD_S = 0.5  # a late frame's reason is asked for within so long


@dataclass(frozen=True)
class InputFacts:
    """Images since activation. rate_hz: over the last 5 s of the camera's time; age_s: of the frame used last, when its
    command was out. quiet_s: since one came, in the camera's time.

    received: all that came; used: those that a tick needed; refused: due, but not usable.
    silent_s, unused_s: since one came, or was used; since activation where none was.
    share: at which part of the policy's rate it gets frames, by the time that dates them; None: too few to tell.
    gap_s: between two used frames, what began the stack anew so that the share is not known; negative: stamps went
    back; None: nothing did.
    """

    received: int
    used: int
    refused: int
    rate_hz: float
    age_s: float | None
    quiet_s: float
    silent_s: float
    unused_s: float
    share: float | None
    gap_s: float | None


class InputWatch:
    """Counts images; one thread tells it, another asks."""

    def __init__(self, period_s: float, clock_s: Callable[[], float] | None = None) -> None:
        """Starts without a past, at activation.

        `period_s`: the policy's. `clock_s`: the time that passes for the camera, by which its rate is judged, since a
        simulation may be slow; None: the steady clock.
        """
        self._start_s = time.monotonic()
        self._clock_s = clock_s
        self.topic = "the image topic"
        self._period_ns = period_s * 1e9
        self._window_ns = max(TICKS * self._period_ns, TICKS_S * 1e9)
        self._ticks_ns: deque[int] = deque()
        self._gap_s: float | None = None
        self._lock = threading.Lock()
        self._arrivals_s: deque[float] = deque(maxlen=1000)  # steady
        self._clocked_s: deque[float] = deque(maxlen=1000)  # the same, in the camera's time
        self._received = self._used = self._refused = 0
        self._age_s: float | None = None
        self._used_s: float | None = None
        self._refusal = ""
        self._refused_s = 0.0
        self._stamp_ns: int | None = None
        self._stamp_moved_s = 0.0
        self._back_s = self._went_back_s = 0.0  # by how much stamps went back last, and when

    def received(self, now_s: float, stamp_ns: int | None) -> None:
        """An image came, stamped so; None where stamps do not count. Seconds by the steady clock."""
        with self._lock:
            self._received += 1
            self._arrivals_s.append(now_s)
            clocked_s = self._clocked(now_s)
            if self._clocked_s and clocked_s < self._clocked_s[-1]:
                self._clocked_s.clear()  # that clock was set back
            self._clocked_s.append(clocked_s)
            if stamp_ns is not None and self._stamp_ns is not None and self._stamp_ns - stamp_ns > self._period_ns / 2:
                self._back_s, self._went_back_s = (self._stamp_ns - stamp_ns) * 1e-9, now_s
            if stamp_ns is None or stamp_ns != self._stamp_ns:
                self._stamp_ns, self._stamp_moved_s = stamp_ns, now_s

    def used(self, now_s: float, age_s: float, stamp_ns: int) -> None:
        """A frame went through the policy; `age_s`: from `stamp_ns`, which dates it, until its command was out."""
        with self._lock:
            self._used += 1
            self._used_s, self._age_s = now_s, age_s
            gap_ns = stamp_ns - self._ticks_ns[-1] if self._ticks_ns else None
            if gap_ns is not None and not 0 < gap_ns <= GAP_PERIODS * self._period_ns:
                self._ticks_ns.clear()  # the stack has restarted, too
                self._gap_s = gap_ns * 1e-9
            self._ticks_ns.append(stamp_ns)
            while stamp_ns - self._ticks_ns[0] > self._window_ns:
                self._ticks_ns.popleft()

    def refused(self, now_s: float, reason: str) -> None:
        """A frame could not be used."""
        with self._lock:
            self._refused += 1
            self._refused_s, self._refusal = now_s, reason

    def facts(self, now_s: float) -> InputFacts:
        """The numbers at this moment."""
        with self._lock:
            clocked_s = self._clocked(now_s)
            recent = [at_s for at_s in self._clocked_s if clocked_s - at_s <= RATE_OVER_S]
            rate_hz = (
                (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
            )
            silent_s = now_s - (self._arrivals_s[-1] if self._arrivals_s else self._start_s)
            quiet_s = clocked_s - self._clocked_s[-1] if self._clocked_s else silent_s
            if quiet_s > 1.0 and quiet_s * rate_hz > 3:
                rate_hz = 0.0
            share = self._share()
            return InputFacts(
                received=self._received,
                used=self._used,
                refused=self._refused,
                rate_hz=rate_hz,
                age_s=self._age_s,
                quiet_s=quiet_s,
                silent_s=silent_s,
                unused_s=self._unused_s(now_s),
                share=share,
                gap_s=self._gap_s if share is None else None,
            )

    def _clocked(self, now_s: float) -> float:
        return now_s if self._clock_s is None else self._clock_s()

    def _unused_s(self, now_s: float) -> float:
        return now_s - (self._start_s if self._used_s is None else self._used_s)

    def _share(self) -> float | None:
        count = len(self._ticks_ns)
        if count < FEWEST_TICKS:
            return None
        return (count - 1) * self._period_ns / (self._ticks_ns[-1] - self._ticks_ns[0])

    def why_unused(self, now_s: float, within_s: float) -> str:
        """Why no frame was used for `within_s` seconds; empty if one was."""
        with self._lock:
            if self._used_s is not None and now_s - self._used_s <= within_s:
                return ""
            if not self._arrivals_s:
                return f"no image has come yet on {self.topic}"
            silent_s = now_s - self._arrivals_s[-1]
            still_s = now_s - self._stamp_moved_s
            unstamped = self._stamp_ns == 0 and self._refusal  # which says what to do
            if not unstamped and still_s > within_s and self._arrivals_s[-1] - self._stamp_moved_s > within_s / 2:
                return f"image stamps have stood still for {still_s:.2f} s; restart the camera driver"
            recent = now_s - self._refused_s <= within_s
            if self._refusal and (recent or unstamped or (self._used_s is None and silent_s <= within_s)):
                return self._refusal
            unused = f"none was used for {self._unused_s(now_s):.2f} s"
            if silent_s > within_s / 2:
                return f"no image for {silent_s:.2f} s" + ("" if silent_s > within_s else f", and {unused}")
            if self._back_s and now_s - self._went_back_s <= self._unused_s(now_s):
                return f"image stamps went back by {self._back_s:.2f} s, {unused}"
            return f"no image was due, {unused}"

    def why_late(self, now_s: float, late_s: float) -> str:
        """What made a frame `late_s` seconds late that has been used since, as far as images tell; else empty."""
        with self._lock:
            from_s = now_s - late_s - LATENESS_TOLD_S
            if self._back_s and self._went_back_s >= from_s:
                return f"image stamps went back by {self._back_s:.2f} s"
            if self._refusal and self._refused_s >= from_s:
                return self._refusal
            recent = [at_s for at_s in self._arrivals_s if at_s >= from_s]
            gap_s = max((after - before for before, after in pairwise(recent)), default=0.0)
            if gap_s > late_s / 2:
                return f"images came too slowly, {gap_s:.2f} s apart"
            is_old = self._age_s is not None and self._age_s * 1e9 > self._period_ns
            return f"the frame used last was {self._age_s:.2f} s old" if is_old else ""
