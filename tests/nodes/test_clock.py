"""A /clock that goes back, and two publishers of /clock: the robot stops, or the node complains. Real processes."""

import time

import pytest
from fault_publishers import SimClock
from fault_rig import Rig
from fault_senses import second_clock
from ros_network import Network

FOREVER_S = 3600.0
TOLERANT = {"max_clock_back_s": FOREVER_S, "max_age_s": FOREVER_S, "max_future_s": FOREVER_S}


@pytest.fixture
def rig(network: Network, tmp_path):
    rig = Rig(network, tmp_path, nimble=True)
    yield rig
    rig.close()


@pytest.mark.parametrize("back_s", [0.2, 1.5])
def test_a_clock_that_goes_back_by_more_than_a_period_stops_the_robot(rig: Rig, back_s: float):
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    since_s = clock.jump(-back_s)
    assert rig.state(since_s, lambda state: state["stop"])["stop"] == "clock"
    assert rig.first_stop(since_s) - since_s < 0.5
    rig.rearm()


def test_how_far_it_may_go_back_is_a_parameter(rig: Rig):
    clock = rig.clock()
    rig.drive(use_sim_time=True, **TOLERANT)
    since_s = clock.jump(-1.5)
    time.sleep(1.0)
    assert rig.stops(since_s) == []
    rig.moving()


def test_the_camera_of_a_slow_simulation_is_told_by_simulated_time(rig: Rig):
    """At a tenth of real time, a picture comes each half a second."""
    clock = rig.clock()
    start_s = time.monotonic()
    clock.change(lambda: setattr(clock, "rate", 0.1))
    rig.lens.period_s = 0.5
    rig.activate(use_sim_time=True, watchdog_timeout_s=5.0)
    rig.lens.start()
    _, told = rig.diagnosis(start_s, "images", "images OK: ")
    assert 15 < float(told.split()[2]) < 25
    ok_s = time.monotonic()
    rig.network.until(lambda: len(list(rig._statuses(ok_s, "images"))) >= 4, 10, "diagnostics")
    assert {text[:10] for _, text in rig._statuses(ok_s, "images")} == {"images OK:"}


def test_two_clocks_close_together_are_named_and_keep_the_robot_from_being_armed(rig: Rig):
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    other = second_clock(rig.network.neighbour("second_clock"), rig, clock, 0.02)
    since_s = time.monotonic()
    other.start()
    named = "expected one publisher of /clock, got 2: /tested/second_clock, /tested/test: time would go back and forth"
    rig.diagnosis(since_s, "safety", f"safety WARN: {named}")
    assert rig.stops(since_s) == []
    assert rig.network.trigger("policy_node/disarm").success
    time.sleep(0.3)
    assert rig.arm().startswith(f"arm refused: {named}")
    rig.diagnosis(time.monotonic(), "safety", f"not armed, and cannot be: {named}")
    other.close()
    rig.rearm()


def test_other_clocks_are_nothing_to_a_node_without_use_sim_time(rig: Rig):
    rig.drive()
    for name in ("one", "two"):
        rig.opened(SimClock(rig.network.neighbour(name))).start()
    rig.network.until(lambda: rig.network.node.count_publishers("/clock") == 2, 10, "both clocks")
    assert rig.network.trigger("policy_node/disarm").success
    time.sleep(0.3)
    assert rig.arm() == ""
