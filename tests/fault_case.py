"""What a fault is, what comes of it, and how that is watched: from its begin to the recovery."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fault_rig import Rig

SETTLED_S = 0.3  # so long nothing may move although the cause has ended
GOES_ON_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What came of a fault; times in seconds since it began.

    stop_s: until the first stop on the command topic, None for none. reason, latched: of ~/state. diagnosis: the
    status in /diagnostics that named the cause, and diagnosed_s when. refused: what `~/arm` said while the cause
    lasted. gap_s: longest time between two messages on the command topic meanwhile. moved: moving commands after the
    first stop, before the robot was armed anew. resumed_s: from what cleared the stop until a moving command.
    """

    stop_s: float | None = None
    reason: str | None = None
    latched: tuple[str, ...] = ()
    diagnosis: str = ""
    diagnosed_s: float | None = None
    refused: str = ""
    gap_s: float = 0.0
    moved: int = 0
    resumed_s: float | None = None


@dataclass(frozen=True)
class Case:
    """One row of the table: what is done, what must come of it, and what clears it.

    within_s: after this the stop must be on its way; None: the robot must go on. says: which status of /diagnostics
    names the cause, and some words of it. cleared: by what a stop is. lasts: the cause bars arming until it has ended.
    bars: it keeps the robot from being armed at all, and this is what the node says; words, parted by " … ".
    alone: it needs a process of its own, and gets a Network and a folder instead of a Rig. slow: for
    `make test-slow`.
    """

    run: Callable[..., Outcome]
    happens: str
    within_s: float | None
    reason: str | None
    says: tuple[str, str] | None = None
    cleared: str = ""
    lasts: bool = True
    bars: str | None = None
    alone: bool = False
    slow: bool = False
    latched: tuple[str, ...] = ()

    def __call__(self, *where: Any) -> Outcome:
        """Runs it: on a Rig, or alone on a Network and a folder."""
        return self.run(self, *where)

    def diagnosis(self, rig: Rig, since_s: float) -> tuple[float, str]:
        """When and how /diagnostics named the cause first."""
        assert self.says is not None
        return rig.diagnosis(since_s, *self.says)


def nothing() -> None:
    """The cause ends by itself, or does not end."""


def observe(
    case: Case, rig: Rig, since_s: float, *, end: Callable[[], Any] = nothing, clear: Callable[[], Any] | None = None
) -> Outcome:
    """From the fault to the recovery: waits for the stop, its reasons, and that nothing moves before it is cleared."""
    first_s = rig.first_stop(since_s)
    wanted = set(case.latched or {case.reason})
    state = rig.state(since_s, lambda state: wanted <= set(state["latched"]))
    diagnosed_s, diagnosis = case.diagnosis(rig, since_s)
    refused = rig.arm() if case.lasts else ""
    end()
    time.sleep(SETTLED_S)
    cleared_s = time.monotonic()
    (clear or rig.rearm)()
    rig.moving(cleared_s)
    sent_s = [at_s for at_s in rig.stops(since_s) if at_s < cleared_s]
    return Outcome(
        stop_s=first_s - since_s,
        reason=state["stop"],
        latched=tuple(state["latched"]),
        diagnosis=diagnosis,
        diagnosed_s=diagnosed_s - since_s,
        refused=refused,
        gap_s=longest(sent_s),
        moved=len(rig.moves(first_s, cleared_s)),
        resumed_s=rig.moves(cleared_s)[0] - cleared_s,
    )


def goes_on(case: Case, rig: Rig, since_s: float) -> Outcome:
    """The robot must not even notice; watches it for a while."""
    diagnosed_s, diagnosis = case.diagnosis(rig, since_s) if case.says else (None, "")
    time.sleep(max(0.0, since_s + GOES_ON_S - time.monotonic()))
    now_s = time.monotonic()
    stops_s = rig.stops(since_s)
    return Outcome(
        stop_s=stops_s[0] - since_s if stops_s else None,
        diagnosis=diagnosis,
        diagnosed_s=diagnosed_s and diagnosed_s - since_s,
        gap_s=longest([since_s, *rig.moves(since_s, now_s), now_s]),
    )


def longest(times_s: list[float]) -> float:
    """The longest time between two of them."""
    return max((later - earlier for earlier, later in pairwise(times_s)), default=0.0)
