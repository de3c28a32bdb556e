"""Drive: what an activated policy_node does, without ROS: pipeline, gate, heartbeats and watchdog under one roof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from sac_ae_ros.core.command import GateState, Limits, SafetyGate, Stop, Values
from sac_ae_ros.core.errors import ArmError, StampError
from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.image import CompressedImage, Image, View
from sac_ae_ros.core.novelty import Level, NoveltyGuard, NoveltyLimits, Reading
from sac_ae_ros.core.pipeline import ImageToCommand, Step, Watching
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.trial import Probes
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.input_watch import InputWatch
from sac_ae_ros.nodes.params import PolicyParams
from sac_ae_ros.nodes.watchdog import Watchdog


@dataclass(frozen=True)
class Sink:
    """Where commands go, and what a stop sends at a moment; all may be called from different threads."""

    send: Callable[[Values], None]
    stop: Callable[[Values], None]
    rest: Callable[[], Values]


def timeout_s(params: PolicyParams, period_s: float) -> float:
    """How long an armed robot moves without a used frame, seconds."""
    return params.watchdog_timeout_s or GAP_PERIODS * period_s


def first_causes(params: PolicyParams) -> list[Stop]:
    """What bars arming until it has been heard of."""
    wanted = {
        Stop.ENABLE: params.enable_required,
        Stop.E_STOP: params.e_stop_required,
        Stop.CAMERA: params.camera_info.check == "refuse",
        Stop.JOINTS: params.command.stop == "hold_measured",
    }
    return [cause for cause, is_wanted in wanted.items() if is_wanted]


def make_gate(policy: OnnxPolicy, params: PolicyParams, rest: Callable[[], Values]) -> SafetyGate:
    """A disarmed gate with the policy's limits and the robot's own; `rest` gives what a stop sends.

    Raises:
        ConfigError: the limits don't fit the policy.
    """
    limits = Limits(**asdict(params.limits))
    spec = policy.spec
    measured = params.command.stop == "hold_measured"
    causes = first_causes(params)
    return SafetyGate(spec.actions, spec.control_period_s, limits, rest=rest, measured=measured, causes=causes)


def make_view(params: PolicyParams) -> View:
    """What of the camera's image counts. Raises ConfigError for a region or a range that is none."""
    image = params.image
    return View(tuple(image.roi) or None, image.rotate_deg, tuple(image.value_range) or None)  # type: ignore[arg-type]


def make_guard(policy: OnnxPolicy, params: PolicyParams) -> NoveltyGuard | None:
    """The guard that belongs to a policy; None where novelty is not measured."""
    novelty = params.novelty
    if not novelty.every:
        return None
    return NoveltyGuard(policy.spec.novelty, NoveltyLimits(novelty.warn, novelty.stop, novelty.m, novelty.n))


