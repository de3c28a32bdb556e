"""Drive: what an activated policy_node does, without ROS: pipeline, gate, heartbeats and watchdog under one roof."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from sac_ae_ros.core.command import GateState, Limits, SafetyGate, Stop, Values
from sac_ae_ros.core.errors import ArmError, ConfigError, PaceError, StampError
from sac_ae_ros.core.frames import GAP_PERIODS, FrameBudget
from sac_ae_ros.core.image import CompressedImage, Image, View
from sac_ae_ros.core.novelty import Level, NoveltyGuard, NoveltyLimits, Reading
from sac_ae_ros.core.pipeline import ImageToCommand, Step, Watching
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.trial import Probes
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.input_watch import FEWEST_TICKS, InputWatch
from sac_ae_ros.nodes.policy_params import PolicyParams
from sac_ae_ros.nodes.policy_state import LISTENS
from sac_ae_ros.nodes.watchdog import ABOUT_FRAMES, Watchdog

# `enable` must have said false for so long before true counts as an edge: a loose contact arms nothing.
RELEASED_S = 0.08
# Arming that is asked for so soon after disarming may have been sent before it.
CROSSED_S = 0.2
# Frames that were due too often are told of for so long.
HASTE_S = 2.0
REFUSED = "arm refused: "
NOT_ACTIVE = "expected the node to be active, but it is not; activate it first"


@dataclass(frozen=True)
class Links:
    """What a drive is connected to; all may be called from different threads.

    send, stop: where commands and stops go. e_stop: the emergency stop, which outlives the drive. obstacle: why the
    robot must not be armed, as far as the ROS graph tells, or nothing; called before every arming. probes: where recent
    frames are kept for judging newer policies. clock_ns: the time that passes for the robot. listening_s: for
    how much longer nothing arms, since who else commands the robot, or presses e_stop, may not be known yet.
    """

    send: Callable[[Values], None]
    stop: Callable[[Values], None]
    e_stop: Heartbeat
    obstacle: Callable[[], str] = lambda: ""
    probes: Probes | None = None
    clock_ns: Callable[[], int] = time.monotonic_ns
    listening_s: Callable[[], float] = lambda: 0.0


def timeout_s(params: PolicyParams, period_s: float) -> float:
    """How long an armed robot moves without a used frame, seconds."""
    return params.watchdog_timeout_s or GAP_PERIODS * period_s


def first_causes(params: PolicyParams) -> list[Stop]:
    """What must have been heard of before anybody may arm."""
    wanted = {
        Stop.ENABLE: params.enable_required,
        Stop.E_STOP: params.e_stop_required,
        Stop.CAMERA: params.camera_info.check == "refuse",
        Stop.JOINTS: params.command.stop == "hold_measured",
    }
    return [cause for cause, is_wanted in wanted.items() if is_wanted]


def make_gate(
    policy: OnnxPolicy, params: PolicyParams, rest: Callable[[], Values], held: Iterable[Stop] = ()
) -> SafetyGate:
    """A disarmed gate with the policy's limits and the robot's own.

    `rest` gives what a stop sends, `held` is what only ~/arm may clear. Arming is barred until a frame has been used.

    Raises:
        ConfigError: the limits don't fit the policy.
    """
    limits = Limits(**asdict(params.limits))
    spec = policy.spec
    measured = params.command.stop == "hold_measured"
    return SafetyGate(
        spec.actions,
        spec.control_period_s,
        limits,
        rest=rest,
        measured=measured,
        has_edge=params.enable_required,
        causes={Stop.STALE, *first_causes(params)},
        held=held,
    )


def make_view(params: PolicyParams) -> View:
    """What of the camera's image counts. Raises ConfigError for a region or a range that is none."""
    image = params.image
    return View.of(image.roi, image.rotate_deg, image.value_range)


def make_guard(policy: OnnxPolicy, params: PolicyParams) -> NoveltyGuard | None:
    """The guard that belongs to a policy; None where novelty is not measured.

    Raises:
        ConfigError: the parameters contradict each other, or the policy file.
    """
    novelty = params.novelty
    limits = NoveltyLimits(novelty.warn, novelty.stop, novelty.m, novelty.n)
    if novelty.stop and not novelty.every:
        raise ConfigError("novelty.stop: expected 0.0 with novelty.every: 0, which measures nothing; set one of them")
    guard = NoveltyGuard(policy.spec.novelty, limits)
    if guard.blind and novelty.stop:
        raise ConfigError(
            "novelty.stop: expected a policy file with statistics to judge by, this one has none;"
            " export it again, or set novelty.stop: 0.0"
        )
    return guard if novelty.every else None


