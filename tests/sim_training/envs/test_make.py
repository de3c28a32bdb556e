"""From a config to its environment, also in processes of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim_training.config import EnvConfig
from sim_training.envs.make import make_env, make_vector_env


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


@pytest.mark.parametrize("obs", ["pixels", "state"])
def test_environments_in_processes_of_their_own_are_reset_one_by_one(obs):
    config = EnvConfig("rover/chase_ball", obs, height=24, width=24, action_repeat=60)  # two steps to an end
    envs, alone = make_vector_env(config, 2), make_env(config)
    straight, turning = np.array([0.4, 0.0], np.float32), np.array([0.4, 1.0], np.float32)
    try:
        seen, _ = envs.reset(seed=[5, 6])
        for process in envs.processes:
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
            os.kill(process.pid, signal.SIGINT)
        np.testing.assert_array_equal(seen[0], alone.reset(seed=5)[0])
        np.testing.assert_array_equal(seen[1], alone.reset(seed=6)[0])
        stepped, *_ = envs.step(np.array([straight, turning]))
        np.testing.assert_array_equal(stepped[1], alone.step(turning)[0])

        mask = np.array([True, False])
        seen, infos = envs.reset(seed=[7, None], options={"reset_mask": mask})
        np.testing.assert_array_equal(seen[1], stepped[1])
        np.testing.assert_array_equal(infos["_env_steps"], mask)

        seen, _, _, truncated, infos = envs.step(np.array([straight, turning]))
        np.testing.assert_array_equal(seen[1], alone.step(turning)[0])  # an episode's last observation
        assert truncated.tolist() == [False, True]
        assert infos["env_steps"].tolist() == [60, 40]
        alone.reset(seed=7)
        np.testing.assert_array_equal(seen[0], alone.step(straight)[0])
    finally:
        envs.close(terminate=True)
        alone.close()


def test_this_process_still_sees_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        make_vector_env(EnvConfig(obs="state"), 1).close()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
