"""Simulations that become invalid end an episode, not the run; rewards that are no numbers are named at once."""

import functools
import math
from dataclasses import replace

import numpy as np
import own_robots
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from own_robots import Arm, Exploding, robot
from tiny_config import TINY
from tiny_runs import curves, differences, everything, train, with_budget

from sac_ae_ros.core.errors import RunError, SimError
from sim_training import checkpoint, collect, metrics
from sim_training.envs import tasks
from sim_training.envs.make import make_env
from sim_training.envs.robot import RobotSim
from sim_training.evaluate import run_episodes
from sim_training.export import export_run
from sim_training.trainer import DIVERGED_IN_A_ROW, Trainer

ENV = replace(TINY.env, task="arm/hold")


def config(env_steps: int = 200, **run):
    return with_budget(replace(TINY, env=ENV), env_steps, **{"eval_every": 0, **run})


@pytest.fixture
def own(monkeypatch):
    return lambda task, **said: monkeypatch.setitem(tasks.OWN_TASKS, "arm/hold", robot(task=task, **said))


class BadStart(Arm):
    """An episode that starts apart, in the first `bad` placements."""

    bad = 3

    def initialize_episode(self, physics):
        super().initialize_episode(physics)
        self.bad -= 1
        if self.bad >= 0:
            raise tasks.PhysicsError("Physics state is invalid.")


class BadReward(Arm):
    reward = math.nan

    def get_reward(self, physics):
        return self.reward if physics.time() > 0.12 else 1.0  # in the third control step


@pytest.mark.parametrize("obs", ["pixels", "state"])
def test_a_step_that_diverges_truncates_and_repeats_what_was_seen(own, obs):
    own(Exploding, share=0.0)
    env = make_env(replace(ENV, obs=obs, action_repeat=3))
    try:
        env.reset(seed=1)
        still = np.zeros(2)
        seen, reward, *_, info = env.step(still)
        assert (info["diverged"], reward > 2) == (False, True)
        env.task.env.task.share = 1.0
        repeated, reward, terminated, truncated, info = env.step(still)
        assert np.array_equal(repeated, seen)
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert info == {"env_steps": 1, "diverged": True}
        with pytest.raises(SimError, match="call reset first"):
            env.step(still)
        env.task.env.task.share = 0.0
        first, _ = env.reset(seed=1)
        assert np.isfinite(first).all()
        assert not env.step(still)[-1]["diverged"]
    finally:
        env.close()


def test_a_start_that_diverges_is_drawn_again(own):
    own(BadStart)
    env = make_env(replace(ENV, obs="state"))
    obs, _ = env.reset(seed=1)
    assert np.array_equal(env.restore(env.snapshot()), obs)
    env.task.env.task.bad = 10
    with pytest.raises(SimError, match="diverged in 10 in a row; mend the task's initialize_episode"):
        env.reset(seed=1)


@pytest.mark.parametrize("bad", [3, 10])
def test_the_robot_behind_ros_topics_draws_such_a_start_again_too(own, bad):
    own(BadStart, bad=bad)
    sim = RobotSim("arm/hold", height=8, width=8)
    try:
        if bad == 3:
            sim.reset(1)
            assert sim.reward() == pytest.approx(1.0)  # it holds still
        else:
            with pytest.raises(SimError, match="diverged in 10 in a row; mend the task's initialize_episode"):
                sim.reset(1)
    finally:
        sim.close()


def test_a_run_goes_on_counts_and_stores_no_step_that_diverged(own, tmp_path):
    own(Exploding)
    trainer = train(config(), tmp_path / "run")
    assert trainer.env_step == 200
    assert trainer.diverged > 5
    assert trainer.agent_step == 200 - trainer.diverged == trainer.replay.transitions
    assert trainer.agent.update_step == trainer.agent_step
    rows = [row for row in metrics.read(tmp_path / "run" / "train.csv") if "episode_return" in row]
    assert rows[-1]["diverged"] == trainer.diverged
    ends = [row["env_step"] for row in rows]
    assert max(np.diff([0, *ends])) <= own_robots.EPISODE_STEPS
    assert not trainer.replay._terminated.any()
    (evaluation,) = metrics.read(tmp_path / "run" / "eval.csv")
    assert evaluation["diverged"] <= evaluation["episodes"]
    assert export_run(tmp_path / "run", tmp_path / "policy.onnx", episodes=1).path.is_file()


def test_a_run_that_diverges_is_resumed_bit_for_bit(own, tmp_path):
    own(Exploding)
    whole = train(config(), tmp_path / "whole")
    train(config(97), tmp_path / "run")
    resumed = train(config(), tmp_path / "run", resume=True)
    assert resumed.diverged == whole.diverged
    assert resumed._diverged_in_a_row == whole._diverged_in_a_row
    different = differences(everything(resumed), everything(whole))
    assert [name for name in different if not name.startswith("replay.")] == []  # the budget sets the buffer's size
    rows = curves(tmp_path / "run")["train.csv"]
    assert [row for row in rows if row["episode_return"]] == [
        row for row in curves(tmp_path / "whole")["train.csv"] if row["episode_return"]
    ]


