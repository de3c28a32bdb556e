"""SilenceWatch: topics that had a steady rate and have fallen silent. Pure arithmetic on one clock, without ROS."""

from __future__ import annotations

from dataclasses import dataclass

# A topic has a steady rate while no gap is longer, for so long, with so many messages. What comes more rarely, such as
# the edges of a switch or the ends of episodes, may pause as it likes.
LONGEST_GAP_S = 1.1
STEADY_S, STEADY_MESSAGES = 3.0, 10
# It is silent after so many times its longest gap, but not before that many seconds: within 2.75 s in all.
GAPS, LEAST_S = 2.5, 1.5
SLEPT_S = 1.0  # who looks more rarely has heard nothing meanwhile


@dataclass
class _Run:
    """Messages without a gap that is too long: when the first and the latest came, s."""

    first_s: float
    latest_s: float
    messages: int = 1
    longest_gap_s: float = 0.0
    silent: bool = False


@dataclass(frozen=True)
class Silence:
    """topic: which has fallen silent. for_s: for how long now. rate_hz: how often its messages came before."""

    topic: str
    for_s: float
    rate_hz: float


class SilenceWatch:
    """Told of every message, it says once which topics have fallen silent."""

    def __init__(self) -> None:
        """Knows no topic yet."""
        self._runs: dict[str, _Run] = {}
        self._looked_s: float | None = None
        self._awake_s = float("-inf")

    def heard(self, topic: str, now_s: float) -> float | None:
        """Notes a message; returns how long the topic was silent, s, if it was said to be."""
        run = self._runs.get(topic)
        gap_s = 0.0 if run is None else now_s - run.latest_s
        if run is None or gap_s > LONGEST_GAP_S:
            self._runs[topic] = _Run(now_s, now_s)
            return gap_s if run is not None and run.silent else None
        run.latest_s, run.messages, run.longest_gap_s = now_s, run.messages + 1, max(run.longest_gap_s, gap_s)
        return None

    def look(self, now_s: float) -> list[Silence]:
        """Those that have fallen silent since the last look; call it often."""
        if self._looked_s is not None and now_s - self._looked_s > SLEPT_S:
            self._awake_s = now_s
        self._looked_s = now_s
        found = []
        for topic, run in self._runs.items():
            span_s = run.latest_s - run.first_s
            steady = span_s >= STEADY_S and run.messages >= STEADY_MESSAGES
            limit_s = max(LEAST_S, GAPS * run.longest_gap_s)
            if steady and not run.silent and now_s - max(run.latest_s, self._awake_s) > limit_s:
                run.silent = True
                found.append(Silence(topic, now_s - run.latest_s, (run.messages - 1) / span_s))
        return found
