"""Faults of the policy, of the people and switches that control the robot, and of the process; see fault_cases.py."""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fault_case import SETTLED_S, Case, Outcome, goes_on, longest, observe
from fault_publishers import BEST_EFFORT, PIXEL, Repeated, publisher
from fault_rig import LATCHED, PERIOD_S, SPEC, Rig
from hostile_policy import write_hostile
from rclpy.qos import QoSProfile
from ros_network import ACTIVATE, DEACTIVATE, Network
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from tiny_policy import GAIN, NAN_PIXEL, SLOW_PIXEL, write_policy

READING_S = 0.3
# Starts a node as `ros2 launch` does in the background of a script: SIGINT is ignored.
LAUNCH = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.run(sys.argv[1:], env={**os.environ, "SAC_AE_ROS_LAUNCH_PID": str(os.getpid())})
"""
QOS = {"reliable": QoSProfile(depth=1), "best effort": BEST_EFFORT, "transient local": LATCHED}


# The policy.


def pixels(to: int, case: Case, rig: Rig) -> Outcome:
    """Pictures that the test policy cannot stand."""
    rig.drive()
    return observe(case, rig, rig.lens.set(pixel=to), end=lambda: rig.lens.set(pixel=PIXEL))


def nan_and_e_stop(case: Case, rig: Rig) -> Outcome:
    e_stop = publisher(rig.network.node, Bool, "e_stop", 1)
    rig.drive()
    rig.network.until(lambda: e_stop.get_subscription_count() >= 2, 5, "the node on e_stop")
    since_s = rig.lens.set(pixel=NAN_PIXEL)
    rig.first_stop(since_s)
    e_stop.publish(Bool(data=True))

    def end() -> None:
        rig.lens.set(pixel=PIXEL)
        rig.network.until(lambda: "lasts: e_stop (" in rig.arm(), 3, "a refusal for e_stop alone")
        e_stop.publish(Bool(data=False))

    outcome = observe(case, rig, since_s, end=end)
    rig.network.node.destroy_publisher(e_stop)
    return outcome


def hung_and_e_stop(case: Case, rig: Rig) -> Outcome:
    e_stop = publisher(rig.network.node, Bool, "e_stop", 1)
    rig.drive()
    rig.network.until(lambda: e_stop.get_subscription_count() >= 2, 5, "the node on e_stop")
    hung_s = rig.lens.set(pixel=SLOW_PIXEL)
    time.sleep(hung_s + 1.2 * PERIOD_S - time.monotonic())  # a tick has begun, and is not late yet
    since_s = time.monotonic()
    e_stop.publish(Bool(data=True))

    def end() -> None:
        rig.lens.set(pixel=PIXEL)
        e_stop.publish(Bool(data=False))

    outcome = observe(case, rig, since_s, end=end)
    rig.network.node.destroy_publisher(e_stop)
    return outcome


def damaged_version(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    version = rig.store.publish(
        write_policy(rig.folder / "next.onnx", gain=GAIN * 1.01, spec=SPEC).read_bytes(), "next"
    )
    data = bytearray(version.path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    version.path.write_bytes(data)
    return refused_reload(case, rig)


def lost_disk(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    rig.lose_disk()
    return refused_reload(case, rig)


def stored(rig: Rig, data: bytes) -> None:
    """What somebody who may write to the folder can do; `sac-ae publish` would refuse such files."""
    number = len(list(rig.store.folder.iterdir())) + 1
    (rig.store.folder / f"{number:06d}-{hashlib.sha256(data).hexdigest()}.onnx").write_bytes(data)


def hostile_version(kind: str, case: Case, rig: Rig) -> Outcome:
    stored(rig, write_hostile(rig.folder / "hostile.onnx", kind).read_bytes())
    rig.drive()
    return refused_reload(case, rig)


def forged_name(case: Case, rig: Rig) -> Outcome:
    """The contract's name holds what a terminal takes for a line of the log."""
    name = "tiny\\n[INFO] [policy_node]: disarmed"
    text = write_policy(rig.folder / "next.onnx", spec={**SPEC, "name": "a" * len(name)}).read_bytes()
    stored(rig, text.replace(b"a" * len(name), name.encode()))
    rig.drive()
    outcome = refused_reload(case, rig)
    assert "[INFO] [policy_node]: disarmed" not in {line.strip() for line in rig.process.log.splitlines()}
    return outcome


