"""The watchdog's thread: when it stops, how often, and when it falls silent."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sac_ae_ros.core.command import SafetyGate, Stop
from sac_ae_ros.core.errors import ArmError
from sac_ae_ros.core.spec import ActionSpec
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.watchdog import LAST_STOPS_S, Watchdog

PERIOD_S, TIMEOUT_S, SLACK_S = 0.05, 0.15, 0.1


class Rig:
    def __init__(self, timeout_s: float) -> None:
        self.gate = SafetyGate([ActionSpec("turn", "rad/s", -1.0, 1.0)], PERIOD_S)
        self.stops_s: list[float] = []
        self.on_stop: Callable[[], None] = lambda: None
        self.values: list[list[float]] = []
        self.beat = Heartbeat(Stop.ENABLE, "the switch", "is off")
        self.beat.attach(self.gate, TIMEOUT_S)
        self.watchdog = Watchdog(self.gate, self._stop, [self.beat], period_s=PERIOD_S, timeout_s=timeout_s)

    def _stop(self, values: np.ndarray) -> None:
        self.values.append(values.tolist())
        self.stops_s.append(time.monotonic())
        self.on_stop()


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(getattr(request, "param", TIMEOUT_S))
    yield rig
    rig.watchdog.end()


def test_it_waits_for_the_first_frame(rig):
    rig.gate.arm()
    time.sleep(TIMEOUT_S + SLACK_S)
    assert not rig.stops_s
    assert rig.gate.state.stop is None


def test_it_counts_from_the_moment_the_first_frame_begins(rig):
    rig.gate.arm()
    rig.watchdog.frame_begun()
    time.sleep(TIMEOUT_S / 2)
    assert not rig.stops_s
    time.sleep(TIMEOUT_S / 2 + SLACK_S)
    assert rig.stops_s
    assert rig.gate.state.stop is Stop.HUNG, "it has not ended"


def test_a_frame_that_never_ends_is_told_from_frames_that_do_not_come(rig):
    rig.gate.arm()
    rig.watchdog.frame_begun()
    rig.watchdog.frame_ended()
    time.sleep(TIMEOUT_S + SLACK_S)
    assert rig.gate.state.stop is Stop.STALE
    rig.watchdog.frame_begun()
    time.sleep(2 * PERIOD_S + SLACK_S)
    assert rig.gate.state.causes == {Stop.HUNG}
    assert rig.gate.state.latched == {Stop.STALE, Stop.HUNG}
    rig.watchdog.frame_used()
    assert not rig.gate.state.causes


def test_late_frames_are_put_down_to_the_clock_if_that_is_to_blame(rig):
    rig.gate.arm()
    rig.watchdog.frame_used()
    rig.watchdog.blame(Stop.CLOCK)
    time.sleep(TIMEOUT_S + SLACK_S)
    assert rig.gate.state.causes == {Stop.CLOCK}
    rig.watchdog.frame_used()
    time.sleep(TIMEOUT_S + SLACK_S)
    assert rig.gate.state.causes == {Stop.STALE}


@pytest.mark.parametrize("how", ["silent", "bad"])
def test_a_heartbeat_that_is_silent_or_bad_stops(rig, how):
    rig.gate.arm()
    time.sleep(TIMEOUT_S + SLACK_S)
    assert rig.gate.state.stop is None, "nothing was heard of it yet"
    for _ in range(5):
        rig.beat.heard(True)
        time.sleep(PERIOD_S)
    assert rig.gate.state.stop is None
    stopped_s = time.monotonic()
    if how == "bad":
        rig.beat.heard(False)
    time.sleep(TIMEOUT_S + SLACK_S)
    assert rig.gate.state.stop is Stop.ENABLE
    assert rig.stops_s[0] - stopped_s < (PERIOD_S if how == "bad" else TIMEOUT_S + SLACK_S)
    rig.beat.heard(True)
    assert not rig.gate.state.causes
    assert rig.gate.state.stop is Stop.ENABLE


def test_it_latches_on_time_and_repeats(rig):
    rig.gate.arm()
    used_s = time.monotonic()
    rig.watchdog.frame_used()
    time.sleep(TIMEOUT_S + 5.5 * PERIOD_S)
    assert TIMEOUT_S <= rig.stops_s[0] - used_s < TIMEOUT_S + SLACK_S
    assert 4 <= len(rig.stops_s) <= 7
    assert rig.gate.state.stop is Stop.STALE


@pytest.mark.parametrize("rig", [1.0], indirect=True)  # long enough for a busy machine to keep it
def test_frames_in_time_keep_it_quiet_and_a_fresh_one_ends_the_cause_alone(rig):
    rig.gate.arm()
    start_s = time.monotonic()
    while time.monotonic() - start_s < 1.5:
        rig.watchdog.frame_used()
        time.sleep(PERIOD_S)
    assert not rig.stops_s
    end_s = time.monotonic() + 10
    while rig.gate.state.stop is None and time.monotonic() < end_s:
        time.sleep(PERIOD_S)
    with pytest.raises(ArmError):
        rig.gate.arm()
    rig.watchdog.frame_used()
    assert rig.gate.state.stop is Stop.STALE
    rig.gate.arm()
    assert rig.gate.state.armed
    assert rig.gate.state.stop is None


def test_it_bars_arming_while_disarmed_and_stale_but_sends_nothing(rig):
    rig.watchdog.frame_used()
    time.sleep(TIMEOUT_S + SLACK_S)
    assert not rig.stops_s
    with pytest.raises(ArmError):
        rig.gate.arm()


def test_it_stops_at_once_whoever_latched(rig):
    rig.gate.arm()
    time.sleep(PERIOD_S / 2)
    woken_s = time.monotonic()
    rig.gate.report(Stop.NAN, True)
    time.sleep(PERIOD_S / 2)
    assert rig.stops_s[0] - woken_s < PERIOD_S / 2


def test_a_stop_soon_after_another_is_sent_at_once(rig):
    for _ in range(3):
        rig.gate.arm()
        stopped_s = time.monotonic()
        rig.gate.report(Stop.NAN, True)
        time.sleep(PERIOD_S / 5)
        assert rig.stops_s[-1] >= stopped_s
        rig.gate.report(Stop.NAN, False)


def test_a_late_frame_stops_even_if_this_thread_slept_meanwhile(rig, monkeypatch):
    rig.gate.arm()
    rig.watchdog.frame_begun()
    rig.watchdog.frame_used()
    rig.watchdog.frame_ended()
    rig.watchdog.end()  # as asleep as the whole process can be
    time.sleep(TIMEOUT_S + PERIOD_S)
    assert rig.gate.state.stop is None
    rig.watchdog.frame_begun()
    assert rig.gate.state.stop is Stop.STALE, "before its command can be computed"


def test_a_defect_stops_the_robot_and_not_the_thread(rig):
    rig.gate.arm()
    rig.beat.look = lambda now_s: 1 / 0
    time.sleep(3 * PERIOD_S)
    assert len(rig.stops_s) >= 2
    assert "division by zero" in rig.watchdog.trouble


def test_last_stops_end_after_half_a_second(rig):
    start_s = time.monotonic()
    rig.watchdog.last_stops()
    rig.watchdog.wait_last_stops()
    assert LAST_STOPS_S <= time.monotonic() - start_s < LAST_STOPS_S + SLACK_S
    count = len(rig.stops_s)
    assert abs(count - LAST_STOPS_S / PERIOD_S) <= 3
    time.sleep(3 * PERIOD_S)
    assert len(rig.stops_s) == count


def test_last_stops_end_when_the_gate_is_armed_again(rig):
    rig.watchdog.last_stops()
    time.sleep(PERIOD_S / 2)
    rig.gate.arm()
    time.sleep(PERIOD_S / 2)
    count = len(rig.stops_s)
    time.sleep(3 * PERIOD_S)
    assert len(rig.stops_s) == count


def test_a_stop_that_cannot_be_sent_is_tried_again(rig):
    def fail() -> None:
        raise RuntimeError("no network")

    rig.on_stop = fail
    rig.gate.arm()
    rig.gate.report(Stop.NAN, True)
    time.sleep(4 * PERIOD_S)
    assert len(rig.stops_s) >= 3
    assert rig.watchdog.trouble == "no network"
    rig.on_stop = lambda: None
    time.sleep(2 * PERIOD_S)
    assert rig.watchdog.trouble is None
