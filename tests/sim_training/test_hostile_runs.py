"""Run folders from anywhere: a resume refuses them in one line, quickly, and touches nothing outside of them."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_config import TINY
from tiny_runs import train, with_budget

from sac_ae_ros.core.errors import RunError, SacAeError
from sim_training import checkpoint
from sim_training.frame_store import FrameStore
from sim_training.replay import Replay, ReplayConfig
from sim_training.trainer import Trainer

CONFIG = with_budget(TINY, 130, eval_every=0)  # in the middle of an episode
NEWEST = Path("checkpoints") / "000000130"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, run_dir)
    return run_dir


@pytest.fixture
def run_dir(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def resume(run_dir: Path, replay: str = "ram") -> None:
    Trainer(with_budget(TINY, 200, eval_every=0, replay=replay), run_dir, resume=True).close()


def refused(run_dir: Path, says: str, replay: str = "ram") -> None:
    with pytest.raises(SacAeError, match=says) as caught:
        resume(run_dir, replay)
    assert "\n" not in str(caught.value)


def change_state(run_dir: Path, **values) -> None:
    state = checkpoint.load_tensors(run_dir / NEWEST / "agent.pt")
    torch.save({**state, **values}, run_dir / NEWEST / "agent.pt")


def change_arrays(run_dir: Path, name: str, **values) -> None:
    path = run_dir / NEWEST / name
    checkpoint.write_arrays(path, {**checkpoint.load_arrays(path), **values})


def test_the_whole_run_is_resumed(run_dir):
    resume(run_dir)


@pytest.mark.parametrize("place", ["../victim.csv", "{absolute}", "checkpoints/000000130/agent.pt"])
@pytest.mark.parametrize("size", [0, 3])
def test_a_checkpoint_names_no_file_to_cut_but_its_curves(run_dir, place, size):
    victim = run_dir.parent / "victim.csv"
    victim.write_text("precious")
    name = place.format(absolute=victim)
    target = run_dir / name
    change_state(run_dir, metrics={"train.csv": 0, name: size})
    before = target.read_bytes()
    refused(run_dir, "resume: expected sizes of train.csv and eval.csv in the checkpoint, got ")
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["train.csv", "eval.csv", "replay/frames.bin"])
def test_what_a_resume_writes_to_is_no_link(run_dir, name):
    victim = run_dir.parent / "victim"
    shutil.copy(run_dir / name, victim)
    before = victim.read_bytes()
    (run_dir / name).unlink()
    (run_dir / name).symlink_to(victim)
    refused(run_dir, "to be a file of the run's own, got a link")
    (run_dir / name).unlink()
    os.mkfifo(run_dir / name)
    refused(run_dir, "to be a file of the run's own, got a link or no file")
    assert victim.read_bytes() == before


def test_checkpoints_are_called_by_numbers_and_are_no_links(run_dir):
    elsewhere = run_dir.parent / "elsewhere"
    elsewhere.mkdir()
    (run_dir / "checkpoints" / "999999999").symlink_to(elsewhere)
    (run_dir / "checkpoints" / "9evil").mkdir()
    (run_dir / "checkpoints" / "000000009").mkdir()
    assert checkpoint.load(run_dir, "cpu")[0]["counters"][0] == 130


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"metrics": {"train.csv": -1}}, "expected sizes of train.csv"),
        ({"metrics": {"train.csv": "many"}}, "expected sizes of train.csv"),
        ({"counters": [10**30] * 8}, "expected a count"),
        ({"counters": [-5] * 8}, "expected a count"),
        ({"counters": [1.5] * 8}, "expected a count"),
        ({"counters": []}, "does not fit"),
        ({"lanes": [[True, "x"]]}, "does not fit"),
        ({"losses": {"../x": torch.zeros(())}}, "losses: expected a number for each of"),
        ({"losses": {"q": torch.zeros(9)}}, "losses: expected a number for each of"),
        ({"seconds": "long"}, "does not fit"),
        ({"held": [[1.0]]}, "does not fit"),
        ({"diverged": [1, 2, 3]}, "does not fit"),
        ({"diverged": [-1, 0]}, "expected a count"),
        ({"recorded": 2**60}, "how many frames were recorded"),
        ({"torch_rng": 7}, "does not fit"),
        ({"numpy_rng": {"bit_generator": "none"}}, "does not fit"),
        ({"agent": {}}, "does not fit"),
    ],
)
def test_values_that_no_run_has_saved_are_refused(run_dir, values, says):
    change_state(run_dir, **values)
    refused(run_dir, says)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"head": np.array([-3])}, "head: expected 0"),
        ({"head": np.array([2**60])}, "head: expected 0"),
        ({"head": np.array([7, 7])}, r"head: expected int64 \(1,\), got int64 \(2,\)"),
        ({"head": np.array([7.0])}, r"head: expected int64 \(1,\), got float64"),
        ({"head": np.array([10**6])}, "no transition from a lane's newest frame"),
        ({"reward": np.zeros(0, np.float32)}, "expected"),
        ({"reward": np.zeros((294, 2), np.float32)}, r"reward: expected float32 \(294,\), got float32 \(294, 2\)"),
        ({"action": np.zeros((1, 2), np.float32)}, "action: expected float32"),
    ],
)
def test_a_replay_that_no_run_has_saved_is_refused(run_dir, values, says):
    change_arrays(run_dir, "replay.npz", **values)
    refused(run_dir, says)


@pytest.mark.parametrize(("name", "value", "says"), [("reward", np.nan, "finite"), ("continues", True, "newest frame")])
def test_values_of_a_replay_that_no_run_has_saved_are_refused(run_dir, name, value, says):
    array = checkpoint.load_arrays(run_dir / NEWEST / "replay.npz")[name]
    array[:] = value
    change_arrays(run_dir, "replay.npz", **{name: array})
    refused(run_dir, says)


def test_a_replay_without_transitions_is_told_and_not_searched_for_ever():
    replay = Replay(ReplayConfig(20, (3, 2, 2), 1))
    for says in ("found none$", "found none$", "found none in 100000 draws"):
        with pytest.raises(RunError, match=f"replay: expected transitions to draw from, {says}"):
            replay.draw(4, np.random.default_rng(0))
        replay.start(np.zeros((3, 2, 2), np.uint8))


def npy(header: bytes, data: bytes = b"") -> bytes:
    header = header.ljust(118 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-5,)}",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
    b"(" * 5000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("header", HEADERS, ids=["huge", "negative", "objects", "overflowing", "deep", "no text"])
@pytest.mark.parametrize("name", ["replay.npz", "env.npz"])
def test_arrays_that_claim_what_is_not_there_are_refused(run_dir, name, header):
    with zipfile.ZipFile(run_dir / NEWEST / name, "w") as archive:
        archive.writestr("reward.npy", npy(header))
    refused(run_dir, rf"resume: cannot read .*{name}")


def test_arrays_that_inflate_are_refused_before_they_do(run_dir):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, reward=np.zeros(50_000_000, np.float32))
    (run_dir / NEWEST / "replay.npz").write_bytes(buffer.getvalue())
    refused(run_dir, r"cannot read .*replay\.npz .*not compressed, it claims 200000128")


@pytest.mark.parametrize("replay", ["ram", "disk"])
@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_frames_of_a_wrong_size_are_refused_each_time_and_left_as_they_are(run_dir, replay, size):
    os.truncate(run_dir / checkpoint.FRAMES, size)
    for _ in range(2):  # room is made for a disk's frames, which must not look like them the next time
        refused(run_dir, r"resume: cannot read .*frames\.bin \(it is too short\)", replay)
        assert (run_dir / checkpoint.FRAMES).stat().st_size == size


def test_frames_that_are_too_many_are_not_read(tmp_path):
    (tmp_path / "frames.bin").write_bytes(b"\1" * 40)
    os.truncate(tmp_path / "frames.bin", 1 << 40)  # of which the disk has 40 bytes
    store = FrameStore("ram", tmp_path / "frames.bin", (10, 4), np.uint8, "cpu")
    store.load([(0, 10)])
    assert (store.read(np.arange(10)[None]) == 1).all()
