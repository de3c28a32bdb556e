"""The command line as a user meets it: real processes, exit codes, one-line errors, JSON alone on stdout."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from tiny_policy import write_policy

from sac_ae_ros.cli import main
from sac_ae_ros.core.spec import PolicySpec

TINY_KEYS = (
    "--env.height=12 --env.width=12 --env.frame_stack=2 --network.filters=4 --network.strides=[2,1]"
    " --network.latent=6 --network.hidden=16 --learn.batch_size=8 --learn.replay_capacity=500 --learn.random_steps=30"
    " --run.env_steps=100 --run.eval_every=100 --run.eval_episodes=1 --run.checkpoint_every=100 --run.threads=1"
).split()


def sac_ae(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sac_ae_ros.cli", *map(str, arguments)]
    root = str(Path(__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


@pytest.fixture
def refused(capfd):
    """Runs the command line in this process and checks its one line and its exit code."""

    def check(*arguments: str | Path, says: str) -> None:
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as error:
            code = error.code
        captured = capfd.readouterr()
        lines = [line for line in captured.err.splitlines() if line.strip()]
        assert (code, captured.out, len(lines)) == (2, "", 1), captured
        assert lines[0].startswith("error: ")
        assert says in lines[0]

    return check


def test_an_error_is_one_line_on_stderr_and_exit_code_2(tmp_path):
    result = sac_ae("eval", tmp_path / "none.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: policy: cannot read")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run, trained and exported by the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    trained = sac_ae("train", "--run-dir", folder, *TINY_KEYS)
    assert trained.returncode == 0, trained.stderr
    assert f"sac-ae export {folder}" in trained.stderr
    exported = sac_ae("export", folder, "--episodes", "1")
    assert exported.returncode == 0, exported.stderr
    return folder


@pytest.fixture
def policy(tmp_path) -> Path:
    return write_policy(tmp_path / "tiny.onnx")


def test_a_run_folder_has_what_the_readme_promises(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    wanted = {"config.yaml", "train.csv", "eval.csv", "tensorboard", "best.pt", "checkpoints", "replay", ".lock"}
    assert names == wanted | {"learning_curve.png", "policy.onnx", "reconstructions.png", "reconstructions"}


def test_eval_prints_one_json_object(run_dir):
    for judged in (run_dir / "policy.onnx", run_dir):
        result = sac_ae("eval", judged, "--episodes", "2", "--json")
        value = json.loads(result.stdout)
        assert set(value) == {"mean_return", "sd", "returns"}
        assert len(value["returns"]) == 2
        assert value["mean_return"] == pytest.approx(sum(value["returns"]) / 2)


def test_info_prints_the_contract(run_dir):
    result = sac_ae("info", run_dir / "policy.onnx", "--json")
    assert PolicySpec.from_json(result.stdout).task == "rover/chase_ball"
    assert "m/s" in sac_ae("info", run_dir / "policy.onnx").stdout


def test_nothing_is_overwritten_unasked(run_dir, refused):
    before = (run_dir / "policy.onnx").read_bytes()
    refused("export", run_dir, says="exists already")
    refused("train", "--run-dir", run_dir, *TINY_KEYS, says="exists already")
    refused("demo", "--run-dir", run_dir, says="exists already")
    assert (run_dir / "policy.onnx").read_bytes() == before
    assert sac_ae("export", run_dir, "--force", "--episodes", "1").returncode == 0


def test_publish_stores_lists_and_rolls_back(policy, tmp_path, capsys):
    folder = tmp_path / "policies"
    shas = []
    for version in ("1", "2"):
        write_policy(policy, spec={"version": version})
        assert main(["publish", str(policy), "--policy-dir", str(folder), "--json"]) == 0
        announced = json.loads(capsys.readouterr().out)
        assert announced == {"version": int(version), "sha256": hashlib.sha256(policy.read_bytes()).hexdigest()}
        shas.append(announced["sha256"])
    assert main(["publish", "--list", "--policy-dir", str(folder)]) == 0
    assert [line.split()[0::6] for line in capsys.readouterr().out.splitlines()] == [["1", shas[0]], ["2", shas[1]]]
    assert main(["publish", "--rollback", "--policy-dir", str(folder)]) == 0
    assert capsys.readouterr().out == f"version 1 is the newest again in {folder}, sha256 {shas[0]}\n"
    assert main(["publish", "--list", "--policy-dir", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"version": 1, "sha256": shas[0]}]


def test_publish_refuses_in_one_line(policy, tmp_path, refused):
    folder = tmp_path / "policies"
    refused("publish", "--list", "--policy-dir", folder, says="No such file or directory; mount its disk")
    refused("publish", policy, "--policy-dir", folder / "deep", says="is no folder")
    refused("publish", "--policy-dir", folder, says="POLICY --list --rollback is required")
    refused("publish", policy, "--list", "--policy-dir", folder, says="not allowed with")
    refused("publish", policy, says="--policy-dir")
    write_policy(policy, gain=float("nan"))
    refused("publish", policy, "--policy-dir", folder, says="expected finite actions")
    assert not folder.exists()


def test_doctor_prints_one_json_object():
    value = json.loads(sac_ae("doctor", "--json").stdout)
    checks = {check["name"]: check for check in value["checks"]}
    assert {"renderer", "onnxruntime", "ros", "dds profile", "/dev/shm", "cv_bridge"} <= set(checks)
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert checks["onnxruntime"]["status"] == "ok"


@pytest.mark.parametrize("verb", ["train", "export", "eval", "info", "publish", "demo", "doctor"])
def test_help_has_an_example(verb):
    result = sac_ae(verb, "--help")
    assert result.returncode == 0
    assert f"example:\n  sac-ae {verb}" in result.stdout


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def _without_spec(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def _contradicting(path: Path) -> None:
    model = onnx.load(path)
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"frame_stack": 2', '"frame_stack": 4')
    onnx.save(model, path)


def _external(path: Path) -> None:
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    path.write_bytes(model.SerializeToString())


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "is it cut?"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (_folder, "folder"),
        (lambda path: path.unlink(), "cannot read"),
        (_without_spec, "expected one 'sac_ae_ros.policy_spec'"),
        (_contradicting, "the spec demands input 'frames' of uint8 [1, 12, 8, 8], the graph has uint8 [1, 6, 8, 8]"),
        (_external, "external data"),
    ],
)
def test_bad_policies(policy, refused, damage, says):
    damage(policy)
    refused("info", policy, says=says)


def test_a_policy_for_a_task_that_is_not_here(policy, refused):
    refused("eval", policy, says="expected `domain/task`")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--learn.nonsense=1"], "learn.nonsense"),
        (["train", "--learn.batch_size=x"], "learn.batch_size"),
        (["train", "--config", "none.yaml"], "expected a YAML file"),
        (["train", "--resume", "none"], "expected a run folder"),
        (["train", "--resume", "none", "--run-dir", "new"], "takes its config from the run"),
        (["train", "--env.task=rover/fly"], "expected `domain/task`"),
        (["train", "--env.height=3", "--env.width=3"], "enough pixels"),
        (["export", "none"], "config.yaml"),
        (["eval", "none.onnx"], "cannot read"),
        (["eval", "none.onnx", "--episodes", "0"], "at least 1"),
        (["eval", "none.onnx", "--speed", "3"], "--speed"),
        (["demo", "--policy", "none.onnx"], "cannot read"),
        (["demo", "--policy", "none.onnx", "--learn.discount=1"], "--policy skips the training"),
        (["demo", "--real-time-factor", "0"], "expected 0.01..100"),
        (["eval", "none.onnx", "--seed", "-1"], "expected a seed"),
        (["fly"], "invalid choice"),
        ([], "VERB"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path, monkeypatch, refused, arguments, says):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, says=says)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_is_a_file(tmp_path, refused):
    path = tmp_path / "file"
    path.write_text("mine")
    refused("train", "--run-dir", path, *TINY_KEYS, says="exists already")
    refused("demo", "--run-dir", path, says="exists already")
    assert path.read_text() == "mine"


def test_an_export_that_could_not_be_written_is_refused_before_the_work(run_dir, tmp_path, refused):
    refused("export", run_dir, "--out", tmp_path, says="name a file")
    refused("export", run_dir, "--out", tmp_path / "no" / "p.onnx", says="existing folder")


def test_a_reader_that_has_seen_enough_is_no_error(policy):
    command = [sys.executable, "-m", "sac_ae_ros.cli", "info", str(policy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_debug_shows_the_traceback(tmp_path):
    result = sac_ae("info", tmp_path / "none.onnx", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ModelError" in result.stderr
