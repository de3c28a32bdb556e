"""Mean returns over episodes of chosen seeds; random, torch and ONNX policies are judged by one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core import command
from sac_ae_ros.core.command import SafetyGate, Values
from sac_ae_ros.core.errors import SpecError
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.novelty import NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.pipeline import ImageToCommand, Watching
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import PolicySpec
from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.task_env import TaskEnv

# Training, checkpoint choice and final judgement use episodes that never meet; `sac-ae eval` starts at 3_000_000.
EVAL_SEED = 1_000_000
HELD_OUT_SEED = 2_000_000

# Takes an observation (a stack, uint8 [3K, H, W], or a state, float32 [D]) and gives a physical action, float [A].
Act = Callable[[NDArray[Any]], NDArray]


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns, one an episode; `diverged` of the episodes were cut short by an invalid simulation."""

    returns: tuple[float, ...]
    diverged: int = 0

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(np.mean(self.returns))

    @property
    def sd(self) -> float:
        """Their sample standard deviation; 0 for a single episode."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    def to_dict(self) -> dict[str, object]:
        """The JSON object that `sac-ae eval --json` prints."""
        return {"mean_return": self.mean, "sd": self.sd, "returns": list(self.returns), "diverged": self.diverged}


def to_physical(env: TaskEnv, action: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps actions [A] or [N, A] in [-1, 1] onto the task's range."""
    return command.to_physical(action, env.task.low, env.task.high)


def run_episodes(
    env: TaskEnv,
    act: Act,
    seeds: Iterable[int],
    *,
    on_reset: Callable[[], None] = lambda: None,
    on_step: Callable[[], None] = lambda: None,
) -> Returns:
    """Runs one episode for each seed; `on_reset` before each, `on_step` after each step."""
    returns, diverged = [], 0
    for seed in seeds:
        on_reset()
        obs, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, info = env.step(act(obs))
            total += reward
            over = terminated or truncated
            diverged += info["diverged"]
            on_step()
        returns.append(total)
    return Returns(tuple(returns), diverged)


def env_for(spec: PolicySpec, *, renderer: str = "fast") -> PixelEnv:
    """The environment that a policy file was trained in.

    Raises:
        SimError: its task is unknown here.
        SpecError: its period or actions do not fit the task.
    """
    camera = spec.camera
    env = PixelEnv(
        spec.task,
        height=camera.height,
        width=camera.width,
        frame_stack=spec.frame_stack,
        supersample=max(1, camera.source_height // camera.height),
        renderer=renderer,
    )
    env.action_repeat = max(1, round(spec.control_period_s / env.task.control_timestep_s))
    fits = abs(env.control_period_s - spec.control_period_s) < 1e-6 and spec.actions == env.task.actions
    if not fits:
        env.close()
        raise SpecError(f"policy {spec.name}: its period or actions are not those of {spec.task} in this simulation")
    return env


def run_policy_file(
    env: PixelEnv, policy: OnnxPolicy, seeds: Iterable[int], *, want_novelty: bool = False
) -> tuple[Returns, NDArray[np.float64]]:
    """Drives the simulated robot through ImageToCommand, as the ROS node does.

    Returns the returns and, of every frame, its reconstruction error and variance, float64 [N, 2] (no rows unless
    wanted).
    """
    spec = policy.spec
    gate = SafetyGate(spec.actions, spec.control_period_s)
    gate.arm()
    sent: list[Values] = []
    readings: list[tuple[float, float]] = []
    pipeline = ImageToCommand(policy, gate, sent.append, measuring(policy) if want_novelty else None)
    stamp_ns = 0

    def act(obs: NDArray[np.uint8]) -> NDArray[np.float64]:
        nonlocal stamp_ns
        picture = env.camera_image
        message = Image(picture.shape[0], picture.shape[1], "rgb8", picture.shape[1] * 3, False, picture.tobytes())
        sent.clear()
        step = pipeline.process(message, stamp_ns)
        stamp_ns += spec.control_period_ns
        if step is not None and step.reading is not None:
            readings.append((step.reading.error, step.reading.variance))
        return sent[-1] if sent else np.zeros(len(spec.actions))

    returns = run_episodes(env, act, seeds, on_reset=pipeline.reset)
    return returns, np.array(readings, np.float64).reshape(-1, 2)


def measuring(policy: OnnxPolicy) -> Watching:
    """Has ImageToCommand measure the novelty of every frame, and never act on it."""
    return Watching(novelty_every=1, novelty=NoveltyGuard(policy.spec.novelty, NoveltyLimits(warn=0, stop=0, m=1, n=1)))


def random_policy(env: TaskEnv, seed: int) -> Act:
    """Uniform actions over the task's whole range."""
    rng = np.random.default_rng(seed)
    return lambda obs: rng.uniform(env.task.low, env.task.high)
