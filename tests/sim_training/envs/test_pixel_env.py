"""The Gymnasium wrapper over our rover and over the dm_control suite."""

import subprocess
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sac_ae_ros.core.errors import SimError
from sim_training.envs import tasks
from sim_training.envs.pixel_env import PixelEnv


@pytest.fixture
def make():
    made = []

    def build(task: str, **options) -> PixelEnv:
        options = {"height": 24, "width": 24, **options}
        made.append(PixelEnv(task, **options))
        return made[-1]

    yield build
    for env in made:
        env.close()


@pytest.mark.filterwarnings("ignore:.*(action space|render_fps|spec).*")
@pytest.mark.parametrize("task", ["rover/chase_ball", "cartpole/swingup", "walker/walk"])
def test_it_passes_gymnasiums_own_checker(make, task):
    check_env(make(task, action_repeat=2), skip_render_check=True)


def test_an_episode_depends_on_its_seed_alone(make):
    first, second = make("rover/chase_ball"), make("rover/chase_ball")
    second.reset(seed=99)
    for seed in (5, 6):
        a, b = first.reset(seed=seed)[0], second.reset(seed=seed)[0]
        np.testing.assert_array_equal(a, b)
        for _ in range(5):
            step_a, step_b = first.step(np.array([0.4, 0.5])), second.step(np.array([0.4, 0.5]))
            np.testing.assert_array_equal(step_a[0], step_b[0])
            assert step_a[1] == step_b[1]
    assert (first.reset(seed=5)[0] != first.reset(seed=6)[0]).any()


def test_frames_move_through_the_stack_oldest_first(make):
    env = make("rover/chase_ball", frame_stack=3)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs[:3], obs[6:])
    later = env.step(np.array([0.5, 1.5]))[0]
    np.testing.assert_array_equal(later[:6], obs[3:])
    assert (later[6:] != obs[6:]).any()
    np.testing.assert_array_equal(env.newest, later[6:])


def test_time_limits_truncate_and_agent_steps_are_not_env_steps(make):
    env = make("rover/chase_ball", action_repeat=3)
    env.reset(seed=0)
    env_steps, agent_steps, over = 0, 0, False
    while not over:
        _, _, terminated, truncated, info = env.step(np.zeros(2))
        env_steps, agent_steps, over = env_steps + info["env_steps"], agent_steps + 1, terminated or truncated
    assert (terminated, truncated) == (False, True)
    assert (env_steps, agent_steps) == (100, 34)


def test_a_repeated_action_sums_its_rewards(make):
    once, twice = make("rover/chase_ball"), make("rover/chase_ball", action_repeat=2)
    once.reset(seed=1), twice.reset(seed=1)
    action = np.array([0.6, 0.4])
    assert twice.step(action)[1] == pytest.approx(once.step(action)[1] + once.step(action)[1])


def test_a_tasks_own_ending_terminates(make, monkeypatch):
    env = make("rover/chase_ball")
    env.reset(seed=0)
    monkeypatch.setattr(env.task.env.task, "get_termination", lambda physics: 0.0)
    _, _, terminated, truncated, _ = env.step(np.zeros(2))
    assert (terminated, truncated) == (True, False)


def test_the_fast_renderer_shows_what_the_stock_one_shows(make):
    fast = make("rover/chase_ball", height=64, width=64)
    stock = make("rover/chase_ball", height=64, width=64, renderer="stock")
    a, b = fast.reset(seed=3)[0], stock.reset(seed=3)[0]
    assert np.abs(a.astype(int) - b).mean() < 6
    assert a.std() > 10


def test_supersampled_pictures_are_averaged_to_size(make):
    env = make("rover/chase_ball", supersample=2)
    obs, _ = env.reset(seed=3)
    assert env.camera_image.shape == (48, 48, 3)
    mean = env.camera_image.reshape(24, 2, 24, 2, 3).astype(float).mean((1, 3))
    assert np.abs(obs[-3:].transpose(1, 2, 0) - mean).max() <= 0.51


@pytest.mark.parametrize("renderer", ["fast", "stock"])
def test_closing_one_environment_leaves_the_others_pictures_alone(make, renderer):
    other = make("rover/chase_ball", renderer=renderer)
    other.reset(seed=1)
    env = make("rover/chase_ball")
    before = env.reset(seed=1)[0]
    other.close()
    np.testing.assert_array_equal(env.reset(seed=1)[0], before)


def test_an_environment_that_nobody_closed_ends_quietly():
    code = (
        "import weakref\nclass Early: pass\nearly = Early(); weakref.finalize(early, int)\n"
        "from sim_training.envs.pixel_env import PixelEnv\n"
        "env = PixelEnv('rover/chase_ball', height=24, width=24); env.reset()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_step_needs_an_episode_under_way(make):
    env = make("rover/chase_ball", action_repeat=100)
    with pytest.raises(SimError, match="call reset first"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    assert env.step(np.zeros(2))[3]
    with pytest.raises(SimError, match="call reset first"):
        env.step(np.zeros(2))


def test_unknown_names_are_refused():
    with pytest.raises(SimError, match="expected `domain/task`"):
        tasks.load("rover/fly")
    with pytest.raises(SimError, match="expected one of"):
        PixelEnv("rover/chase_ball", renderer="best")
    with pytest.raises(SimError, match="terrain"):
        PixelEnv("quadruped/escape", renderer="stock")
