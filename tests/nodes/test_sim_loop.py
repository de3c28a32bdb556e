"""Episodes of a simulated robot without ROS or physics: what happens when, and in which order."""

import numpy as np
import pytest

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.spec import ActionSpec
from sac_ae_ros.nodes.sim_loop import CARRIED_BACK_NS, SimLoop

MS = 1_000_000


class CountingSim:
    """20 ms control steps of 5 ms physics, 3 of them an episode; the action is integrated."""

    actions = (ActionSpec("push", "N", -2.0, 2.0),)
    control_timestep_s, physics_timestep_s = 0.02, 0.005
    episode_steps, fovy_deg = 3, 60.0

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.terminate_at = self.diverge_at = 99

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self.moved, self.ticks = 0.0, 0

    def advance(self, action: np.ndarray, ticks: int) -> None:
        self.moved += float(action[0]) * ticks
        self.ticks += ticks
        if self.ticks >= self.diverge_at:
            raise SimError("simulation: invalid")

    def image(self) -> np.ndarray:
        return np.full((1, 1, 3), self.ticks, np.uint8)

    def reward(self) -> float:
        return self.moved

    def terminated(self) -> bool:
        return self.ticks >= self.terminate_at

    def close(self) -> None: ...


class Events:
    def __init__(self) -> None:
        self.all: list[tuple] = []

    def on_image(self, rgb, stamp_ns):
        self.all.append(("image", stamp_ns, int(rgb[0, 0, 0])))

    def on_reward(self, reward):
        self.all.append(("reward", reward))

    def on_episode_end(self, terminated):
        self.all.append(("end", terminated))

    def on_command_timeout(self):
        self.all.append(("timeout",))

    def of(self, kind: str) -> list[tuple]:
        return [event[1:] for event in self.all if event[0] == kind]


@pytest.fixture
def sim() -> CountingSim:
    return CountingSim()


def loop(sim: CountingSim, **settings) -> tuple[SimLoop, Events]:
    events = Events()
    defaults = {"camera_rate_hz": 100.0, "command_timeout_s": 10.0, "auto_reset": True, "seed": 7}
    return SimLoop(sim, events, **{**defaults, **settings}), events


def run(loop: SimLoop, ms: int) -> None:
    passed_ns = 0
    while passed_ns < ms * MS:
        passed_ns += loop.tick()


def test_an_episode_gives_its_rewards_between_two_ends(sim):
    robot, events = loop(sim)
    run(robot, 180)
    kinds = [event[0] for event in events.all if event[0] != "image"]
    assert kinds == ["reward", "reward", "reward", "end"] * 3
    assert events.of("end") == [(False,)] * 3
    assert sim.seeds == [7, 8, 9, 10]


def test_termination_cuts_an_episode(sim):
    sim.terminate_at = 8
    robot, events = loop(sim)
    run(robot, 40)
    assert events.of("end") == [(True,)]
    assert len(events.of("reward")) == 2


def test_an_invalid_simulation_cuts_an_episode_and_the_next_one_starts(sim):
    sim.diverge_at = 6
    robot, events = loop(sim)
    run(robot, 35)  # a reward after 20 ms, the end of the first episode after 30
    sim.diverge_at = 99
    run(robot, 20)
    kinds = [event for event in events.all if event[0] != "image"]
    assert kinds == [("reward", 0.0), ("end", False), ("reward", 0.0)]
    assert sim.seeds == [7, 8]


@pytest.mark.parametrize(
    ("rate_hz", "expected_ms"), [(100.0, range(0, 60, 10)), (40.0, (0, 25, 50)), (30.0, (0, 35, 70))]
)
def test_the_camera_keeps_its_own_rate(sim, rate_hz, expected_ms):
    sim.episode_steps = 4
    robot, events = loop(sim, camera_rate_hz=rate_hz)
    run(robot, max(expected_ms) + 5)
    stamps = [stamp for stamp, _ in events.of("image")]
    assert [(stamp - stamps[0]) // MS for stamp in stamps] == list(expected_ms)
    assert [ticks for _, ticks in events.of("image")] == [ms // 5 for ms in expected_ms]


def test_stamps_jump_between_episodes_so_that_frame_stacks_restart(sim):
    robot, events = loop(sim)
    run(robot, 70)
    stamps = [stamp for stamp, _ in events.of("image")]
    steps = np.diff(stamps)
    assert steps.max() >= CARRIED_BACK_NS
    assert (steps > 0).all()
    assert (steps > CARRIED_BACK_NS / 2).sum() == 1


def test_a_command_acts_at_once_and_holds(sim):
    robot, events = loop(sim)
    run(robot, 20)
    robot.command(np.array([1.0]))
    run(robot, 40)
    assert events.of("reward") == [(0.0,), (4.0,), (8.0,)]


def test_the_robot_stops_by_itself_when_commands_cease(sim):
    sim.episode_steps = 100
    robot, events = loop(sim, command_timeout_s=0.05)
    robot.command(np.array([1.0]))
    run(robot, 200)
    assert events.of("timeout") == [()], "said once"
    assert sim.moved == pytest.approx(10, abs=2)
    robot.command(np.array([1.0]))
    run(robot, 20)
    assert sim.moved == pytest.approx(14, abs=2)


def test_a_command_does_not_survive_its_episode(sim):
    robot, _ = loop(sim)
    robot.command(np.array([1.0]))
    run(robot, 60)
    run(robot, 20)
    assert sim.moved == 0.0


def test_restart_marks_a_border_and_takes_its_seed(sim):
    robot, events = loop(sim)
    run(robot, 30)
    robot.restart(500)
    assert events.all[-1] == ("end", False)
    run(robot, 60)
    assert sim.seeds == [7, 500, 501]
    kinds = [event[0] for event in events.all if event[0] != "image"]
    assert kinds == ["reward", "end", "reward", "reward", "reward", "end"]


def test_without_auto_reset_the_robot_waits_but_its_camera_lives(sim):
    robot, events = loop(sim, auto_reset=False)
    run(robot, 200)
    assert len(events.of("reward")) == 3
    assert len(events.of("end")) == 1
    assert len(events.of("image")) == 20
    robot.restart(9)
    run(robot, 60)
    assert len(events.of("reward")) == 6


def test_rest_is_the_nearest_allowed_value_to_zero(sim):
    sim.actions = (ActionSpec("push", "N", 0.5, 2.0),)
    robot, _ = loop(sim)
    run(robot, 20)
    assert sim.moved == 2.0
