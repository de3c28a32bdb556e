"""`sac-ae arm`, `disarm` and `state` as processes, against real policy_nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from geometry_msgs.msg import Twist
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from ros_network import ACTIVATE, CONFIGURE, NAMESPACE, ROOT, Camera, Network
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tiny_policy import write_policy

from sac_ae_ros.nodes.arming import LATCHED, render

NAME = f"{NAMESPACE}/policy_node"


def sac_ae(network: Network, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, which has one line at most."""
    command = [sys.executable, "-m", "sac_ae_ros.cli", *words]
    done = subprocess.run(command, cwd=ROOT, env=network.env, capture_output=True, text=True, check=False, timeout=60)
    assert len(done.stderr.splitlines()) <= 1, done.stderr
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def started(network: Network, tmp_path: Path, *transitions: int, **params):
    policy = write_policy(tmp_path / "tiny.onnx")
    process = network.start("policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0, **params})
    network.meet("policy_node")
    assert network.change(*transitions)
    return process


@pytest.mark.parametrize("words", [("arm",), ("disarm",), ("state",), ("disarm", "--all")])
def test_where_no_policy_node_is_one_line_says_so(network, words):
    code, out, err = sac_ae(network, *words, "--timeout", "1")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "found" in err
    assert "ROS_DOMAIN_ID" in err


def test_a_node_is_armed_looked_at_and_disarmed(network, tmp_path):
    started(network, tmp_path, CONFIGURE, ACTIVATE)
    commands = network.hear(Twist, "cmd_vel")

    code, out, err = sac_ae(network, "arm", NAME)
    assert (code, out) == (1, "")
    assert err.startswith(f"{NAME}: arm refused: ")

    with Camera(network).running():
        network.until(lambda: network.trigger("policy_node/arm").success)
        assert network.trigger("policy_node/disarm").success
        time.sleep(0.3)  # a disarming bars arming for 0.2 s
        assert sac_ae(network, "arm", NAME.lstrip("/")) == (0, f"{NAME}: armed", "")
        start_s = time.monotonic()
        network.until(lambda: any(twist != Twist() for twist in commands.since(start_s)), 10, "commands")

        code, out, err = sac_ae(network, "state", NAME, "--json")
        assert (code, err, json.loads(out)["armed"]) == (0, "", True)
        code, out, err = sac_ae(network, "state", NAME)
        assert (code, err) == (0, "")
        assert out.splitlines()[:2] == [f"node       {NAME}, active, output command", "armed      yes"]

        assert sac_ae(network, "disarm", NAME) == (0, f"{NAME}: disarmed", "")
        assert sac_ae(network, "disarm", "--all") == (0, f"{NAME}: was not armed", "")
    assert json.loads(sac_ae(network, "state", NAME, "--json")[1])["armed"] is False


def test_a_wrong_name_is_told_with_the_right_one(network, tmp_path):
    started(network, tmp_path)
    code, out, err = sac_ae(network, "disarm", "--timeout", "2")
    assert (code, out) == (2, "")
    assert f"found {NAME}" in err
    assert "--all" in err


def test_two_nodes_of_one_name_are_not_armed_but_both_disarmed(network, tmp_path):
    started(network, tmp_path, CONFIGURE, ACTIVATE)
    own = {"policy": str(tmp_path / "tiny.onnx"), "output": "shadow", "autostart": True}
    with Camera(network).running():
        network.arm()
        states = network.hear(String, "policy_node/state", qos=LATCHED)
        network.start("policy_node", own)

        def heard(key: str, value: object) -> set[str]:
            known = [json.loads(message.data) for _, message in list(states)]
            return {each["output"] for each in known if each[key] == value}

        network.until(lambda: heard("lifecycle", "active") == {"command", "shadow"})
        code, out, err = sac_ae(network, "arm", NAME)
        assert code == 2, err
        assert (out, "found 2" in err) == ("", True)
        code, out, err = sac_ae(network, "disarm", NAME)
        assert code == 2, err
        assert "2 nodes have this name" in err
        network.until(lambda: heard("armed", True) <= {"command"})
        network.until(lambda: set().union(*(heard("disarms", n) for n in range(1, 20))) == {"command", "shadow"})


def test_only_policy_nodes_are_all(network, tmp_path):
    """A drone's driver may offer ~/arm and ~/disarm as well."""
    called = []
    for name in ("arm", "disarm"):
        network.node.create_service(Trigger, f"drone/{name}", lambda _, answer: called.append(1) or answer)
    started(network, tmp_path)
    assert sac_ae(network, "disarm", "--all") == (0, f"{NAME}: was not armed", "")
    assert not called


@pytest.fixture
def hung(network) -> list[str]:
    """A node that never answers `~/arm`; returns what it was asked, in order."""
    asked: list[str] = []

    async def on_arm(_, answer):
        asked.append("arm")
        return await Future()

    def on_disarm(_, answer):
        asked.append("disarm")
        return answer

    for name, callback in (("arm", on_arm), ("disarm", on_disarm)):
        network.node.create_service(Trigger, f"hung/{name}", callback, callback_group=ReentrantCallbackGroup())
    return asked


def test_an_arming_that_is_not_answered_is_taken_back(network, hung):
    code, out, err = sac_ae(network, "arm", f"{NAMESPACE}/hung", "--timeout", "3")
    assert (code, out) == (2, "")
    assert err == f"error: {NAMESPACE}/hung: no answer within 3 s; ~/disarm was sent after ~/arm"
    assert hung == ["arm", "disarm"]


def test_an_arming_that_is_interrupted_is_taken_back(network, hung):
    command = [sys.executable, "-m", "sac_ae_ros.cli", "arm", f"{NAMESPACE}/hung", "--timeout", "60"]
    with subprocess.Popen(command, cwd=ROOT, env=network.env, stderr=subprocess.PIPE, text=True) as arming:
        network.until(lambda: hung == ["arm"], 20)
        arming.send_signal(signal.SIGINT)
        assert arming.wait(10) == 130
        assert arming.stderr.read() == "interrupted\n"
    assert hung == ["arm", "disarm"]


def test_a_state_that_is_none_is_one_line(network):
    for name in ("arm", "disarm", "reload", "rollback"):
        network.node.create_service(Trigger, f"other/{name}", lambda _, answer: answer)
    publisher = network.node.create_publisher(String, "other/state", LATCHED)
    for text in ("{", '{"armed": NaN}', "[]", "[" * 5000, '{"lifecycle": "\x1b[2J"}'):
        publisher.publish(String(data=text))
        code, out, err = sac_ae(network, "state", f"{NAMESPACE}/other")
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {NAMESPACE}/other/state: expected a policy node's JSON, got ")


def test_a_stop_is_rendered_with_its_reason():
    facts = {
        "lifecycle": "active", "output": "shadow", "armed": True, "stop": "e_stop", "detail": "e_stop is\x1b true",
        "causes": ["e_stop", "stale"], "lasting": "e_stop is\x1b true; no image", "barred": "another node",
        "unheard": "", "needs_arm": ["e_stop"], "novelty": "normal", "policy": None, "newer": 3,
        "reload": {"ok": False, "version": 2, "text": "version 2: refused"},
    }  # fmt: skip
    assert render("/a/policy_node", facts).splitlines() == [
        "node       /a/policy_node, active, output shadow",
        "armed      yes, but stopped",
        "stopped    e_stop: e_stop is\\x1b true",
        "lasting    e_stop, stale: e_stop is\\x1b true; no image",
        "barred     another node",
        "needs arm  e_stop",
        "novelty    normal",
        "policy     none loaded",
        "newer      version 3 in policy_dir",
        "reload     version 2: refused",
    ]
