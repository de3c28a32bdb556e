"""A run from start to end at a tiny size: files, exact resume, refusal to overwrite."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sac_ae_ros.core.errors import RunError
from sim_training import checkpoint, metrics
from sim_training.config import TrainConfig
from sim_training.plots import learning_curve
from sim_training.trainer import Trainer, episode_seed

STEPS = 300


def with_budget(config: TrainConfig, env_steps: int) -> TrainConfig:
    run = replace(config.run, env_steps=env_steps, eval_every=100, checkpoint_every=100)
    return replace(config, run=run, learn=replace(config.learn, random_steps=40))


def train(config: TrainConfig, run_dir: Path, *, resume: bool = False) -> Trainer:
    trainer = Trainer(config, run_dir, resume=resume)
    try:
        trainer.run()
    finally:
        trainer.close()
    return trainer


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that a run's future depends on, as tensors by name."""
    state = {f"agent.{key}": value for key, value in trainer.agent.state_dict().items()}
    for name, optimizer in trainer.agent.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    state |= {f"replay.{key}": torch.as_tensor(np.asarray(value)) for key, value in trainer.replay.state().items()}
    counters = [trainer.env_step, trainer.agent_step, trainer.episode, trainer.agent.update_step]
    state["counters"] = torch.tensor(counters)
    state["torch_rng"] = torch.get_rng_state()
    state["numpy_rng"] = torch.as_tensor(trainer.rng.integers(0, 2**31, 8))
    return state


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from tiny_config import TINY

    run_dir = tmp_path_factory.mktemp("whole") / "run"
    trainer = train(with_budget(TINY, STEPS), run_dir)
    return run_dir, everything(trainer)


def test_a_run_leaves_what_a_user_looks_for(whole):
    run_dir, _ = whole
    names = {path.name for path in run_dir.iterdir()}
    assert names == {"config.yaml", "train.csv", "eval.csv", "tensorboard", "best.pt", "checkpoints"}
    evals = metrics.read(run_dir / "eval.csv")
    assert [row["env_step"] for row in evals] == [100, 200, 300]
    rows = metrics.read(run_dir / "train.csv")
    assert sum("episode_return" in row for row in rows) == 3
    losses = [row for row in rows if "critic_loss" in row]
    assert losses
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["update_step"] == STEPS  # as many catch-up updates as random steps, then one a step
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000000300"]
    learning_curve(run_dir, run_dir / "curve.png")
    assert (run_dir / "curve.png").stat().st_size > 5000
    (run_dir / "curve.png").unlink()


def test_a_resumed_run_equals_an_uninterrupted_one(config, tmp_path, whole):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    torch.manual_seed(999)  # the resume must bring its own random states
    resumed = everything(train(with_budget(config, STEPS), run_dir, resume=True))
    _, uninterrupted = whole
    assert resumed.keys() == uninterrupted.keys()
    different = [key for key, value in resumed.items() if not torch.equal(value, uninterrupted[key])]
    assert different == []


def test_a_resumed_runs_curves_equal_an_uninterrupted_ones(config, tmp_path, whole):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    with (run_dir / "train.csv").open("a") as file:
        file.write("150,150,150,1.0,5.0,,,,,,,,\n170,1")  # what a killed run had gone on to write
    train(with_budget(config, STEPS), run_dir, resume=True)

    def curves(folder: Path) -> list[list[str]]:
        with (folder / "train.csv").open(newline="") as file:
            return [row[:3] + row[4:-1] for row in csv.reader(file)]  # all but the clock

    assert curves(run_dir) == curves(whole[0])


def test_the_same_seed_gives_the_same_run_and_another_gives_another(config, tmp_path, whole):
    again = everything(train(with_budget(config, STEPS), tmp_path / "again"))
    assert all(torch.equal(value, whole[1][key]) for key, value in again.items())
    other = with_budget(config, 100)
    first = everything(train(replace(other, run=replace(other.run, seed=2)), tmp_path / "other"))
    assert not torch.equal(first["replay.frames"], whole[1]["replay.frames"][: len(first["replay.frames"])])


def test_an_existing_run_is_not_overwritten(config, whole):
    with pytest.raises(RunError, match="exists already"):
        Trainer(config, whole[0])
    assert (whole[0] / "best.pt").exists()


def test_resuming_nothing_is_refused(config, tmp_path):
    with pytest.raises(RunError, match="expected a checkpoint"):
        Trainer(config, tmp_path / "none", resume=True)


def test_a_damaged_checkpoint_is_named(config, tmp_path):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    file = run_dir / "checkpoints" / "000000100" / "replay.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"replay\.npz"):
        Trainer(config, run_dir, resume=True)


def test_checkpoints_run_no_code_from_their_files(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code was run",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RunError, match="cannot read"):
        checkpoint.load_tensors(tmp_path / "evil.pt")


def test_a_checkpoint_that_was_not_finished_is_ignored(config, tmp_path):
    run_dir = tmp_path / "run"
    train(with_budget(config, 100), run_dir)
    (run_dir / "checkpoints" / "partial").mkdir()
    (run_dir / "checkpoints" / "partial" / "agent.pt").write_bytes(b"half")
    trainer = Trainer(with_budget(config, 200), run_dir, resume=True)
    trainer.close()
    assert trainer.env_step == 100


def test_episodes_of_training_and_judgement_never_share_a_seed():
    seeds = {episode_seed(run, episode) for run in range(5) for episode in range(200)}
    assert len(seeds) == 1000
    assert min(seeds) > 4_000_000
