"""Mean returns over episodes of chosen seeds; random, torch and ONNX policies are judged by one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_training.envs.pixel_env import PixelEnv

# Training, checkpoint choice and final judgement use episodes that never meet.
EVAL_SEED = 1_000_000
HELD_OUT_SEED = 2_000_000
DEMO_SEED = 3_000_000

# Takes a stack, uint8 [3K, H, W], and gives a physical action, float [A].
Act = Callable[[NDArray[np.uint8]], NDArray]


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns, one an episode."""

    returns: tuple[float, ...]

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
        return {"mean_return": self.mean, "sd": self.sd, "returns": list(self.returns)}


def run_episodes(
    env: PixelEnv,
    act: Act,
    seeds: Iterable[int],
    *,
    on_reset: Callable[[], None] = lambda: None,
    on_step: Callable[[], None] = lambda: None,
) -> Returns:
    """Runs one episode for each seed; `on_reset` before each, `on_step` after each step."""
    returns = []
    for seed in seeds:
        on_reset()
        obs, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total += reward
            over = terminated or truncated
            on_step()
        returns.append(total)
    return Returns(tuple(returns))


def random_policy(env: PixelEnv, seed: int) -> Act:
    """Uniform actions over the task's whole range."""
    rng = np.random.default_rng(seed)
    return lambda obs: rng.uniform(env.task.low, env.task.high)