class Drive:
    """One activation, from activate to deactivate."""

    def __init__(
        self, policy: OnnxPolicy, params: PolicyParams, gate: SafetyGate, sink: Sink, probes: Probes | None = None
    ) -> None:
        """Starts the watchdog; the `gate` is a fresh one from `make_gate`."""
        period_s = policy.spec.control_period_s
        self._gate, self._params = gate, params
        self._guard = make_guard(policy, params)
        self.novelty: tuple[Reading | None, Level] = None, Level.NORMAL  # replaced whole, for other threads to read
        watching = Watching(make_view(params), params.image.freeze_timeout_s, params.novelty.every, self._guard, probes)
        self._pipeline = ImageToCommand(policy, gate, sink.send, watching)
        self.input = InputWatch()
        self._enable = Heartbeat(gate, Stop.ENABLE, params.enable_timeout_s, "the enable switch", "is off")
        e_stop_timeout_s = params.e_stop_timeout_s if params.e_stop_required else None
        self._e_stop = Heartbeat(gate, Stop.E_STOP, e_stop_timeout_s, "the emergency stop", "is pressed")
        self._camera = Heartbeat(gate, Stop.CAMERA, None, "camera_info", "contradicts the policy")
        self._joints = Heartbeat(gate, Stop.JOINTS, params.command.joint_timeout_s, "joint_states", "lack a joint")
        self._clock = ""  # what was last wrong with it
        self._released = False  # whether an explicit false was heard on enable since the last edge
        self.timeout_s = timeout_s(params, period_s)
        beats = (self._enable, self._e_stop, self._camera, self._joints)
        self._watchdog = Watchdog(gate, sink.stop, beats, period_s=period_s, timeout_s=self.timeout_s)

    @property
    def state(self) -> GateState:
        """The gate's state at this moment."""
        return self._gate.state

    @property
    def trouble(self) -> str | None:
        """Why a stop could not be sent, if so."""
        return self._watchdog.trouble

    @property
    def working_s(self) -> float:
        """How long a frame has been worked on; 0 if none is."""
        return self._watchdog.working_s

    def process(self, image: Image | CompressedImage, stamp_ns: int) -> Step | None:
        """Takes one camera image, as ImageToCommand.process does; a used one keeps the watchdog quiet."""
        self._watchdog.frame_begun()
        try:
            step = self._pipeline.process(image, stamp_ns)
            if step is not None:
                self._watchdog.frame_used()
                if step.reading is not None and self._guard is not None:
                    self.novelty = step.reading, self._guard.level
            return step
        finally:
            self._watchdog.frame_ended()

    def refuse(self, error: Exception) -> None:
        """Takes note of an image that could not be used."""
        is_clock = isinstance(error, StampError)
        self._watchdog.blame(Stop.CLOCK if is_clock else Stop.STALE)
        if is_clock:
            self._clock = str(error)
        self.input.refused(time.monotonic(), str(error))

    def swap(self, policy: OnnxPolicy) -> None:
        """Goes on with a compatible policy, between two frames."""
        self._guard = make_guard(policy, self._params)
        self.novelty = None, Level.NORMAL
        self._gate.report(Stop.NOVELTY, False)  # the new guard finds out for itself; what latched stays
        self._pipeline.swap(policy, self._guard)

    def reset(self) -> None:
        """Starts the frame stack anew, as at an episode's end."""
        self._pipeline.reset()

    def heard_enable(self, on: bool) -> str:
        """Hears the deadman; false, then true arms. Returns what came of such an edge, or nothing."""
        self._enable.heard(on)
        edge, self._released = on and self._released, not on
        if not edge or self._is_moving():
            return ""
        try:
            self._gate.arm_by_edge()
        except ArmError as error:
            return str(error)
        self._watchdog.cancel_last_stops()
        return "armed by enable"

    def heard_e_stop(self, pressed: bool) -> None:
        """Hears the emergency stop."""
        self._e_stop.heard(not pressed)

    def heard_joints(self, all_fresh: bool) -> None:
        """Hears measured positions, once those of every joint are known."""
        self._joints.heard(all_fresh)

    def heard_camera(self, fits: bool) -> None:
        """Hears camera_info, where one that contradicts the policy keeps the robot from moving."""
        self._camera.heard(fits)

    def clock_jumped(self, by_s: float) -> None:
        """Stops the robot: nobody knows how old the frames are. The cause is over at once, the latch is not."""
        self._clock = f"the clock jumped by {by_s:+.3g} s"
        self._gate.report(Stop.CLOCK, True)
        self._gate.report(Stop.CLOCK, False)

    def clock_paused(self, for_s: float) -> None:
        """Puts late frames down to the clock."""
        self._clock = f"the clock has stood still for {for_s:.2f} s; does /clock go on?"
        self._watchdog.blame(Stop.CLOCK)

    def arm(self) -> None:
        """Lets commands pass. Raises ArmError while the cause of a stop lasts."""
        self._gate.arm()
        self._clock = ""
        self._watchdog.cancel_last_stops()

    def disarm(self) -> bool:
        """Lets nothing pass; stops follow for half a second if the gate was armed, which is returned."""
        was_armed = self._gate.disarm()
        if was_armed:
            self._watchdog.last_stops()
        return was_armed

    def end(self) -> None:
        """Disarms, waits until the last stops are sent, and ends the watchdog."""
        self.disarm()
        self._watchdog.wait_last_stops()
        self._watchdog.end()

    def explain(self, causes: Iterable[Stop]) -> str:
        """What is behind these causes, in words."""
        return "; ".join(filter(None, (self._explain(cause) for cause in sorted(causes))))

    def _explain(self, cause: Stop) -> str:
        now_s = time.monotonic()
        beats = {beat.cause: beat for beat in (self._enable, self._e_stop, self._camera, self._joints)}
        if cause in beats:
            return beats[cause].text(now_s)
        if cause is Stop.NAN:
            return "the policy's action was not finite"
        if cause is Stop.HUNG:
            return f"inference has not come back for {self.working_s:.2f} s" if self.working_s else ""
        if cause is Stop.NOVELTY:
            reading, _ = self.novelty
            return "" if reading is None else reading.cause
        if cause is Stop.CLOCK and self._clock:
            return self._clock
        if cause in (Stop.STALE, Stop.CLOCK):
            return self.input.why_unused(now_s, self.timeout_s)
        return ""

    def _is_moving(self) -> bool:
        state = self._gate.state
        return state.armed and state.stop is None
