"""A resumed run equals an uninterrupted one, bit for bit, wherever it was killed; and this test can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import killed_run
import numpy as np
import pytest
import torch
from tiny_runs import curves, differences, everything, train

from sim_training import checkpoint
from sim_training.trainer import Trainer

TESTS = Path(killed_run.__file__).parent
KILLED = -9


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, everything(train(killed_run.config(), run_dir))


def run(*arguments: object) -> int:
    command = [sys.executable, "-m", "killed_run", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}  # after the working folder, whose sim_training is meant
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, KILLED), done.stderr
    return done.returncode


def newest(run_dir: Path) -> int:
    return max(int(folder.name) for folder in (run_dir / "checkpoints").glob("[0-9]*"))


def finish_and_compare(run_dir: Path, whole, replay: str = "ram") -> None:
    torch.manual_seed(999)  # the resume must bring its own random states
    resumed = everything(train(killed_run.config(replay), run_dir, resume=True))
    assert differences(resumed, whole[1]) == []
    assert curves(run_dir) == curves(whole[0])


@pytest.mark.slow
def test_a_run_killed_three_times_equals_an_uninterrupted_one(tmp_path, whole):
    """In the middle of a step, of an update, and of a checkpoint; checkpoints stand at 70, 140 and 210 env steps."""
    run_dir = tmp_path / "run"
    assert run(run_dir, "step", 100) == KILLED
    assert newest(run_dir) == 70
    assert run(run_dir, "update", 48, "resume") == KILLED
    assert newest(run_dir) == 140
    assert run(run_dir, "write", 1, "resume") == KILLED
    assert newest(run_dir) == 140
    assert (run_dir / "checkpoints" / "partial").is_dir()
    finish_and_compare(run_dir, whole)


PLACES = [("step", 141), ("update", 37), ("update", 90), ("write", 3), ("write", 4), ("rename", 2), ("rename", 3)]
PLACES += [("sync", count) for count in range(8, 18)]
ON_DISK = [("step", 141), ("update", 90), ("write", 3), ("rename", 2), ("sync", 12)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("replay", "place", "count"), [("ram", *point) for point in PLACES] + [("disk", *point) for point in ON_DISK]
)
def test_a_run_killed_anywhere_equals_an_uninterrupted_one(tmp_path, whole, replay, place, count):
    run_dir = tmp_path / "run"
    assert run(run_dir, place, count, replay) == KILLED
    finish_and_compare(run_dir, whole, replay)


SHORT = 202  # beyond the end of the episode in whose middle the checkpoint stands


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The checkpoint of the middle of an episode, a new run beside it, and how it should go on."""
    folder = tmp_path_factory.mktemp("stopped")
    assert run(folder / "run", "step", 150) == KILLED
    assert newest(folder / "run") == 140
    whole = everything(train(killed_run.config(env_steps=SHORT), folder / "whole"))
    fresh = Trainer(killed_run.config(env_steps=SHORT), folder / "fresh")
    yield folder / "run", fresh, (whole, curves(folder / "whole"))
    fresh.close()


def resume_without(run_dir: Path, fresh: Trainer, spoil) -> tuple[dict, dict]:
    """Resumes a copy of a run, after `spoil` has put a part back to what a new run has."""
    copy = run_dir.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir, copy)
    trainer = Trainer(killed_run.config(env_steps=SHORT), copy, resume=True)
    try:
        spoil(trainer, fresh)
        trainer.run()
        return everything(trainer), curves(copy)
    finally:
        trainer.close()


def networks(prefix: str):
    def spoil(trainer: Trainer, fresh: Trainer) -> None:
        state, initial = trainer.agent.state_dict(), fresh.agent.state_dict()
        trainer.agent.load_state_dict({k: initial[k] if k.startswith(prefix) else v for k, v in state.items()})

    return spoil


def optimizer(name: str):
    def spoil(trainer: Trainer, fresh: Trainer) -> None:
        trainer.agent.optimizers[name].load_state_dict(fresh.agent.optimizers[name].state_dict())

    return spoil


def online_over_target(trainer: Trainer, fresh: Trainer) -> None:
    trainer.agent.target_critic.load_state_dict(trainer.agent.critic.state_dict())
    trainer.agent.target_encoder.load_state_dict(trainer.agent.encoder.state_dict())


def no_frames(trainer: Trainer, fresh: Trainer) -> None:
    trainer.replay._frames._frames.zero_()


def no_rewards(trainer: Trainer, fresh: Trainer) -> None:
    trainer.replay._reward[:] = 0


def torch_seed(trainer: Trainer, fresh: Trainer) -> None:
    torch.manual_seed(trainer.config.run.seed)


def numpy_seed(trainer: Trainer, fresh: Trainer) -> None:
    trainer.rng.bit_generator.state = np.random.default_rng(trainer.config.run.seed).bit_generator.state


def update_count(trainer: Trainer, fresh: Trainer) -> None:
    trainer.agent.update_step = 1  # the schedule of actor and targets turns on whether it is even


def environment(trainer: Trainer, fresh: Trainer) -> None:
    fresh.collector.reset({0: 1})
    trainer.collector.restore(fresh.collector.snapshot())


def counter(name: str, initial: int):
    def spoil(trainer: Trainer, fresh: Trainer) -> None:
        assert getattr(trainer, name) != initial
        setattr(trainer, name, initial)

    return spoil


def episode_return(trainer: Trainer, fresh: Trainer) -> None:
    trainer._lanes[0].episode_return = 0.0


PARTS = {
    "replay frames": no_frames,
    "replay rewards": no_rewards,
    "torch's random state": torch_seed,
    "numpy's random state": numpy_seed,
    "alpha": networks("log_alpha"),
    "target networks": online_over_target,
    "target encoder": networks("target_encoder"),
    "target critic": networks("target_critic"),
    "actor": networks("actor"),
    "decoder": networks("decoder"),
    "environment": environment,
    "schedule": update_count,
    "episode return": episode_return,
    "episode count": counter("episode", 0),
    "next evaluation": counter("_next_eval", 100),
    "next row of losses": counter("_next_log", 15),
    **{f"{name} optimiser": optimizer(name) for name in ("critic", "actor", "alpha", "encoder", "decoder")},
}


def test_nothing_left_out_is_no_difference(stopped):
    run_dir, fresh, (whole, rows) = stopped
    found, found_rows = resume_without(run_dir, fresh, lambda trainer, fresh: None)
    assert differences(found, whole) == []
    assert found_rows == rows


QUICK = (
    "replay frames",
    "torch's random state",
    "numpy's random state",
    "alpha",
    "critic optimiser",
    "target networks",
)


@pytest.mark.parametrize(
    "part",
    [part if part in (*QUICK, "environment") else pytest.param(part, marks=pytest.mark.slow) for part in PARTS],
)
def test_a_part_left_out_of_the_checkpoint_is_noticed(stopped, part):
    run_dir, fresh, (whole, rows) = stopped
    found, found_rows = resume_without(run_dir, fresh, PARTS[part])
    assert differences(found, whole) or found_rows != rows


def test_a_checkpoint_that_was_not_finished_is_ignored(stopped, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(stopped[0], run_dir)
    (run_dir / "checkpoints" / "partial").mkdir(exist_ok=True)
    (run_dir / "checkpoints" / "partial" / "agent.pt").write_bytes(b"half")
    assert checkpoint.load(run_dir, "cpu")[0]["counters"][0] == 140
