"""How nodes end with the launch that started them, and how they take signals that come twice; real processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
import tiny_bag
from geometry_msgs.msg import Twist
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_network import ACTIVATE, CONFIGURE, NAMESPACE, ROOT, Camera, Network, kill
from tiny_policy import write_policy

from sac_ae_ros.nodes.process import LAUNCH_PID, SAME_REQUEST_S, spin

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# As `ros2 launch` runs in the background of a script: SIGINT is ignored, and the output of the node is piped. A process
# between the two stands for a launch-prefix.
LAUNCHER = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
env = {**os.environ, sys.argv[1]: str(os.getpid())}
node = subprocess.Popen(sys.argv[2:], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(node.pid, flush=True)
for line in node.stdout:
    print(line.decode(), end="", file=sys.stderr, flush=True)
"""
SLOW_NODE = """
import sys, time
from rclpy.node import Node
from sac_ae_ros.nodes import process

class Slow(Node):
    def destroy_node(self):
        print("destroying", flush=True)
        super().destroy_node()

def use(node, end):
    print("ready", flush=True)
    assert end.wait(20)
    time.sleep(float(sys.argv[1]))
    return 0

raise SystemExit(process.run(lambda _: Slow("slow"), use, []))
"""
_libc = ctypes.CDLL(None)


def command(node: str, *parameters: str) -> list[str]:
    given = [part for parameter in parameters for part in ("-p", parameter)]
    return [sys.executable, "-m", f"sac_ae_ros.nodes.{node}", "--ros-args", "-r", f"__ns:={NAMESPACE}", *given]


class Launched:
    """A process and the one that has started it."""

    def __init__(self, network: Network, variable: str, words: list[str], log: Path) -> None:
        with log.open("wb") as output:
            self.launcher = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, variable, *words],
                env=network.env,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=output,
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        assert self.launcher.stdout is not None
        self.pid = int(self.launcher.stdout.readline())
        self._log = log
        self._code: int | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end_launch(self, number: int) -> float:
        """Returns when the launcher was gone."""
        self.launcher.send_signal(number)
        assert self.launcher.wait(5) == -number
        return time.monotonic()

    def code(self) -> int | None:
        """The exit code of the process, once it is an orphan and has ended; None before."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, network: Network, timeout_s: float = 10.0) -> int:
        network.until(lambda: self.code() is not None, timeout_s, f"the end of the process: {self.log}")
        assert self._code is not None
        return self._code

    def close(self) -> None:
        self.launcher.kill()
        self.launcher.communicate()
        if self.code() is None:
            kill(self.pid)
            os.waitpid(self.pid, 0)


@pytest.fixture
def launched(network: Network, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts processes by way of another process; this one inherits them when that one ends."""
    started: list[Launched] = []

    def start(words: list[str], variable: str = LAUNCH_PID) -> Launched:
        started.append(Launched(network, variable, words, tmp_path / f"launched{len(started)}.log"))
        return started[-1]

    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield start
    for each in started:
        each.close()
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "tiny.onnx")


def driving(network: Network, launched: Callable[..., Launched], words: list[str], **options: str):
    """An armed policy_node and what it commands, once it does."""
    commands = network.hear(Twist, "cmd_vel")
    node = launched(words, **options)
    assert network.change(CONFIGURE, ACTIVATE)
    return node, commands


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_armed_node_whose_launch_is_killed_sends_its_stops_and_ends(network, launched, policy, number):
    node, commands = driving(
        network,
        launched,
        command("policy_node", f"policy:={policy}", "arm_on_activate:=true", "image.freeze_timeout_s:=0.0"),
    )
    with Camera(network).running():
        network.until(lambda: len(commands) > 3, 10, "commands")
        ended_s = node.end_launch(number)
        assert node.wait(network, 5) == 0
        gone_s = time.monotonic()
    time.sleep(0.2)
    stops = [at_s for at_s, twist in list(commands) if at_s >= ended_s and twist == Twist()]
    assert 4 <= len(stops) <= 8
    assert stops[-1] - stops[0] > 0.35
    assert commands[-1][1] == Twist(), "the last word is a stop"
    assert gone_s - ended_s < 4


def words_of(node: str, tmp_path: Path) -> list[str]:
    if node == "replay_node":
        images = [(tiny_bag.START_NS + i * 10**8, "/image", tiny_bag.image(tiny_bag.START_NS, 90)) for i in range(300)]
        return command(node, f"bag:={tiny_bag.write(tmp_path / 'played', images)}", "wait_for:=0")
    if node == "record_node":
        return command(node, f"out:={tmp_path / 'recorded'}")
    return command(node, "image_height:=48", "image_width:=64")


