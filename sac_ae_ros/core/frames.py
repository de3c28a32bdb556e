"""Frames at the policy period: which camera frames count, and the stack of the newest K of them.

Simulation, robot and bag scoring all use FrameStack and FrameSampler, so that a policy sees the same bytes everywhere.
Only a robot has a FrameBudget besides, since only there does time pass by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import PaceError

GAP_PERIODS = 2.5
# So many due frames may come at once, as after a stall, and so many per policy period in the long run.
BURST_FRAMES = 4
FRAMES_PER_PERIOD = 1.1
# By how much a clock that goes back has to go on before it counts again; more, and a reset would cost frames.
BACK_PERIODS = 2


class FrameStack:
    """The newest K frames, oldest first. After `reset` the first frame fills the whole stack."""

    def __init__(self, depth: int, height: int, width: int) -> None:
        """Makes room for `depth` RGB frames of height x width pixels."""
        self._frames = np.zeros((depth, 3, height, width), np.uint8)
        self._empty = True

    def reset(self) -> None:
        """Forgets every frame: after a gap, and at an episode's end."""
        self._empty = True

    def push(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Adds one frame, uint8 RGB [H, W, 3]; returns a copy of the stack, uint8 [3K, H, W]."""
        planes = frame.transpose(2, 0, 1)
        if self._empty:
            self._frames[:] = planes
            self._empty = False
        else:
            self._frames[:-1] = self._frames[1:]
            self._frames[-1] = planes
        return self.state()

    def state(self) -> NDArray[np.uint8]:
        """What the last push returned, uint8 [3K, H, W], for `load_state`; without a frame since `reset`, [0, H, W]."""
        planes = self._frames.reshape(-1, *self._frames.shape[2:])
        return planes[: 0 if self._empty else None].copy()

    def load_state(self, state: NDArray[np.uint8]) -> None:
        """Goes on from what `state` gave."""
        self._empty = len(state) == 0
        if not self._empty:
            self._frames[:] = state.reshape(self._frames.shape)


class Due(Enum):
    """What a stamp means to the policy."""

    NO = "no"
    YES = "yes"
    RESTART = "restart"


class FrameSampler:
    """Picks, by their stamps alone, the frames that the policy sees.

    The first frame at or after each period counts, with a tolerance of half a camera interval (half a period
    at most), so that jitter does not skip a tick. A gap of more than 2.5 periods starts the phase anew: the
    stack then restarts. So does a jump back by more than one period, once the older stamps have gone on for a
    period with no newer one between: of two publishers that take turns, the one that is ahead is heard.
    """

    def __init__(self, period_ns: int) -> None:
        """`period_ns`: the policy period of the spec."""
        self._period_ns = period_ns
        self._last_ns: int | None = None
        self._accepted_ns = 0
        self._due_ns = 0
        self._older_ns: tuple[int, int] | None = None  # first and last stamp since a jump back
        self._restart_due = False
        self._before = self._state()

    def reset(self) -> None:
        """The next frame that is due restarts the stack; the phase stays, so that resets add no ticks."""
        self._restart_due = True

    def reject(self) -> None:
        """Takes back that the newest frame counted, since it proved useless: the next is due in its place."""
        self._last_ns, self._accepted_ns, self._due_ns, self._older_ns, self._restart_due = self._before

    def due(self, stamp_ns: int) -> Due:
        """Says whether the frame of this stamp is due; tell it every camera frame, in order of arrival."""
        self._before = self._state()
        if self._last_ns is None or stamp_ns - self._accepted_ns > GAP_PERIODS * self._period_ns:
            return self._restart(stamp_ns)
        interval_ns = stamp_ns - self._last_ns
        if interval_ns < -self._period_ns:
            return self._restart(stamp_ns) if self._has_jumped_back(stamp_ns) else Due.NO
        self._older_ns = None
        if interval_ns <= 0:  # a repeated or slightly older frame tells nothing new
            return Due.NO
        self._last_ns = stamp_ns
        if stamp_ns < self._due_ns - self._tolerance_ns(interval_ns):
            return Due.NO
        late = stamp_ns > self._due_ns + self._period_ns // 2
        self._due_ns = (stamp_ns if late else self._due_ns) + self._period_ns
        self._accepted_ns = stamp_ns
        restart, self._restart_due = self._restart_due, False
        return Due.RESTART if restart else Due.YES

    def _has_jumped_back(self, stamp_ns: int) -> bool:
        first_ns, last_ns = self._older_ns or (stamp_ns, stamp_ns)
        first_ns = min(first_ns, stamp_ns)
        self._older_ns = (first_ns, stamp_ns)
        return stamp_ns - first_ns >= self._period_ns - self._tolerance_ns(stamp_ns - last_ns)

    def _tolerance_ns(self, interval_ns: int) -> int:
        return min(interval_ns, self._period_ns) // 2

    def _restart(self, stamp_ns: int) -> Due:
        self._older_ns, self._restart_due = None, False
        self._last_ns = self._accepted_ns = stamp_ns
        self._due_ns = stamp_ns + self._period_ns
        return Due.RESTART

    def _state(self) -> tuple[int | None, int, int, tuple[int, int] | None, bool]:
        return self._last_ns, self._accepted_ns, self._due_ns, self._older_ns, self._restart_due


class FrameBudget:
    """Bounds how many due frames are used as time passes, whatever their stamps say: a token bucket.

    FrameSampler goes by stamps alone: stamps that go round, as of several clocks on one topic, make any number of
    frames due. At most 4 are used at once, and 1.1 per policy period in the long run, so that limits per second hold.
    """

    def __init__(self, period_ns: int, clock_ns: Callable[[], int]) -> None:
        """Starts full.

        Args:
            period_ns: the policy period of the spec.
            clock_ns: the time that passes for the robot, nanoseconds. What such a clock goes back it has to make up
                for before anything is refilled, 2 periods at most.
        """
        self._period_ns, self._clock_ns = period_ns, clock_ns
        self._frames = float(BURST_FRAMES)
        self._newest_ns = clock_ns()

    def check(self) -> None:
        """Raises PaceError unless a due frame may be used at this moment."""
        now_ns = self._clock_ns()
        passed = max(now_ns - self._newest_ns, 0) / self._period_ns
        self._newest_ns = min(max(now_ns, self._newest_ns), now_ns + BACK_PERIODS * self._period_ns)
        self._frames = min(self._frames + FRAMES_PER_PERIOD * passed, BURST_FRAMES)
        if self._frames < 1:
            most_hz = FRAMES_PER_PERIOD * 1e9 / self._period_ns
            raise PaceError(
                f"expected stamps by which at most {most_hz:.3g} frames a second are due, got more: they go back and"
                " forth or run too fast; end what else publishes images there, or set stamp_source: arrival"
            )

    def spend(self) -> None:
        """Notes that a frame is used for which `check` has been asked."""
        self._frames -= 1
