"""Faults that keep a robot from being armed, or that another node brings along: each a function over real processes.

fault_cases.py says what each is and what must come of it.
"""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from fault_case import SETTLED_S, Case, Outcome, observe
from fault_publishers import BEST_EFFORT, Repeated, publisher
from fault_rig import PERIOD_S, Rig
from geometry_msgs.msg import Twist
from ros_network import Network
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool, Int8

PAUSE_S = 3.5 * PERIOD_S
SLOW_HZ = 5.0
SIDEWAYS = {"constants": ["linear.y=0.5"]}


def barred(case: Case, rig: Rig, recover: Any) -> Outcome:
    """Asks to arm until the node says why not; then nothing moves when the cause has ended, until it is asked again."""
    since_s = time.monotonic()
    assert case.bars is not None
    refused = rig.network.until(lambda: _refusal(rig, case.bars or ""), 15, f"a refusal that says {case.bars!r}")
    diagnosed_s, diagnosis = case.diagnosis(rig, since_s) if case.says else (since_s, "")
    recover()
    time.sleep(1.0 + SETTLED_S)
    moved = len(rig.commands.since(since_s))
    rig.rearm()
    return Outcome(refused=refused, diagnosis=diagnosis, diagnosed_s=diagnosed_s - since_s, moved=moved)


def _refusal(rig: Rig, words: str) -> str:
    said = rig.arm()
    return said if all(some in said for some in words.split(" … ")) else ""


# What keeps it from being armed.


def no_camera(case: Case, rig: Rig) -> Outcome:
    rig.activate()
    return barred(case, rig, rig.lens.start)


def harmed_camera(harm: Any, case: Case, rig: Rig) -> Outcome:
    """A camera of which no frame can be used, from the start."""
    harmless = rig.lens.harm
    rig.lens.set(harm=harm)
    rig.lens.start()
    rig.activate()
    return barred(case, rig, lambda: rig.lens.set(harm=harmless))


def unstamped(image: Image) -> None:
    image.header.stamp.sec = image.header.stamp.nanosec = 0


def of_another_time(image: Image) -> None:
    image.header.stamp.sec = 1000


def spelled_otherwise(image: Image) -> None:
    image.encoding = "RGB8"


def slow_camera(case: Case, rig: Rig) -> Outcome:
    lens = rig.lens
    lens.period_s = 1 / SLOW_HZ
    lens.start()
    rig.activate()

    def recover() -> None:
        lens.silence()
        lens.period_s = 1 / 30
        lens.start()

    return barred(case, rig, recover)


def uncalibrated(case: Case, rig: Rig) -> Outcome:
    def info() -> CameraInfo:
        message = CameraInfo(height=8, width=8)
        if calibrated:
            message.k[0], message.k[2], message.k[4], message.k[5], message.k[8] = 5.2, 4.0, 5.2, 4.0, 1.0
        return message

    calibrated = False
    infos = rig.opened(Repeated(rig.network.node, CameraInfo, "camera_info", info, rate_hz=10.0, qos=BEST_EFFORT))
    infos.start()
    rig.lens.start()
    rig.activate(camera_info__check="refuse")

    def recover() -> None:
        nonlocal calibrated
        calibrated = True

    return barred(case, rig, recover)


def another_commander(case: Case, rig: Rig) -> Outcome:
    teleop = rig.network.neighbour("teleop")
    publisher(teleop, Twist, "/tested/cmd_vel", 1)
    rig.lens.start()
    rig.activate()
    return barred(case, rig, teleop.destroy_node)


def namesake(case: Case, network: Network, folder: Path) -> Outcome:
    """Another process of the same node name, which is not even configured."""
    with closing(Rig(network, folder)) as rig:
        rig.lens.start()
        rig.activate()
        since_s = time.monotonic()
        second = network.start("policy_node", {"policy": str(rig.policy)})
        case.diagnosis(rig, since_s)  # so that the first one knows of it
        return barred(case, rig, second.end)


def misspelt(case: Case, network: Network, folder: Path) -> Outcome:
    """A parameter that is meant to make it stricter ends the start."""
    with closing(Rig(network, folder, e_stop_requierd=True)) as rig:
        assert rig.process.wait() == 2
        refused = rig.process.log.strip()
        assert (case.bars or "") in refused
        return Outcome(refused=refused)


# What another node, or a pause, brings along while it drives.


def commander_appears(case: Case, rig: Rig) -> Outcome:
    rig.drive(command__other_publishers="stop")
    teleop = rig.network.neighbour("teleop")
    since_s = time.monotonic()
    publisher(teleop, Twist, "/tested/cmd_vel", 1)
    return observe(case, rig, since_s, end=teleop.destroy_node)


def e_stop_of_another_type(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    button = rig.network.neighbour("button")
    since_s = time.monotonic()
    publisher(button, Int8, "/tested/e_stop", 1)
    return observe(case, rig, since_s, end=button.destroy_node)


def second_deadman(case: Case, rig: Rig) -> Outcome:
    deadman = rig.switch("enable", True)
    rig.drive(enable_required=True)
    second = rig.network.neighbour("second_deadman")
    since_s = time.monotonic()
    publisher(second, Bool, "/tested/enable", 1)

    def press_anew() -> None:
        """Again where the edge was refused, since the graph still had the second node."""
        pressed_s = time.monotonic()

        def moves() -> list[float]:
            deadman.say(False)
            time.sleep(PERIOD_S)
            deadman.say(True)
            time.sleep(4 * PERIOD_S)
            return rig.moves(pressed_s)

        rig.network.until(moves, 10, "commands")

    return observe(case, rig, since_s, end=second.destroy_node, clear=press_anew)


def paused(case: Case, rig: Rig) -> Outcome:
    """SIGSTOP between two frames; the fault begins when the process goes on."""
    rig.drive()
    rig.process.popen.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    since_s = time.monotonic()
    rig.process.popen.send_signal(signal.SIGCONT)
    return observe(case, rig, since_s)


def constant_velocity(case: Case, network: Network, folder: Path) -> Outcome:
    """Its stops are zeros, as in every other row, although each of its commands has a constant velocity sideways."""
    with closing(Rig(network, folder, command=SIDEWAYS)) as rig:
        rig.drive()
        assert rig.commands[-1][1].linear.y == 0.5
        return observe(case, rig, rig.lens.silence(), end=rig.lens.start)
