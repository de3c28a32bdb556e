"""Which frames count, and what the stack holds."""

import numpy as np
import pytest

from sac_ae_ros.core.errors import PaceError
from sac_ae_ros.core.frames import Due, FrameBudget, FrameSampler, FrameStack

MS = 1_000_000
PERIOD = 100 * MS
FIRST_STAMP = 7_000_000_000


def used(stamps_ms: list[float]) -> list[float]:
    """The stamps that the policy sees."""
    sampler = FrameSampler(PERIOD)
    return [ms for ms in stamps_ms if sampler.due(FIRST_STAMP + round(ms * MS)) is not Due.NO]


def verdicts(stamps_ms: list[float]) -> list[Due]:
    sampler = FrameSampler(PERIOD)
    return [sampler.due(FIRST_STAMP + round(ms * MS)) for ms in stamps_ms]


def picture(value: int) -> np.ndarray:
    return np.full((2, 3, 3), value, np.uint8)


def test_the_first_frame_fills_the_stack_and_the_newest_comes_last():
    stack = FrameStack(3, 2, 3)
    assert stack.push(picture(1)).shape == (9, 2, 3)
    assert stack.push(picture(2))[:, 0, 0].tolist() == [1] * 6 + [2] * 3
    assert stack.push(picture(3))[:, 0, 0].tolist() == [1] * 3 + [2] * 3 + [3] * 3
    assert stack.push(picture(4))[:, 0, 0].tolist() == [2] * 3 + [3] * 3 + [4] * 3
    stack.reset()
    assert (stack.push(picture(9)) == 9).all()


