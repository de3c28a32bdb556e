"""ImageToCommand: image -> frames -> policy -> command, the one path of simulation, robot and bag scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.command import SafetyGate, Values
from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.frames import Due, FrameSampler, FrameStack
from sac_ae_ros.core.image import CompressedImage, Image, decode, fit
from sac_ae_ros.core.policy import OnnxPolicy


@dataclass(frozen=True)
class Step:
    """One tick of the policy, on the frame stamped `stamp_ns`.

    action: float32 [A] in [-1, 1], the policy's own. values: float64 [A] in physical units, None when the
    action was not finite. sent: whether the gate let them pass. novelty: None unless it was measured on this
    tick. restarted: whether the frame stack began anew.
    """

    stamp_ns: int
    action: NDArray[np.float32]
    values: Values | None
    sent: bool
    novelty: float | None
    restarted: bool


class ImageToCommand:
    """Feeds the frames that are due through the policy and the gate."""

    def __init__(
        self,
        policy: OnnxPolicy,
        gate: SafetyGate,
        send: Callable[[Values], None],
        *,
        novelty_every: int = 0,
    ) -> None:
        """`send` gets each command that passes, float64 [A]; every n-th tick measures novelty, 0: none."""
        spec = policy.spec
        self._policy, self._gate, self._send = policy, gate, send
        self._sampler = FrameSampler(spec.control_period_ns)
        self._stack = FrameStack(spec.frame_stack, spec.camera.height, spec.camera.width)
        self._novelty_every = novelty_every
        self._ticks = 0

    def reset(self) -> None:
        """Starts the frame stack anew with the next tick, as at an episode's end; the phase stays."""
        self._sampler.reset()

    def process(self, image: Image | CompressedImage, stamp_ns: int) -> Step | None:
        """Takes every camera image in order of arrival; returns None for those that no tick needs.

        Raises:
            ImageError: a due image cannot be decoded; the next image is due in its place.
            ModelError: inference failed.
        """
        due = self._sampler.due(stamp_ns)
        if due is Due.NO:
            return None
        if due is Due.RESTART:
            self._stack.reset()
        frame = self._frame(image)
        want_novelty = self._novelty_every > 0 and self._ticks % self._novelty_every == 0
        self._ticks += 1
        output = self._policy.act(self._stack.push(frame), want_novelty)
        verdict = self._gate.pass_on(output.action, self._send)
        return Step(stamp_ns, output.action, verdict.values, verdict.sent, output.novelty, due is Due.RESTART)

    def _frame(self, image: Image | CompressedImage) -> NDArray[np.uint8]:
        camera = self._policy.spec.camera
        try:
            return fit(decode(image), camera.height, camera.width, camera.crop)
        except ImageError:
            self._sampler.reject()  # a frame that nobody saw fills no tick and bridges no gap
            raise
