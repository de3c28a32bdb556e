"""closed_loop: three processes that score a policy and always end."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ros_network import ROOT, kill
from tiny_policy import SPEC, write_policy

from sac_ae_ros.nodes.closed_loop import DOMAINS, _isolate

pytest.importorskip("dm_control", reason="the extra `sim` is not installed: no simulated robot")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    camera = dataclasses.replace(SPEC.camera, source_height=48, source_width=64)
    return write_policy(tmp_path / "tiny.onnx", spec={"cameras": (camera,)})


def test_no_domain_whose_ports_linux_hands_out_or_where_sim_launch_is():
    ports = [7400 + 250 * domain for domain in DOMAINS]
    assert not [port for port in ports if 32768 <= port <= 60999]
    assert 87 not in DOMAINS
    assert min(DOMAINS) >= 60
    assert max(DOMAINS) <= 230


def test_no_way_out_of_this_machine_is_left(monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "as it was")
    _isolate(64)
    found = {name: value for name, value in os.environ.items() if name.startswith("ROS_") and value in ("3", "64")}
    assert found == {"ROS_DOMAIN_ID": "64"}
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sac_ae_ros.nodes.closed_loop", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait_until(holds, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_it_scores_records_and_prints_one_json_object(policy, tmp_path):
    recording = tmp_path / "first.npz"
    process = start(
        "--policy", str(policy), "--episodes", "2", "--seed", "1000", "--real-time-factor", "4", "--json",
        "--record", str(recording),
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert set(result) == {"mean_return", "sd", "returns"}
    assert len(result["returns"]) == 2
    assert np.isclose(result["mean_return"], np.mean(result["returns"]))
    assert "episode 2/2 (seed 1001)" in err
    assert "lost" not in err
    with np.load(recording, allow_pickle=False) as data:
        assert data["images"].shape == (200, 240, 320, 3)
        assert data["rewards"].shape == (100,)
        assert 90 <= len(data["commands"]) <= 103, "a busy machine drops pictures"
        assert np.isclose(data["rewards"].sum(), result["returns"][0])
        assert data["action_names"].tolist() == ["linear", "angular"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_its_children_end_with_it(policy, number):
    process = start("--policy", str(policy))
    wait_until(lambda: len(children(process.pid)) == 2, 20)
    pids = children(process.pid)
    time.sleep(1.0)
    assert all(alive(pid) for pid in pids)
    kill(process.pid) if number is signal.SIGKILL else os.kill(process.pid, number)
    process.communicate(timeout=15)
    wait_until(lambda: not any(alive(pid) for pid in pids), 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policy", "nowhere.onnx"), "cannot read nowhere.onnx"),
        (("--policy", "README.md", "--episodes", "0"), "--episodes >= 1"),
        (("--policy", "README.md", "--domain-id", "400"), "0..232"),
    ],
)
def test_bad_input_gets_one_line(arguments, says):
    process = start(*arguments)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert says in err


def test_a_node_that_cannot_start_is_named(policy):
    process = start("--policy", str(policy), "--task", "rover/fly")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "rover/fly" in err
    assert "error: sim_robot_node" in err