def test_always_diverging_stops_with_a_checkpoint_that_can_be_resumed_once_the_model_is_mended(own, tmp_path):
    own(Exploding, share=1.0)
    with pytest.raises(RunError, match=rf"arm/hold diverged in {DIVERGED_IN_A_ROW} episodes in a row.*--resume"):
        train(config(), tmp_path / "run")
    assert checkpoint.load(tmp_path / "run", "cpu")[0]["counters"][0] == DIVERGED_IN_A_ROW
    with pytest.raises(RunError, match=f"at env step {2 * DIVERGED_IN_A_ROW}"):
        train(config(), tmp_path / "run", resume=True)
    own(Arm)
    mended = train(config(), tmp_path / "run", resume=True)
    assert (mended.env_step, mended.diverged) == (200, 2 * DIVERGED_IN_A_ROW)
    assert mended.agent_step == mended.replay.transitions == 200 - mended.diverged


def test_a_run_of_a_version_that_counted_none_goes_on(own, tmp_path):
    own(Arm)
    trainer = train(config(100), tmp_path / "run")
    state = trainer._state()
    del state["diverged"]
    arrays = {"replay": trainer.replay.save()}
    checkpoint.save(tmp_path / "run", 100, state, arrays)
    table = tmp_path / "run" / "train.csv"
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()) + "\n")
    state["metrics"]["train.csv"] = table.stat().st_size
    checkpoint.save(tmp_path / "run", 100, state, arrays)
    assert train(config(200), tmp_path / "run", resume=True).env_step == 200
    rows = metrics.read(table)
    assert rows[-1]["env_step"] == 200
    assert all("diverged" not in row and None not in row for row in rows)


def test_an_evaluation_that_diverged_is_no_best_one(own, tmp_path, monkeypatch):
    own(Arm)
    monkeypatch.setattr(Arm, "get_reward", lambda self, physics: -1.0)
    trainer = Trainer(config(60, eval_every=20), tmp_path / "run")
    steps = [0]

    def explode(self, action, physics):
        steps[0] += 1
        if steps[0] == 3:  # of the first evaluation: -2 where a whole episode has -20
            physics.data.qvel[:] = 1e12

    monkeypatch.setattr(type(trainer.env.task.env.task), "before_step", lambda *_: None)
    trainer.env.task.env.task.before_step = functools.partial(explode, None)
    try:
        trainer.run()
    finally:
        trainer.close()
    rows = metrics.read(tmp_path / "run" / "eval.csv")
    assert [(row["mean_return"], row["diverged"]) for row in rows] == [(-2, 1), (-20, 0), (-20, 0)]
    best = checkpoint.load_tensors(tmp_path / "run" / "best.pt")
    assert (best["env_step"], best["eval_return_mean"], trainer.best) == (40, -20, -20)


def test_judging_counts_episodes_that_diverged(own):
    own(Exploding, share=0.05)
    env = make_env(ENV)
    try:
        returns = run_episodes(env, lambda obs: np.zeros(2), range(20))
    finally:
        env.close()
    assert 0 < returns.diverged < 20
    assert returns.to_dict()["diverged"] == returns.diverged


def make_own(task, config):
    """For a process of its own, which knows nothing of this one's tasks."""
    tasks.OWN_TASKS["arm/hold"] = robot(task=task)
    return make_env(config)


@pytest.fixture
def side_by_side(own, monkeypatch):
    """Trains with environments in processes of their own."""

    def start(task, run_dir):
        own(task)
        monkeypatch.setattr(
            collect,
            "make_vector_env",
            lambda env, count: AsyncVectorEnv(
                [functools.partial(make_own, task, env)] * count,
                context="spawn",
                autoreset_mode=AutoresetMode.DISABLED,
            ),
        )
        return train(config(120, collect="async", envs=2), run_dir)

    return start


@pytest.mark.slow
def test_side_by_side_a_lane_that_diverges_starts_anew(side_by_side, tmp_path):
    trainer = side_by_side(Exploding, tmp_path / "run")
    assert trainer.diverged > 2
    assert trainer.agent_step == 120 - trainer.diverged == trainer.replay.transitions


@pytest.mark.filterwarnings("error")
def test_side_by_side_a_reward_that_is_no_number_is_named_once_and_the_run_saved(side_by_side, tmp_path, capfd):
    with pytest.raises(SimError, match=r"arm/hold: expected a finite reward, .* got nan 0\.15 s into an episode"):
        side_by_side(BadReward, tmp_path / "run")
    assert "Traceback" not in capfd.readouterr().err
    assert checkpoint.load(tmp_path / "run", "cpu")[0]["counters"][0] == 4


