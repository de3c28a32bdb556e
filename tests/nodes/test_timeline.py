"""When a message is due, by a clock of our own."""

import math

import pytest

from sac_ae_ros.nodes.timeline import Timeline

SECOND = 1_000_000_000


class Steady:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("rate", "wait_s"), [(1.0, 3.0), (2.0, 1.5), (0.5, 6.0)])
def test_messages_are_due_at_the_recorded_pace_times_the_rate(rate, wait_s):
    steady = Steady()
    timeline = Timeline(rate, steady)
    timeline.begin(7 * SECOND)
    assert timeline.left_s(10 * SECOND) == pytest.approx(wait_s)
    steady.now_s += wait_s / 3
    assert timeline.left_s(10 * SECOND) == pytest.approx(wait_s * 2 / 3)
    assert timeline.at_ns() == pytest.approx(8 * SECOND, abs=10)


def test_while_paused_nothing_is_due_and_no_time_passes():
    steady = Steady()
    timeline = Timeline(2.0, steady)
    timeline.begin(0)
    steady.now_s += 1
    timeline.pause()
    steady.now_s += 50
    timeline.pause()
    assert (timeline.left_s(0), timeline.at_ns()) == (math.inf, 2 * SECOND)
    timeline.resume()
    steady.now_s += 1
    timeline.resume()
    assert timeline.at_ns() == 4 * SECOND
    timeline.played(4 * SECOND)
    assert timeline.latest_s == 0, "a pause makes nothing late"


def test_a_replay_that_begins_paused_waits():
    steady = Steady()
    timeline = Timeline(1.0, steady)
    timeline.pause()
    timeline.begin(3 * SECOND)
    steady.now_s += 9
    assert timeline.left_s(3 * SECOND) == math.inf
    timeline.resume()
    assert (timeline.left_s(3 * SECOND), timeline.left_s(4 * SECOND)) == (0, 1)


def test_lateness_is_told_and_beyond_a_tenth_of_a_second_given_up():
    steady = Steady()
    timeline = Timeline(2.0, steady)
    timeline.begin(0)
    steady.now_s += 0.55
    timeline.played(SECOND)
    assert (timeline.latest_s, timeline.given_up_s) == (pytest.approx(0.05), 0)
    steady.now_s += 2.5
    timeline.played(2 * SECOND)
    assert (timeline.latest_s, timeline.given_up_s) == (pytest.approx(2.05), pytest.approx(2.05))
    assert timeline.left_s(3 * SECOND) == pytest.approx(0.5), "the next one does not come at once"


def test_a_message_out_of_order_comes_at_once_and_is_not_late():
    steady = Steady()
    timeline = Timeline(1.0, steady)
    timeline.begin(0)
    steady.now_s += 1
    timeline.played(SECOND)
    assert timeline.left_s(SECOND // 2) == 0
    timeline.played(SECOND // 2)
    assert (timeline.latest_s, timeline.left_s(2 * SECOND)) == (0, 1)


def test_log_times_that_go_far_back_keep_their_pace_from_there():
    steady = Steady()
    timeline = Timeline(1.0, steady)
    timeline.begin(100 * SECOND)
    timeline.played(100 * SECOND)
    assert timeline.left_s(3 * SECOND) == 0
    timeline.played(3 * SECOND)
    assert timeline.left_s(4 * SECOND) == 1
    assert timeline.latest_s == 0
