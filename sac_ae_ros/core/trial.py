"""What a new policy version must show before it may take over from the one that runs."""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ModelError, SpecError
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import PolicySpec

RUNS = 20
CAMERA_FIELDS = ("height", "width", "color_order", "crop", "resize", "fovy_deg", "k")


class Probe(NamedTuple):
    """A stack, uint8 [3K, H, W], and what the running policy answered, float32 [A] in [-1, 1]."""

    stack: NDArray[np.uint8]
    action: NDArray[np.float32]


class Probes:
    """What the running policy saw and answered lately; thread-safe."""

    def __init__(self, capacity: int = 32) -> None:
        """Keeps the newest `capacity` probes."""
        self._kept: deque[Probe] = deque(maxlen=capacity)
        self._lock = threading.Lock()

    def add(self, stack: NDArray[np.uint8], action: NDArray[np.float32]) -> None:
        """Takes a stack, uint8 [3K, H, W], and its action, float32 [A]; keeps both, so neither may change later."""
        with self._lock:
            self._kept.append(Probe(stack, action))

    def clear(self) -> None:
        """Forgets all: another policy answers from now on."""
        with self._lock:
            self._kept.clear()

    def recent(self) -> list[Probe]:
        """What is kept, oldest first."""
        with self._lock:
            return list(self._kept)


@dataclass(frozen=True)
class Trial:
    """A passed trial: greatest action shift (of -1..1), median seconds per inference, recent frames compared."""

    max_shift: float
    median_latency_s: float
    probes: int

    def __str__(self) -> str:
        """For people, in one line."""
        where = f"{self.probes} recent frames" if self.probes else "test pictures, for want of frames"
        return f"greatest action shift {self.max_shift:.2g} on {where}, {1e3 * self.median_latency_s:.1f} ms"


def reference(policy: OnnxPolicy) -> list[Probe]:
    """A policy's answers to a black, a white and a noise stack: what to compare with before any frame came."""
    camera = policy.spec.camera
    shape = (3 * policy.spec.frame_stack, camera.height, camera.width)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    stacks = (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise)
    return [Probe(stack, policy.act(stack).action) for stack in stacks]


def check_compatible(running: PolicySpec, candidate: PolicySpec) -> None:
    """Whether `candidate` can take over with the camera, the actions and the period as they are.

    Raises:
        SpecError: names the first field that differs, with both values.
    """
    mine, its = _facts(running), _facts(candidate)
    for field in [*mine, *(field for field in its if field not in mine)]:
        if mine.get(field) != its.get(field):
            raise SpecError(
                f"policy {candidate.name}: expected {field} as the running policy has it, {mine.get(field)},"
                f" got {its.get(field)}; restart the node with this policy instead"
            )


def _facts(spec: PolicySpec) -> dict[str, object]:
    """What must not change under a running node, by the names of the contract."""
    facts: dict[str, object] = {field: getattr(spec, field) for field in ("frame_stack", "stack_order")}
    facts |= {"control_period_s": spec.control_period_s, "actions": [action.name for action in spec.actions]}
    for i, camera in enumerate(spec.cameras):
        facts |= {f"cameras[{i}].{field}": getattr(camera, field) for field in CAMERA_FIELDS}
    for action in spec.actions:
        values = dataclasses.asdict(action)
        facts |= {f"actions.{action.name}.{field}": values[field] for field in ("unit", "low", "high")}
    return facts


def try_candidate(
    candidate: OnnxPolicy,
    running: PolicySpec,
    probes: Sequence[Probe],
    references: Sequence[Probe],
    *,
    max_action_shift: float,
    max_latency_s: float,
    given_up: Callable[[], bool] = lambda: False,
) -> Trial:
    """Runs a loaded candidate on recent frames and test pictures, at least 20 times in all.

    Args:
        candidate: the version to try.
        running: the contract that it has to keep.
        probes: recent stacks with the running policy's answers, which the action shift is judged on.
        references: `reference` of the running policy; judged on only where `probes` are none.
        max_action_shift: how far any action may be from the running policy's, of -1..1.
        max_latency_s: what the median inference may take.
        given_up: asked before each inference whether to stop.

    Raises:
        SpecError: it is no drop-in for the running policy.
        ModelError: it failed, answered other than finite actions within -1..1, too differently or too slowly.
    """
    check_compatible(running, candidate.spec)
    stacks = [probe.stack for probe in (*probes, *references)]
    runs = max(RUNS, len(stacks))
    latencies: list[float] = []
    answers = []
    for stack in islice(cycle(stacks), runs):
        if given_up():
            raise ModelError("the trial was given up")
        started = time.perf_counter()
        action = candidate.act(stack).action
        latencies.append(time.perf_counter() - started)
        if not np.isfinite(action).all() or np.abs(action).max() > 1:
            raise ModelError(f"expected finite actions within -1..1, got {action.tolist()}")
        slow = sum(latency > max_latency_s for latency in latencies)
        if slow > runs // 2:  # the median is beyond the limit, however fast the rest
            raise ModelError(
                f"expected most inferences within {1e3 * max_latency_s:.1f} ms, got {slow} slower ones,"
                f" up to {1e3 * max(latencies):.1f} ms; use a smaller network or a faster machine"
            )
        answers.append(action)
    compared = probes or references  # either way they come first in `stacks`
    shift = _shift(answers[: len(compared)], compared, running, max_action_shift, bool(probes))
    return Trial(shift, statistics.median(latencies), len(probes))


def _shift(
    answers: Sequence[NDArray[np.float32]], probes: Sequence[Probe], running: PolicySpec, most: float, recent: bool
) -> float:
    shifts = np.abs(np.stack(answers) - np.stack([probe.action for probe in probes]))  # [N, A]
    if shifts.max() > most:
        worst = int(shifts.max(axis=0).argmax())
        beyond = int((shifts[:, worst] > most).sum())
        pictures = "recent frames" if recent else "test pictures (no frame came yet; send images, then ask again)"
        raise ModelError(
            f"action {running.actions[worst].name}: expected at most {most:g} off the running policy's, of -1..1,"
            f" got {shifts.max():.2f}, beyond it on {beyond} of {len(probes)} {pictures};"
            " raise reload.max_action_shift if it is meant"
        )
    return float(shifts.max())
