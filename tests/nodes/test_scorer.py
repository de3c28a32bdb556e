"""Episodes from two topics without stamps."""

import numpy as np

from sac_ae_ros.nodes.scorer import Heard, Recording, episodes_after, save


def recording(rewards: list[tuple[int, float]], ends: list[int], numbers: list[int] | None = None) -> Recording:
    numbers = numbers or list(range(1, len(rewards) + 1))
    return Recording(
        rewards=[Heard(ns, number, reward) for (ns, reward), number in zip(rewards, numbers, strict=True)],
        ends=[Heard(ns, i, False) for i, ns in enumerate(ends)],
    )


def test_rewards_belong_to_the_episode_in_which_they_were_published():
    heard = recording([(5, 9.0), (11, 1.0), (12, 2.0), (21, 4.0), (31, 8.0)], [10, 20, 30])
    assert [episode.total for episode in episodes_after(heard, 10)] == [3.0, 4.0]
    assert [episode.total for episode in episodes_after(heard, 20)] == [4.0]


def test_the_order_of_arrival_does_not_matter():
    heard = recording([(11, 1.0), (21, 4.0), (12, 2.0)], [20, 10, 30], numbers=[1, 3, 2])
    assert [episode.rewards for episode in episodes_after(heard, 10)] == [(1.0, 2.0), (4.0,)]


def test_lost_rewards_are_counted():
    heard = recording([(11, 1.0), (13, 1.0), (22, 1.0)], [10, 20, 30], numbers=[1, 3, 5])
    assert [episode.lost for episode in episodes_after(heard, 10)] == [1, 1]


def test_an_unfinished_episode_is_not_counted():
    assert episodes_after(recording([(11, 1.0)], [10]), 10) == []


def test_one_episode_is_saved_with_the_stamps_of_its_frames(tmp_path):
    heard = recording([(12, 0.5), (14, 0.25), (22, 1.0)], [10, 20, 30])
    picture = np.zeros((2, 2, 3), np.uint8)
    heard.images += [Heard(ns, i, (1000 * ns, picture + ns)) for i, ns in enumerate([9, 11, 13, 15, 21])]
    heard.commands += [
        Heard(ns, i, (1000 * (ns - 1), (float(ns), 0.0), ("a", "b"))) for i, ns in enumerate([10, 12, 16])
    ]
    save(tmp_path / "one.npz", heard, episodes_after(heard, 10)[0])
    with np.load(tmp_path / "one.npz", allow_pickle=False) as data:
        assert data["image_stamps_ns"].tolist() == [11000, 13000, 15000]
        assert data["images"][:, 0, 0, 0].tolist() == [11, 13, 15]
        assert data["commands"].tolist() == [[12.0, 0.0], [16.0, 0.0]]
        assert data["command_stamps_ns"].tolist() == [11000, 15000]
        assert data["rewards"].tolist() == [0.5, 0.25]
        assert data["reward_stamps_ns"].tolist() == [13000, 15000]
        assert data["action_names"].tolist() == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