def hostile_version_and_e_stop(case: Case, rig: Rig) -> Outcome:
    """The emergency stop is pressed while a child process reads the file."""
    e_stop = rig.switch("e_stop", False)
    stored(rig, write_hostile(rig.folder / "hostile.onnx", "interpreter").read_bytes())
    rig.drive()
    rig.network.trigger("policy_node/rollback")  # refused; from here on the node knows how to answer
    reloading = threading.Thread(target=rig.network.trigger, args=["policy_node/reload"])
    reloading.start()
    time.sleep(READING_S)
    outcome = observe(case, rig, e_stop.say(True), end=lambda: e_stop.say(False))
    reloading.join()
    return outcome


def refused_reload(case: Case, rig: Rig) -> Outcome:
    since_s = time.monotonic()
    answer = rig.network.trigger("policy_node/reload")
    assert not answer.success, answer.message
    return dataclasses.replace(goes_on(case, rig, since_s), refused=answer.message)


# The people.


def enable_false(case: Case, rig: Rig) -> Outcome:
    deadman = rig.switch("enable", True)
    rig.drive(enable_required=True)
    return observe(case, rig, deadman.say(False), clear=lambda: deadman.say(True))


def enable_silent(case: Case, rig: Rig) -> Outcome:
    deadman = rig.switch("enable", True)
    rig.drive(enable_required=True)

    def press_anew() -> None:
        deadman.say(False)
        time.sleep(PERIOD_S)
        deadman.say(True)

    return observe(case, rig, deadman.silence(), end=deadman.start, clear=press_anew)


def enable_flaps(case: Case, rig: Rig) -> Outcome:
    """Four times on and off; the slowest stop counts."""
    deadman = rig.switch("enable", True)
    rig.drive(enable_required=True)
    stops_s, moved = [], 0
    for _ in range(4):
        false_s = deadman.say(False)
        first_s = rig.first_stop(false_s)
        time.sleep(3 * PERIOD_S)
        stops_s.append(first_s - false_s)
        moved += len(rig.moves(first_s))
        deadman.say(True)
        rig.moving()
    outcome = observe(case, rig, deadman.say(False), clear=lambda: deadman.say(True))
    assert outcome.stop_s is not None
    return dataclasses.replace(outcome, stop_s=max(outcome.stop_s, *stops_s), moved=outcome.moved + moved)


def e_stop_pressed(kind: str, case: Case, rig: Rig) -> Outcome:
    """Said once; by a publisher of that QoS."""
    e_stop = publisher(rig.network.node, Bool, "e_stop", QOS[kind])
    rig.drive()
    rig.network.until(lambda: e_stop.get_subscription_count() >= 1, 5, "the node on e_stop")
    since_s = time.monotonic()
    e_stop.publish(Bool(data=True))
    outcome = observe(case, rig, since_s, end=lambda: e_stop.publish(Bool(data=False)))
    rig.network.node.destroy_publisher(e_stop)
    return outcome


def e_stop_before_start(case: Case, network: Network, folder: Path) -> Outcome:
    e_stop = publisher(network.node, Bool, "e_stop", LATCHED)
    e_stop.publish(Bool(data=True))
    with closing(Rig(network, folder)) as rig:
        rig.activate()
        rig.lens.start()
        since_s = time.monotonic()
        rig.state(0.0, lambda state: "e_stop" in state["causes"])  # what was said before takes a moment to come
        refused = rig.arm()
        diagnosed_s, diagnosis = case.diagnosis(rig, since_s)
        moved = len(rig.commands)
        e_stop.publish(Bool(data=False))
        rig.rearm()
        return Outcome(refused=refused, diagnosis=diagnosis, diagnosed_s=diagnosed_s - since_s, moved=moved)


def e_stop_silent(case: Case, rig: Rig) -> Outcome:
    e_stop = rig.switch("e_stop", False)
    rig.drive(e_stop_required=True)
    return observe(case, rig, e_stop.silence(), end=e_stop.start)


