"""What the measuring scripts take and tell, without measuring; and results.py on runs finished by hand."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from sac_ae_ros.core.errors import RunError
from sac_ae_ros.core.novelty import Level, NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import NoveltyStats
from sim_training import config as configs
from sim_training import machine, sweep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import collect  # noqa: E402
import novelty  # noqa: E402
import novelty_disturbances  # noqa: E402
import novelty_judge  # noqa: E402
import novelty_page  # noqa: E402
import novelty_record  # noqa: E402
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


NOVELTY = json.loads((novelty.STORED / "novelty.json").read_text())
STATS = NoveltyStats(1, {"0.001": 0.1, "0.999": 1.0}, {})
EVERY_2ND = novelty_judge.Persistence(every=2, m=2, n=3)


def scored(*scores_of_episodes: list[float]) -> novelty_judge.Scored:
    """Records whose errors are these scores; episodes of one length, rewards 1."""
    errors = np.array(scores_of_episodes, float)
    return novelty_judge.score(STATS, np.stack([errors, np.ones_like(errors), np.ones_like(errors)], -1))


def test_novelty_reaches_levels_as_the_guard_does():
    rng = np.random.default_rng(0)
    scores = scored(*rng.uniform(0.5, 2, (3, 40))).scores
    for row in scores:
        guard, levels = NoveltyGuard(STATS, NoveltyLimits(1.2, 1.5, 2, 3)), []
        for score in row[::2]:
            guard.judge_measured(score, 1.0)
            levels.append(guard.level)
        assert set(levels) == set(Level)
        assert list(novelty_judge.reached(row, 1.5, EVERY_2ND)) == [level is Level.STOP for level in levels]
        assert list(novelty_judge.reached(row, 1.2, EVERY_2ND)) == [level is not Level.NORMAL for level in levels]


def test_novelty_counts_alarms_once_and_across_episodes():
    drive = scored([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2, 2], [2, 2, 2, 2, 0.5, 0.5, 0.5, 0.5])
    false = novelty_judge.false_alarms(drive, 1.5, EVERY_2ND, period_s=900.0)
    assert (false["alarms"], false["per_hour"]) == (1, 0.25)
    assert false["at_most_per_hour"] == pytest.approx(4.74 / 4, rel=1e-3)  # Poisson: one seen, 95 %
    assert novelty_judge.false_alarms(drive, 3, EVERY_2ND, 900.0)["at_most_per_hour"] == pytest.approx(3 / 4, rel=2e-3)
    assert novelty_judge.highest_persistent(drive.scores.reshape(-1), EVERY_2ND) == 2


def test_novelty_counts_delays_from_the_first_disturbed_frame():
    calm, late = [0.5] * 100, [0.5] * 53 + [2.0] * 47
    found = scored(calm, [0.5] * 51 + [2.0] * 49, calm, late)  # the second's onset is 51, the fourth's 53
    assert novelty_judge.delays(found, 1.5, EVERY_2ND, 0.1) == [None, pytest.approx(0.3), None, pytest.approx(0.3)]
    assert novelty_judge.detection(found, 1.5, EVERY_2ND, 0.1)["share"] == 0.5
    assert novelty_judge.detection(scored(calm), 1.5, EVERY_2ND, 0.1) == {"share": 0, "median_s": None, "max_s": None}


def test_novelty_drives_resume_and_disturb_from_the_onset_on(tmp_path):
    policy = OnnxPolicy.load(ROOT / "models" / "rover_chase_ball.onnx")
    env = novelty_record.env_for(policy.spec)
    try:
        driver = novelty_record.Driver(policy, env)
        with novelty_disturbances.disturbances(env) as kinds:
            named = {kind.name: kind for kind in kinds}
            calm, black, dim, again = (
                driver.episode(7, named[name]) for name in ("nothing", "black", "lamps ×0.5", "nothing")
            )
        np.testing.assert_array_equal(calm, again)  # the lamps were put back
        assert calm.shape == (100, 3)
        for other in (black, dim):
            np.testing.assert_array_equal(calm[:50, :2], other[:50, :2])
            assert (other[50:, 0] > 2 * calm[50:, 0]).all()
        assert (black[50:, 1] == 0).all()
        path = tmp_path / "one.npy"
        kept = novelty_record._cached(path, driver, [7])
        np.testing.assert_array_equal(kept[0], calm)
        np.testing.assert_array_equal(novelty_record._cached(path, driver, [8]), kept)
    finally:
        env.close()


def test_the_novelty_page_is_what_the_script_makes_of_the_stored_numbers():
    assert (ROOT / "docs" / "novelty.md").read_text() == novelty_page.page(novelty.STORED)


def test_the_novelty_numbers_are_of_the_shipped_policy_and_the_nodes_thresholds():
    policy = OnnxPolicy.load(ROOT / "models" / "rover_chase_ball.onnx")
    assert NOVELTY["policy"]["sha256"] == policy.sha256
    defaults = yaml.safe_load((ROOT / "config" / "policy.yaml").read_text())["/**"]["ros__parameters"]
    assert {**NOVELTY["limits"], "stop": 0.0} == defaults["novelty"]
    assert NOVELTY["limits"]["stop"] == novelty.LIMITS.stop


def test_the_novelty_goal_is_met():
    """At most one false stop an hour on unchanged episodes, and at least five hours of them."""
    assert NOVELTY["unchanged"]["hours"] >= 5
    assert NOVELTY["unchanged"]["stop"]["at_most_per_hour"] <= 1
