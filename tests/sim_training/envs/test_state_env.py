"""The simulator's state as the observation."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.state_env import StateEnv, flatten


@pytest.mark.filterwarnings("ignore:.*(action space|render_fps|spec|infinity).*")
@pytest.mark.parametrize("task", ["rover/chase_ball", "hopper/stand", "ball_in_cup/catch"])
def test_it_passes_gymnasiums_own_checker(task):
    check_env(StateEnv(task, action_repeat=2), skip_render_check=True)


def test_numbers_keep_their_order_and_scalars_count_as_one():
    numbers = {"b": np.array([[1.0, 2.0], [3.0, 4.0]]), "a": 5.0, "c": np.float64(6), "d": np.array([7], np.int64)}
    flat = flatten(numbers)
    assert flat.dtype == np.float32
    assert flat.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_it_shows_where_the_ball_is():
    env = StateEnv("rover/chase_ball")
    assert (env.newest == 0).all()
    obs, _ = env.reset(seed=4)
    np.testing.assert_array_equal(obs[:2], env.task.env.physics.ball_in_rover_frame().astype(np.float32))
    for _ in range(20):
        obs, *_ = env.step(np.array([0.5, 0.0]))
    assert obs[2] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(env.newest, obs)


def test_states_and_pixels_have_the_same_rewards_and_ends():
    pixels, states = (kind("rover/chase_ball", action_repeat=3) for kind in (PixelEnv, StateEnv))
    pixels.reset(seed=2), states.reset(seed=2)
    over = False
    while not over:
        of_pixels, of_states = (env.step(np.array([0.4, 0.3]))[1:] for env in (pixels, states))
        assert of_pixels == of_states
        over = of_pixels[1] or of_pixels[2]
    pixels.close()
