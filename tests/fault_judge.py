"""What must hold of every fault that was run."""

from __future__ import annotations

from fault_case import Case, Outcome
from fault_rig import PERIOD_S

SLACK_S = 0.5  # what two busy cores may add to any time
DIAGNOSED_WITHIN_S = 2.5


def judge(case: Case, outcome: Outcome) -> None:
    """Asserts that the robot was stopped, or not even disturbed, and that the node said why, as the table has it."""
    assert outcome.moved == 0, "nothing moves between a stop and what clears it"
    assert outcome.reason == case.reason
    assert set(case.latched) <= set(outcome.latched)
    if case.bars is not None:
        assert outcome.stop_s is None
        assert all(some in outcome.refused for some in case.bars.split(" … "))
    elif case.within_s is None:
        assert outcome.stop_s is None
        assert outcome.gap_s < PERIOD_S + SLACK_S
    else:
        assert outcome.stop_s is not None
        assert outcome.stop_s < case.within_s + SLACK_S
        assert outcome.gap_s < 2 * PERIOD_S + SLACK_S / 2, "a stop each period"
    if case.says:
        assert outcome.diagnosed_s is not None
        assert case.bars is not None or outcome.diagnosed_s < (case.within_s or 0) + DIAGNOSED_WITHIN_S
    if case.lasts and case.reason:
        assert "arm refused" in outcome.refused
