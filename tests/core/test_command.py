"""The safety gate: limits, slew, latch and arming."""

import threading

import numpy as np
import pytest

from sac_ae_ros.core.command import Limits, SafetyGate, Stop, from_physical, to_physical
from sac_ae_ros.core.errors import ArmError, ConfigError
from sac_ae_ros.core.spec import ActionSpec

ACTIONS = (ActionSpec("linear", "m/s", -0.2, 0.6), ActionSpec("angular", "rad/s", -1.5, 1.5))


def gate(rest: tuple[float, ...] = (0.0, 0.0), **limits: object) -> SafetyGate:
    return SafetyGate(ACTIONS, 0.1, Limits(**limits), rest=lambda: np.array(rest))


def passed(gate: SafetyGate, *action: float) -> list[list[float]]:
    """What the gate sends for one action."""
    sent: list[list[float]] = []
    gate.pass_on(np.array(action, np.float32), lambda values: sent.append(values.tolist()))
    return sent


@pytest.mark.parametrize(
    ("action", "values"),
    [((-1, -1), (-0.2, -1.5)), ((1, 1), (0.6, 1.5)), ((0, 0), (0.2, 0.0)), ((7, -7), (0.6, -1.5))],
)
def test_actions_become_physical_and_stay_within_the_policys_range(action, values):
    armed = gate()
    armed.arm()
    assert np.allclose(passed(armed, *action), [values])


def test_the_tighter_limit_wins():
    armed = gate(low=(-1.0, -0.5), high=(0.3, 9.0))
    armed.arm()
    assert np.allclose(passed(armed, 1, 1), [[0.3, 1.5]])
    assert np.allclose(passed(armed, -1, -1), [[-0.2, -0.5]])


def test_slew_is_limited_from_rest_and_from_the_last_command_sent():
    armed = gate(max_slew=(1.0, 100.0))
    armed.arm()
    assert np.allclose(passed(armed, 1, 1), [[0.1, 1.5]])
    assert np.allclose(passed(armed, 1, 1), [[0.2, 1.5]])
    armed.report(Stop.STALE, True)
    armed.report(Stop.STALE, False)
    armed.arm()
    assert np.allclose(passed(armed, 1, 1), [[0.1, 1.5]])


def test_arming_what_moves_does_not_set_slew_back_to_rest():
    armed = gate(max_slew=(1.0, 1.0))
    armed.arm()
    for _ in range(5):
        passed(armed, 1, 1)
    armed.arm()
    assert np.allclose(passed(armed, -1, -1), [[0.4, 0.4]])
    armed.disarm()
    armed.arm()
    assert np.allclose(passed(armed, 1, 1), [[0.1, 0.1]])


def test_slew_starts_from_what_a_stop_sends():
    armed = gate(max_slew=(1.0, 1.0), rest=(0.5, 1.0))
    armed.arm()
    assert np.allclose(passed(armed, -1, -1), [[0.4, 0.9]])


def test_a_disarmed_gate_sends_nothing_but_says_what_it_would():
    disarmed, sent = gate(), []
    verdict = disarmed.pass_on(np.array([1, 1], np.float32), sent.append)
    assert not sent
    assert not verdict.sent
    assert np.allclose(verdict.values, [0.6, 1.5])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_latches_a_stop(bad):
    armed = gate()
    armed.arm()
    assert not passed(armed, bad, 0)
    assert armed.state.stop is Stop.NAN
    with pytest.raises(ArmError, match="nan"):
        armed.arm()
    assert not passed(armed, 0, 0), "the cause has ended, the latch has not"
    armed.arm()
    assert passed(armed, 0, 0)


def test_a_cause_latches_only_while_armed_but_always_bars_arming():
    disarmed = gate()
    assert not disarmed.report(Stop.STALE, True)
    assert disarmed.state.stop is None
    with pytest.raises(ArmError, match="stale"):
        disarmed.arm()
    disarmed.report(Stop.STALE, False)
    disarmed.arm()
    assert disarmed.report(Stop.STALE, True), "this is the moment that latches"
    assert not disarmed.report(Stop.STALE, True)
    assert not disarmed.report(Stop.NAN, True), "the first reason stays"
    assert disarmed.state.stop is Stop.STALE


def test_every_cause_latches_and_the_first_is_the_reason():
    armed = gate()
    armed.arm()
    armed.report(Stop.E_STOP, True)
    armed.report(Stop.NAN, True)
    assert armed.state.stop is Stop.E_STOP
    armed.report(Stop.E_STOP, False)
    assert armed.state.latched == {Stop.E_STOP, Stop.NAN}
    with pytest.raises(ArmError, match="nan"):
        armed.arm()
    armed.report(Stop.NAN, False)
    armed.arm()
    assert armed.state.latched == frozenset()


