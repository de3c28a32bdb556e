"""Drive: pipeline, gate and watchdog together, without ROS."""

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import SPEC, write_policy

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import ArmError, ImageError, StampError
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.pipeline import Step
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.shaping import CommandShaper
from sac_ae_ros.nodes.drive import CROSSED_S, RELEASED_S, Drive, Links, make_gate
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.input_watch import FEWEST_TICKS, InputWatch
from sac_ae_ros.nodes.policy_params import ImageParams, PolicyParams

TIMEOUT_S = 2.5 * SPEC.control_period_s
IMAGE = Image(8, 8, "rgb8", 24, False, bytes([140]) * 192)


class Rig:
    """An armed drive, and what it sent: values, or None for a stop."""

    def __init__(self, policy: OnnxPolicy, params: PolicyParams, listen_s: float = 0.0) -> None:
        self.sent: list[np.ndarray | None] = []
        rest = lambda: np.zeros(2)  # noqa: E731
        self.e_stop = Heartbeat(Stop.E_STOP, "the button", "is pressed", presumed=True)
        self.obstacle: Callable[[], str] = lambda: ""
        self.stamp_ns = 0  # of the newest frame, by which time passes for the frame budget
        stop, obstacle = lambda _: self.sent.append(None), lambda: self.obstacle()
        self.listen_until_s = time.monotonic() + listen_s

        def listening_s() -> float:
            return max(self.listen_until_s - time.monotonic(), 0.0)

        links = Links(self.sent.append, stop, self.e_stop, obstacle, None, lambda: self.stamp_ns, listening_s)
        self.drive = Drive(policy, params, make_gate(policy, params, rest), links)
        self.seen = 0

    def see(self, frames: int = 1, every_s: float = SPEC.control_period_s) -> Step:
        """Frames, dated so far apart."""
        for _ in range(frames):
            self.seen += 1
            stamp_ns = self.stamp_ns = round(self.seen * every_s * 1e9)
            pixels = bytes([140 + self.seen % 2]) * 192  # a camera has noise
            step = self.drive.process(dataclasses.replace(IMAGE, data=pixels), stamp_ns)
            self.drive.input.used(time.monotonic(), 0.0, stamp_ns)
        assert step is not None
        return step


@pytest.fixture
def policy(tmp_path: Path) -> OnnxPolicy:
    return OnnxPolicy.own(write_policy(tmp_path / "tiny.onnx").read_bytes(), "it")


@pytest.fixture
def rig(policy: OnnxPolicy, request: pytest.FixtureRequest):
    params = getattr(request, "param", PolicyParams())
    rig = Rig(policy, *params) if isinstance(params, tuple) else Rig(policy, params)
    yield rig
    rig.drive.end()


@pytest.fixture
def armed(rig: Rig) -> Rig:
    """It has seen what arming asks for."""
    rig.see(FEWEST_TICKS)
    rig.drive.arm()
    return rig


