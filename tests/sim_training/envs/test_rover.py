"""The rover obeys velocities and is paid by the formula."""

import math

import numpy as np
import pytest

from sim_training.envs import tasks


@pytest.fixture(scope="module")
def task():
    return tasks.load("rover/chase_ball", seed=0)


def test_its_contract(task):
    assert task.control_timestep_s == pytest.approx(0.1)
    assert task.episode_steps == 100
    assert task.fovy_deg == 75
    assert [(a.name, a.unit, a.low, a.high) for a in task.actions] == [
        ("linear", "m/s", -0.2, 0.6),
        ("angular", "rad/s", -1.5, 1.5),
    ]


@pytest.mark.parametrize(("linear", "angular"), [(0.5, 0.0), (-0.2, 0.0), (0.0, 1.2), (0.0, -1.2), (0.3, 0.6)])
def test_it_reaches_the_commanded_velocity(task, linear, angular):
    task.env.reset()
    for _ in range(15):
        task.env.step(np.array([linear, angular]))
    forward, yaw_rate = task.env.physics.velocity()
    assert forward == pytest.approx(linear, abs=0.04)
    assert yaw_rate == pytest.approx(angular, abs=0.2)


def test_positive_angular_velocity_turns_left(task):
    """REP 103: a ball ahead moves to the robot's right, y < 0."""
    task.env.reset()
    physics = task.env.physics
    before = math.atan2(*physics.ball_in_rover_frame()[::-1])
    for _ in range(5):
        task.env.step(np.array([0.0, 1.0]))
    turned = math.atan2(*physics.ball_in_rover_frame()[::-1]) - before
    assert math.remainder(turned, 2 * math.pi) < -0.2


def test_the_ball_is_placed_within_its_range(task):
    places = []
    for seed in range(100):
        task.seed(seed)
        task.env.reset()
        forward, left = task.env.physics.ball_in_rover_frame()
        places.append((math.hypot(forward, left), math.atan2(left, forward)))
    distance, bearing = np.array(places).T
    assert 1.2 <= distance.min() < 1.4
    assert 2.8 < distance.max() <= 3.0
    assert -1.6 <= bearing.min() < -1.3
    assert 1.3 < bearing.max() <= 1.6


@pytest.mark.parametrize(("distance", "bearing"), [(0.3, 0.0), (1.4, 0.0), (1.4, 0.5), (2.0, -1.0)])
def test_the_reward_is_the_formulas(task, distance, bearing):
    task.env.reset()
    physics = task.env.physics
    x, y = physics.named.data.xpos["rover"][:2]
    heading = physics.named.data.xmat["rover"].reshape(3, 3)[:2, 0]
    yaw = math.atan2(heading[1], heading[0]) + bearing
    physics.named.data.mocap_pos["ball"][:2] = [x + distance * math.cos(yaw), y + distance * math.sin(yaw)]
    physics.forward()
    facing = math.exp(-((bearing / 0.5) ** 2))
    expected = 0.5 * facing + 0.5 * facing * math.exp(-max(0, distance - 0.4))
    assert task.env.task.get_reward(physics) == pytest.approx(expected, abs=1e-6)
