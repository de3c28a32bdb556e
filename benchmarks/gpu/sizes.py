"""Training configs of what is measured: at the published sizes, or at small ones for a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim_training import config as configs
from sim_training.config import TrainConfig

TRAIN = Path(__file__).resolve().parents[2] / "config" / "train"
# Those with the most updates first, so that the last ones to start end soonest.
TASKS = ("finger_spin", "walker_walk", "reacher_easy", "cheetah_run", "ball_in_cup_catch", "cartpole_swingup")
ENV_STEPS = 100_000
SMALL = ["--env.height=24", "--env.width=24", "--network.filters=4", "--network.hidden=16"]
SMALL_RUN = ["--learn.batch_size=8", "--learn.random_steps=20", "--run.env_steps=800", "--run.eval_every=400"]
SMALL_RUN += ["--run.eval_episodes=2", "--run.log_every=20"]


def config(task: str, arguments: Sequence[str], *, device: str, tiny: bool) -> TrainConfig:
    """A task's training config at the published sizes; at small ones for `tiny`."""
    where = [f"--run.device={device}", "--run.threads=1"]
    return configs.parse([*(SMALL if tiny else []), *where, *arguments], path=TRAIN / f"{task}.yaml")


def run_config(
    task: str, profile: str, seed: int, *, bfloat16: bool, env_steps: int, device: str, tiny: bool
) -> TrainConfig:
    """Of a run that is scored: judged half-way and at the end, frames on the GPU, one checkpoint at the end."""
    arguments = [f"--profile={profile}", f"--run.seed={seed}", f"--learn.bfloat16={str(bfloat16).lower()}"]
    arguments += [f"--run.env_steps={env_steps}", f"--run.eval_every={env_steps // 2}"]
    arguments += ["--run.replay=device"] if device.startswith("cuda") else []
    arguments += SMALL_RUN if tiny else []
    budget = 800 if tiny else env_steps
    return config(task, [*arguments, f"--run.checkpoint_every={budget}"], device=device, tiny=tiny)
