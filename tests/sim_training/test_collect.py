"""Collection side by side gives what lockstep gives, keeps lanes apart, and leaves no process behind."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_config import TINY
from tiny_runs import start, wait_for, with_budget

from sac_ae_ros.core.errors import SimError
from sim_training import metrics
from sim_training.collect import Async, Lockstep, newest_frame
from sim_training.trainer import Trainer

ASYNC = {"collect": "async", "envs": 2}


@pytest.fixture(scope="module")
def side_by_side():
    collector = Async(TINY.env, 2)
    yield collector
    collector.close()


def test_two_environments_side_by_side_equal_two_alone(side_by_side):
    alone = [Lockstep(TINY.env) for _ in range(2)]
    rng = np.random.default_rng(0)
    try:
        side_by_side.reset({0: 5, 1: 6})
        for collector, seed in zip(alone, (5, 6), strict=True):
            collector.reset({0: seed})
        for step in range(3):
            actions = rng.uniform(-0.2, 0.5, (2, 2)).astype(np.float32)
            side_by_side.begin(actions)
            together = side_by_side.finish()
            for lane, collector in enumerate(alone):
                collector.begin(actions[lane : lane + 1])
                assert collector.finish() == [together[lane]]
                assert np.array_equal(collector.obs[0], side_by_side.obs[lane])
            if step == 1:  # one lane starts again, the other goes on
                side_by_side.reset({1: 9})
                alone[1].reset({0: 9})
                assert np.array_equal(alone[1].obs[0], side_by_side.obs[1])
                assert np.array_equal(alone[0].obs[0], side_by_side.obs[0])
    finally:
        for collector in alone:
            collector.close()


def test_the_newest_frame_is_the_last_of_a_stack_and_a_state_is_itself():
    stack = np.arange(6 * 4).reshape(6, 2, 2)
    assert np.array_equal(newest_frame(stack), stack[3:])
    assert np.array_equal(newest_frame(np.arange(3.0)), np.arange(3.0))


@pytest.mark.slow
def test_an_asynchronous_run_counts_every_lane_and_says_that_it_cannot_be_repeated_exactly(config, tmp_path, capfd):
    run_dir = tmp_path / "run"
    for budget, resume in ((120, False), (360, True)):
        config = replace(config, learn=replace(config.learn, replay_capacity=100_000))  # the budget sets the size
        trainer = Trainer(with_budget(config, budget, **ASYNC), run_dir, resume=resume)
        try:
            trainer.run()
        finally:
            trainer.close()
    assert trainer.env_step == trainer.agent_step == 360
    assert trainer.agent.update_step == 360
    assert (trainer.replay._head >= 180).all()
    rows = metrics.read(run_dir / "train.csv")
    assert [row["env_step"] for row in rows if "episode_return" in row] != []
    assert all(0 <= row["wait_share"] <= 1 for row in rows if "wait_share" in row)
    assert "not the same bit for bit" in capfd.readouterr().err


def test_a_process_that_dies_is_told_in_one_line_and_what_was_learned_is_saved(config, tmp_path):
    trainer = Trainer(with_budget(config, 5000, checkpoint_every=5000, eval_every=0, **ASYNC), tmp_path / "run")
    store, calls = trainer._store, []

    def store_then_kill(outcomes) -> None:
        store(outcomes)
        calls.append(outcomes)
        if len(calls) == 30:
            os.kill(trainer.collector._envs.processes[0].pid, signal.SIGKILL)

    trainer._store = store_then_kill
    try:
        with pytest.raises(SimError, match="process has ended"):
            trainer.run()
    finally:
        trainer.close()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{trainer.env_step:09d}"]


def children(process_id: int) -> list[int]:
    tasks = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(number) for task in tasks for number in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_run(config, tmp_path, number):
    config = with_budget(config, 100_000, eval_every=0, checkpoint_every=100_000, **ASYNC)
    process = start(replace(config, env=TINY.env), tmp_path / "run", tmp_path)
    wait_for(tmp_path / "run" / "train.csv", process)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == (130 if number == signal.SIGINT else -9), stderr
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
