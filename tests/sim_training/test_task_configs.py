"""config/train: one file for each task of the benchmark; all else comes from the profile."""

import pytest
import yaml

from sac_ae_ros.core.share import share_file
from sim_training import config as configs
from sim_training.envs import tasks

# Six with published SAC+AE scores, three more: task, action repeat, policy period in ms, updates at 100,000 env steps.
TASKS = {
    "finger_spin": ("finger/spin", 2, 40, 50_000),
    "cartpole_swingup": ("cartpole/swingup", 8, 80, 12_500),
    "reacher_easy": ("reacher/easy", 4, 80, 25_000),
    "cheetah_run": ("cheetah/run", 4, 40, 25_000),
    "walker_walk": ("walker/walk", 2, 50, 50_000),
    "ball_in_cup_catch": ("ball_in_cup/catch", 4, 80, 25_000),
    "walker_run": ("walker/run", 2, 50, 50_000),
    "hopper_stand": ("hopper/stand", 2, 40, 50_000),
    "acrobot_swingup": ("acrobot/swingup", 2, 20, 50_000),
}
every_file = pytest.mark.parametrize("name", TASKS)


def file(name):
    return share_file(f"config/train/{name}.yaml")


def updates(config):
    """Catch-up updates, then some after each agent step: what Trainer does."""
    agent_steps = config.run.env_steps // config.env.action_repeat
    learn = config.learn
    return learn.random_steps + (agent_steps - learn.random_steps) * learn.updates_per_step


@every_file
def test_plain_is_the_published_recipe(name):
    task, action_repeat, _, expected_updates = TASKS[name]
    config = configs.parse(["--profile=plain"], path=file(name))
    assert config == configs.TrainConfig(
        profile="plain", env=configs.EnvConfig(task=task, action_repeat=action_repeat), run=configs.RunConfig()
    )
    assert (config.env.height, config.env.width, config.run.env_steps) == (84, 84, 100_000)
    assert (config.run.eval_every, config.run.eval_episodes, config.run.replay) == (10_000, 10, "ram")
    assert updates(config) == expected_updates


@every_file
def test_the_same_file_is_the_best_profile_without_a_word(name):
    config = configs.parse([], path=file(name))
    assert config.profile == "best"
    flags = configs.best(config.env)
    assert {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in flags} == flags


@every_file
def test_the_policy_period_is_the_published_one(name):
    action_repeat, period_ms = TASKS[name][1:3]
    task = tasks.load(TASKS[name][0])
    assert task.control_timestep_s * action_repeat == pytest.approx(period_ms / 1000)
    assert task.episode_steps % action_repeat == 0  # so that env steps are agent steps times action repeat, exactly
    assert f"Policy period {period_ms} ms" in file(name).read_text()


@every_file
def test_a_file_sets_the_task_and_the_budget_and_nothing_else(name):
    said = yaml.safe_load(file(name).read_text())
    assert {f"{group}.{key}" for group in said for key in said[group]} == {
        "env.task",
        "env.action_repeat",
        "run.env_steps",
        "run.eval_every",
    }


def test_every_file_of_a_suite_task_is_listed_here():
    names = {path.stem for path in share_file("config/train/rover_chase_ball.yaml").parent.glob("*.yaml")}
    assert names == {*TASKS, "rover_chase_ball"}