@pytest.mark.parametrize(
    ("node", "ready", "code"),
    [
        ("replay_node", "at rate 1: /image", 0),
        ("record_node", "recording to", 1),  # as at SIGTERM: nothing was recorded
        ("sim_robot_node", "episode with seed 0 begins", 0),
    ],
)
def test_every_node_ends_with_its_launch(network, launched, tmp_path, node, ready, code):
    process = launched(words_of(node, tmp_path))
    network.until(lambda: ready in process.log, 30, f"{ready} in {process.log}")
    process.end_launch(signal.SIGTERM)
    assert process.wait(network) == code


def test_a_node_that_no_launch_file_started_outlives_its_parent(network, launched, policy):
    words = command("policy_node", f"policy:={policy}", "arm_on_activate:=true", "image.freeze_timeout_s:=0.0")
    node, commands = driving(network, launched, words, variable="ANYTHING_ELSE")
    with Camera(network).running():
        network.until(lambda: len(commands) > 3, 10, "commands")
        ended_s = node.end_launch(signal.SIGKILL)
        time.sleep(1.5)
        assert node.code() is None
        later = commands.since(ended_s + 1)
        assert later
        assert Twist() not in later


def test_a_node_behind_a_launch_prefix_ends_with_its_launch_and_not_before(network, launched, tmp_path):
    words = words_of("replay_node", tmp_path)
    process = launched(["sh", "-c", '"$@"; exit $?', "prefix", *words])
    network.until(lambda: "at rate 1: /image" in process.log, 20, f"the node in {process.log}")
    time.sleep(0.5)
    assert process.launcher.poll() is None
    process.end_launch(signal.SIGKILL)
    assert process.wait(network) == 0


def test_a_node_whose_launch_ended_before_it_could_look_ends_at_once(network, tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    node = network.start("record_node", {"out": str(tmp_path / "drive")}, **{LAUNCH_PID: str(gone.pid)})
    assert node.wait(20) == 1
    assert "the launch that started this node has ended" in node.log


@pytest.fixture
def slow_node(network: Network) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a node that takes that many seconds for its end, and tells of it."""
    started = []

    def start(seconds: float, **env: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SLOW_NODE, str(seconds)]
        process = subprocess.Popen(words, env={**network.env, **env}, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("env", "requests"), [({}, 1), ({LAUNCH_PID: str(os.getpid())}, 2)])
def test_a_node_that_hangs_is_ended_by_one_more_ctrl_c_than_one_request_brings(slow_node, env, requests):
    """`ros2 launch` passes on what the terminal has sent already, and rather late on a busy machine."""
    process = slow_node(30.0, **env)
    for _ in range(requests):
        process.send_signal(signal.SIGINT)
        time.sleep(SAME_REQUEST_S + 0.2)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(2) == 128 + signal.SIGINT


def test_signals_during_the_end_of_the_process_do_not_change_its_code(slow_node):
    process = slow_node(SAME_REQUEST_S + 0.1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "destroying\n"
    until_s = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < until_s:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert process.wait(1) == 0


@pytest.mark.parametrize("number", ["233", "-1"])
def test_a_domain_that_cannot_be_is_one_line(tmp_path, number):
    env = {**os.environ, "ROS_DOMAIN_ID": number}
    words = command("policy_node")
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: ROS_DOMAIN_ID: expected 0 to 232, got '{number}'\n"


@pytest.mark.parametrize("by", ["context", "executor", "defect"])
def test_only_a_defect_that_ends_spinning_is_told(network, by):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=network.domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node, executor, told = Node("spinner", context=context), SingleThreadedExecutor(context=context), []
    executor.add_node(node)
    spinning = threading.Thread(target=lambda: told.append(spin(executor)))
    spinning.start()
    time.sleep(0.2)

    def trip() -> None:
        raise RuntimeError("a defect")

    if by == "context":
        rclpy.shutdown(context=context)
    elif by == "executor":
        executor.shutdown()
    else:
        node.create_timer(0.01, trip)
        executor.wake()
    spinning.join(10)
    (text,) = told
    assert ("RuntimeError: a defect" in text) if by == "defect" else text == ""
    rclpy.try_shutdown(context=context)