def slow_frames(share: float, period_s: float) -> str:
    """Says that frames come at that share of the policy's rate."""
    return (
        f"expected frames at the policy's {1 / period_s:.3g} Hz, got {share / period_s:.3g} Hz: its stack of frames"
        f" spans {1 / share:.2g} times the time that it was trained with; either the camera gives no more, or DDS loses"
        " images (docs/deployment.md, The camera: the DDS profile for large images)"
    )


def broken_stack(gap_s: float | None, period_s: float) -> str:
    """Says that the stack of frames keeps beginning anew, the last time for such a gap between two used frames."""
    text = f"expected {FEWEST_TICKS} frames, none over {GAP_PERIODS * period_s:.3g} s after the last, got fewer so far"
    if gap_s is None:
        return text
    if gap_s <= 0:
        return f"{text}: stamps went back by {-gap_s:.2f} s"
    return f"{text}: frames come too slowly for the policy's stack, the last gap was {gap_s:.2f} s"


class Drive:
    """One activation, from activate to deactivate."""

    def __init__(self, policy: OnnxPolicy, params: PolicyParams, gate: SafetyGate, links: Links) -> None:
        """Starts the watchdog; the `gate` is a fresh one from `make_gate`."""
        self.period_s = period_s = policy.spec.control_period_s
        self._gate, self._params, self._links = gate, params, links
        self._guard = make_guard(policy, params)
        self.novelty: tuple[Reading | None, Level] = None, Level.NORMAL  # replaced whole, for other threads to read
        watching = Watching(
            view=make_view(params),
            freeze_timeout_s=params.image.freeze_timeout_s,
            novelty_every=params.novelty.every,
            novelty=self._guard,
            probes=links.probes,
            before_command=self._on_inferred,
            late=lambda: self._watchdog.late(),  # made below
            budget=FrameBudget(policy.spec.control_period_ns, links.clock_ns),
        )
        self._pipeline = ImageToCommand(policy, gate, links.send, watching)
        self.input = InputWatch(period_s, lambda: links.clock_ns() * 1e-9)
        self._enable = Heartbeat(Stop.ENABLE, "the enable switch", "is off")
        self._camera = Heartbeat(Stop.CAMERA, "camera_info", "contradicts the policy")
        self._joints = Heartbeat(Stop.JOINTS, "joint_states", "lack a joint")
        self.rivals = Heartbeat(Stop.RIVAL, "the command topic", "is shared", presumed=True)
        self._enable.attach(gate, params.enable_timeout_s)
        self._camera.attach(gate, None)
        self._joints.attach(gate, params.command.joint_timeout_s)
        self.rivals.attach(gate, None)
        links.e_stop.attach(gate, params.e_stop_timeout_s if params.e_stop_required else None)
        self._haste: tuple[float, str] = -HASTE_S, ""  # when frames were last due too often, and what that is
        self.paused = ""  # how long the clock has stood still, in words
        self.disarms = 0
        self._disarmed_s = -CROSSED_S
        self.trouble_at_start = ""  # why it did not arm by itself
        self._arms_itself = params.arm_on_activate  # at a used frame, unless disarmed before
        self._arming = threading.Lock()  # between whoever arms and whoever disarms
        self._clock = self._clock_stop = ""  # what was last wrong with it, and what was when that stopped the robot
        self._released_s: float | None = None  # since when enable has said false
        self.timeout_s = timeout_s(params, period_s)
        self._beats = (self._enable, links.e_stop, self._camera, self._joints, self.rivals)
        self._watchdog = Watchdog(gate, links.stop, self._beats, period_s=period_s, timeout_s=self.timeout_s)

    @property
    def state(self) -> GateState:
        """The gate's state at this moment."""
        return self._gate.state

    @property
    def arms_itself(self) -> bool:
        """Whether a used frame is going to arm it."""
        return self._arms_itself

    @property
    def listening_s(self) -> float:
        """How much longer nothing may arm it, since others may not be known yet; 0 if they are."""
        return self._links.listening_s()

    @property
    def trouble(self) -> str | None:
        """Why a stop could not be sent, if so."""
        return self._watchdog.trouble

    @property
    def working_s(self) -> float:
        """How long a frame has been worked on; 0 if none is."""
        return self._watchdog.working_s

    @property
    def haste(self) -> str:
        """That more frames are due, by their stamps, than time passes; empty unless some were refused just now."""
        at_s, text = self._haste
        return text if time.monotonic() - at_s < HASTE_S else ""

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
            self._blame_clock(str(error))
        if isinstance(error, PaceError):
            self._haste = time.monotonic(), str(error)
        self.input.refused(time.monotonic(), str(error))

    def swap(self, policy: OnnxPolicy) -> None:
        """Goes on with a compatible policy, between two frames."""
        self._guard = make_guard(policy, self._params)
        self.novelty = None, Level.NORMAL
        if self._guard is not None and Stop.NOVELTY in self._gate.state.causes:
            self._guard.presume_novel()  # until it has seen for itself
        self._pipeline.swap(policy, self._guard)

    def reset(self) -> None:
        """Starts the frame stack anew, as at an episode's end."""
        self._pipeline.reset()

    def heard_enable(self, on: bool) -> str:
        """Hears the deadman; false for a moment, then true arms. Returns what came of such an edge, or nothing."""
        if not self._params.enable_required:
            return ""
        self._enable.heard(on)
        now_s = time.monotonic()
        if not on:
            self._released_s = self._released_s or now_s
            return ""
        edge = self._released_s is not None and now_s - self._released_s >= RELEASED_S
        self._released_s = None
        if not edge or self._is_moving():
            return ""
        try:
            self._arm(self._gate.arm_by_edge)
        except ArmError as error:
            return str(error)
        return "armed by enable"

    def doubt_enable(self, why: str) -> None:
        """Takes the deadman for released while there is a reason not to believe it; an empty one ends that."""
        if self._params.enable_required:
            self._enable.doubt(why)

    def heard_joints(self, all_fresh: bool) -> None:
        """Hears measured positions, once those of every joint are known."""
        self._joints.heard(all_fresh)

    def doubt_joints(self, why: str) -> None:
        """Takes measured positions for missing while there is a reason not to believe them; an empty one ends that."""
        self._joints.doubt(why)

    def heard_camera(self, fits: bool, why: str = "") -> None:
        """Hears camera_info, where one that contradicts the policy, or `why`, keeps the robot from moving."""
        self._camera.heard(fits, why)

    def clock_jumped(self, by_s: float) -> None:
        """Stops the robot: nobody knows how old the frames are. The cause is over at once, the latch is not."""
        self._blame_clock(f"the clock jumped by {by_s:+.3g} s")
        self._gate.report(Stop.CLOCK, True)
        self._gate.report(Stop.CLOCK, False)

    def clock_paused(self, for_s: float) -> None:
        """Puts late frames down to the clock while it stands still; 0: it goes on."""
        self.paused = f"the clock has stood still for {for_s:.2f} s; see who publishes /clock" if for_s else ""
        if for_s:
            self._blame_clock(self.paused)
            self._watchdog.blame(Stop.CLOCK)

    def arm(self) -> None:
        """Lets commands pass.

        Raises:
            ArmError: no frame has been used yet, frames come too slowly, the cause of a stop lasts, the ROS graph has
                an obstacle or may not have everybody yet, or the robot was disarmed since.
        """
        self._arm(self._gate.arm)

    def arm_refusal(self, obstacle: str) -> str:
        """Why `arm` would be refused at this moment, beside that `obstacle` in the ROS graph; empty if it would not.

        The words are those of the refusal. That the robot has just been disarmed is not asked for.
        """
        try:
            self._check_arming(obstacle)
        except ArmError as error:
            return str(error).removeprefix(REFUSED)
        return ""

    def disarm(self) -> bool:
        """Lets nothing pass; stops follow for half a second if the gate was armed, which is returned."""
        with self._arming:
            self._arms_itself = False
            self.disarms += 1
            self._disarmed_s = time.monotonic()
            was_armed = self._gate.disarm()
            if was_armed:
                self._watchdog.last_stops()
            return was_armed

    def end(self) -> None:
        """Disarms for good, waits until the last stops are sent, and ends the watchdog."""
        self._links.e_stop.detach()
        with self._arming:
            self._arms_itself = False
            if self._gate.close():
                self._watchdog.last_stops()
        self._watchdog.wait_last_stops()
        self._watchdog.end()

    def explain(self, causes: Iterable[Stop]) -> str:
        """What is behind these causes at this moment, in words."""
        return "; ".join(filter(None, (self._explain(cause) for cause in sorted(causes))))

    def why_stopped(self, cause: Stop) -> str:
        """What was behind this cause when it stopped the robot, in words; ask soon after it has."""
        return self._clock_stop if cause is Stop.CLOCK and self._clock_stop else self._explain(cause)

    def _explain(self, cause: Stop) -> str:
        now_s = time.monotonic()
        beats = {beat.cause: beat for beat in self._beats}
        if cause in beats:
            return beats[cause].text(now_s)
        if cause is Stop.NAN:
            return "the policy's action was not finite"
        if cause is Stop.HUNG:
            took = "its inference took longer than the policy's period"
            return f"inference has not come back for {self.working_s:.2f} s" if self.working_s else self._lateness(took)
        if cause is Stop.NOVELTY:
            reading, _ = self.novelty
            return "" if reading is None else reading.cause
        if cause is Stop.CLOCK and self._clock:
            return self._clock
        if cause in (Stop.STALE, Stop.CLOCK):
            late = self._lateness(self.input.why_late(now_s, self._watchdog.late_s))
            if self._watchdog.paused:  # known before the frame that comes late has been used
                return late
            return self.input.why_unused(now_s, self.timeout_s) or late
        return ""

    def _blame_clock(self, why: str) -> None:
        """Says what is wrong with the clock; what stopped the robot is the first that was."""
        self._clock = why
        if Stop.CLOCK not in self._gate.state.latched:
            self._clock_stop = why

    def _lateness(self, known: str) -> str:
        """What made a frame late that has been used since: a pause of this process, or what else is `known`."""
        if not self._watchdog.late_s:
            return ""
        why = "this process was paused, or its machine is busy" if self._watchdog.paused else known
        return f"no frame was used for {self._watchdog.late_s:.2f} s: {why}".removesuffix(": ")

    def _on_inferred(self) -> None:
        """Arms at the first frame that is used in time after it has listened, if it is to do so by itself.

        That clears what stopped an earlier activation for want of frames, and nothing else that only ~/arm clears.
        """
        if not self._watchdog.frame_inferred() or not self._arms_itself:
            return
        if self.listening_s:
            return
        obstacle = self._links.obstacle()
        with self._arming:
            if not self._take_own_arming():  # disarmed meanwhile
                return
            try:
                if obstacle:
                    raise ArmError(f"{REFUSED}{obstacle}")
                held = sorted(self._gate.state.held - ABOUT_FRAMES)
                if held:
                    raise ArmError(f"{REFUSED}only ~/arm clears this stop: {', '.join(held)}")
                self._gate.arm()
            except ArmError as error:
                self.trouble_at_start = self._with_reasons(error)

    def _take_own_arming(self) -> bool:
        asked, self._arms_itself = self._arms_itself, False
        return asked

    def _arm(self, arm: Callable[[], None]) -> None:
        disarms = self.disarms
        obstacle = self._links.obstacle()
        with self._arming:
            if disarms != self.disarms:
                raise ArmError(f"{REFUSED}the robot was disarmed meanwhile; arm it again")
            if time.monotonic() - self._disarmed_s < CROSSED_S:
                raise ArmError(f"{REFUSED}the robot was disarmed just now; arm it again in a moment")
            self._check_arming(obstacle)
            try:
                arm()
            except ArmError as error:
                raise ArmError(self._with_reasons(error)) from None
            self._arms_itself = False  # from now on that is left to a person

    def _check_arming(self, obstacle: str) -> None:
        """Raises ArmError for whatever bars arming at this moment, the `obstacle` in the ROS graph included."""
        if obstacle:
            raise ArmError(f"{REFUSED}{obstacle}")
        try:
            self._gate.check_arming()
        except ArmError as error:
            raise ArmError(self._with_reasons(error)) from None
        slowness = self._slowness()
        if slowness:
            raise ArmError(f"{REFUSED}{slowness}")
        left_s = self.listening_s
        if left_s:  # last, since it is over by itself
            raise ArmError(f"{REFUSED}the node {LISTENS} {left_s:.1f} s more; try again then")

    def _with_reasons(self, error: ArmError) -> str:
        why = self.explain(self.state.causes)
        return f"{error} ({why})" if why else str(error)

    def _slowness(self) -> str:
        """Why frames come too slowly to arm; empty if they do not."""
        least, facts = self._params.image.min_rate_share, self.input.facts(time.monotonic())
        share = facts.share
        if not least or (share is not None and share >= least):
            return ""
        if share is None:
            return f"{broken_stack(facts.gap_s, self.period_s)}; try again"
        return f"{slow_frames(share, self.period_s)}; set the camera to that rate, or image.min_rate_share"

    def _is_moving(self) -> bool:
        state = self._gate.state
        return state.armed and state.stop is None
