"""Two nodes on one robot: neither is armed, and one that appears later is told, or stops it. Over real processes."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_network import ACTIVATE, CONFIGURE, Camera, Network, kill
from std_msgs.msg import Bool, Int8, String
from std_srvs.srv import Trigger
from tiny_policy import write_policy

from sac_ae_ros.nodes.graph_watch import DISCOVERY_S, KILLED_S

NEIGHBOUR = """
import sys, rclpy
from geometry_msgs.msg import Twist
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, Int8
rclpy.init()
node = rclpy.create_node("neighbour", namespace="/tested")
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
if sys.argv[1] == "rival":
    publisher = node.create_publisher(Twist, "cmd_vel", 1)
elif sys.argv[1] == "pressed":
    publisher = node.create_publisher(Bool, "e_stop", latched)
    publisher.publish(Bool(data=True))
else:
    publisher = node.create_publisher(Int8, "e_stop", 1)
print("there", flush=True)
rclpy.spin(node)
"""
LIVELY = {"image": {"freeze_timeout_s": 0.0}}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "tiny.onnx")


def start(network: Network, policy: Path, **params: Any) -> Any:
    process = network.start("policy_node", {"policy": str(policy), **LIVELY, **params})
    assert network.change(CONFIGURE, ACTIVATE), process.log
    return process


def refusal(network: Network, says: str, timeout_s: float = 10.0) -> str:
    """What `~/arm` answers once it says that."""
    heard = [""]

    def said() -> bool:
        answer = network.trigger("policy_node/arm")
        assert not answer.success
        heard[0] = answer.message
        return says in answer.message

    network.until(said, timeout_s, f"a refusal that says {says!r}")
    return heard[0]


def state(network: Network) -> Callable[[], Any]:
    heard = network.hear(String, "policy_node/state")
    network.meet("policy_node")
    return lambda: json.loads(heard[-1][1].data) if heard else {"stop": None, "detail": ""}


def test_another_publisher_of_commands_keeps_the_robot_from_being_armed(network, policy):
    start(network, policy)
    teleop = network.neighbour("teleop")
    teleop.create_publisher(Twist, "/tested/cmd_vel", 1)
    with Camera(network).running():
        said = refusal(network, "/tested/teleop (geometry_msgs/msg/Twist)")
        network.barred_as_diagnosed(network.hear(DiagnosticArray, "/diagnostics"), "/tested/teleop")
        assert "list it in command.allow_publishers" in said
        assert "a process that was killed counts for up to 20 s" in said
        teleop.destroy_node()
        network.arm()


def test_a_publisher_that_is_listed_may_command_as_well(network, policy):
    start(network, policy, command={"allow_publishers": ["/tested/teleop"]})
    network.neighbour("teleop").create_publisher(Twist, "/tested/cmd_vel", 1)
    network.until(lambda: network.node.count_publishers("cmd_vel") == 2, 10, "both publishers")
    with Camera(network).running():
        network.arm()


def test_a_name_that_is_not_a_full_one_fails_configure(network, policy):
    settings = {"policy": str(policy), "command": {"allow_publishers": ["teleop"]}}
    process = network.start("policy_node", settings)
    assert not network.change(CONFIGURE)
    assert "command.allow_publishers: expected full names of nodes" in process.log


@pytest.mark.parametrize("reaction", ["report", "stop"])
def test_a_publisher_that_appears_later_is_an_error_and_a_stop_where_wanted(network, policy, reaction):
    start(network, policy, command={"other_publishers": reaction})
    diagnostics, commands = network.hear(DiagnosticArray, "/diagnostics"), network.hear(Twist, "cmd_vel")
    read = state(network)
    with Camera(network).running():
        network.arm()
        network.until(lambda: commands, 10, "commands")
        teleop = network.neighbour("teleop")
        teleop.create_publisher(Twist, "/tested/cmd_vel", 1)

        def told() -> bool:
            statuses = [status for _, array in list(diagnostics) for status in array.status]
            return any(each.level == DiagnosticStatus.ERROR and "/tested/teleop" in each.message for each in statuses)

        network.until(told, 10, "an error in /diagnostics")
        if reaction == "report":
            moving_s = time.monotonic()
            network.until(lambda: [each for each in commands.since(moving_s) if each != Twist()], 5, "commands")
            assert read()["stop"] is None
            return
        network.until(lambda: read()["stop"] == "rival", 5, "a stop")
        assert "/tested/teleop" in read()["detail"]
        network.until(lambda: commands[-1][1] == Twist(), 2, "a stop")
        teleop.destroy_node()
        network.arm()


def test_two_processes_of_one_name_are_both_refused(network, policy):
    first = start(network, policy)
    second = network.start("policy_node", {"policy": str(policy), **LIVELY})
    network.until(lambda: network.node.count_services("/tested/policy_node/arm") == 2, 10, "the second node")
    commands = network.hear(Twist, "cmd_vel")
    # a request reaches both of them
    client = network.node.create_client(ChangeState, "policy_node/change_state")
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        network.until(client.service_is_ready, 10, "the service")
        client.call_async(ChangeState.Request(transition=Transition(id=number)))
        time.sleep(1.0)
    network.until(lambda: all("active" in each.log for each in (first, second)), 10, "both active")
    with Camera(network).running():
        said = refusal(network, "got another process that does")
        assert "/tested/policy_node/arm" in said
        time.sleep(0.5)
        assert not commands, "of neither"
        kill(second.popen.pid)
        second.popen.wait()
        assert "a process that was killed counts for up to 20 s" in said
        network.until(answered_and_armed(network), KILLED_S + 10, "arming once the graph has forgotten it")
        assert commands or network.until(lambda: commands, 5, "commands")


def answered_and_armed(network: Network) -> Callable[[], bool]:
    """Asks again and again: a request that only the killed process would have answered is never answered."""
    client = network.node.create_client(Trigger, "policy_node/arm")

    def armed() -> bool:
        future = client.call_async(Trigger.Request())
        end_s = time.monotonic() + 1
        while not future.done() and time.monotonic() < end_s:
            time.sleep(0.01)
        return future.done() and future.result().success

    return armed


def test_a_node_that_is_started_anew_after_it_was_killed_can_be_armed(network, policy):
    first = start(network, policy)
    with Camera(network).running():
        network.arm()
        kill(first.popen.pid)
        first.popen.wait()
        network.start("policy_node", {"policy": str(policy), **LIVELY})
        network.until(lambda: network.node.count_services("/tested/policy_node/arm") == 2, 10, "both in the graph")
        assert network.change(CONFIGURE, ACTIVATE)
        network.until(answered_and_armed(network), KILLED_S + 10, "arming")


def test_an_emergency_stop_that_cannot_be_heard_stops_the_robot(network, policy):
    start(network, policy)
    read, commands = state(network), network.hear(Twist, "cmd_vel")
    with Camera(network).running():
        network.arm()
        network.until(lambda: commands, 10, "commands")
        button = network.neighbour("button")
        button.create_publisher(Int8, "/tested/e_stop", 1)
        network.until(lambda: read()["stop"] == "e_stop", 5, "a stop")
        assert "/tested/button (std_msgs/msg/Int8)" in read()["detail"]
        network.until(lambda: commands[-1][1] == Twist(), 2, "a stop")
        refusal(network, "/tested/button (std_msgs/msg/Int8), which nobody hears")
        button.destroy_node()
        network.arm()


def test_a_second_deadman_stops_the_robot_whatever_both_say(network, policy):
    # patient: a camera that a busy machine keeps waiting is another stop
    node = start(network, policy, enable_required=True, enable_timeout_s=30.0, watchdog_timeout_s=20.0)
    read, commands = state(network), network.hear(Twist, "cmd_vel")
    deadman = network.node.create_publisher(Bool, "enable", 1)
    network.until(deadman.get_subscription_count, 10, "the node on enable")
    with Camera(network).running():

        def pressed() -> bool:
            for on in (False, True):
                deadman.publish(Bool(data=on))
                time.sleep(0.2)
            return any(each != Twist() for _, each in list(commands))

        network.until(pressed, 15, "commands")
        network.neighbour("second").create_publisher(Bool, "/tested/enable", 1)
        network.until(lambda: read()["stop"] == "enable", 15, "a stop")
        assert "expected one node that publishes enable, got /tested/second, /tested/test" in read()["detail"]
        network.until(lambda: commands[-1][1] == Twist(), 5, "a stop on the topic")
        stopped_s = time.monotonic()
        refused = node.log.count("arm refused: ")

        def refused_anew() -> bool:
            pressed()
            return node.log.count("arm refused: ") > refused

        network.until(refused_anew, 15, "an edge that was heard and refused")
        assert all(each == Twist() for each in commands.since(stopped_s))


@pytest.mark.parametrize("how", ["~/arm", "enable", "arm_on_activate"])
def test_nobody_arms_before_discovery_has_had_its_time(network, policy, how):
    deadman = network.node.create_publisher(Bool, "enable", 1)
    commands = network.hear(Twist, "cmd_vel")
    own = {"~/arm": {}, "enable": {"enable_required": True, "enable_timeout_s": 30.0}}.get(how, {how: True})
    start_s = time.monotonic()
    network.start("policy_node", {"policy": str(policy), **LIVELY, **own, "autostart": True})

    def moves() -> bool:
        if how == "~/arm":
            network.trigger("policy_node/arm")
        for on in (False, True) if how == "enable" else ():
            deadman.publish(Bool(data=on))
            time.sleep(0.1)
        return any(each != Twist() for _, each in list(commands))

    with Camera(network).running():
        network.until(moves, 20, "commands")
    assert commands[0][0] - start_s > DISCOVERY_S


def test_a_node_that_commands_nobody_need_not_listen_for_others(network, policy):
    node = start(network, policy, output="shadow")
    assert "active and not armed: call ~/arm; commands go to /tested/policy_node/shadow_cmd only" in node.log


@pytest.mark.parametrize(
    ("neighbour", "says"),
    [
        ("rival", "/tested/neighbour (geometry_msgs/msg/Twist)"),
        ("pressed", "the emergency stop is pressed"),
        ("of another type", "/tested/neighbour (std_msgs/msg/Int8), which nobody hears"),
    ],
)
def test_what_arms_by_itself_does_not_beside_what_was_there_first(network, policy, neighbour, says):
    commands = network.hear(Twist, "cmd_vel")
    command = [sys.executable, "-c", NEIGHBOUR, neighbour]
    with (
        subprocess.Popen(command, env=network.env, stdout=subprocess.PIPE, text=True) as other,
        Camera(network).running(),
    ):
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "there\n"
            own = {"policy": str(policy), **LIVELY, "arm_on_activate": True, "autostart": True}
            node = network.start("policy_node", own)
            network.until(lambda: "not armed by itself" in node.log, 20, "a refusal")
            assert re.search(r" active and arms at the first frame after [23]\.\d s\n", node.log)
            assert says in node.log
            time.sleep(1.0)
            assert all(each == Twist() for _, each in list(commands))
        finally:
            kill(other.pid)
