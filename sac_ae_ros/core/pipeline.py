"""ImageToCommand: image -> frames -> policy -> command, the one path of simulation, robot and bag scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.command import SafetyGate, Stop, Values
from sac_ae_ros.core.errors import SacAeError
from sac_ae_ros.core.frames import Due, FrameBudget, FrameSampler, FrameStack
from sac_ae_ros.core.freeze import FreezeWatch
from sac_ae_ros.core.image import FULL_VIEW, CompressedImage, Image, View, complaints, see
from sac_ae_ros.core.novelty import Level, NoveltyGuard, Reading
from sac_ae_ros.core.policy import OnnxPolicy, PolicyOutput
from sac_ae_ros.core.trial import Probes

# An image, or what makes it: called for those frames only that a tick needs.
Source = Image | CompressedImage | Callable[[], Image | CompressedImage]

PROBE_EVERY = 10  # ticks; a few seconds' worth of different views for judging a newer policy


@dataclass(frozen=True)
class Step:
    """One tick of the policy, on the frame stamped `stamp_ns`.

    action: float32 [A] in [-1, 1], the policy's own. values: float64 [A] in physical units, None when the
    action was not finite. sent: whether the gate let them pass. novelty: the reconstruction's mean squared error,
    None unless it was measured on this tick. reading: the guard's judgement of it, if there is a guard.
    restarted: whether the frame stack began anew. complaints: what is doubtful about the image's pixels.
    """

    stamp_ns: int
    action: NDArray[np.float32]
    values: Values | None
    sent: bool
    novelty: float | None
    reading: Reading | None
    restarted: bool
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watching:
    """What ImageToCommand watches besides; the defaults watch nothing.

    view: what of the camera's image counts. freeze_timeout_s: identical pixels for this long count as no frame.
    novelty_every: measures novelty on every n-th tick, 0: never. novelty: judges it. probes: keeps some stacks.
    before_command: called after inference. late: asked under the gate's lock, when the command is sent, for a reason
    to stop instead; see SafetyGate.pass_on. budget: bounds the frames used as time passes; None: stamps alone count.
    """

    view: View = FULL_VIEW
    freeze_timeout_s: float = 0.0
    novelty_every: int = 0
    novelty: NoveltyGuard | None = None
    probes: Probes | None = None
    before_command: Callable[[], None] = lambda: None
    late: Callable[[], Stop | None] = lambda: None
    budget: FrameBudget | None = None


class ImageToCommand:
    """Feeds the frames that are due through the policy and the gate."""

    def __init__(
        self,
        policy: OnnxPolicy,
        gate: SafetyGate,
        send: Callable[[Values], None],
        watching: Watching | None = None,
    ) -> None:
        """`send` gets each command that passes, float64 [A]."""
        spec = policy.spec
        self._policy, self._gate, self._send = policy, gate, send
        self._watching = watching or Watching()
        self._sampler = FrameSampler(spec.control_period_ns)
        self._stack = FrameStack(spec.frame_stack, spec.camera.height, spec.camera.width)
        self._freeze = FreezeWatch(self._watching.freeze_timeout_s)
        self._ticks = 0

    def reset(self) -> None:
        """Starts the frame stack anew with the next tick, as at an episode's end; the phase stays."""
        self._sampler.reset()

    def swap(self, policy: OnnxPolicy, novelty: NoveltyGuard | None) -> None:
        """Goes on with another policy of the same inputs and outputs, and the guard that belongs to it."""
        self._policy = policy
        self._watching = Watching(**{**vars(self._watching), "novelty": novelty})

    def process(self, image: Source, stamp_ns: int) -> Step | None:
        """Takes every camera image in order of arrival; returns None for those that no tick needs.

        Raises:
            SacAeError: a due image could not be made; the next is due in its place.
            ImageError: a due image cannot be decoded, or its pixels have stood still; the next is due in its place.
            PaceError: more frames are due than time has passed; the next is due in its place.
            ModelError: inference failed.
        """
        due = self._sampler.due(stamp_ns)
        if due is Due.NO:
            return None
        frame, doubts = self._frame(image, stamp_ns)
        if due is Due.RESTART:
            self._stack.reset()
        every = self._watching.novelty_every
        want_novelty = every > 0 and self._ticks % every == 0
        stack = self._stack.push(frame)
        output = self._policy.act(stack, want_novelty)
        if self._watching.probes is not None and self._ticks % PROBE_EVERY == 0:
            self._watching.probes.add(stack, output.action)
        self._ticks += 1
        reading = self._judge(output, frame)
        self._watching.before_command()
        verdict = self._gate.pass_on(output.action, self._send, self._watching.late)
        restarted = due is Due.RESTART
        return Step(stamp_ns, output.action, verdict.values, verdict.sent, output.novelty, reading, restarted, doubts)

    def _judge(self, output: PolicyOutput, frame: NDArray[np.uint8]) -> Reading | None:
        """Has novelty stop the robot before this very frame's command could pass."""
        guard = self._watching.novelty
        if guard is None or output.novelty is None:
            return None
        reading = guard.judge(output.novelty, frame)
        self._gate.report(Stop.NOVELTY, guard.level is Level.STOP)
        return reading

    def _frame(self, source: Source, stamp_ns: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        budget = self._watching.budget
        try:
            if budget is not None:
                budget.check()
            image = source() if callable(source) else source
            self._freeze.check(image, stamp_ns)
            view = self._watching.view
            frame, doubts = see(image, self._policy.spec.camera, view), complaints(image, view)
        except SacAeError:
            self._sampler.reject()  # a frame that nobody saw fills no tick and bridges no gap
            raise
        if budget is not None:
            budget.spend()
        return frame, doubts