def test_planes_are_red_green_blue():
    frame = np.zeros((2, 3, 3), np.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = 10, 20, 30
    assert FrameStack(1, 2, 3).push(frame)[:, 0, 0].tolist() == [10, 20, 30]


def test_a_pushed_stack_does_not_change_afterwards():
    stack = FrameStack(2, 2, 3)
    first = stack.push(picture(1))
    stack.push(picture(2))
    assert (first == 1).all()


@pytest.mark.parametrize("pushed", [[], [1], [1, 2, 3, 4]])
def test_a_stack_goes_on_from_anothers_state(pushed):
    stack, other = FrameStack(3, 2, 3), FrameStack(3, 2, 3)
    other.push(picture(99))
    for value in pushed:
        stack.push(picture(value))
    other.load_state(stack.state())
    for value in (7, 8):
        np.testing.assert_array_equal(other.push(picture(value)), stack.push(picture(value)))


def test_at_the_policys_own_rate_every_frame_counts_despite_jitter():
    stamps = [0, 103, 199, 304, 398, 501]
    assert used(stamps) == stamps


@pytest.mark.parametrize("rate_hz", [20, 30, 60, 90])
def test_a_faster_camera_is_sampled_at_the_policy_period_without_drift(rate_hz):
    stamps = [1000 * i / rate_hz for i in range(20 * rate_hz)]
    seen = used(stamps)
    assert abs(len(seen) - 200) <= 1
    expected = np.arange(len(seen)) * 100
    assert np.abs(np.array(seen) - expected).max() <= 500 / rate_hz + 1e-6


def test_a_slower_camera_gives_all_it_has():
    stamps = [0, 150, 300, 450]
    assert used(stamps) == stamps


def test_a_gap_a_backward_jump_and_a_reset_restart_the_stack():
    assert verdicts([0, 100, 360]) == [Due.RESTART, Due.YES, Due.RESTART]
    assert verdicts([0, 100, 340]) == [Due.RESTART, Due.YES, Due.YES]
    assert verdicts([0, 100, -950, -850, -750]) == [Due.RESTART, Due.YES, Due.NO, Due.RESTART, Due.YES]
    assert verdicts([0, 100, -50, -17, 17, -20, 13, 46]) == [Due.RESTART, Due.YES, *[Due.NO] * 6]
    sampler = FrameSampler(PERIOD)
    sampler.due(FIRST_STAMP)
    sampler.reset()
    assert sampler.due(FIRST_STAMP + 33 * MS) is Due.NO
    assert sampler.due(FIRST_STAMP + 99 * MS) is Due.RESTART
    assert sampler.due(FIRST_STAMP + 199 * MS) is Due.YES


@pytest.mark.parametrize("behind_ms", [120, 200, 300, 10_000])
@pytest.mark.parametrize("turns", ["AB", "ABB", "AAB", "ABBBBBB"])
def test_two_clocks_on_one_topic_give_no_more_than_twice_the_ticks(turns, behind_ms):
    clocks = {name: np.arange(0, 3000, 100 / 3 / turns.count(name)) for name in "AB"}
    arrivals = [(at, at if name == "A" else at - behind_ms) for name in "AB" for at in clocks[name]]
    seen = used([stamp for _, stamp in sorted(arrivals)])
    assert 29 <= len(seen) <= 60


def test_resets_without_end_add_no_ticks():
    sampler, ticks = FrameSampler(PERIOD), 0
    for i in range(90):
        sampler.reset()
        ticks += sampler.due(FIRST_STAMP + i * 100 * MS // 3) is not Due.NO
    assert ticks == 30


def test_repeated_and_slightly_older_frames_tell_nothing():
    assert verdicts([0, 0, 100, 100, 60]) == [Due.RESTART, Due.NO, Due.YES, Due.NO, Due.NO]


def test_a_rejected_frame_leaves_its_tick_to_the_next_one():
    sampler = FrameSampler(PERIOD)
    sampler.due(FIRST_STAMP)
    assert sampler.due(FIRST_STAMP + 100 * MS) is Due.YES
    sampler.reject()
    assert sampler.due(FIRST_STAMP + 133 * MS) is Due.YES


def test_rejected_frames_bridge_no_gap():
    sampler = FrameSampler(PERIOD)
    sampler.due(FIRST_STAMP)
    for ms in (100, 200):
        assert sampler.due(FIRST_STAMP + ms * MS) is Due.YES
        sampler.reject()
    assert sampler.due(FIRST_STAMP + 260 * MS) is Due.RESTART
    sampler.reject()
    assert sampler.due(FIRST_STAMP + 270 * MS) is Due.RESTART


class Spender:
    """A budget by a clock that the test sets, and which of the frames that were due it let pass."""

    def __init__(self) -> None:
        self.now_ns = FIRST_STAMP
        self.budget = FrameBudget(PERIOD, lambda: self.now_ns)

    def use(self, *at_ms: float) -> list[float]:
        """Frames due at these times; returns the times of those that were used."""
        passed = []
        for ms in at_ms:
            self.now_ns = FIRST_STAMP + round(ms * MS)
            try:
                self.budget.check()
            except PaceError:
                continue
            self.budget.spend()
            passed.append(ms)
        return passed


def test_a_budget_lets_four_frames_pass_at_once_and_then_eleven_a_second():
    spender = Spender()
    assert spender.use(*[0] * 9) == [0] * 4
    assert spender.use(90, 91, 92) == [91], "1.1 frames per 100 ms"
    assert len(spender.use(*np.arange(100, 10_100, 10))) in (109, 110)
    assert spender.use(*[60_000] * 9) == [60_000] * 4, "a long pause fills it, and no more"


def test_a_budget_never_refuses_frames_at_the_policys_own_rate():
    times = [i * 100 + (-1) ** i * 40 for i in range(200)]
    assert Spender().use(*times) == times
    stalled = [*range(0, 1000, 100), 1400, 1400, 1400, 1400, *range(1500, 3000, 100)]
    assert Spender().use(*stalled) == stalled


def test_a_frame_that_is_not_used_costs_nothing():
    spender = Spender()
    for _ in range(100):
        spender.budget.check()
    assert spender.use(*[0] * 9) == [0] * 4


@pytest.mark.parametrize("back_ms", [20, 50, 100, 200])
def test_a_clock_that_goes_back_and_forth_refills_no_budget(back_ms):
    times = [10.0 * i - back_ms * (i % 2) for i in range(1000)]
    assert len(Spender().use(*times)) <= 4 + 110


def test_frames_go_on_after_a_clock_went_back_for_good():
    spender = Spender()
    assert spender.use(0, 100, 200) == [0, 100, 200]
    times = [ms - 5000 for ms in range(300, 3000, 100)]
    assert spender.use(*times) == times


def test_the_refusal_says_how_many_are_expected_and_what_to_do():
    budget = FrameBudget(PERIOD, lambda: FIRST_STAMP)
    for _ in range(4):
        budget.check()
        budget.spend()
    with pytest.raises(PaceError, match=r"at most 11 frames a second are due, got more: .* set stamp_source: arrival"):
        budget.check()
