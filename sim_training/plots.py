"""Pictures of a run: its learning curve, and reconstructions beside what the camera saw."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros import page
from sim_training import curves, metrics
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.envs.make import make_env
from sim_training.evaluate import HELD_OUT_SEED, run_episodes, to_physical


def learning_curve(run_dir: Path, out: Path) -> None:
    """Episode returns and evaluations (mean, and sd shaded) over env steps."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    curves.draw_returns(axes, metrics.read(run_dir / "train.csv"), metrics.read(run_dir / "eval.csv"))
    axes.set_title(page.literal(run_dir.name))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(out, dpi=120)
    plt.close(figure)


def reconstructions(config: TrainConfig, agent: SacAeAgent, out: Path, count: int = 8) -> None:
    """Newest frames of one held-out episode above the autoencoder's reconstructions of them."""
    env = make_env(config.env)
    stacks: list[NDArray[np.uint8]] = []

    def act(obs: NDArray[np.uint8]) -> NDArray[np.float64]:
        stacks.append(obs)
        return to_physical(env, agent.act(obs, sample=False))

    try:
        run_episodes(env, act, [HELD_OUT_SEED + 1])
    finally:
        env.close()
    picked = np.linspace(0, len(stacks) - 1, count).round().astype(int)
    inputs = np.stack([stacks[i] for i in picked])
    rows = (("camera", inputs), ("reconstruction", agent.reconstruct(inputs)))
    tall = 1.5 * config.env.height / config.env.width
    figure, axes = plt.subplots(2, count, figsize=(1.5 * count + 0.4, 2 * tall + 0.6), layout="constrained")
    for row, (label, pictures) in enumerate(rows):
        for column in range(count):
            panel = axes[row, column]
            panel.imshow(pictures[column, -3:].transpose(1, 2, 0), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            if row == 0:
                panel.set_title(f"{picked[column] * env.control_period_s:.1f} s", fontsize=9)
        axes[row, 0].set_ylabel(label)
    figure.savefig(out, dpi=120)
    plt.close(figure)
