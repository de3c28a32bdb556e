"""An environment restored from a snapshot goes on bit for bit, also in another process and over resets."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sac_ae_ros.core.errors import SimError
from sim_training.config import EnvConfig
from sim_training.envs import tasks
from sim_training.envs.make import make_env
from sim_training.envs.task_env import TaskEnv

ROOT = Path(__file__).resolve().parents[3]
FEW = ["rover/chase_ball", "reacher/easy", "finger/turn_hard", "hopper/stand", "cheetah/run", "ball_in_cup/catch"]
STEPS = 30

Snapshot = dict[str, np.ndarray]
Trace = dict[str, np.ndarray]


def make(task: str, obs: str = "pixels", **options) -> TaskEnv:
    return make_env(EnvConfig(task, obs, height=24, width=24, **options))


def walk(env: TaskEnv, steps: int, rng: np.random.Generator) -> list[tuple]:
    """Random steps; at an end, and in the middle, a reset without a seed."""
    passed, over = [], False
    for i in range(steps):
        if over or i == steps // 2:
            passed.append((env.reset()[0], 0.0, False, False, -1))
        obs, reward, terminated, truncated, info = env.step(rng.uniform(env.task.low, env.task.high))
        over = terminated or truncated
        passed.append((obs, reward, terminated, truncated, info["env_steps"]))
    if over:
        env.reset()
    return passed


def future(env: TaskEnv) -> Trace:
    """What is seen from this moment on."""
    image = env.render() if hasattr(env, "camera_image") else np.zeros(0)
    now = {"newest": env.newest.copy(), "image": image.copy()}
    obs, *rest = zip(*walk(env, STEPS, np.random.default_rng(8)), strict=True)
    return {**now, "obs": np.array(obs), "rest": np.array(rest, np.float64)}


def past(env: TaskEnv) -> Snapshot:
    """A snapshot from the midst of an episode that no seed started."""
    env.reset(seed=3)
    walk(env, 10, np.random.default_rng(1))
    return env.snapshot()


def same(one: Trace, other: Trace) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def load(path: Path) -> Snapshot:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def go_on(folder: Path) -> None:
    """What the other process does: restores every snapshot of a folder and writes down what comes next."""
    for path in folder.glob("*.snapshot.npz"):
        snapshot = load(path)
        env = make(str(snapshot["task"]), "state" if "obs" in snapshot else "pixels")
        env.restore(snapshot)
        np.savez(str(path).replace("snapshot", "future"), **future(env))
        env.close()


@pytest.mark.parametrize("obs", [pytest.param("pixels", marks=pytest.mark.slow), "state"])
@pytest.mark.parametrize(
    "names", [FEW, pytest.param(tasks.task_names(), marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_another_process_goes_on_bit_for_bit(tmp_path, names, obs):
    expected = {}
    for name in names:
        env = make(name, obs)
        np.savez(tmp_path / f"{name.replace('/', '.')}.snapshot.npz", **past(env))
        expected[name] = future(env)
        env.close()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=environment, cwd=ROOT, check=True)
    came = {name: load(tmp_path / f"{name.replace('/', '.')}.future.npz") for name in names}
    assert [name for name in names if not same(came[name], expected[name])] == []


@pytest.fixture(scope="module")
def pair():
    envs = make("reacher/easy"), make("reacher/easy")
    yield envs
    for env in envs:
        env.close()


def shortened(env: TaskEnv) -> TaskEnv:
    env.task.env._step_limit = 18  # an end by time, which depends on the step count, falls into `future`
    return env


def test_a_snapshot_leaves_its_environment_as_it_was(pair):
    env, other = map(shortened, pair)
    past(env)
    other.restore(env.snapshot())
    assert same(future(env), future(other))


@pytest.mark.parametrize("left_out", ["physics", "start_random", "random", "clock", "frames", "camera_image"])
def test_nothing_in_a_snapshot_can_be_left_out(pair, left_out):
    env, other = map(shortened, pair)
    snapshot = past(env)
    other.reset(seed=99)
    other.restore(snapshot | {left_out: other.snapshot()[left_out]})
    assert not same(future(env), future(other))


def test_neither_can_the_observation_of_a_state():
    env, other = make("reacher/easy", "state"), make("reacher/easy", "state")
    snapshot = past(env)
    other.reset(seed=99)
    other.restore(snapshot | {"obs": other.snapshot()["obs"]})
    assert not same(future(env), future(other))


@pytest.mark.parametrize("obs", ["pixels", "state"])
def test_restoring_returns_the_observation_of_that_moment(obs):
    env, other = make("rover/chase_ball", obs), make("rover/chase_ball", obs)
    env.reset(seed=1)
    newest = env.step(env.task.high)[0]
    np.testing.assert_array_equal(other.restore(env.snapshot()), newest)
    env.close(), other.close()


def test_a_task_may_draw_in_its_steps(pair, monkeypatch):
    for env in pair:
        task = env.task.env.task
        monkeypatch.setattr(
            task, "before_step", lambda _, physics, task=task: physics.set_control(task.random.randn(2))
        )
    env, other = pair
    env.reset(seed=3)
    env.step(env.task.high)
    other.restore(env.snapshot())
    assert same(future(env), future(other))


def test_an_episode_that_is_over_stays_over(pair):
    env, other = map(shortened, pair)
    env.reset(seed=3)
    while not any(env.step(env.task.high)[2:4]):
        pass
    other.restore(env.snapshot())
    with pytest.raises(SimError, match="call reset first"):
        other.step(other.task.high)
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


def test_terrain_is_seen_from_the_first_episode_on_and_is_ones_own():
    """Resets of quadruped/escape once drew into whichever OpenGL context was current."""
    env, other = make("quadruped/escape"), make("quadruped/escape")
    first = env.reset(seed=1)[0]
    other.reset(seed=2)
    np.testing.assert_array_equal(env._renderer.render(), env.camera_image)
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    env.close(), other.close()


def test_snapshots_that_do_not_fit_are_refused(pair):
    env, _ = pair
    with pytest.raises(SimError, match="expected an episode under way, got none yet"):
        make("reacher/easy", "state").snapshot()
    env.reset(seed=0)
    snapshot = env.snapshot()
    with pytest.raises(SimError, match="expected one of reacher/hard, got one of reacher/easy"):
        make("reacher/hard", "state").restore(snapshot)
    with pytest.raises(SimError, match=r"expected obs .* got"):
        make("reacher/easy", "state").restore(snapshot)
    with pytest.raises(SimError, match=r"expected frames .*\(9, 24, 24\).* got .*\(6, 24, 24\)"):
        env.restore(snapshot | {"frames": snapshot["frames"][3:]})


if __name__ == "__main__":
    go_on(Path(sys.argv[1]))
