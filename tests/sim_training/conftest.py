"""A tiny agent and batch: 12x12 pixels, two frames, two actions."""

import numpy as np
import pytest
import torch
from tiny_config import TINY

from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.replay import Batch, Replay, ReplayConfig


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
    replay = Replay(ReplayConfig(100, (3, 12, 12), 2, frame_stack=config.env.frame_stack))
    replay.start(rng.integers(0, 256, (3, 12, 12), dtype=np.uint8))
    for i in range(40):
        frame = rng.integers(0, 256, (3, 12, 12), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(i % 3), i == 39, frame)
    return replay.sample(8, rng)
