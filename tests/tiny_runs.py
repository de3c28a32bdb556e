"""Tiny runs for tests, and everything that a run's future depends on, to compare two of them bit for bit."""

import csv
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sim_training.collect import Lockstep
from sim_training.config import TrainConfig, save
from sim_training.trainer import Trainer

CLOCK = {"seconds", "updates_per_s", "env_steps_per_s", "wait_share"}


def with_budget(config: TrainConfig, env_steps: int, **run) -> TrainConfig:
    """Episodes have 100 steps here; checkpoints fall into their middles."""
    settings = {"env_steps": env_steps, "eval_every": 100, "checkpoint_every": 70, "log_every": 15, **run}
    return replace(config, run=replace(config.run, **settings), learn=replace(config.learn, random_steps=40))


def train(config: TrainConfig, run_dir: Path, *, resume: bool = False) -> Trainer:
    trainer = Trainer(config, run_dir, resume=resume)
    try:
        trainer.run()
    finally:
        trainer.close()
    return trainer


def everything(trainer: Trainer) -> dict[str, np.ndarray]:
    """Parameters, optimisers, replay, simulation, counters and random states, as arrays by name."""
    state = {f"agent.{key}": value.numpy() for key, value in trainer.agent.state_dict().items()}
    for name, optimizer in trainer.agent.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{index}.{key}": value.numpy() for key, value in values.items()}
    replay = trainer.replay
    state["replay.frames"] = replay._frames._frames.numpy()
    for name in ("head", "action", "reward", "terminated", "continues", "episode_start"):
        state[f"replay.{name}"] = getattr(replay, f"_{name}")
    assert isinstance(trainer.collector, Lockstep)
    state |= {f"env.{key}": value for key, value in trainer.collector.snapshot().items()}
    counters = [trainer.env_step, trainer.agent_step, trainer.episode, trainer.owed, trainer.agent.update_step]
    state["counters"] = np.array(counters)
    state["torch_rng"] = torch.get_rng_state().numpy()
    state["numpy_rng"] = trainer.rng.integers(0, 2**31, 8)
    return {key: np.array(value) for key, value in state.items()}  # copies


def differences(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> list[str]:
    """Names of what is not the same."""
    assert first.keys() == second.keys()
    return [key for key, value in first.items() if not np.array_equal(value, second[key])]


def curves(run_dir: Path) -> dict[str, list[dict[str, str]]]:
    """Every row of every CSV file, without what the clock says."""
    rows = {}
    for path in sorted(run_dir.glob("*.csv")):
        with path.open(newline="") as file:
            rows[path.name] = [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]
    return rows


def start(config: TrainConfig, run_dir: Path, tmp_path: Path) -> subprocess.Popen:
    """`sac-ae train` in a process of its own; `tmp_path` takes its config."""
    save(config, tmp_path / "config.yaml")
    command = [
        sys.executable,
        "-m",
        "sac_ae_ros.cli",
        "train",
        "--config",
        str(tmp_path / "config.yaml"),
        "--profile=plain",
    ]
    return subprocess.Popen([*command, "--run-dir", str(run_dir)], stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Until the process has made this file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
