"""Recorded transitions: through the folder and back, drawn from a replay, and as the beginning of a run."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_config import TINY
from tiny_policy import SPEC as TINY_SPEC
from tiny_runs import curves, differences, everything, train, with_budget

from sac_ae_ros.core.errors import ConfigError, RunError
from sac_ae_ros.core.spec import ActionSpec
from sim_training import checkpoint, offline
from sim_training.config import TrainConfig
from sim_training.envs.make import make_env
from sim_training.offline import ReplayWriter, StoredReplay
from sim_training.replay import Replay, ReplayConfig, Storage

SPEC = replace(TINY_SPEC, cameras=(replace(TINY_SPEC.camera, height=12, width=12),))
SHAPE = (3, 12, 12)


def frame(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def episode(into: ReplayWriter | Replay, first: int, steps: int, **options) -> None:
    """Frames first, first + 1, ...; rewards hold the frame that they start from, actions a 250th of it."""
    into.start(frame(first), **options)
    for value in range(first, first + steps):
        action = np.array([value / 250, -value / 250], np.float32)
        into.add(action, float(value), False, frame(value + 1), **options)


def tricky(into: ReplayWriter | Replay) -> None:
    """Two transitions; two frames without; one that ends the task, of which there is no picture."""
    episode(into, 10, 2)
    into.follow(frame(13))
    into.follow(frame(14))
    into.add(np.array([1, -1], np.float32), 14.0, True, frame(14))


@pytest.fixture
def folder(tmp_path) -> Path:
    with ReplayWriter(tmp_path / "recorded", SPEC) as writer:
        tricky(writer)
        episode(writer, 50, 20)
        writer.finish({"bags": []})
    return tmp_path / "recorded"


def make(capacity: int, storage: Storage | None = None, **options) -> Replay:
    return Replay(ReplayConfig(capacity, SHAPE, 2, frame_stack=2, **options), storage)


def drawn(replay: Replay, count: int = 400) -> set[tuple]:
    """What batches hold: obs, next_obs (their frames' values), action, reward, terminated."""
    batch = replay.sample(count, np.random.default_rng(0))
    stacks = (stacked.numpy()[:, ::3, 0, 0].astype(int).tolist() for stacked in (batch.obs, batch.next_obs))
    rows = zip(*stacks, batch.action.tolist(), batch.reward.tolist(), batch.terminated.tolist(), strict=True)
    return {(tuple(obs), tuple(after), round(action[0] * 250), *rest) for obs, after, action, *rest in rows}


BY_HAND = {
    ((10, 10), (10, 11), 10, 10.0, False),
    ((10, 11), (11, 12), 11, 11.0, False),
    ((13, 14), (14, 14), 250, 14.0, True),
    ((50, 50), (50, 51), 50, 50.0, False),
    *(((value - 1, value), (value, value + 1), value, float(value), False) for value in range(51, 70)),
}


def test_what_was_written_is_what_is_drawn(folder):
    stored = StoredReplay(folder)
    replay = make(100)
    stored.fill(replay, 1)
    assert drawn(replay) == BY_HAND
    assert stored.transitions == replay.transitions == 23
    assert (stored.frame_shape, stored.frame_stack, stored.control_period_s) == (SHAPE, 2, 0.1)
    assert stored.actions == SPEC.actions
    assert stored.room(1) == len(replay) == 27


def test_the_folder_is_what_a_replay_saves(folder, tmp_path):
    shutil.copy(folder / offline.FRAMES, tmp_path / "frames.bin")
    replay = make(27, Storage("disk", tmp_path / "frames.bin"))
    replay.load(checkpoint.load_arrays(folder / offline.ARRAYS))
    assert drawn(replay) == BY_HAND


def test_lanes_take_whole_episodes_in_turn(tmp_path):
    with ReplayWriter(tmp_path / "recorded", SPEC) as writer:
        for first, steps in ((0, 20), (30, 5), (40, 6), (60, 9)):
            episode(writer, first, steps)
        writer.finish({})
    stored = StoredReplay(tmp_path / "recorded")
    alone, lanes = make(100), make(stored.room(2), lanes=2)
    stored.fill(alone, 1)
    stored.fill(lanes, 2)
    assert stored.room(2) == 2 * (6 + 7 + 10)
    assert len(lanes) == 44
    assert drawn(lanes, 1000) == drawn(alone, 1000)


def test_nothing_half_written_and_nothing_overwritten_unasked(folder, tmp_path):
    def interrupted() -> None:
        with ReplayWriter(tmp_path / "new", SPEC) as writer:
            tricky(writer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["recorded"]
    with pytest.raises(RunError, match="exists already; give --force"):
        ReplayWriter(folder, SPEC)
    with ReplayWriter(folder, SPEC, force=True) as writer:
        episode(writer, 90, 3)
        assert StoredReplay(folder).transitions == 23
        writer.finish({})
    assert StoredReplay(folder).transitions == 3
    assert [path.name for path in tmp_path.iterdir()] == ["recorded"]
    with pytest.raises(RunError, match="no recorded transitions; name another"):
        ReplayWriter(tmp_path, SPEC, force=True)


def recorded_config(folder: Path, env_steps: int = 150, **learn) -> TrainConfig:
    config = with_budget(TINY, env_steps)
    return replace(config, learn=replace(config.learn, replay_from=str(folder), **learn))


def test_a_run_begins_with_them_and_can_be_resumed_exactly_without_them(folder, tmp_path, monkeypatch, capfd):
    """Killed at the checkpoint of 70 steps; the ring of 120 frames and 94 to spare wraps later, over recorded ones."""
    with ReplayWriter(folder, SPEC, force=True) as writer:
        tricky(writer)
        episode(writer, 50, 90)
        writer.finish({})
    config = recorded_config(folder, replay_capacity=120)
    save = checkpoint.save

    def save_and_copy(run_dir, env_step, state, arrays):
        save(run_dir, env_step, state, arrays)
        if env_step == 70:
            rewards = arrays["replay"]["reward"][arrays["replay"]["continues"]].tolist()
            assert rewards[:93] == [10, 11, 14, *range(50, 140)]
            shutil.copytree(run_dir, tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_copy)
        whole = everything(train(config, tmp_path / "whole"))
    assert f"begins with 93 transitions of {folder}" in capfd.readouterr().err
    assert whole["replay.head"].tolist() == [97 + 150 + 2]  # one more for each episode: a whole one and a half
    shutil.rmtree(folder)
    resumed = everything(train(config, tmp_path / "killed", resume=True))
    assert differences(resumed, whole) == []
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")
    without = everything(train(replace(config, learn=replace(config.learn, replay_from="")), tmp_path / "without"))
    assert not np.array_equal(without["agent.log_alpha"], whole["agent.log_alpha"])


def test_what_does_not_fit_is_refused_with_both_sides(folder, tmp_path):
    config = recorded_config(folder)
    env = make_env(config.env)
    try:
        assert offline.open_for(config, env).transitions == 23
        sides = {
            r"has frames \(3, 12, 12\), this run \(3, 16, 12\)": replace(config.env, height=16),
            "has frame_stack 2, this run 3": replace(config.env, frame_stack=3),
        }
        for says, changed in sides.items():
            with pytest.raises(ConfigError, match=says):
                offline.open_for(replace(config, env=changed), env)
        with pytest.raises(ConfigError, match=r"needs room for 27 frames, learn\.replay_capacity is 26"):
            offline.open_for(recorded_config(folder, replay_capacity=26), env)
        for says, spec in {
            r"has a period of seconds 0\.2, this run 0\.1": replace(SPEC, control_period_s=0.2),
            r"has actions linear -0\.2\.\.0\.5 m/s, .*, this run linear -0\.2\.\.0\.6 m/s": replace(
                SPEC, actions=(ActionSpec("linear", "m/s", -0.2, 0.5), SPEC.actions[1])
            ),
        }.items():
            with ReplayWriter(folder, spec, force=True) as writer:
                episode(writer, 0, 3)
                writer.finish({})
            with pytest.raises(ConfigError, match=says):
                offline.open_for(config, env)
    finally:
        env.close()
    with pytest.raises(ConfigError, match=r"learn\.replay_from: expected env\.obs pixels"):
        replace(config, env=replace(config.env, obs="state"))
    with pytest.raises(RunError, match=r"replay_from: expected a folder that .* there is none at .*/none$"):
        train(recorded_config(tmp_path / "none"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_folder_is_named(folder):
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}

    def spoil(name: str, data: bytes, says: str) -> None:
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        (folder / name).write_bytes(data)
        with pytest.raises(RunError, match=says):
            StoredReplay(folder)

    spoil(offline.FRAMES, whole[offline.FRAMES][:-1], r"frames\.bin: expected 27 frames")
    spoil(offline.FRAMES, b"", r"frames\.bin: expected 27 frames")
    spoil(offline.ARRAYS, whole[offline.ARRAYS][:-100], r"cannot read .*replay\.npz")
    spoil(offline.FACTS, b"{", "holds no recorded transitions")
    facts = json.loads(whole[offline.FACTS])
    spoil(offline.FACTS, json.dumps({**facts, "format": 2}).encode(), "expected format 1, got 2")
    spoil(offline.FACTS, json.dumps({**facts, "frames": 26}).encode(), r"replay\.npz is damaged")
    for change in (
        {"frames": float("inf")},
        {"frames": 10**18},
        {"frame_stack": "two"},
        {"control_period_s": [0.1]},
        {"frame_shape": 3},
        {"frame_shape": ["a", {}, []]},
        {"actions": [{"name": "a", "unit": "1", "low": "lowest", "high": 1}]},
        {"actions": [{"name": "a"}]},
        {"actions": 7},
    ):
        spoil(offline.FACTS, json.dumps({**facts, **change}).encode(), "learn.replay_from: .*recorded|damaged|expected")
    for text in (b"[" * 100_000, b"[]", b"3", b"\xff", b" " * (2 << 20)):
        spoil(offline.FACTS, text, "holds no recorded transitions")
    for name, value in (("reward", np.nan), ("action", 2.0), ("episode_start", 5), ("continues", True)):
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        arrays = checkpoint.load_arrays(folder / offline.ARRAYS)
        arrays[name][-1] = value
        checkpoint.write_arrays(folder / offline.ARRAYS, arrays)
        with pytest.raises(RunError, match=r"replay\.npz is damaged"):
            StoredReplay(folder)


@pytest.mark.parametrize("name", [offline.FRAMES, offline.ARRAYS, offline.FACTS])
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, name, kind):
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "endless":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    with pytest.raises(RunError, match=r"learn\.replay_from: "):
        StoredReplay(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 1e400}, "cannot convert float infinity"),
        ({"frames": 10**12}, r"replay\.npz is damaged"),
        ({"frame_shape": [-1, 12, 12]}, "expected a frame's shape"),
        ({"frame_shape": [3, "x", 12]}, "expected a frame's shape"),
        ({"frame_shape": [[[]] * 9999] * 3}, "expected a frame's shape"),
        ({"frame_shape": [3, 12, 13]}, r"frames\.bin: expected 27 frames"),
        ({"actions": [{"name": "x"}]}, "holds no recorded transitions"),
    ],
)
def test_hostile_facts_of_a_folder_are_refused(change, says, folder):
    facts = json.loads((folder / offline.FACTS).read_text())
    (folder / offline.FACTS).write_text(json.dumps({**facts, **change}))
    with pytest.raises(RunError, match=says) as refused:
        StoredReplay(folder)
    assert len(str(refused.value)) < 600


def test_arrays_that_claim_more_than_they_hold_are_refused(folder):
    np.savez_compressed(folder / offline.ARRAYS, action=np.zeros(1 << 24, np.float32))
    with pytest.raises(RunError, match="not compressed, it claims"):
        StoredReplay(folder)
    for count in (10**10, 10**17, 10**30):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},), }}".ljust(117) + "\n"
        with zipfile.ZipFile(folder / offline.ARRAYS, "w") as out:
            out.writestr("action.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(RunError, match=r"cannot read .*replay\.npz"):
            StoredReplay(folder)


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/replaced"])
def test_a_checkpoint_outside_of_the_runs_folder_is_refused(tmp_path, name):
    outside = checkpoint.save(tmp_path / "other", 100, {"step": 1}, {})
    assert checkpoint.load(tmp_path / "other", "cpu")[0] == {"step": 1}
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside.parent if name == "checkpoints" else outside)
    with pytest.raises(RunError, match=r"leads to .*/other/.*, outside of the run's folder"):
        checkpoint.load(tmp_path / "run", "cpu")
