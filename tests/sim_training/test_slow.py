"""What takes longer than a test should: learning for real, every suite task, the published sizes."""

from dataclasses import replace

import numpy as np
import pytest

from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.share import share_file
from sac_ae_ros.core.spec import TrainingFacts
from sim_training import config as configs
from sim_training import export
from sim_training.agent import SacAeAgent
from sim_training.envs import tasks
from sim_training.envs.make import make_env
from sim_training.envs.pixel_env import PixelEnv
from sim_training.evaluate import random_policy, run_episodes
from sim_training.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_it_learns_to_chase_the_ball(tmp_path):
    """A third of the demonstration's steps must leave random actions far behind."""
    config = configs.parse(["--run.env_steps=1500"], path=share_file("config/train/rover_chase_ball.yaml"))
    trainer = Trainer(config, tmp_path / "run")
    try:
        trainer.run()
        chance = run_episodes(trainer.env, random_policy(trainer.env, 0), range(30)).mean
    finally:
        trainer.close()
    exported = export.export_run(tmp_path / "run", tmp_path / "policy.onnx", episodes=10)
    assert 8 < chance < 20
    assert exported.spec.training.eval_return_mean > 2.5 * chance


@pytest.mark.parametrize("name", tasks.task_names())
def test_every_task_can_be_seen_and_acted_on(name):
    env = PixelEnv(name, height=24, width=24)
    try:
        obs, _ = env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(3):
            obs, reward, *_ = env.step(env.action_space.sample())
        assert obs.shape == (9, 24, 24)
        assert np.isfinite(reward)
        assert obs.std() > 1
    finally:
        env.close()


def test_the_published_sizes_export_and_agree(tmp_path):
    config = configs.parse(["--env.task=cheetah/run", "--env.action_repeat=4"])
    config = replace(config, run=replace(config.run, device="cpu"))
    env = make_env(config.env)
    try:
        env.reset(seed=0)
        agent = SacAeAgent(config, len(env.task.actions))
        spec = export.make_spec(env, config, TrainingFacts(0, 1, "test", 0.0, 0.0, 0), "cheetah")
        data = export.build(agent, spec, half=True)
        assert 16e6 < len(data) < 25e6
        stacks = export.collect_frames(env, agent)[:50]
        parity = export.check_parity(agent, OnnxPolicy(data, "it"), stacks, half=True)
        assert max(parity[key] for key in ("action", "log_std", "latent")) <= 1e-4
    finally:
        env.close()