@pytest.mark.parametrize(
    ("reward", "came"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (1e39, "1e+39"),
        (-1.1e18, "-1.1e+18"),
        (np.array([math.nan]), "array([nan])"),
        (None, "None"),
        ("1.0", "'1.0'"),
        ({}, "{}"),
        (1 + 0j, "(1+0j)"),
        (np.array([1.0, 2.0]), "array([1., 2.])"),
        (np.array([]), "array([], dtype=float64)"),
        ([[1.0], []], "[[1.0], []]"),
    ],
)
def test_a_reward_that_is_no_number_is_named_when_it_arrives(own, tmp_path, reward, came):
    own(BadReward, reward=reward)
    with pytest.raises(
        SimError, match="arm/hold: expected a finite reward, one number up to 1e\\+18 in size"
    ) as caught:
        train(config(), tmp_path / "run")
    assert f"got {came} 0.15 s into an episode; mend the task's get_reward" in str(caught.value)
    assert "learning rates" not in str(caught.value)
    assert "\n" not in str(caught.value)
    sim = RobotSim("arm/hold", height=8, width=8)
    try:
        sim.reset(0)
        assert sim.reward() == 1.0
        for _ in range(3):
            sim.advance(np.zeros(2), 5)
        with pytest.raises(SimError, match="mend the task's get_reward"):
            sim.reward()
    finally:
        sim.close()


@pytest.mark.parametrize("reward", [np.array([0.5]), np.float32(0.5), np.array([[0.5]]), np.array(0.5), [0.5]])
def test_an_array_of_one_is_a_reward(own, reward):
    own(BadReward, reward=reward)
    env = make_env(replace(ENV, obs="state", action_repeat=4))
    env.reset(seed=0)
    assert env.step(np.zeros(2))[1] == 3.0  # 1, 1, 0.5, 0.5


class Ending(Arm):
    """Says how its episode ends in the third control step, where it is asked."""

    ending: object = 0.0

    def get_termination(self, physics):
        return self.ending if physics.time() > 0.12 else None


@pytest.mark.parametrize(
    ("ending", "terminated"), [(0.0, True), (0, True), (np.zeros(1), True), (1.0, False), (np.float32(1), False)]
)
def test_a_discount_of_0_terminates_and_of_1_truncates(own, ending, terminated):
    own(Ending, ending=ending)
    env = make_env(replace(ENV, obs="state", action_repeat=5))
    env.reset(seed=0)
    *_, ended, truncated, info = env.step(np.zeros(2))
    assert (ended, truncated, info["env_steps"]) == (terminated, not terminated, 3)


@pytest.mark.parametrize(
    ("ending", "came"),
    [
        (math.nan, "nan"),
        (-0.1, "-0.1"),
        (1.5, "1.5"),
        (0.5, "0.5"),
        (math.inf, "inf"),
        (True, "True"),
        (False, "False"),
        ("0", "'0'"),
        (np.array([0.0, 1.0]), "array([0., 1.])"),
    ],
)
def test_any_other_discount_is_refused_when_it_arrives(own, tmp_path, ending, came):
    own(Ending, ending=ending)
    with pytest.raises(SimError) as caught:
        train(config(), tmp_path / "run")
    assert str(caught.value) == (
        "task arm/hold: expected get_termination to give None, 0.0 (terminated) or 1.0 (truncated), got"
        f" {came} 0.15 s into an episode; mend the task's get_termination"
    )


class Telling(Arm):
    """Its observation is what it is told to be; another one after the first control step."""

    first: object = None
    later: object = None

    def get_observation(self, physics):
        return self.later if physics.time() > 0 else self.first


@pytest.mark.parametrize(
    ("first", "later", "says"),
    [
        ({"a": [0.0, math.inf]}, None, "finite numbers of float32, got a = [0.0, inf]"),
        ({"a": 0.0, "b": 1e300}, None, "finite numbers of float32, got b = 1e+300"),
        ({"a": "x"}, None, "real numbers, got a = 'x'"),
        ({"a": None}, None, "real numbers, got a = None"),
        ({"a": 1j}, None, "real numbers, got a = 1j"),
        ({"a": [[1.0], []]}, None, "real numbers, got a = [[1.0], []]"),
        ({}, None, "one number or more, got none"),
        ([1.0, 2.0], None, "a mapping from names to numbers, got list"),
        (None, None, "a mapping from names to numbers, got NoneType"),
        ({"a": np.zeros(3)}, {"a": np.zeros(2)}, "3 numbers, as before, got 2"),
        ({"a": 1.0}, {"a": [math.nan]}, "finite numbers of float32, got a = [nan]"),
        ({"a": 1.0}, {"a": "x"}, "real numbers, got a = 'x'"),
    ],
)
def test_a_state_that_is_no_number_is_named(own, first, later, says):
    own(Telling, first=first, later=later)

    def see():
        env = make_env(replace(ENV, obs="state"))
        env.reset(seed=0)
        env.step(np.zeros(2))

    with pytest.raises(SimError) as caught:
        see()
    assert str(caught.value) == f"task arm/hold: expected {says}; mend the task's get_observation"


def test_the_robot_behind_ros_topics_says_that_its_simulation_is_invalid(own):
    own(Exploding, share=1.0)
    sim = RobotSim("arm/hold", height=8, width=8)
    try:
        sim.reset(0)
        with pytest.raises(SimError, match="simulation of arm/hold: Physics state is invalid"):
            sim.advance(np.zeros(2), 5)
        sim.reset(1)
        assert sim.image().shape == (8, 8, 3)
    finally:
        sim.close()
