"""HeldJoints: positions put together from several publishers, and two publishers of the same joint."""

import threading
import time

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from sac_ae_ros.nodes.joints import HeldJoints


def joints(**positions: float) -> JointState:
    return JointState(name=list(positions), position=list(positions.values()))


def test_held_joints_put_together_what_several_publishers_say():
    held = HeldJoints(("x", "y"), 0.5)
    assert held.positions is None
    assert held.late(time.monotonic())
    held.heard(joints(wheel=9.0, y=2.0))
    assert held.positions is None
    assert held.late(time.monotonic())
    held.heard(joints(x=1.0, hand=3.0))
    assert held.positions.tolist() == [1.0, 2.0]
    assert not held.late(time.monotonic())
    assert held.late(time.monotonic() + 0.6)


def test_held_joints_take_no_nonsense():
    held = HeldJoints(("x", "y"), 0.5)
    held.heard(joints(y=2.0, x=1.0))
    held.heard(joints(x=np.nan, y=np.inf))
    held.heard(JointState(name=["x", "y"]))  # velocities only, say
    assert held.positions.tolist() == [1.0, 2.0]
    mine = held.positions
    mine[0] = 5.0
    assert held.positions.tolist() == [1.0, 2.0]


def test_one_silent_joint_makes_all_late():
    held = HeldJoints(("x", "y"), 0.05)
    held.heard(joints(x=1.0, y=2.0))
    time.sleep(0.06)
    held.heard(joints(x=1.5))
    assert held.late(time.monotonic())
    held.heard(joints(y=2.5))
    assert not held.late(time.monotonic())


def test_positions_of_one_message_stay_together():
    held = HeldJoints(("x", "y"), 1.0)
    held.heard(joints(x=0.0, y=0.0))
    stop = threading.Event()

    def speak() -> None:
        value = 0.0
        while not stop.is_set():
            value += 1.0
            held.heard(joints(x=value, y=value))

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        pairs = [held.positions for _ in range(2000)]
    finally:
        stop.set()
        thread.join()
    assert all(x == y for x, y in pairs)


def test_joints_of_different_publishers_do_not_contradict():
    held = HeldJoints(("x", "y"), 1.0)
    for i in range(20):
        held.heard(joints(x=float(i)), 900 + i)
        held.heard(joints(y=-float(i)), 1 + i)
        assert not held.contradiction(time.monotonic())
        assert held.positions.tolist() == [i, -i]


@pytest.mark.parametrize("number", [1, 100, 5000])  # a new publisher, one as old, and an older one
def test_two_publishers_of_a_joint_leave_the_last_position_of_the_first(number):
    held = HeldJoints(("x", "y"), 1.0)
    for i in range(90, 101):
        held.heard(joints(x=0.1, y=0.2), i)
        time.sleep(0.01)
    for i in range(3):
        held.heard(joints(y=-0.9), number + i)
    held.heard(joints(x=0.1, y=0.2), 101)
    assert "one publisher of joint 'y', got two" in held.contradiction(time.monotonic())
    assert held.positions.tolist() == [0.1, 0.2]


@pytest.mark.parametrize("second", [5.0, 0.1, np.nan])
@pytest.mark.parametrize("numbered", [True, False])
def test_a_message_with_a_joint_twice_leaves_the_last_position_of_all_in_it(second, numbered):
    held = HeldJoints(("x", "y"), 1.0)
    held.heard(joints(x=0.1, y=0.2), 1 if numbered else None)
    message = JointState(name=["x", "wheel", "x", "y", "wheel"], position=[0.1, 0.0, second, 9.0, 0.0])
    held.heard(message, 2 if numbered else None)
    assert held.contradiction(time.monotonic()) == (
        "joint_states: expected every joint once in a message, got 'x' twice; mend its publisher"
    )
    assert held.positions.tolist() == [0.1, 0.2]
    held.heard(joints(x=0.3, y=0.4), 3 if numbered else None)
    assert held.positions.tolist() == [0.1, 0.2], "not believed yet"


def test_joints_that_do_not_count_may_stand_twice():
    held = HeldJoints(("x",), 1.0)
    held.heard(JointState(name=["wheel", "wheel", "x", "x"], position=[1.0, 2.0, 3.0]), 1)
    assert not held.contradiction(time.monotonic())
    assert held.positions.tolist() == [3.0]


def test_lost_messages_are_no_contradiction():
    held = HeldJoints(("x",), 1.0)
    for number in (1, 2, 3, 4, 9, 10, 15, 16, 40):
        held.heard(joints(x=float(number)), number)
        time.sleep(0.01)
        assert not held.contradiction(time.monotonic())
    for number in range(41, 50):
        held.heard(joints(x=float(number)), number)
        time.sleep(0.01)
    assert held.positions.tolist() == [49.0]


def test_one_publisher_that_tells_of_joints_by_turns_is_believed_at_once():
    held = HeldJoints(("x", "y"), 1.0)
    for number in range(1, 21, 2):
        held.heard(joints(x=float(number)), number)
        held.heard(joints(y=float(number)), number + 1)
        time.sleep(0.005)
        assert held.positions.tolist() == [number, number]


def test_whoever_speaks_after_a_silence_is_believed():
    held = HeldJoints(("x",), 0.05)
    held.heard(joints(x=1.0), 700)
    time.sleep(0.06)
    held.heard(joints(x=2.0), 1)
    assert not held.contradiction(time.monotonic())
    assert held.positions.tolist() == [2.0]


def test_a_contradiction_ends_with_its_second_publisher_or_with_silence():
    held = HeldJoints(("x",), 0.5)
    held.heard(joints(x=1.0), 700)
    held.heard(joints(x=9.0), 1)
    assert held.contradiction(time.monotonic())
    assert not held.contradiction(time.monotonic() + 0.6), "silence is what is wrong then"
    begun_s, number = time.monotonic(), 700
    while held.contradiction(time.monotonic()):
        assert time.monotonic() < begun_s + 10
        assert held.positions.tolist() == [1.0]
        number += 1
        held.heard(joints(x=3.0), number)
        time.sleep(0.02)
    assert time.monotonic() - begun_s > 1.8
    assert held.positions.tolist() == [3.0]
