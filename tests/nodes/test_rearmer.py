"""The rearmer beside a real policy_node: it arms what a busy machine has stopped, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, NAMESPACE, ROOT, Camera, Heard, Network
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from tiny_policy import write_policy

from sac_ae_ros.nodes.arming import LATCHED
from sac_ae_ros.nodes.convert import from_ns
from sac_ae_ros.nodes.rearmer import AFTER_S, may_rearm

QUIET_S = AFTER_S + 2.0  # it would have armed by then
STOPPED = {"armed": True, "stop": "stale", "causes": [], "latched": ["stale"], "needs_arm": [], "disarms": 0}


def driving(network: Network, tmp_path, **params: Any) -> tuple[Any, Camera, Heard]:
    """An armed policy_node with the rearmer beside it; the camera runs."""
    policy = write_policy(tmp_path / "tiny.onnx")
    own = {"policy": str(policy), "arm_on_activate": True, "image.freeze_timeout_s": 0.0}
    network.start("policy_node", {**own, **params})
    rearmer = network.start("rearmer", {"domain_id": network.domain_id})
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    network.meet("rearmer")
    camera = Camera(network)
    camera.start()
    network.until(lambda: len(commands) > 3, 10, "commands")
    return rearmer, camera, commands


@pytest.fixture
def end_camera() -> Iterator[Callable[[Camera], None]]:
    cameras: list[Camera] = []
    yield cameras.append
    for camera in cameras:
        camera.close()


def stopped(network: Network, commands: Heard, since_s: float) -> None:
    network.until(lambda: Twist() in commands.since(since_s), 5, "a stop")


def moving(commands: Heard, since_s: float) -> bool:
    return any(twist != Twist() for twist in commands.since(since_s))


def test_a_node_that_was_stopped_for_want_of_frames_goes_on(network, tmp_path, end_camera):
    rearmer, camera, commands = driving(network, tmp_path)
    end_camera(camera)
    stopped(network, commands, camera.stop())
    time.sleep(QUIET_S)
    assert "armed anew" not in rearmer.log, "the cause lasts"
    began_s = time.monotonic()
    camera.start()
    network.until(lambda: moving(commands, began_s), 10, "commands")
    network.until(lambda: "armed anew" in rearmer.log, 5, f"a word of it in {rearmer.log}")


def test_a_node_that_was_stopped_by_its_clock_goes_on(network, tmp_path, end_camera):
    clock = network.node.create_publisher(Clock, "/clock", 1)
    ahead_ns = 0

    def tick() -> None:
        clock.publish(Clock(clock=from_ns(time.time_ns() + ahead_ns)))

    network.node.create_timer(0.02, tick)
    policy_params = {"use_sim_time": True, "max_clock_jump_s": 0.5, "max_age_s": 60.0, "max_future_s": 60.0}
    rearmer, camera, commands = driving(network, tmp_path, **policy_params)
    end_camera(camera)
    jumped_s = time.monotonic()
    ahead_ns = 30 * 10**9
    stopped(network, commands, jumped_s)
    network.until(lambda: "armed anew" in rearmer.log, 10, f"a word of it in {rearmer.log}")
    network.until(lambda: moving(commands, jumped_s + AFTER_S), 5, "commands")


def test_an_emergency_stop_is_left_to_a_person(network, tmp_path, end_camera):
    rearmer, camera, commands = driving(network, tmp_path)
    end_camera(camera)
    button = network.node.create_publisher(Bool, "e_stop", 10)
    network.meet("policy_node")
    stopped(network, commands, camera.stop())  # stale as well
    button.publish(Bool(data=True))
    time.sleep(0.3)
    button.publish(Bool(data=False))
    began_s = time.monotonic()
    camera.start()
    time.sleep(QUIET_S)
    assert not moving(commands, began_s)
    assert "armed anew" not in rearmer.log
    assert network.ask_to_arm().success


def test_a_node_that_a_person_has_disarmed_stays_so(network, tmp_path, end_camera):
    rearmer, camera, commands = driving(network, tmp_path)
    end_camera(camera)
    stopped(network, commands, camera.stop())
    assert network.trigger("policy_node/disarm").message == "disarmed"
    began_s = time.monotonic()
    camera.start()
    time.sleep(QUIET_S)
    assert not moving(commands, began_s)
    assert "armed anew" not in rearmer.log


@pytest.mark.parametrize("crossed", [True, False])
def test_a_disarm_that_crosses_the_arming_wins(network, crossed):
    """The person's call comes between the rearmer's decision and its call."""
    calls: list[str] = []
    state = network.node.create_publisher(String, "policy_node/state", LATCHED)

    def tell(**changes: Any) -> None:
        state.publish(String(data=json.dumps({**STOPPED, **changes})))

    def service(name: str) -> Callable[[Any, Any], Any]:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            calls.append(name)
            response.success = True
            if name == "arm":
                tell(stop=None, latched=[], disarms=1 if crossed else 0)
            return response

        return answer

    for name in ("arm", "disarm"):
        network.node.create_service(Trigger, f"policy_node/{name}", service(name))
    network.start("rearmer", {"domain_id": network.domain_id})
    tell()
    network.until(lambda: calls, 15, "the arming")
    time.sleep(1.0)
    assert calls == (["arm", "disarm"] if crossed else ["arm"])


def test_a_refusal_is_followed_by_another_try_only_while_the_stop_lasts(network):
    calls: list[float] = []
    state = network.node.create_publisher(String, "policy_node/state", LATCHED)

    def refuse(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        calls.append(time.monotonic())
        response.message = "arm refused: frames come too slowly"
        return response

    network.node.create_service(Trigger, "policy_node/arm", refuse)
    rearmer = network.start("rearmer", {"domain_id": network.domain_id})
    state.publish(String(data=json.dumps(STOPPED)))
    network.until(lambda: len(calls) > 1, 15, "another try")
    assert calls[1] - calls[0] > 0.8 * AFTER_S
    assert "not armed anew yet: arm refused: frames come too slowly" in rearmer.log
    state.publish(String(data=json.dumps({**STOPPED, "armed": False, "disarms": 1})))
    time.sleep(0.5)
    tries = len(calls)
    time.sleep(QUIET_S)
    assert len(calls) == tries


def test_a_state_that_no_policy_node_wrote_is_ignored(network):
    calls: list[str] = []
    state = network.node.create_publisher(String, "policy_node/state", LATCHED)

    def refuse(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        calls.append("arm")
        response.message = "arm refused: \x1b[2J" + "x" * 10**5
        return response

    network.node.create_service(Trigger, "policy_node/arm", refuse)
    rearmer = network.start("rearmer", {"domain_id": network.domain_id})
    for text in ("[]", "{}", "x", '{"armed": NaN}', "[" * 5000, json.dumps({**STOPPED, "latched": None})):
        state.publish(String(data=text))
        network.until(lambda: "expected a policy node's JSON" in rearmer.log, 15, "a complaint")
        time.sleep(0.2)
    for key, value in (("disarms", "x"), ("armed", "false"), ("causes", "stale")):
        state.publish(String(data=json.dumps({**STOPPED, key: value})))
        time.sleep(0.2)
    time.sleep(QUIET_S)
    assert not calls
    assert rearmer.popen.poll() is None
    state.publish(String(data=json.dumps(STOPPED)))
    network.until(lambda: "not armed anew yet" in rearmer.log, 10, "a try")
    assert "Traceback" not in rearmer.log
    assert "\x1b[2J" not in rearmer.log
    assert all(len(line) < 3000 for line in rearmer.log.splitlines())


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"stop": "clock", "latched": ["clock", "stale"], "needs_arm": ["clock"]}, True),
        ({"causes": ["stale"]}, False),
        ({"armed": False, "stop": None, "latched": []}, False),
        ({"stop": None, "latched": []}, False),
        ({"latched": ["stale", "e_stop"]}, False),
        ({"needs_arm": ["nan"]}, False),
        ({"stop": "hung", "latched": ["hung"], "needs_arm": ["hung"]}, False),
    ],
)
def test_what_it_arms_after(changes, may):
    assert may_rearm({**STOPPED, **changes}) is may


@pytest.mark.parametrize(
    ("domain", "env"),
    [
        ("-1", {}),
        ("other", {}),
        ("own", {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}),
        ("own", {"ROS_AUTOMATIC_DISCOVERY_RANGE": ""}),
        ("own", {"ROS_STATIC_PEERS": "127.0.0.9"}),
    ],
)
def test_it_refuses_to_run_where_a_robot_could_be(shared_network, domain, env):
    network = shared_network
    number = {"own": network.domain_id, "other": network.domain_id + 1}.get(domain, -1)
    words = [sys.executable, "-m", "sac_ae_ros.nodes.rearmer", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    done = subprocess.run(
        [*words, "-p", f"domain_id:={number}"],
        env={**network.env, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: rearmer: expected")