def deactivated(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    since_s = time.monotonic()
    assert rig.network.change(DEACTIVATE)
    time.sleep(1.0)
    diagnosed_s, diagnosis = case.diagnosis(rig, since_s)
    stops_s, moved = rig.stops(since_s), len(rig.moves(rig.first_stop(since_s)))
    assert rig.network.change(ACTIVATE)
    time.sleep(SETTLED_S)
    moved += len(rig.moves(stops_s[-1]))
    cleared_s = time.monotonic()
    rig.rearm()
    return Outcome(
        stop_s=stops_s[0] - since_s,
        diagnosis=diagnosis,
        diagnosed_s=diagnosed_s - since_s,
        gap_s=longest(stops_s),
        moved=moved,
        resumed_s=rig.moves(cleared_s)[0] - cleared_s,
    )


def joints_told_twice(case: Case, network: Network, folder: Path) -> Outcome:
    """A second node tells of the joints of an arm, from another place."""

    def told(*positions: float) -> Callable[[], JointState]:
        return lambda: JointState(name=["lift", "turn"], position=positions)

    command = {"type": "std_msgs/msg/Float64MultiArray", "fields": ["data[0]", "data[1]"]}
    command |= {"stop": "hold_measured", "joints": ["lift", "turn"]}
    held = Float64MultiArray(data=[0.25, 0.5])
    with closing(Rig(network, folder, nimble=True, stop=held, command=command)) as rig:
        first, second = (
            rig.opened(Repeated(node, JointState, "joint_states", told(*at), rate_hz=20.0, qos=10))
            for node, at in ((network.node, (0.25, 0.5)), (network.neighbour("replay_node"), (-0.4, 0.1)))
        )
        rig.activate()
        first.start()
        rig.lens.start()
        rig.rearm()
        since_s = time.monotonic()
        second.start()
        return observe(case, rig, since_s, end=second.silence)


def joints_silent(case: Case, network: Network, folder: Path) -> Outcome:
    """An arm's controller that tells no positions any more, which a stop would hold."""

    def positions() -> JointState:
        return JointState(name=["lift", "turn"], position=[0.25, 0.5])

    command = {"type": "std_msgs/msg/Float64MultiArray", "fields": ["data[0]", "data[1]"]}
    command |= {"stop": "hold_measured", "joints": ["lift", "turn"]}
    held = Float64MultiArray(data=[0.25, 0.5])
    with closing(Rig(network, folder, nimble=True, stop=held, command=command)) as rig:
        joints = rig.opened(Repeated(network.node, JointState, "joint_states", positions, rate_hz=20.0, qos=10))
        rig.activate()
        assert "joints" in rig.arm(), "arming waits for measured positions"
        joints.start()
        rig.lens.start()
        rig.rearm()
        return observe(case, rig, joints.silence(), end=joints.start)


# The process.


def terminated(case: Case, network: Network, folder: Path) -> Outcome:
    with closing(Rig(network, folder)) as rig:
        rig.drive()
        since_s = time.monotonic()
        rig.process.popen.send_signal(signal.SIGTERM)
        assert rig.process.wait() == 0
        time.sleep(0.2)
        stops_s = rig.stops(since_s)
        return Outcome(stop_s=stops_s[0] - since_s, gap_s=longest(stops_s), moved=len(rig.moves(stops_s[0])))


def launch_killed(case: Case, network: Network, folder: Path) -> Outcome:
    """Launch tells its processes nothing when it is ended by SIGTERM."""
    with closing(Rig(network, folder, prefix=(sys.executable, "-c", LAUNCH))) as rig:
        rig.drive()
        launch = rig.process.popen
        (node,) = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
        since_s = time.monotonic()
        launch.send_signal(signal.SIGTERM)
        rig.network.until(lambda: not Path(f"/proc/{node}").exists(), 10, "the node's end")
        stops_s = rig.stops(since_s)
        return Outcome(stop_s=stops_s[0] - since_s, gap_s=longest(stops_s), moved=len(rig.moves(stops_s[0])))


def killed(case: Case, network: Network, folder: Path) -> Outcome:
    """The simulated robot's own timeout is all there is."""
    robot = network.start("sim_robot_node", {"image_height": 48, "image_width": 64})
    with closing(Rig(network, folder, nimble=True)) as rig:
        rig.activate(use_sim_time=True, image__freeze_timeout_s=0.0, camera_info__check="off")
        rig.rearm()
        since_s = time.monotonic()
        rig.process.kill()
        network.until(lambda: "stopped: no command" in robot.log, 5, "the robot's own stop")
        return Outcome(stop_s=time.monotonic() - since_s)
