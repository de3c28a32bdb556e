"""A run from start to end at a tiny size: its files, signals, losses that are no numbers, full disks."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from full_disk import largest_file
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_config import TINY
from tiny_runs import curves, differences, everything, start, train, wait_for, with_budget

from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training import checkpoint, machine, metrics
from sim_training import config as configs
from sim_training.learner import BAD_BATCH
from sim_training.plots import learning_curve
from sim_training.trainer import Trainer, episode_seed

STEPS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    trainer = train(with_budget(TINY, STEPS), run_dir)
    return run_dir, everything(trainer)


def test_a_run_leaves_what_a_user_looks_for(whole, tmp_path):
    run_dir, _ = whole
    names = {path.name for path in run_dir.iterdir()}
    expected = {".lock", "config.yaml", "train.csv", "eval.csv", "tensorboard", "best.pt", "checkpoints", "replay"}
    assert names == expected | {"reconstructions"}
    evals = metrics.read(run_dir / "eval.csv")
    assert [row["env_step"] for row in evals] == [100, 200, 300]
    rows = metrics.read(run_dir / "train.csv")
    assert sum("episode_return" in row for row in rows) == 3
    losses = [row for row in rows if "critic_loss" in row]
    assert {row["agent_step"] for row in losses} == {40, *range(45, STEPS + 1, 15)}  # the first after the random phase
    assert all(0 <= row["wait_share"] <= 1 and row["env_steps_per_s"] > 0 for row in losses)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["update_step"] == STEPS  # as many catch-up updates as random steps, then one a step
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000000300"]
    pictures = sorted(path.name for path in (run_dir / "reconstructions").iterdir())
    assert pictures == ["000000100.png", "000000200.png", "000000300.png"]
    assert cv2.imread(str(run_dir / "reconstructions" / pictures[0])).shape == (24, 8 * 12, 3)
    board = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [image.step for image in board.Images("eval/reconstructions")] == [100, 200, 300]
    shown = board.Images("eval/episode")
    assert [(image.step, image.height, image.width) for image in shown] == [
        (step, 108, 108) for step in (100, 200, 300)
    ]
    with Image.open(io.BytesIO(shown[0].encoded_image_string)) as gif:
        assert (gif.format, gif.size) == ("GIF", (108, 108))
        durations = [gif.info["duration"] for gif.n in range(gif.n_frames) if gif.seek(gif.n) is None]
    assert sum(durations) == 100 * 100  # ms: a hundred steps of 0.1 s; frames that look alike are one
    learning_curve(run_dir, run_dir / "curve.png")
    assert (run_dir / "curve.png").stat().st_size > 5000
    (run_dir / "curve.png").unlink()
    odd = tmp_path / r"$\frac$"  # a name, not a formula
    odd.mkdir()
    for name in ("train.csv", "eval.csv"):
        shutil.copy(run_dir / name, odd)
    learning_curve(odd, odd / "curve.png")


@pytest.mark.parametrize(
    ("updates_per_step", "expected"), [(1, {40: 40, 45: 45, 60: 60}), (3, {40: 40, 45: 55, 60: 100}), (0, {40: 40})]
)
def test_catch_up_updates_come_once_and_then_so_many_a_step(config, tmp_path, updates_per_step, expected):
    config = with_budget(config, 60)
    train(replace(config, learn=replace(config.learn, updates_per_step=updates_per_step)), tmp_path / "run")
    rows = metrics.read(tmp_path / "run" / "train.csv")
    found = {int(row["agent_step"]): int(row["update_step"]) for row in rows if "critic_loss" in row}
    assert {step: found[step] for step in expected} == expected


def test_the_same_seed_gives_the_same_run_and_another_gives_another(config, tmp_path, whole):
    again = everything(train(with_budget(config, STEPS), tmp_path / "again"))
    assert differences(again, whole[1]) == []
    assert curves(tmp_path / "again") == curves(whole[0])
    other = everything(train(with_budget(config, 100, seed=2), tmp_path / "other"))
    assert not np.array_equal(other["replay.action"][:100], whole[1]["replay.action"][:100])


def test_a_finished_run_can_be_resumed_and_changes_nothing(config, tmp_path, whole):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    before = curves(run_dir)
    train(with_budget(config, 100), run_dir, resume=True)
    assert curves(run_dir) == before


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [200, 100_000])  # wraps; follows the budget
def test_more_steps_can_be_asked_of_a_finished_run(config, tmp_path, capacity):
    config = replace(config, learn=replace(config.learn, replay_capacity=capacity))
    at_once = everything(train(with_budget(config, 250), tmp_path / "at_once"))
    train(with_budget(config, 150), tmp_path / "run")
    longer = everything(train(with_budget(config, 250), tmp_path / "run", resume=True))
    assert [key for key in differences(longer, at_once) if not key.startswith("replay.")] == []
    assert configs.load(tmp_path / "run" / "config.yaml").run.env_steps == 250


def test_when_the_time_is_up_a_run_is_judged_and_can_be_resumed(config, tmp_path, whole):
    config = with_budget(TINY, STEPS)
    trainer = Trainer(config, tmp_path / "run")
    try:
        returns = trainer.run(stop_at_s=time.monotonic() + 0.5)
    finally:
        trainer.close()
    assert 0 < trainer.env_step < STEPS
    (last,) = [row for row in metrics.read(tmp_path / "run" / "eval.csv") if row["env_step"] == trainer.env_step]
    assert last["mean_return"] == pytest.approx(returns.mean, rel=1e-5)
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.env_step == STEPS
    assert differences(everything(resumed), whole[1]) == []


def test_a_run_whose_time_is_up_between_two_updates_is_resumed_bit_for_bit(config, tmp_path, whole, monkeypatch):
    """The updates that are owed come before the next step, also after the resumption."""
    trainer = Trainer(with_budget(TINY, STEPS), tmp_path / "run")
    update, done = trainer.learner.update, 0

    def hurried() -> None:
        nonlocal done
        update()
        done += 1
        if done == 25:  # of the 40 updates that follow the random phase
            trainer.stop_at_s = time.monotonic()

    monkeypatch.setattr(trainer.learner, "update", hurried)
    try:
        trainer.run(stop_at_s=time.monotonic() + 1000)
    finally:
        trainer.close()
    assert done == 25
    assert trainer.env_step == 40
    resumed = train(with_budget(config, STEPS), tmp_path / "run", resume=True)
    assert differences(everything(resumed), whole[1]) == []


def test_states_are_learned_from_too(config, tmp_path):
    config = replace(config, env=replace(config.env, obs="state"))
    trainer = train(with_budget(config, 100), tmp_path / "run")
    assert not (tmp_path / "run" / "reconstructions").exists()
    assert trainer.agent.decoder is None
    assert trainer.replay._frames._frames.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("replay", ["disk", "device"])
def test_where_frames_are_kept_does_not_change_the_run(config, tmp_path, whole, replay):
    run = everything(train(with_budget(config, STEPS, replay=replay), tmp_path / "run"))
    assert differences(run, whole[1]) == []


@pytest.mark.slow
def test_where_frames_are_kept_may_change_on_a_resume_and_changes_nothing(config, tmp_path, whole):
    """Checkpoints stand in the middle of episodes, and the ring of 200 frames has wrapped by the last one."""
    run_dir = tmp_path / "run"
    for budget, replay in ((90, "ram"), (150, "disk"), (170, "device"), (250, "disk"), (STEPS, "ram")):
        trainer = train(with_budget(config, budget, replay=replay), run_dir, resume=run_dir.exists())
    assert differences(everything(trainer), whole[1]) == []
    evaluations = curves(run_dir)["eval.csv"]  # one at the end of each part, too
    assert [row for row in evaluations if int(row["env_step"]) % 100 == 0] == curves(whole[0])["eval.csv"]


@pytest.mark.parametrize(("replay", "warned"), [("ram", True), ("device", True), ("disk", False)])
def test_a_replay_that_memory_will_not_hold_is_told_with_its_size(config, tmp_path, monkeypatch, capfd, replay, warned):
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 2**30)
    config = replace(config, learn=replace(config.learn, replay_capacity=4000))
    Trainer(with_budget(config, 10**6, replay=replay), tmp_path / "run").close()
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("warning: replay: ")]
    assert len(lines) == warned
    if warned:
        assert "4094 frames need 0.00173 GiB of memory beside about 1 for all else, 1 GiB are free" in lines[0]
        assert "give --run.replay=disk" in lines[0]
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 2**31)
    Trainer(with_budget(config, 10**6, replay=replay), tmp_path / "other").close()
    assert "warning" not in capfd.readouterr().err


def test_an_existing_run_is_not_overwritten(config, whole):
    with pytest.raises(RunError, match="exists already"):
        Trainer(config, whole[0])
    assert (whole[0] / "best.pt").exists()


def test_resuming_nothing_is_refused_and_leaves_nothing(config, tmp_path):
    with pytest.raises(RunError, match="expected a checkpoint"):
        Trainer(config, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch_and_the_checkpoint(config, tmp_path):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    config = with_budget(config, STEPS)
    state, arrays = checkpoint.load(run_dir, "cpu")
    state["agent"]["critic.heads.0.4.bias"] += 1e30  # its square is beyond float32
    checkpoint.save(run_dir, 100, state, arrays)
    with pytest.raises(RunError, match=rf"update 101 gave one that is not.*{BAD_BATCH}.*checkpoint is kept") as raised:
        train(config, run_dir, resume=True)
    assert "\n" not in str(raised.value)
    with np.load(run_dir / BAD_BATCH) as batch:
        assert batch["obs"].shape == (8, 6, 12, 12)
        assert batch["update_step"] == 101
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000000100"]
    checkpoint.load(run_dir, "cpu")


def test_parameters_that_are_no_numbers_never_reach_a_checkpoint(config, tmp_path):
    run_dir = tmp_path / "run"
    trainer = Trainer(with_budget(config, 30), run_dir)  # the random phase: no update would notice
    try:
        with torch.no_grad():
            trainer.agent.decoder.linear.bias[0] = torch.nan
        with pytest.raises(RunError, match=r"decoder\.linear\.bias is not finite"):
            trainer.run()
    finally:
        trainer.close()
    assert not (run_dir / "checkpoints").exists()


def test_a_full_disk_leaves_the_previous_checkpoint_and_names_the_path(config, tmp_path, whole, monkeypatch):
    run_dir = tmp_path / "run"
    save, calls = checkpoint.save, []

    def save_or_fail(*args):
        calls.append(args)
        with largest_file(4096) if len(calls) == 2 else contextlib.nullcontext():
            return save(*args)

    monkeypatch.setattr(checkpoint, "save", save_or_fail)
    with pytest.raises(RunError, match=rf"cannot write {run_dir}/checkpoints/000000140 .*previous one is kept"):
        train(with_budget(config, STEPS), run_dir)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000000070"]
    assert differences(everything(train(with_budget(config, STEPS), run_dir, resume=True)), whole[1]) == []


def test_a_full_disk_is_noticed_before_a_disk_replay_is_used_and_leaves_nothing(config, tmp_path):
    with largest_file(4096), pytest.raises(ConfigError, match=r"frames need .* GiB \(disk, .*frames\.bin\)"):
        Trainer(with_budget(config, STEPS, replay="disk"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("neighbour", [False, True])
def test_a_run_that_cannot_start_takes_away_its_own_folders_only(config, tmp_path, monkeypatch, neighbour):
    other = tmp_path / "runs" / "neighbour"

    def fail(*_: object) -> None:
        if neighbour:
            other.mkdir()  # another process starts a run meanwhile
        raise RunError("cannot start")

    monkeypatch.setattr("sim_training.trainer.make_replay", fail)
    with pytest.raises(RunError, match="cannot start"):
        Trainer(config, tmp_path / "runs" / "mine" / "run")
    assert sorted(tmp_path.rglob("*")) == ([other.parent, other] if neighbour else [])


def test_a_full_disk_is_named_when_a_row_of_numbers_meets_it(config, tmp_path):
    metrics_ = metrics.Metrics(tmp_path)
    with largest_file(10), pytest.raises(RunError, match=r"metrics: cannot write .*train\.csv \(File too large\)"):
        metrics_.train({"env_step": 1, "episode_return": 2.0})
    metrics_.close()


def test_a_run_folder_is_used_by_one_process_at_a_time(config, tmp_path):
    trainer = Trainer(with_budget(config, 30), tmp_path / "run")
    try:
        trainer.run()
        with pytest.raises(RunError, match="in use by another process"):
            Trainer(with_budget(config, 60), tmp_path / "run", resume=True)
    finally:
        trainer.close()
    Trainer(with_budget(config, 60), tmp_path / "run", resume=True).close()


def test_a_signal_between_two_looks_still_writes_a_checkpoint(config, tmp_path, monkeypatch):
    trainer = Trainer(with_budget(config, 60, checkpoint_every=1000), tmp_path / "run")
    must_save = trainer.replay.must_save

    def signal_then_look() -> bool:
        if trainer.env_step == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return must_save()

    monkeypatch.setattr(trainer.replay, "must_save", signal_then_look)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    finally:
        trainer.close()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000021"]


def test_the_only_checkpoint_is_never_removed_before_another_stands(tmp_path):
    """After a kill between the two renames of a save, the old checkpoint bears the name `replaced`."""
    arrays = {"replay": {"x": np.zeros(3)}}
    checkpoint.save(tmp_path, 5, {"a": 1}, arrays)
    (tmp_path / "checkpoints" / "000000005").rename(tmp_path / "checkpoints" / "replaced")
    with largest_file(100), pytest.raises(RunError, match="previous one is kept"):
        checkpoint.save(tmp_path, 5, {"a": 2}, arrays)
    assert checkpoint.load(tmp_path, "cpu")[0] == {"a": 1}
    checkpoint.save(tmp_path, 5, {"a": 3}, arrays)
    assert checkpoint.load(tmp_path, "cpu")[0] == {"a": 3}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000005"]


def test_evaluations_only_at_the_end_stay_so_when_a_run_is_given_more_steps(config, tmp_path):
    for budget in (110, 230):
        train(with_budget(config, budget, eval_every=0), tmp_path / "run", resume=budget > 110)
    assert [row["env_step"] for row in metrics.read(tmp_path / "run" / "eval.csv")] == [110, 230]


def test_a_gpu_that_is_not_there_is_refused(config, tmp_path):
    with pytest.raises(
        ConfigError, match=r"run\.device: expected one of the \d+ GPUs .* got cuda:99; use --run\.device=cpu"
    ):
        Trainer(replace(config, run=replace(config.run, device="cuda:99")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(config, tmp_path):
    run_dir = tmp_path / "run"
    train(with_budget(config, 60), run_dir)
    folder = run_dir / "checkpoints" / "000000060"
    other = replace(config, network=replace(config.network, hidden=17))
    with pytest.raises(RunError, match=r"does not fit its config\.yaml"):
        Trainer(with_budget(other, 60), run_dir, resume=True)
    data = (folder / "replay.npz").read_bytes()
    (folder / "replay.npz").write_bytes(data[:100])
    with pytest.raises(RunError, match=r"replay\.npz"):
        Trainer(with_budget(config, 60), run_dir, resume=True)
    (folder / "replay.npz").unlink()
    with pytest.raises(RunError, match="does not fit"):
        Trainer(with_budget(config, 60), run_dir, resume=True)
    torch.save([1, 2], folder / "agent.pt")
    with pytest.raises(RunError, match=r"cannot read .*agent\.pt"):
        Trainer(with_budget(config, 60), run_dir, resume=True)
    assert (run_dir / "best.pt").exists()


def test_parameters_spoilt_by_an_update_are_told_before_the_simulation_meets_them(config, tmp_path, monkeypatch):
    trainer = Trainer(with_budget(config, 100), tmp_path / "run")
    update_targets = trainer.agent.update_targets

    def spoil() -> None:
        update_targets()
        if trainer.agent.update_step == 45:  # its losses were finite
            trainer.agent.actor.mlp[0].weight.data.fill_(torch.nan)

    monkeypatch.setattr(trainer.agent, "update_targets", spoil)
    try:
        with pytest.raises(RunError, match=r"actor\.mlp\.0\.weight is not finite after update 45"):
            trainer.run()
    finally:
        trainer.close()


def test_checkpoints_run_no_code_from_their_files(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code was run",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RunError, match="cannot read"):
        checkpoint.load_tensors(tmp_path / "evil.pt")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(config, tmp_path, number):
    config, run_dir = with_budget(config, 1500, eval_every=1500, checkpoint_every=1500), tmp_path / "run"
    process = start(config, run_dir, tmp_path)
    wait_for(run_dir / "train.csv", process)
    process.send_signal(number)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130, stderr
    assert "this step and a checkpoint are finished first" in stderr
    assert f"sac-ae train --resume {run_dir}" in stderr
    assert "Traceback" not in stderr
    (folder,) = (run_dir / "checkpoints").iterdir()
    assert 0 < int(folder.name) < 1500
    stopped = int(folder.name)
    shorter = with_budget(config, stopped + 60, eval_every=1500, checkpoint_every=1500)
    resumed = everything(train(shorter, run_dir, resume=True))
    at_once = everything(train(shorter, tmp_path / "at_once"))
    assert [key for key in differences(resumed, at_once) if not key.startswith("replay.")] == []


@pytest.mark.slow
def test_a_second_signal_stops_at_once(config, tmp_path):
    """The run's checkpoint is made to take for ever, so that only the second signal can end it soon."""
    code = (
        "import sys, time; from sim_training import checkpoint; from sac_ae_ros import cli\n"
        "checkpoint.save = lambda *args: time.sleep(60)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    run_dir = tmp_path / "run"
    configs.save(with_budget(config, 1500), tmp_path / "config.yaml")
    command = [
        sys.executable,
        "-c",
        code,
        "train",
        "--config",
        str(tmp_path / "config.yaml"),
        "--run-dir",
        str(run_dir),
    ]
    process = subprocess.Popen([*command, "--profile=plain"], stderr=subprocess.PIPE, text=True)
    wait_for(run_dir / "train.csv", process)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - started < 20
    assert process.returncode == 130


def test_episodes_of_training_and_judgement_never_share_a_seed():
    seeds = {episode_seed(run, episode) for run in range(5) for episode in range(200)}
    assert len(seeds) == 1000
    assert min(seeds) > 4_000_000 - 1_000_000
