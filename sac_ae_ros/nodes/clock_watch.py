"""ClockWatch: does the clock that dates frames go on steadily? Pure arithmetic on two clocks, without ROS."""

from __future__ import annotations

from dataclasses import dataclass

# A simulation may run faster than real time by this much, before its clock's advance counts as a jump.
FASTEST_SIMULATION = 20.0


@dataclass(frozen=True)
class ClockTrouble:
    """jumped_s: by how much the clock jumped since the last look, 0 for not; paused_s: how long it has stood still."""

    jumped_s: float = 0.0
    paused_s: float = 0.0


class ClockWatch:
    """Compares the node's clock with the steady one, look by look."""

    def __init__(self, *, simulated: bool, max_jump_s: float, pause_s: float) -> None:
        """Starts without a past.

        Args:
            simulated: the clock is /clock, which starts at 0 and keeps a pace of its own.
            max_jump_s: jumps longer than this, either way, are told.
            pause_s: a simulated clock that stands still for longer than this is told.
        """
        self._simulated, self._max_jump_s, self._pause_s = simulated, max_jump_s, pause_s
        self._last: tuple[float, float] | None = None
        self._moved_s = 0.0

    def skip(self, steady_s: float) -> None:
        """Forgives a standstill until now, since nobody could hear /clock."""
        self._moved_s = steady_s

    def look(self, ros_s: float, steady_s: float) -> ClockTrouble:
        """Tells what is wrong at this moment; both clocks in seconds."""
        if self._last is None:
            self._last, self._moved_s = (ros_s, steady_s), steady_s
            return ClockTrouble()
        if self._last[0] == 0:  # /clock has not been heard yet: where it starts is no jump
            self._last = ros_s, steady_s
            self._moved_s = steady_s if ros_s else self._moved_s
        ros_passed_s, steady_passed_s = ros_s - self._last[0], steady_s - self._last[1]
        self._last = ros_s, steady_s
        if ros_passed_s != 0:
            self._moved_s = steady_s
        slack_s = steady_passed_s * (FASTEST_SIMULATION if self._simulated else 0)
        drift_s = ros_passed_s if self._simulated else ros_passed_s - steady_passed_s
        jumped = not -self._max_jump_s <= drift_s <= self._max_jump_s + slack_s
        paused_s = steady_s - self._moved_s if self._simulated else 0.0
        return ClockTrouble(drift_s if jumped else 0.0, paused_s if paused_s > self._pause_s else 0.0)
