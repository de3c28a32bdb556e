"""`sac-ae arm`, `disarm` and `state` as processes, against real policy_nodes."""

from __future__ import annotations

import json
import os
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
from sac_ae_ros.nodes.graph_watch import DISCOVERY_S
from sac_ae_ros.nodes.policy_state import LISTENS

NAME = f"{NAMESPACE}/policy_node"
LOOKING = "looking for other nodes of this name, for "
STATE = {
    "lifecycle": "active", "output": "shadow", "armed": True, "disarms": 0, "stop": None, "detail": "", "latched": [],
    "causes": [], "needs_arm": [], "novelty": "normal", "policy": None, "stored_version": None, "newer": None,
    "reload": None,
}  # fmt: skip


def sac_ae(network: Network, *words: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, which has one line at most beside that of looking for others."""
    command = [sys.executable, "-m", "sac_ae_ros.cli", *words]
    own = {**network.env, **env}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if LOOKING not in line]
    assert len(complaints) <= 1, done.stderr
    return done.returncode, done.stdout.strip(), "".join(complaints).strip()


def spawn(network: Network, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sac_ae_ros.cli", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=network.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Impostor:
    """A node that offers the services of a policy node and publishes `~/state`; notes what it is asked."""

    def __init__(self, network: Network, name: str = "policy_node", state: str = "") -> None:
        self.asked: list[str] = []
        self.on_arm = lambda: None
        self.message = ""
        self.refusals: list[str] = []  # what it answers to `~/arm` first
        self._node, self._name = network.node, name
        for service in ("arm", "disarm", "reload", "rollback"):
            network.node.create_service(Trigger, f"{name}/{service}", self._answering(service))
        self._state = network.node.create_publisher(String, f"{name}/state", LATCHED) if state else None
        if state:
            self.say(state)

    def say(self, state: str) -> None:
        self._state.publish(String(data=state))

    def _answering(self, service: str):
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            self.asked.append(service)
            if service == "arm":
                self.on_arm()
                if self.refusals:
                    response.message = self.refusals.pop(0)
                    return response
            response.success, response.message = True, self.message or f"{service}ed"
            return response

        return answer


def started(network: Network, tmp_path: Path, *transitions: int, **params):
    policy = write_policy(tmp_path / "tiny.onnx")
    process = network.start("policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0, **params})
    network.meet("policy_node")
    assert network.change(*transitions)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("words", [("arm",), ("disarm",), ("state",), ("disarm", "--all")])
def test_where_no_policy_node_is_one_line_says_so(network, words):
    code, out, err = sac_ae(network, *words, "--timeout", "1")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "found" in err
    assert "ROS_DOMAIN_ID" in err


def test_a_node_is_armed_looked_at_and_disarmed(network, tmp_path):
    started(network, tmp_path, CONFIGURE, ACTIVATE, watchdog_timeout_s=5.0)  # the machine is busy with verbs
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


@pytest.mark.slow
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

        network.until(lambda: heard("lifecycle", "active") == {"command", "shadow"}, 30, "~/state of both")
        code, out, err = sac_ae(network, "arm", NAME, "--timeout", "15")
        assert code == 2, err
        assert (out, "found 2" in err) == ("", True)
        code, out, err = sac_ae(network, "disarm", NAME, "--timeout", "15")
        assert code == 2, err
        assert "2 nodes have this name" in err
        assert heard("armed", True) <= {"command"}
        network.until(lambda: set().union(*(heard("disarms", n) for n in range(1, 20))) == {"command", "shadow"}, 30)


@pytest.mark.slow
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


def test_a_node_that_still_listens_for_others_is_asked_again(network):
    node = Impostor(network, "other", json.dumps(STATE))
    listens = f"arm refused: the node {LISTENS} 0.4 s more"
    node.refusals = [listens, listens]
    assert sac_ae(network, "arm", f"{NAMESPACE}/other") == (
        0,
        f"{NAMESPACE}/other: armed",
        f"{NAMESPACE}/other: not yet, asking again: {listens}",
    )
    assert node.asked == ["arm"] * 3


def test_an_arming_that_is_not_answered_is_taken_back(network, hung):
    code, out, err = sac_ae(network, "arm", f"{NAMESPACE}/hung", "--timeout", "3")
    assert (code, out) == (2, "")
    assert err == f"error: {NAMESPACE}/hung: no answer to ~/arm in time; ~/disarm was sent after ~/arm"
    assert hung == ["arm", "disarm"]


@pytest.mark.slow
def test_an_arming_that_is_interrupted_is_taken_back(network, hung):
    command = [sys.executable, "-m", "sac_ae_ros.cli", "arm", f"{NAMESPACE}/hung", "--timeout", "60"]
    with subprocess.Popen(command, cwd=ROOT, env=network.env, stderr=subprocess.PIPE, text=True) as arming:
        network.until(lambda: hung == ["arm"], 20)
        arming.send_signal(signal.SIGINT)
        assert arming.wait(10) == 130
        assert arming.stderr.read() == "interrupted\n"
    assert hung == ["arm", "disarm"]


@pytest.mark.slow
def test_a_node_that_shows_late_is_disarmed_too_if_the_first_was_not_armed(network, tmp_path):
    """DDS may lose the word of a node: it may be the one that drives."""
    started(network, tmp_path)
    with spawn(network, "disarm", NAME, "--timeout", "9") as disarming:
        assert disarming.stdout.readline() == f"{NAME}: was not armed\n"
        assert LOOKING in disarming.stderr.readline()
        time.sleep(DISCOVERY_S + 0.5)
        twin = Impostor(network)
        assert disarming.wait(20) == 2
        assert "2 nodes have this name" in disarming.stderr.read()
    assert "disarm" in twin.asked


@pytest.mark.slow
@pytest.mark.parametrize("twins", [0, 1])
def test_after_a_node_that_was_armed_others_are_looked_for_as_long_as_discovery_takes(network, tmp_path, twins):
    started(network, tmp_path, CONFIGURE, ACTIVATE)
    with Camera(network).running():
        network.arm()
        with spawn(network, "disarm", NAME, "--timeout", "12" if twins else "500") as disarming:
            assert disarming.stdout.readline() == f"{NAME}: disarmed\n"
            said = disarming.stderr.readline()
            assert float(said.partition(LOOKING)[2].split()[0]) <= DISCOVERY_S
            found = [Impostor(network) for _ in range(twins)]
            assert disarming.wait(60) == (2 if twins else 0)
        assert all("disarm" in each.asked for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("state",), ("state", "--json"), ("arm",)])
def test_another_node_that_shows_late_is_refused(network, tmp_path, words):
    started(network, tmp_path)
    with spawn(network, *words, NAME) as asking:
        time.sleep(3.0)
        twin = Impostor(network)
        out, err = asking.communicate(timeout=30)
    assert (asking.returncode, out) == (2, "")
    assert "found 2" in err
    assert "arm" not in twin.asked


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["arm", "state"])
def test_another_publisher_of_the_state_is_refused(network, tmp_path, verb):
    started(network, tmp_path)
    network.node.create_publisher(String, "policy_node/state", LATCHED).publish(String(data=json.dumps(STATE)))
    code, out, err = sac_ae(network, verb, NAME)
    assert (code, out) == (2, "")
    assert f"publishes {NAME}/state, found 2" in err


@pytest.mark.slow
@pytest.mark.parametrize("state", ["", json.dumps({**STATE, "armed": False}), "[]"])
def test_an_arming_that_the_state_does_not_show_is_taken_back(network, state):
    node = Impostor(network, "other", state)
    code, out, err = sac_ae(network, "arm", f"{NAMESPACE}/other")
    assert (code, out) == (2, "")
    assert err.endswith("; ~/disarm was sent after ~/arm")
    assert node.asked == ["arm", "disarm"]


@pytest.mark.slow
def test_an_arming_beside_a_publisher_that_shows_after_it_is_taken_back(network):
    node = Impostor(network, "other", json.dumps({**STATE, "armed": False}))
    node.on_arm = lambda: time.sleep(1.0)
    with spawn(network, "arm", f"{NAMESPACE}/other") as arming:
        network.until(lambda: node.asked, 20, "the arming")
        network.node.create_publisher(String, "other/state", LATCHED).publish(String(data=json.dumps(STATE)))
        out, err = arming.communicate(timeout=30)
    assert (arming.returncode, out) == (2, "")
    assert "found 2" in err
    assert "disarm" in node.asked


@pytest.mark.slow
@pytest.mark.parametrize("target", ["/dev/full", "a reader that has gone"])
def test_an_arming_of_which_nobody_could_be_told_is_taken_back(network, target):
    node = Impostor(network, "other", json.dumps(STATE))
    command = [sys.executable, "-m", "sac_ae_ros.cli", "arm", f"{NAMESPACE}/other"]
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full" if target == "/dev/full" else write, "wb") as stdout:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=network.env,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.endswith("it was armed, but stdout could not be written to; ~/disarm was sent after ~/arm")
    assert node.asked == ["arm", "disarm"]


@pytest.mark.slow
def test_other_outputs_that_cannot_be_written_to_are_no_refusals(network):
    node = Impostor(network, "other", json.dumps(STATE))
    node.message = "disarmed"
    for verb, code in (("disarm", 0), ("state", 2), ("arm", 2)):
        command = [sys.executable, "-m", "sac_ae_ros.cli", verb, f"{NAMESPACE}/other"]
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, cwd=ROOT, env=network.env, stdout=full, stderr=full, check=False, timeout=60)
        assert done.returncode == code


NAMES = [
    "",
    "/",
    "//",
    "a//b",
    "~",
    "~/x",
    "p\u00e4th",
    "\x1b[31mred",
    "a\nb",
    "{node}",
    "1abc",
    "a b",
    "\udcff",
    "x" * 300,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_node_can_have_is_one_line(network, name):
    for verb in ("arm", "disarm", "state"):
        code, out, err = sac_ae(network, verb, name)
        assert (code, out) == (2, "")
        assert err.startswith("error: NODE: expected a node's full name such as /robot1/policy_node, got ")
        assert err.isprintable()


@pytest.mark.slow
def test_answers_are_printed_up_to_a_length(network):
    node = Impostor(network, "other")
    node.message = "x\x1b" * 10**6
    code, out, _ = sac_ae(network, "disarm", f"{NAMESPACE}/other")
    assert code == 0
    assert len(out) < 3000
    assert out.isprintable()


@pytest.mark.slow
def test_a_state_that_is_none_is_one_line(network):
    node = Impostor(network, "other", "{")
    for text in ("[]", json.dumps({**STATE, "armed": "false"}), json.dumps({**STATE, "detail": "x" * 10**6})):
        node.say(text)
        for words in ((), ("--json",)):
            code, out, err = sac_ae(network, "state", f"{NAMESPACE}/other", *words)
            assert (code, out) == (2, "")
            assert err.startswith(f"error: {NAMESPACE}/other/state: expected a policy node's JSON, got ")
            assert len(err) < 300


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
