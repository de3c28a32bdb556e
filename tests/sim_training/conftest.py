"""A tiny agent and batch: 12x12 pixels, two frames, two actions."""

import numpy as np
import pytest
import torch

from sim_training.agent import SacAeAgent
from sim_training.config import EnvConfig, LearnConfig, NetworkConfig, RunConfig, TrainConfig
from sim_training.replay import Batch, Replay

TINY = TrainConfig(
    env=EnvConfig(height=12, width=12, frame_stack=2),
    network=NetworkConfig(filters=4, strides=(2, 1), latent=6, hidden=16),
    learn=LearnConfig(batch_size=8, replay_capacity=200, random_steps=30),
    run=RunConfig(env_steps=60, eval_every=30, eval_episodes=1, checkpoint_every=30, log_every=10, threads=1),
)


@pytest.fixture
def config() -> TrainConfig:
    return TINY


@pytest.fixture
def agent(config: TrainConfig) -> SacAeAgent:
    torch.manual_seed(0)
    return SacAeAgent(config, 2)


@pytest.fixture
def batch(config: TrainConfig) -> Batch:
    rng = np.random.default_rng(0)
    replay = Replay(100, (3, 12, 12), 2, config.env.frame_stack)
    replay.start(rng.integers(0, 256, (3, 12, 12), dtype=np.uint8))
    for i in range(40):
        frame = rng.integers(0, 256, (3, 12, 12), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(i % 3), i == 39, frame)
    return replay.sample(8, rng)
