"""What the measuring scripts take and tell, without measuring; and results.py on runs finished by hand."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from sac_ae_ros.core.errors import RunError
from sim_training import config as configs
from sim_training import machine, sweep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import collect  # noqa: E402
import results  # noqa: E402


@pytest.mark.parametrize("text", ["99", "0", "-100", "many", "1e3"])
def test_collect_refuses_too_few_agent_steps(monkeypatch, capsys, text):
    monkeypatch.setattr(sys, "argv", ["collect.py", f"--agent-steps={text}"])
    with pytest.raises(SystemExit):
        collect.main()
    assert f"expected at least 100, as the log has a row in 50, got {text}" in capsys.readouterr().err


def test_collect_measures_with_as_few_as_it_takes(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "env: {height: 12, width: 12, frame_stack: 2}\nnetwork: {filters: 4, strides: [2, 1], latent: 6, hidden: 16}\n"
        "learn: {batch_size: 8, replay_capacity: 5000}\n"
    )
    assert collect.speed(path, ["--run.threads=1"], collect.LEAST_STEPS, tmp_path / "run")["env_steps_per_s"] > 0


@pytest.mark.parametrize(("device", "gpu"), [("cuda", "A GPU"), ("cpu", None)])
def test_collect_names_the_gpu_that_it_ran_on(monkeypatch, capsys, device, gpu):
    monkeypatch.setattr(collect, "speed", lambda *_: {"env_steps_per_s": 2.0, "wait_share": 0.5})
    monkeypatch.setattr(machine, "gpu", lambda: "A GPU")
    config = ROOT / "config/train/rover_chase_ball.yaml"
    monkeypatch.setattr(sys, "argv", ["collect.py", "--json", f"--config={config}", f"--run.device={device}"])
    collect.main()
    assert json.loads(capsys.readouterr().out)["gpu"] == gpu


@pytest.fixture
def by_hand(tmp_path) -> list[sweep.Run]:
    """A row of two runs, planned for 60 env steps, of which both were finished at 30."""
    (tmp_path / "tiny.yaml").write_text("run: {env_steps: 60}\n")
    runs = sweep.plan(sweep.Request((tmp_path / "tiny.yaml",), ("best",), (), 2, (), 1, tmp_path / "out"))
    for run in runs:
        sweep._write_row(run)
        leave(run, 30)
    return runs


def leave(run: sweep.Run, env_steps: int) -> None:
    run.folder.mkdir(exist_ok=True)
    config = dataclasses.replace(run.config, run=dataclasses.replace(run.config.run, env_steps=env_steps))
    configs.save(config, run.folder / "config.yaml")
    head = "env_step,agent_step,update_step,seconds,episodes,mean_return,sd_return\n"
    (run.folder / "eval.csv").write_text(f"{head}{env_steps},9,0,5,1,7,1\n")


def test_runs_finished_by_hand_are_collected_at_their_own_budget(by_hand, tmp_path):
    assert results.collect(tmp_path / "out", tmp_path / "kept" / "hand", "abc") == []
    facts = json.loads((tmp_path / "kept" / "hand" / "tiny-best" / "row.json").read_text())
    assert facts["arguments"] == ["--profile=best", "--run.env_steps=30"]
    (section,) = results.sections(tmp_path / "kept")
    assert results.results_table(section).splitlines()[2].startswith("| tiny | best | 30 | 2 |")


def test_runs_of_different_budgets_are_not_collected_together(by_hand, tmp_path):
    leave(by_hand[1], 60)
    with pytest.raises(RunError, match=r"same run\.env_steps in .*tiny-best; bring the shorter ones"):
        results.collect(tmp_path / "out", tmp_path / "kept", "abc")
    assert not (tmp_path / "kept").exists()
