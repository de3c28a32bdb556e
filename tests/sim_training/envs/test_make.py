"""From a config to its environment, also in processes of its own."""

import subprocess
import sys

import pytest

from sim_training.config import EnvConfig
from sim_training.envs.make import make_env


def test_obs_decides_what_is_seen():
    config = EnvConfig(height=20, width=24, frame_stack=2, action_repeat=4, supersample=2)
    env = make_env(config)
    try:
        assert env.observation_space.shape == (6, 20, 24)
        assert env.newest.shape == (3, 20, 24)
        assert env.camera_image.shape == (40, 48, 3)
        assert env.control_period_s == pytest.approx(0.4)
    finally:
        env.close()
    env = make_env(EnvConfig(obs="state", action_repeat=4, renderer="none of ours"))
    assert env.observation_space.shape == env.newest.shape == (4,)
    assert env.control_period_s == pytest.approx(0.4)


def test_it_leaves_torch_out():
    code = "import sim_training.envs.make, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