def slow(policy: OnnxPolicy, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every inference takes so long from now on."""
    act = policy.act

    def later(*args: object) -> object:
        time.sleep(seconds)
        return act(*args)

    monkeypatch.setattr(policy, "act", later)


ITSELF = PolicyParams(arm_on_activate=True)


def test_nothing_arms_before_a_frame_was_used(rig):
    with pytest.raises(ArmError, match=r"stale .no image has come yet on"):
        rig.drive.arm()
    with pytest.raises(ImageError) as error:
        rig.drive.process(Image(8, 8, "rgb8", 24, False, b"short"), 1)
    rig.drive.input.received(time.monotonic(), 1)
    rig.drive.refuse(error.value)
    time.sleep(0.9 * TIMEOUT_S)
    with pytest.raises(ArmError, match=r"stale .image 8x8 rgb8: expected"):
        rig.drive.arm()
    assert not rig.see(FEWEST_TICKS).sent
    rig.drive.arm()
    assert rig.see().sent


def test_a_frame_that_was_used_too_long_ago_arms_nothing(rig):
    rig.see(FEWEST_TICKS)
    time.sleep(TIMEOUT_S + SPEC.control_period_s)
    with pytest.raises(ArmError, match="stale"):
        rig.drive.arm()


@pytest.mark.parametrize("rig", [(ITSELF, 0.3)], indirect=True)
def test_what_arms_by_itself_listens_first(rig):
    assert not rig.see(3).sent
    assert rig.drive.arms_itself
    time.sleep(0.3)
    rig.see(3)
    assert rig.drive.state.armed


@pytest.mark.parametrize("rig", [(PolicyParams(enable_required=True), 0.8)], indirect=True)
def test_nobody_arms_it_before_it_has_listened(rig):
    rig.drive.heard_enable(False)
    rig.see(FEWEST_TICKS)
    time.sleep(1.5 * RELEASED_S)
    says = r"^arm refused: the node listens for other publishers and the emergency stop for 0\.\d s more; try again"
    assert re.match(says, rig.drive.heard_enable(True))
    with pytest.raises(ArmError, match=says):
        rig.drive.arm()
    assert rig.drive.arm_refusal("").startswith("the node listens for other publishers")
    rig.drive.heard_enable(False)
    time.sleep(max(1.5 * RELEASED_S, rig.drive.listening_s))
    rig.see()
    assert rig.drive.heard_enable(True) == "armed by enable"


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_what_arms_by_itself_and_need_not_listen_does_so_at_the_first_frame_and_never_again(rig):
    assert not rig.drive.state.armed
    assert rig.see().sent, "the very frame that arms"
    rig.drive.disarm()
    assert not rig.see(3).sent


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_disarming_before_the_first_frame_keeps_it_from_arming_by_itself(rig):
    assert not rig.drive.disarm()
    assert not rig.see(3).sent
    assert not rig.drive.state.armed


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_what_a_person_has_armed_does_not_arm_by_itself_after_a_stop(rig):
    rig.listen_until_s = time.monotonic() + 60
    rig.see(FEWEST_TICKS)
    rig.listen_until_s = 0.0
    rig.drive.arm()
    rig.e_stop.heard(False)
    rig.e_stop.heard(True)
    time.sleep(TIMEOUT_S + SPEC.control_period_s)
    assert not any(rig.see().sent for _ in range(3))
    assert rig.drive.state.stop is Stop.E_STOP
    assert rig.drive.state.held


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_what_a_button_has_stopped_does_not_arm_by_itself(rig):
    rig.e_stop.heard(False)
    rig.e_stop.heard(True)
    assert Stop.E_STOP not in rig.drive.state.causes
    assert not any(rig.see().sent for _ in range(3))
    assert rig.drive.trouble_at_start == "arm refused: only ~/arm clears this stop: e_stop"
    rig.see(FEWEST_TICKS)
    rig.drive.arm()
    assert rig.see().sent


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_an_obstacle_keeps_it_from_arming_by_itself_and_is_told(rig):
    rig.obstacle = lambda: "expected no other node"
    assert not rig.see().sent
    rig.obstacle = lambda: ""
    assert not rig.see(3).sent, "that a person must do now"
    assert "expected no other node" in rig.drive.trouble_at_start


@pytest.mark.parametrize("rig", [ITSELF], indirect=True)
def test_a_first_inference_that_hangs_arms_nothing(rig, policy, monkeypatch):
    slow(policy, monkeypatch, TIMEOUT_S + 2 * SPEC.control_period_s)
    assert not rig.see().sent
    assert not rig.drive.state.armed
    assert Stop.HUNG in rig.drive.state.held
    assert not rig.sent


def test_frames_of_a_camera_slower_than_the_policy_do_not_arm(rig):
    rig.see(FEWEST_TICKS - 1)
    with pytest.raises(ArmError, match=f"expected {FEWEST_TICKS} frames, none over 0.25 s after"):
        rig.drive.arm()
    rig.see(20, every_s=2 * SPEC.control_period_s)
    with pytest.raises(ArmError, match=r"expected frames at the policy's 10 Hz, got 5 Hz.* 2 times .*min_rate_share"):
        rig.drive.arm()
    rig.seen *= 2
    rig.see(20)
    rig.drive.arm()


@pytest.mark.parametrize("rig", [PolicyParams(image=ImageParams(min_rate_share=0.0))], indirect=True)
def test_their_rate_need_not_matter(rig):
    rig.see()
    rig.drive.arm()


def test_whoever_disarms_while_arming_is_under_way_wins(rig):
    rig.see(FEWEST_TICKS)
    rig.obstacle = lambda: str(rig.drive.disarm() or "")
    with pytest.raises(ArmError, match="disarmed meanwhile"):
        rig.drive.arm()
    rig.obstacle = lambda: ""
    with pytest.raises(ArmError, match="disarmed just now"):
        rig.drive.arm()
    time.sleep(CROSSED_S)
    rig.see(FEWEST_TICKS)
    rig.drive.arm()


@pytest.mark.parametrize("rig", [PolicyParams(max_age_s=60.0)], indirect=True)
def test_a_tolerant_max_age_leaves_the_watchdog_alone(armed):
    assert armed.see().sent
    time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
    assert armed.drive.state.stop is Stop.STALE


ENABLED = PolicyParams(enable_required=True)
ANY_RATE = PolicyParams(image=ImageParams(min_rate_share=0.0))


@pytest.mark.parametrize("rig", [ENABLED], indirect=True)
def test_an_enable_edge_arms_and_anything_less_does_not(rig):
    rig.drive.heard_enable(False)
    time.sleep(1.5 * RELEASED_S)
    assert "no image has come yet" in rig.drive.heard_enable(True)
    rig.see(FEWEST_TICKS)
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
    rig.see(FEWEST_TICKS)
    rig.obstacle = lambda: "expected one publisher"
    rig.drive.heard_enable(False)
    time.sleep(1.5 * RELEASED_S)
    assert "expected one publisher" in rig.drive.heard_enable(True)
    with pytest.raises(ArmError, match="expected one publisher"):
        rig.drive.arm()


@pytest.mark.parametrize("rig", [ENABLED], indirect=True)
def test_a_deadman_that_cannot_be_believed_stops_with_that_reason(rig):
    rig.drive.heard_enable(False)
    rig.see(FEWEST_TICKS)
    time.sleep(1.5 * RELEASED_S)
    assert rig.drive.heard_enable(True) == "armed by enable"
    rig.drive.doubt_enable("two nodes say so")
    rig.drive.heard_enable(True)
    assert rig.drive.state.stop is Stop.ENABLE
    assert rig.drive.explain([Stop.ENABLE]) == "two nodes say so"
    rig.drive.doubt_enable("")
    assert not rig.drive.state.causes


def test_another_node_that_commands_the_robot_stops_it_where_that_is_wanted(armed):
    armed.drive.rivals.doubt("expected no other node")
    assert armed.drive.state.stop is Stop.RIVAL
    with pytest.raises(ArmError, match=r"rival .expected no other node"):
        armed.drive.arm()
    armed.drive.rivals.doubt("")
    armed.drive.arm()


def test_a_pressed_emergency_stop_outlives_the_drive(armed, policy):
    rig = armed
    rig.e_stop.heard(False)
    assert rig.drive.state.stop is Stop.E_STOP
    rig.drive.end()
    rest = lambda: np.zeros(2)  # noqa: E731
    gate = make_gate(policy, ANY_RATE, rest, rig.drive.state.held)
    later = Drive(policy, ANY_RATE, gate, Links(rig.sent.append, rig.sent.append, rig.e_stop))
    try:
        later.process(IMAGE, 1)
        with pytest.raises(ArmError, match="e_stop"):
            later.arm()
        rig.e_stop.heard(True)
        with pytest.raises(ArmError, match="call ~/arm"):
            gate.arm_by_edge()
        later.arm()
    finally:
        later.end()


def test_a_drive_that_ends_cannot_be_armed_and_sends_all_its_last_stops(armed):
    rig, refused = armed, []

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
    gate = make_gate(policy, ANY_RATE, lambda: np.zeros(2))
    later = Drive(policy, ANY_RATE, gate, Links(rig.sent.append, rig.sent.append, rig.e_stop))
    try:
        later.process(IMAGE, 1)
        with pytest.raises(ArmError, match="call ~/arm: e_stop"):
            gate.arm_by_edge()
        later.arm()
    finally:
        later.end()


def test_a_command_that_comes_too_late_is_not_sent_even_if_the_whole_process_slept(armed, policy, monkeypatch):
    assert armed.see().sent
    armed.drive._watchdog.end()  # as asleep as the process can be
    slow(policy, monkeypatch, TIMEOUT_S + SPEC.control_period_s)
    assert not armed.see().sent
    assert armed.drive.state.stop is Stop.HUNG
    assert armed.drive.explain([Stop.HUNG]).startswith("no frame was used for 0.3")


def test_what_is_wrong_with_the_clock_later_does_not_hide_what_stopped_the_robot(armed):
    armed.drive.clock_jumped(-10.0)
    armed.drive.refuse(StampError("expected a stamp at most 0.1 s ahead, got one of 10.000 s"))
    armed.drive.clock_paused(0.5)
    assert armed.drive.state.stop is Stop.CLOCK
    assert armed.drive.why_stopped(Stop.CLOCK) == "the clock jumped by -10 s"
    assert "stood still for 0.50 s" in armed.drive.explain([Stop.CLOCK]), "what lasts"
    armed.drive.clock_paused(0.0)
    armed.see(FEWEST_TICKS)
    armed.drive.arm()
    armed.drive.clock_jumped(20.0)
    assert armed.drive.why_stopped(Stop.CLOCK) == "the clock jumped by +20 s"


def test_a_camera_is_judged_by_its_own_time():
    passed_s = 100.0
    watch = InputWatch(0.1, lambda: passed_s)
    start_s = time.monotonic()
    for count in range(4):  # 20 Hz in a simulation at a tenth of real time
        passed_s = 100.0 + 0.05 * count
        watch.received(start_s + 0.5 * count, count)
    facts = watch.facts(start_s + 1.9)
    assert facts.rate_hz == pytest.approx(20.0)
    assert facts.quiet_s == 0.0
    assert facts.silent_s == pytest.approx(0.4)
    passed_s = 5.0  # set back, as by a new simulation
    watch.received(start_s + 2.0, 4)
    assert watch.facts(start_s + 2.0).quiet_s == 0.0


@pytest.mark.parametrize("rig", [ANY_RATE], indirect=True)
def test_a_camera_that_is_too_slow_is_not_called_a_pause(armed):
    for _ in range(2):
        time.sleep(TIMEOUT_S + 0.5 * SPEC.control_period_s)
        armed.drive.input.received(time.monotonic(), 1 + armed.seen)
        armed.see()
    assert armed.drive.state.stop is Stop.STALE
    assert "images came too slowly, 0.3" in armed.drive.explain([Stop.STALE])


def test_an_inference_that_took_too_long_and_came_back_is_not_called_a_pause(armed, policy, monkeypatch):
    slow(policy, monkeypatch, TIMEOUT_S + SPEC.control_period_s)
    armed.see()
    assert armed.drive.state.stop is Stop.HUNG
    assert armed.drive.explain([Stop.HUNG]).endswith(": its inference took longer than the policy's period")


def test_silence_and_disuse_count_from_activation_and_a_stack_that_breaks_says_why():
    watch = InputWatch(0.1)
    start_s = time.monotonic()
    facts = watch.facts(start_s + 3.0)
    assert facts.silent_s == facts.unused_s == pytest.approx(3.0, abs=0.1)
    for count in range(4):  # 10 Hz, then 2.5 Hz
        at_s = start_s + 0.1 * count
        watch.received(at_s, round(0.1 * count * 1e9) + 1)
        watch.used(at_s, 0.0, round(0.1 * count * 1e9) + 1)
    assert watch.facts(at_s).share == pytest.approx(1.0)
    watch.received(at_s + 0.4, round(0.7e9) + 1)
    watch.used(at_s + 0.4, 0.0, round(0.7e9) + 1)
    assert watch.facts(at_s + 0.4).share is None
    assert watch.facts(at_s + 0.4).gap_s == pytest.approx(0.4)
    assert watch.why_unused(at_s + 0.7, 0.25) == "no image for 0.30 s"
    watch.received(at_s + 0.5, round(0.75e9) + 1)
    assert watch.why_unused(at_s + 0.7, 0.25) == "no image for 0.20 s, and none was used for 0.30 s"
    watch.received(at_s + 0.68, round(0.55e9) + 1)
    assert watch.why_unused(at_s + 0.7, 0.25) == "image stamps went back by 0.20 s, none was used for 0.30 s"


def test_what_made_a_used_frame_late_is_told_by_what_images_showed():
    watch = InputWatch(0.1)
    start_s = time.monotonic()
    for at_s, stamp_s, age_s in ((0.0, 5.0, 0.0), (0.1, 5.1, 0.0), (0.2, 5.2, 0.3)):
        watch.received(start_s + at_s, round(stamp_s * 1e9))
        watch.used(start_s + at_s, age_s, round(stamp_s * 1e9))
    assert watch.why_late(start_s + 0.2, 0.3) == "the frame used last was 0.30 s old"
    watch.refused(start_s + 0.25, "expected another")
    assert watch.why_late(start_s + 0.3, 0.3) == "expected another"
    watch.received(start_s + 0.3, round(5.0 * 1e9))
    assert watch.why_late(start_s + 0.3, 0.3) == "image stamps went back by 0.20 s"


@pytest.mark.parametrize("required", [False, True])
def test_an_emergency_stop_that_was_never_heard_bars_arming_where_it_is_required(required, policy):
    gate = make_gate(policy, PolicyParams(e_stop_required=required), lambda: np.zeros(2))
    beat = Heartbeat(Stop.E_STOP, "the emergency stop", "is pressed", presumed=True)
    beat.attach(gate, 1.0 if required else None)
    assert (Stop.E_STOP in gate.state.causes) is required
    assert beat.text(time.monotonic()) == "the emergency stop: nothing heard yet"


def test_a_pause_between_the_last_look_and_sending_lets_nothing_out(armed, monkeypatch):
    assert armed.see().sent
    armed.drive._watchdog.end()
    step = CommandShaper.step

    def paused(self: CommandShaper, target: np.ndarray) -> np.ndarray:
        time.sleep(TIMEOUT_S + SPEC.control_period_s)
        return step(self, target)

    monkeypatch.setattr(CommandShaper, "step", paused)
    count = len(armed.sent)
    assert not armed.see().sent
    assert len(armed.sent) == count
    assert armed.drive.state.stop is Stop.HUNG


@pytest.mark.parametrize("rig", [PolicyParams()], indirect=True)
def test_a_pause_while_a_command_is_sent_stops_the_robot_right_after_it(armed, policy):
    armed.drive._watchdog.end()
    sent = []

    def paused(values: np.ndarray) -> None:
        sent.append(values)
        time.sleep(TIMEOUT_S + SPEC.control_period_s)

    armed.drive._pipeline._send = paused
    armed.see()
    assert len(sent) == 1
    assert armed.drive.state.stop is Stop.HUNG
    assert not armed.see().sent
