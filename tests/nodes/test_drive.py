"""Drive: pipeline, gate and watchdog together, without ROS."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import SPEC, write_policy

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import ArmError, ImageError
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.drive import RELEASED_S, Drive, Links, make_gate
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.policy_params import PolicyParams

TIMEOUT_S = 2.5 * SPEC.control_period_s
IMAGE = Image(8, 8, "rgb8", 24, False, bytes([140]) * 192)


class Rig:
    """An armed drive, and what it sent: values, or None for a stop."""

    def __init__(self, policy: OnnxPolicy, params: PolicyParams) -> None:
        self.sent: list[np.ndarray | None] = []
        rest = lambda: np.zeros(2)  # noqa: E731
        self.e_stop = Heartbeat(Stop.E_STOP, "the button", "is pressed", listen_s=0.0)
        self.ambiguity = ""
        links = Links(self.sent.append, lambda _: self.sent.append(None), self.e_stop, lambda: self.ambiguity)
        self.drive = Drive(policy, params, make_gate(policy, params, rest), links)
        if not params.enable_required:
            self.drive.arm()


@pytest.fixture
def policy(tmp_path: Path) -> OnnxPolicy:
    return OnnxPolicy.own(write_policy(tmp_path / "tiny.onnx").read_bytes(), "it")


@pytest.fixture
def rig(policy: OnnxPolicy, request: pytest.FixtureRequest):
    rig = Rig(policy, getattr(request, "param", PolicyParams()))
    yield rig
    rig.drive.end()


def test_a_first_inference_that_hangs_is_stopped_and_its_command_is_not_sent(rig, policy, monkeypatch):
    act = policy.act

    def slow(*args: object) -> object:
        time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
        return act(*args)

    monkeypatch.setattr(policy, "act", slow)
    step = rig.drive.process(IMAGE, 1)
    assert step is not None
    assert not step.sent
    assert rig.drive.state.stop is Stop.HUNG
    assert rig.sent
    assert all(sent is None for sent in rig.sent)


@pytest.mark.parametrize("rig", [PolicyParams(max_age_s=60.0)], indirect=True)
def test_a_tolerant_max_age_leaves_the_watchdog_alone(rig):
    assert rig.drive.process(IMAGE, 1).sent
    time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
    assert rig.drive.state.stop is Stop.STALE


def test_undecodable_first_frames_start_the_watchdog_too(rig):
    with pytest.raises(ImageError):
        rig.drive.process(Image(8, 8, "rgb8", 24, False, b"short"), 1)
    time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
    assert rig.drive.state.stop is Stop.STALE


ENABLED = PolicyParams(enable_required=True)


@pytest.mark.parametrize("rig", [ENABLED], indirect=True)
def test_an_enable_edge_arms_and_anything_less_does_not(rig):
    assert rig.drive.heard_enable(True) == "", "no false before"
    for _ in range(5):  # a loose contact
        rig.drive.heard_enable(False)
        rig.drive.heard_enable(True)
    assert not rig.drive.state.armed
    rig.drive.heard_enable(False)
    time.sleep(1.5 * RELEASED_S)
    assert rig.drive.heard_enable(True) == "armed by enable"
    assert rig.drive.state.armed


@pytest.mark.parametrize("rig", [ENABLED], indirect=True)
def test_nobody_arms_while_it_is_not_clear_who_says_stop(rig):
    rig.ambiguity = "expected one publisher"
    rig.drive.heard_enable(False)
    time.sleep(1.5 * RELEASED_S)
    assert "expected one publisher" in rig.drive.heard_enable(True)
    with pytest.raises(ArmError, match="expected one publisher"):
        rig.drive.arm()


def test_a_pressed_emergency_stop_outlives_the_drive(rig, policy):
    rig.e_stop.heard(False)
    assert rig.drive.state.stop is Stop.E_STOP
    rig.drive.end()
    rest = lambda: np.zeros(2)  # noqa: E731
    gate = make_gate(policy, PolicyParams(), rest, rig.drive.state.held)
    later = Drive(policy, PolicyParams(), gate, Links(rig.sent.append, rig.sent.append, rig.e_stop))
    try:
        with pytest.raises(ArmError, match="e_stop"):
            later.arm()
        rig.e_stop.heard(True)
        with pytest.raises(ArmError, match="call ~/arm"):
            gate.arm_by_edge()
        later.arm()
    finally:
        later.end()


def test_a_drive_that_ends_cannot_be_armed_and_sends_all_its_last_stops(rig):
    refused = []

    def arm() -> None:
        with pytest.raises(ArmError) as error:
            rig.drive.arm()
        refused.append(error)

    threading.Timer(0.1, arm).start()
    rig.drive.end()
    assert refused
    assert sum(sent is None for sent in rig.sent) >= 4
    with pytest.raises(ArmError, match="deactivated"):
        rig.drive.arm()


def test_an_emergency_stop_that_was_released_between_two_drives_still_needs_arming(rig, policy):
    rig.drive.end()
    rig.e_stop.heard(False)
    rig.e_stop.heard(True)
    gate = make_gate(policy, PolicyParams(), lambda: np.zeros(2))
    later = Drive(policy, PolicyParams(), gate, Links(rig.sent.append, rig.sent.append, rig.e_stop))
    try:
        with pytest.raises(ArmError, match="call ~/arm: e_stop"):
            gate.arm_by_edge()
        later.arm()
    finally:
        later.end()


def test_a_command_that_comes_too_late_is_not_sent_even_if_the_whole_process_slept(rig, policy, monkeypatch):
    assert rig.drive.process(IMAGE, 1).sent
    rig.drive._watchdog.end()  # as asleep as the process can be
    act = policy.act

    def slow(*args: object) -> object:
        time.sleep(TIMEOUT_S + SPEC.control_period_s)
        return act(*args)

    monkeypatch.setattr(policy, "act", slow)
    assert not rig.drive.process(IMAGE, 1 + SPEC.control_period_ns).sent
    assert rig.drive.state.stop is Stop.HUNG