@pytest.mark.parametrize("cause", list(Stop))
@pytest.mark.parametrize("when", ["armed", "disarmed", "disarmed later"])
def test_an_enable_edge_clears_stale_and_enable_stops_only(cause, when):
    stopped = gate()
    if when != "disarmed":
        stopped.arm()
    stopped.report(cause, True)
    if when == "disarmed later":
        stopped.disarm()
    with pytest.raises(ArmError):
        stopped.arm_by_edge()
    stopped.report(cause, False)
    if cause in (Stop.STALE, Stop.ENABLE):
        stopped.arm_by_edge()
    else:
        with pytest.raises(ArmError, match=f"call ~/arm: {cause.value}"):
            stopped.arm_by_edge()
        assert not passed(stopped, 0, 0)
        stopped.arm()
    assert passed(stopped, 0, 0)


def test_a_second_cause_that_needs_arming_keeps_an_edge_from_clearing_the_first():
    stopped = gate()
    stopped.arm()
    for cause in (Stop.STALE, Stop.E_STOP):
        stopped.report(cause, True)
        stopped.report(cause, False)
    assert stopped.state.stop is Stop.STALE
    with pytest.raises(ArmError, match="e_stop"):
        stopped.arm_by_edge()


def test_without_an_enable_edge_every_stop_needs_arming_also_after_disarming():
    stopped = SafetyGate(ACTIONS, 0.1, has_edge=False)
    stopped.report(Stop.STALE, True)
    stopped.report(Stop.STALE, False)
    assert not stopped.state.held, "it stopped nothing"
    stopped.arm()
    stopped.report(Stop.STALE, True)
    stopped.report(Stop.STALE, False)
    stopped.disarm()
    assert stopped.state.held == {Stop.STALE}
    stopped.arm()
    assert not stopped.state.held


def test_an_action_that_stands_for_no_number_stops_as_one_that_is_none():
    wide = SafetyGate([ActionSpec("turn", "rad/s", -1e308, 1e308)], 0.1)
    wide.arm()
    assert not passed(wide, -1)
    assert wide.state.stop is Stop.NAN


def test_what_must_be_heard_first_bars_arming_but_needs_no_arming_of_its_own():
    waiting = SafetyGate(ACTIONS, 0.1, causes=[Stop.E_STOP])
    with pytest.raises(ArmError, match="e_stop"):
        waiting.arm()
    waiting.report(Stop.E_STOP, False)
    waiting.arm_by_edge()
    assert passed(waiting, 0, 0)


def test_stop_values_are_those_of_the_moment_that_stopped():
    at = [np.array([0.1, 0.2])]
    held = SafetyGate(ACTIONS, 0.1, rest=lambda: at[0], measured=True)
    held.arm()
    at[0] = np.array([0.3, 0.4])
    held.report(Stop.STALE, True)
    at[0] = np.array([0.5, 0.6])
    held.report(Stop.NAN, True)
    held.disarm()
    assert held.stop_values.tolist() == [0.3, 0.4]


def test_measured_positions_outside_the_limits_bar_arming():
    at = [np.array([0.9, 0.0])]
    held = SafetyGate(ACTIONS, 0.1, rest=lambda: at[0], measured=True)
    with pytest.raises(ArmError, match=r"linear at 0.9, limits -0.2..0.6"):
        held.arm()
    assert not held.state.armed
    at[0] = np.array([0.6, 0.0])
    held.arm()


def test_whoever_listens_hears_a_stop_once():
    heard, armed = [], gate()
    armed.on_stop = lambda: heard.append(True)
    armed.report(Stop.NAN, True)
    assert not heard
    armed.report(Stop.NAN, False)
    armed.arm()
    armed.report(Stop.NAN, True)
    armed.report(Stop.STALE, True)
    assert heard == [True]


def test_disarming_says_whether_stops_are_owed():
    latched = gate()
    latched.arm()
    latched.report(Stop.STALE, True)
    assert latched.disarm()
    assert not latched.disarm()
    assert latched.state.stop is None


@pytest.mark.parametrize(
    "settings",
    [
        {"low": (0.0,)},
        {"high": (0.0, np.nan)},
        {"low": (0.7, 0.0)},
        {"max_slew": (0.0, 1.0)},
        {"max_slew": (-1.0, 1.0)},
    ],
)
def test_limits_that_do_not_fit_are_refused(settings):
    with pytest.raises(ConfigError, match="expected"):
        gate(**settings)


def test_no_command_follows_a_stop_that_another_thread_latched():
    armed, events = gate(), []
    armed.arm()
    entered, go_on = threading.Event(), threading.Event()

    def slow_send(values: np.ndarray) -> None:
        entered.set()
        go_on.wait(5)
        events.append("command")

    def stop() -> None:
        armed.report(Stop.STALE, True)
        events.append("stop")

    sending = threading.Thread(target=armed.pass_on, args=(np.zeros(2, np.float32), slow_send))
    stopping = threading.Thread(target=stop)
    sending.start()
    assert entered.wait(5)
    stopping.start()
    stopping.join(0.05)
    go_on.set()
    sending.join(5)
    stopping.join(5)
    assert events == ["command", "stop"]


def test_from_physical_undoes_to_physical():
    low, high = np.array([-0.2, -1.5]), np.array([0.6, 1.5])
    actions = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    np.testing.assert_allclose(from_physical(to_physical(actions, low, high), low, high), actions, atol=1e-7)
    np.testing.assert_allclose(from_physical(np.array([0.2, 3.0]), low, high), [0, 2])
