"""The ring of single frames: stacks and n-step sums at episode borders, wrap, time limits, lanes, memory, restarts."""

from pathlib import Path

import numpy as np
import pytest

from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training.replay import Replay, ReplayConfig, Storage

SHAPE = (3, 2, 2)


def make(capacity: int, frame_stack: int = 3, storage: Storage | None = None, **options) -> Replay:
    return Replay(ReplayConfig(capacity, SHAPE, 1, frame_stack=frame_stack, **options), storage)


def frame(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def fill(replay: Replay, first: int, steps: int, *, terminated: bool = False, lane: int = 0) -> None:
    """One episode whose frames hold first, first + 1, ...; rewards and actions hold the frame they start from."""
    replay.start(frame(first), lane)
    for i in range(steps):
        value = first + i
        action = np.full(1, value / 255, np.float32)
        replay.add(action, value, terminated and i == steps - 1, frame(value + 1), lane)


def sample(replay: Replay, count: int, seed: int = 0):
    return replay.sample(count, np.random.default_rng(seed))


def values(stacks) -> list[list[int]]:
    return stacks.numpy()[:, ::3, 0, 0].astype(int).tolist()


def test_a_batch_is_consistent_and_stacks_stop_at_the_episodes_start():
    replay = make(50, gamma=0.5)
    fill(replay, 0, 5)
    fill(replay, 100, 5, terminated=True)
    batch = sample(replay, 400)
    assert batch.obs.shape == (400, 9, 2, 2)
    assert (batch.discount == 0.5).all()
    for obs, next_obs, action, reward, terminated in zip(
        values(batch.obs),
        values(batch.next_obs),
        batch.action.tolist(),
        batch.reward.tolist(),
        batch.terminated.tolist(),
        strict=True,
    ):
        start = 100 if reward >= 100 else 0
        now = int(reward)
        assert round(action[0] * 255) == now
        assert obs == [max(start, now - 2), max(start, now - 1), now]
        assert next_obs == [max(start, now - 1), max(start, now), now + 1]
        assert terminated == (now == 104)
    assert set(batch.reward.tolist()) == {*range(5), *range(100, 105)}


def test_frames_without_transitions_serve_the_stacks_of_later_ones():
    replay = make(50)
    replay.start(frame(1))
    for value in (2, 3):
        replay.follow(frame(value))
    replay.add(np.zeros(1, np.float32), 7.0, False, frame(4))
    replay.follow(frame(5))
    batch = sample(replay, 20)
    assert (values(batch.obs), values(batch.next_obs)) == ([[1, 2, 3]] * 20, [[2, 3, 4]] * 20)
    assert replay.transitions == 1


def test_a_time_limit_is_not_stored_as_a_termination():
    replay = make(50, 2)
    fill(replay, 0, 5, terminated=False)
    assert not sample(replay, 50).terminated.any()


@pytest.mark.parametrize("terminated", [True, False])
def test_n_step_sums_stop_at_the_episodes_end(terminated):
    """Rewards 10, 11, 12, 13, 14 and gamma 1/2; then another episode, whose rewards must not be added."""
    replay = make(50, n_step=3, gamma=0.5)
    fill(replay, 10, 5, terminated=terminated)
    fill(replay, 100, 5)
    expected = {  # first frame -> sum, last frame, gamma^m, the task's end
        10: (10 + 11 / 2 + 12 / 4, 13, 1 / 8, False),
        11: (11 + 12 / 2 + 13 / 4, 14, 1 / 8, False),
        12: (12 + 13 / 2 + 14 / 4, 15, 1 / 8, terminated),
        13: (13 + 14 / 2, 15, 1 / 4, terminated),
        14: (14, 15, 1 / 2, terminated),
    }
    batch = sample(replay, 300)
    seen = set()
    for obs, next_obs, *rest in zip(
        values(batch.obs),
        values(batch.next_obs),
        batch.reward.tolist(),
        batch.discount.tolist(),
        batch.terminated.tolist(),
        strict=True,
    ):
        if obs[-1] < 100:
            reward, last, discount, ended = expected[obs[-1]]
            assert (rest[0], next_obs[-1], rest[1], rest[2]) == (reward, last, discount, ended)
            seen.add(obs[-1])
    assert seen == set(expected)


def test_n_step_sums_stop_at_the_newest_frame():
    replay = make(50, n_step=3, gamma=0.5)
    fill(replay, 10, 2)
    batch = sample(replay, 50)
    assert set(zip(batch.reward.tolist(), batch.discount.tolist(), strict=True)) == {(10 + 11 / 2, 1 / 4), (11, 1 / 2)}
    assert {stack[-1] for stack in values(batch.next_obs)} == {12}


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("capacity", [7, 8, 9, 10, 11])
def test_the_wrap_keeps_reward_ending_frames_and_never_mixes_old_with_new(capacity, n_step):
    replay = make(capacity, n_step=n_step, gamma=1.0)
    for episode in range(12):
        fill(replay, 20 * episode, 5, terminated=True)
        batch = sample(replay, 300, episode)
        starts, ends = set(), set()
        for obs, next_obs, reward, terminated in zip(
            values(batch.obs),
            values(batch.next_obs),
            batch.reward.tolist(),
            batch.terminated.tolist(),
            strict=True,
        ):
            now, start = obs[-1], obs[-1] // 20 * 20
            last = min(now + n_step, start + 5)
            assert obs == [max(start, now - 2), max(start, now - 1), now]
            assert next_obs[-1] == last
            assert reward == sum(range(now, last))
            assert terminated == (last == start + 5)
            starts.add(now)
            ends.add(last)
        assert 20 * episode + 4 in starts
        assert 20 * episode + 5 in ends


def test_lanes_do_not_mix():
    replay = make(40, lanes=2, n_step=2, gamma=1.0)
    for episode in range(5):  # the lanes' episodes have other lengths, and lane 1 wraps first
        fill(replay, 20 * episode, 4, lane=0)
        fill(replay, 100 + 20 * episode, 9, lane=1)
    batch = sample(replay, 600)
    for obs, next_obs in zip(values(batch.obs), values(batch.next_obs), strict=True):
        length = 9 if obs[-1] >= 100 else 4
        start = obs[-1] // 20 * 20
        assert obs[0] >= start
        assert next_obs[-1] == min(obs[-1] + 2, start + length)
    lanes = np.array([stack[-1] >= 100 for stack in values(batch.obs)])
    assert 0.35 < lanes.mean() < 0.65
    assert len(replay) == 40


def test_every_transition_is_drawn_equally_often():
    replay = make(30)
    fill(replay, 0, 3)
    fill(replay, 50, 7)
    counts = np.unique(sample(replay, 10_000).reward.numpy(), return_counts=True)[1]
    assert len(counts) == 10
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_frames_are_stored_once():
    replay = Replay(ReplayConfig(1004, (3, 84, 84), 6, frame_stack=3))
    for _ in range(4):
        replay.start(np.zeros((3, 84, 84), np.uint8))
        for _ in range(250):
            replay.add(np.zeros(6, np.float32), 0.0, False, np.zeros((3, 84, 84), np.uint8))
    stored = sum(array.nbytes for array in vars(replay).values() if isinstance(array, np.ndarray))
    stored += replay._frames._frames.nbytes
    assert replay.transitions == 1000
    assert abs(replay.nbytes - stored) <= 16  # the ring's heads
    assert stored / replay.transitions <= 1.02 * 3 * 84 * 84


def test_states_are_stored_as_they_are():
    replay = Replay(ReplayConfig(10, (4,), 1, dtype=np.float32))
    replay.start(np.arange(4, dtype=np.float32))
    replay.add(np.zeros(1, np.float32), 1.0, False, np.arange(4, 8, dtype=np.float32))
    batch = sample(replay, 2)
    assert batch.obs.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.next_obs.tolist() == [[4, 5, 6, 7]] * 2


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_restart_gives_the_very_same_batches_although_the_ring_went_on_after_the_save(tmp_path, kind):
    """The file must still hold what the save needs when later frames have wrapped around it."""
    storage = Storage(kind, tmp_path / "replay" / "frames.bin")
    options = {"storage": storage, "margin": 14, "n_step": 2}
    replay = make(20, **options)
    for episode in range(6):
        fill(replay, 20 * episode, 5)
    state = {name: array.copy() for name, array in replay.save().items()}
    expected = sample(replay, 64, 1)
    assert not replay.must_save()
    fill(replay, 200, 11)  # these 12 frames come after the save: lost at a kill
    assert not replay.must_save()
    fill(replay, 230, 1)
    assert replay.must_save()  # another step might write over what the save needs
    if kind == "ram":
        del replay
    again = make(20, **options)
    again.load(state)
    found = sample(again, 64, 1)
    for name in ("obs", "action", "reward", "next_obs", "terminated", "discount"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    fill(again, 120, 5)
    assert max(stack[-1] for stack in values(sample(again, 64, 2).obs)) == 124


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_buffer_of_several_lanes_may_grow_until_it_wraps(tmp_path, kind):
    storage = Storage(kind, tmp_path / "replay" / "frames.bin")
    replay = make(40, storage=storage, lanes=2, margin=4)
    fill(replay, 0, 5, lane=0)
    fill(replay, 100, 9, lane=1)
    state = {name: array.copy() for name, array in replay.save().items()}
    expected = sample(replay, 64)
    larger = make(80, storage=storage, lanes=2, margin=4)
    larger.load(state)
    found = sample(larger, 64)
    assert (found.obs == expected.obs).all()
    assert (found.reward == expected.reward).all()
    for i in range(4):
        fill(larger, 20 * i, 12, lane=1)
    state = {name: array.copy() for name, array in larger.save().items()}
    with pytest.raises(RunError, match="capacity would change"):
        make(40, storage=storage, lanes=2, margin=4).load(state)


def test_later_saves_write_new_frames_only(tmp_path):
    path = tmp_path / "replay" / "frames.bin"
    replay = make(1000, storage=Storage("ram", path), margin=100)
    fill(replay, 0, 50)
    replay.save()
    with path.open("r+b") as file:  # whatever stands in saved slots is not touched again
        file.write(b"\xab" * 12)
    fill(replay, 100, 20)
    replay.save()
    data = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 12)
    assert len(data) == 72
    assert (data[0] == 0xAB).all()
    assert (data[51] == 100).all()


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_frames_that_are_gone_are_named(tmp_path, kind):
    storage = Storage(kind, tmp_path / "replay" / "frames.bin")
    replay = make(20, storage=storage)
    fill(replay, 0, 5)
    state = {name: array.copy() for name, array in replay.save().items()}
    storage.path.write_bytes(storage.path.read_bytes()[:30])
    with pytest.raises(RunError, match=r"frames\.bin.*too short"):
        make(20, storage=storage).load(state)
    storage.path.unlink()
    with pytest.raises(RunError, match=r"frames\.bin"):
        make(20, storage=storage).load(state)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_buffer_that_has_no_room_is_refused_with_its_size(tmp_path, kind):
    shape = ReplayConfig(10**9, (3, 840, 840), 1)
    with pytest.raises(ConfigError, match=r"10{9} frames need \d+\.\d GiB.*smaller"):
        Replay(shape, Storage(kind, tmp_path / "frames.bin"))
    assert sum(file.stat().st_size for file in Path(tmp_path).rglob("*")) < 10**9
