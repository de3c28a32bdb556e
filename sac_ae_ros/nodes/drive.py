"""Drive: what an activated policy_node does, without ROS: pipeline, gate and watchdog under one roof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sac_ae_ros.core.command import GateState, SafetyGate, Values
from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.image import CompressedImage, Image
from sac_ae_ros.core.pipeline import ImageToCommand, Step
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.params import PolicyParams
from sac_ae_ros.nodes.watchdog import Watchdog


@dataclass(frozen=True)
class Sink:
    """Where commands go; both may be called from different threads, never at once for one command."""

    send: Callable[[Values], None]
    stop: Callable[[], None]


def max_age_s(params: PolicyParams, period_s: float) -> float:
    """How old a frame may be, seconds."""
    return params.max_age_s or GAP_PERIODS * period_s


def make_gate(policy: OnnxPolicy, params: PolicyParams, rest: Sequence[float]) -> SafetyGate:
    """A disarmed gate with the policy's limits and the robot's own; `rest` is what a stop sends.

    Raises:
        ConfigError: the limits don't fit the policy.
    """
    limits = params.limits
    return SafetyGate(
        policy.spec.actions,
        policy.spec.control_period_s,
        low=limits.low,
        high=limits.high,
        max_slew=limits.max_slew,
        rest=rest,
    )


class Drive:
    """One activation, from activate to deactivate."""

    def __init__(self, policy: OnnxPolicy, params: PolicyParams, gate: SafetyGate, sink: Sink) -> None:
        """Starts the watchdog; the `gate` is a fresh one from `make_gate`."""
        period_s = policy.spec.control_period_s
        self._gate = gate
        self._pipeline = ImageToCommand(policy, gate, sink.send, novelty_every=params.novelty_every)
        self._watchdog = Watchdog(
            gate,
            sink.stop,
            period_s=period_s,
            timeout_s=params.watchdog_timeout_s or GAP_PERIODS * period_s,
        )

    @property
    def state(self) -> GateState:
        """The gate's state at this moment."""
        return self._gate.state

    @property
    def trouble(self) -> str | None:
        """Why a stop could not be sent, if so."""
        return self._watchdog.trouble

    def process(self, image: Image | CompressedImage, stamp_ns: int) -> Step | None:
        """Takes one camera image, as ImageToCommand.process does; a used one keeps the watchdog quiet."""
        self._watchdog.frame_begun()
        step = self._pipeline.process(image, stamp_ns)
        if step is not None:
            self._watchdog.frame_used()
            if step.values is None:
                self._watchdog.wake()
        return step

    def reset(self) -> None:
        """Starts the frame stack anew, as at an episode's end."""
        self._pipeline.reset()

    def arm(self) -> None:
        """Lets commands pass. Raises ArmError while the cause of a stop lasts."""
        self._gate.arm()
        self._watchdog.cancel_last_stops()

    def disarm(self) -> bool:
        """Lets nothing pass; stops follow for half a second if the gate was armed, which is returned."""
        was_armed = self._gate.disarm()
        if was_armed:
            self._watchdog.last_stops()
        return was_armed

    def end(self) -> None:
        """Disarms, waits until the last stops are sent, and ends the watchdog."""
        if self.disarm():
            self._watchdog.wait_last_stops()
        self._watchdog.end()
