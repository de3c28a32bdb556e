"""What a robot of one's own says about its camera, actions and units is what is trained and exported."""

from dataclasses import replace

import numpy as np
import own_robots
import pytest
from dm_env import specs
from own_robots import Arm, actuators, control, robot

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.policy import OnnxPolicy
from sim_training import export
from sim_training.envs import tasks
from sim_training.envs.robot import RobotSim
from sim_training.trainer import Trainer


@pytest.fixture
def own(monkeypatch):
    """Adds a robot of one's own, as the README says."""

    def add(make) -> tasks.Task:
        monkeypatch.setitem(tasks.OWN_TASKS, "arm/hold", make)
        return tasks.load("arm/hold")

    return add


def names(task: tasks.Task) -> list[tuple[str, str]]:
    return [(action.name, action.unit) for action in task.actions]


class Mixing(Arm):
    """Commands that are not its actuators': two joints driven by one number, named or not."""

    spec_name: str | None = None

    def action_spec(self, physics):
        return specs.BoundedArray((1,), float, [-1.0], [1.0], name=self.spec_name)

    def before_step(self, action, physics):
        physics.set_control(np.repeat(action, physics.model.nu))


def test_actions_are_called_as_the_actuators_and_without_a_unit(own):
    assert names(own(robot(actuators(3)))) == [(f"{joint}_torque", "1") for joint in own_robots.JOINTS]


def test_units_come_from_the_task(own):
    task = own(robot(action_units=("N m", "N m")))
    assert names(task) == [("shoulder_torque", "N m"), ("elbow_torque", "N m")]
    assert (task.low.tolist(), task.high.tolist()) == ([-2, -2], [2, 2])


def test_names_come_from_the_spec_where_it_has_as_many(own):
    assert names(own(robot(task=Mixing, spec_name="squeeze", action_units=["N"]))) == [("squeeze", "N")]
    assert names(own(robot(task=Mixing, spec_name="one\ttwo"))) == [("action_0", "1")]


def test_actuators_lend_no_names_to_other_commands(own):
    assert names(own(robot(actuators(1), task=Mixing))) == [("action_0", "1")]


@pytest.mark.parametrize(
    ("said", "camera", "fovy_deg"),
    [({}, "top", 30), ({"camera": "gripper"}, "gripper", 58), ({"camera": 1}, "gripper", 58)],
)
def test_the_camera_is_the_tasks_or_the_first(own, said, camera, fovy_deg):
    task = own(robot(**said))
    assert (task.camera_name, task.fovy_deg) == (camera, fovy_deg)


def test_a_camera_without_a_name_is_called_camera(own):
    assert own(robot(cameras='<camera pos="0 0 3"/>')).camera_name == "camera"


def test_the_suite_keeps_its_names_and_cameras():
    cheetah, quadruped = tasks.load("cheetah/run"), tasks.load("quadruped/walk")
    assert names(cheetah) == [(f"action_{i}", "1") for i in range(6)]
    assert (cheetah.camera, cheetah.camera_name, quadruped.camera) == (0, "side", 2)


def test_an_arm_of_ones_own_is_trained_exported_and_simulated(own, config, tmp_path):
    own(robot(actuators(3), camera="gripper", action_units=("N m",) * 3))
    config = replace(config, env=replace(config.env, task="arm/hold"))
    trainer = Trainer(config, tmp_path / "run")
    try:
        trainer.run()
    finally:
        trainer.close()
    export.export_run(tmp_path / "run", tmp_path / "policy.onnx", episodes=1)
    spec = OnnxPolicy.load(tmp_path / "policy.onnx").spec
    assert [(a.name, a.unit, a.low, a.high) for a in spec.actions] == [
        (f"{joint}_torque", "N m", -2.0, 2.0) for joint in own_robots.JOINTS
    ]
    assert (spec.camera.name, spec.camera.fovy_deg) == ("gripper", 58)
    sim = RobotSim("arm/hold", height=8, width=8)
    try:
        assert (sim.actions, sim.fovy_deg) == (spec.actions, 58)
    finally:
        sim.close()


class Discrete(Arm):
    def action_spec(self, physics):
        return specs.DiscreteArray(3)


class Nested(Arm):
    def action_spec(self, physics):
        return specs.BoundedArray((2, 2), float, -1, 1)


class Limits(Arm):
    bounds = (0.0, 0.0)

    def action_spec(self, physics):
        low, high = self.bounds
        return specs.BoundedArray((2,), float, [-1, low], [1, high], name="turn\tgrip")


