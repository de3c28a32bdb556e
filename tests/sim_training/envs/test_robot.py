"""RobotSim gives the same robot as the environment, in smaller ticks."""

import numpy as np
import pytest

from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.robot import RobotSim


@pytest.mark.parametrize("ticks", [20, 5, 1])
def test_same_seed_same_actions_same_rewards_and_pictures(ticks):
    env = PixelEnv("rover/chase_ball", height=24, width=24)
    robot = RobotSim("rover/chase_ball", height=24, width=24)
    try:
        np.testing.assert_array_equal(env.reset(seed=7)[0][-3:].transpose(1, 2, 0), (robot.reset(7), robot.image())[1])
        rng = np.random.default_rng(0)
        for _ in range(10):
            action = rng.uniform(env.task.low, env.task.high)
            obs, reward, *_ = env.step(action)
            for _ in range(20 // ticks):
                robot.advance(action, ticks)
            assert robot.reward() == pytest.approx(reward, abs=1e-9)
            np.testing.assert_array_equal(obs[-3:].transpose(1, 2, 0), robot.image())
            assert not robot.terminated()
    finally:
        env.close()
        robot.close()


def test_commands_are_clipped_to_the_robots_range():
    robot = RobotSim("rover/chase_ball", height=24, width=24)
    try:
        robot.reset(0)
        for _ in range(30):
            robot.advance(np.array([50.0, 0.0]), 20)
        assert robot._physics.velocity()[0] == pytest.approx(0.6, abs=0.05)
    finally:
        robot.close()
