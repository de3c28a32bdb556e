"""The whole path at a tiny size: learn, export, drive over real ROS 2, compare."""

import dataclasses
import json
import subprocess
import sys

import av
import pytest
from test_cli import TINY_KEYS
from tiny_policy import SPEC, write_policy

from sac_ae_ros.core.policy import OnnxPolicy


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "sac_ae_ros.cli", "demo", "--json", "--run-dir", str(run_dir), "--episodes", "1"]
    done = subprocess.run(
        [*command, "--real-time-factor", "3", *TINY_KEYS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return run_dir, done


def test_it_prints_one_json_object_with_the_four_rows(demo):
    _, done = demo
    table = json.loads(done.stdout)
    assert set(table) == {"random", "torch", "onnx", "ros"}
    assert all(isinstance(value, float) for value in table.values())
    assert table["onnx"] == pytest.approx(table["torch"], abs=0.5)


def test_it_leaves_what_a_user_would_look_at(demo):
    run_dir, _ = demo
    names = {path.name for path in run_dir.iterdir()}
    assert {"policy.onnx", "learning_curve.png", "reconstructions.png", "closed_loop.mp4", "table.json"} <= names
    assert OnnxPolicy.load(run_dir / "policy.onnx").spec.task == "rover/chase_ball"
    with av.open(str(run_dir / "closed_loop.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames > 100  # ten seconds at 20 Hz, less what the machine could not keep up with
    details = json.loads((run_dir / "table.json").read_text())
    assert details["rows"]["ros"]["returns"]


@pytest.mark.slow
def test_a_policy_file_skips_the_learning(tmp_path):
    camera = dataclasses.replace(SPEC.camera, source_height=48, source_width=64)
    policy = write_policy(tmp_path / "tiny.onnx", spec={"task": "rover/chase_ball", "cameras": (camera,)})
    command = [sys.executable, "-m", "sac_ae_ros.cli", "demo", "--policy", str(policy)]
    command += ["--run-dir", str(tmp_path / "run"), "--episodes", "1", "--real-time-factor", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ONNX file, through ROS 2" in done.stdout
    assert "train" not in done.stderr
    assert (tmp_path / "run" / "closed_loop.mp4").exists()
