"""The ring of single frames: stacks at episode borders, wrap, time limits, memory."""

import numpy as np
import pytest

from sim_training.replay import Replay

SHAPE = (3, 2, 2)


def frame(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def fill(replay: Replay, first: int, steps: int, *, terminated: bool = False) -> None:
    """One episode whose frames hold first, first + 1, ...; rewards and actions hold the frame they start from."""
    replay.start(frame(first))
    for i in range(steps):
        value = first + i
        replay.add(np.full(1, value / 255, np.float32), value, terminated and i == steps - 1, frame(value + 1))


def values(stacks) -> list[list[int]]:
    return stacks.numpy()[:, ::3, 0, 0].astype(int).tolist()


def test_a_batch_is_consistent_and_stacks_stop_at_the_episodes_start():
    replay = Replay(50, SHAPE, 1, 3)
    fill(replay, 0, 5)
    fill(replay, 100, 5, terminated=True)
    batch = replay.sample(400, np.random.default_rng(0))
    assert batch.obs.shape == (400, 9, 2, 2)
    for obs, next_obs, reward, terminated in zip(
        values(batch.obs), values(batch.next_obs), batch.reward.tolist(), batch.terminated.tolist(), strict=True
    ):
        start = 100 if reward >= 100 else 0
        now = int(reward)
        assert obs == [max(start, now - 2), max(start, now - 1), now]
        assert next_obs == [max(start, now - 1), max(start, now), now + 1]
        assert terminated == (now == 104)
    assert set(batch.reward.tolist()) == {*range(5), *range(100, 105)}


def test_a_time_limit_is_not_stored_as_a_termination():
    replay = Replay(50, SHAPE, 1, 2)
    fill(replay, 0, 5, terminated=False)
    assert not replay.sample(50, np.random.default_rng(0)).terminated.any()


@pytest.mark.parametrize("capacity", [7, 8, 9, 10, 11])
def test_the_wrap_keeps_reward_ending_frames_and_never_mixes_old_with_new(capacity):
    replay = Replay(capacity, SHAPE, 1, 3)
    for episode in range(12):
        fill(replay, 20 * episode, 5, terminated=True)
        batch = replay.sample(300, np.random.default_rng(episode))
        for obs, next_obs, reward in zip(values(batch.obs), values(batch.next_obs), batch.reward.tolist(), strict=True):
            now = int(reward)
            start = now // 20 * 20
            assert obs == [max(start, now - 2), max(start, now - 1), now]
            assert next_obs[-1] == now + 1
        assert 20 * episode + 4 in batch.reward.tolist()


def test_frames_are_stored_once():
    replay = Replay(1000, (3, 84, 84), 6, 3)
    stored = sum(array.nbytes for name, array in vars(replay).items() if isinstance(array, np.ndarray))
    assert stored / 1000 <= 1.02 * 3 * 84 * 84


def test_state_restores_the_very_same_batches():
    replay, other = Replay(20, SHAPE, 1, 3), Replay(20, SHAPE, 1, 3)
    for episode in range(6):
        fill(replay, 20 * episode, 5)
    other.load_state({name: array.copy() for name, array in replay.state().items()})
    for buffer in (replay, other):
        fill(buffer, 200, 5)
    first, second = (buffer.sample(64, np.random.default_rng(1)) for buffer in (replay, other))
    assert (first.obs == second.obs).all()
    assert (first.reward == second.reward).all()