class Unseeded(control.Task):
    """Not of the suite's kind."""

    def __init__(self, random):
        pass

    def initialize_episode(self, physics):
        pass

    def action_spec(self, physics):
        return specs.BoundedArray((2,), float, -1, 1)

    before_step = get_reward = get_observation = action_spec


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            robot(actuators(1) + '<motor name="claw" joint="elbow"/>'),
            "low < high, of 'claw', got -1e+10..1e+10",
        ),
        (robot(actuators(1) + '<motor joint="elbow"/>'), "of 'action_1', got -1e+10"),
        (robot(actuators(1, 'ctrlrange="-1e10 1e10"')), "of 'shoulder_torque', got -1e+10..1e+10"),
        (robot(task=Limits, bounds=(-np.inf, np.inf)), "of 'grip', got -inf..inf"),
        (robot(task=Limits, bounds=(np.nan, 1.0)), "of 'grip', got nan..1"),
        (robot(task=Limits, bounds=(1.0, 1.0)), "of 'grip', got 1..1"),
        (robot(task=Limits, bounds=(1.0, -1.0)), "limits of actions, low < high; All values in `minimum` must be less"),
        (robot(actuators(1, 'ctrlrange="2 -2"')), "low < high, of 'shoulder_torque', got -1e+10..1e+10"),
        (
            robot(task=Limits, bounds=(-1e-300, 1e-300)),
            "with 256 float32 values or more between them, got -1e-300",
        ),
        (
            robot(task=Limits, bounds=(0.0, 1e-40)),
            "with 256 float32 values or more between them, got 0.0..1e-40",
        ),
        (robot(task=Limits, bounds=(1.0, 1.00001)), "between them, got 1.0..1.00001; widen its range"),
        (robot(actuators(1, 'ctrlrange="-1e-300 1e-300"')), "expected limits of 'shoulder_torque' with 256 float32"),
        (robot(""), "expected 1..64 actions, got 0"),
        (robot(task=Discrete), "expected continuous actions"),
        (robot(task=Nested), "expected continuous actions"),
        (robot(time_limit=float("inf")), "expected episodes that end after one step or more, got a limit of inf steps"),
        (robot(time_limit=0.0), "got a limit of 0 steps"),
        (robot(cameras=""), "expected a camera of the model (none), got 0"),
        (robot(camera="front"), "expected a camera of the model (0 'top', 1 'gripper'), got 'front'"),
        (robot(camera=2), "got 2; set the task's `camera`"),
        (robot(camera=None), "got None; set the task's `camera`"),
        (robot(action_units=("N m",)), "expected action_units with a text for each of shoulder_torque, elbow_torque"),
        (robot(action_units="Nm"), "expected action_units with a text for each of"),
        (robot(action_units=("N m", "")), "1..200 printable characters, got ''"),
        (robot(action_units=("N m", None)), "1..200 printable characters, got 'None'"),
        (robot(task=Mixing, spec_name="\x1b[31m"), "1..200 printable characters"),
        (robot(task=Limits, bounds=(-1.0, 1.0), action_units=("rad\n", "1")), "1..200 printable characters"),
        (robot(task=Unseeded), "expected a dm_control.suite.base.Task"),
        (lambda random: None, "expected a dm_control.rl.control.Environment, got NoneType"),
    ],
)
def test_what_no_contract_can_hold_is_refused_by_name(own, make, says):
    with pytest.raises(SimError) as caught:
        own(make)
    assert str(caught.value).startswith("task arm/hold: expected ")
    assert says in str(caught.value)


@pytest.mark.parametrize("bounds", [(-1e-30, 1e-30), (1000.0, 1000.1), (0.0, 9e9)])
def test_narrow_and_wide_ranges_that_float32_has_room_for_are_taken(own, bounds):
    grip = own(robot(task=Limits, bounds=bounds)).actions[1]
    assert (grip.low, grip.high) == bounds


def test_endless_episodes_of_the_suite_are_refused_too():
    with pytest.raises(SimError, match=r"task lqr/lqr_2_1: expected episodes that end .* time_limit"):
        tasks.load("lqr/lqr_2_1")


@pytest.mark.parametrize("name", ["rover", "rover/", "cheetah/run/fast", "", "/"])
def test_unknown_names_are_refused_with_examples(name):
    with pytest.raises(SimError, match="expected `domain/task` such as rover/chase_ball"):
        tasks.load(name)
