"""What the policy saw and would have sent, as a recording that other tools read."""

import json

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from tiny_bag import START_NS
from tiny_policy import SPEC

from sac_ae_ros.bag import policy_bag
from sac_ae_ros.bag.evaluate import Tick
from sac_ae_ros.bag.look import Look
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import RunError

NAMES = [action.name for action in SPEC.actions]


def looks(count: int = 5) -> list[Look]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        values = None if i == 1 else rng.uniform(-1, 1, 2)
        recorded = None if i == 2 else rng.uniform(-1, 1, 2)
        measured = (None, None) if i == 3 else (0.01 * i, 0.5 * i)
        tick = Tick(START_NS + i * 10**8, START_NS + i * 10**8 + 7, values, recorded, *measured, 0.001, False)
        found.append(Look(i, tick, np.zeros((2, 2, 3), np.uint8), rng.integers(0, 256, (8, 8, 3), np.uint8)))
    return found


def write(out, count: int = 5) -> list[Look]:
    found = looks(count)
    with policy_bag.writing(out, NAMES) as recording:
        for look in found:
            recording.add(look)
    return found


def test_it_holds_every_number_and_the_very_pixels_at_the_times_of_the_frames(tmp_path):
    found = write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy_bag"]
    with Bag.open(tmp_path / "policy_bag") as bag:
        assert {topic.name: topic.messages for topic in bag.topics.values()} == {
            "/policy/command": 4,
            "/policy/novelty": 4,
            "/policy/reconstruction_error": 4,
            "/policy/recorded": 4,
            "/policy/seen": 5,
        }
        by_topic: dict[str, dict] = {}
        for record in bag.records():
            by_topic.setdefault(record.topic, {})[record.stamp_ns] = bag.message(record)
        assert bag.salvage is None
    for look in found:
        tick = look.tick
        seen = by_topic["/policy/seen"][tick.log_ns]
        assert seen.header.stamp.sec * 10**9 + seen.header.stamp.nanosec == tick.stamp_ns
        assert np.array_equal(cv2.imdecode(seen.data, cv2.IMREAD_COLOR)[..., ::-1], look.seen)
        for topic, values in (("command", tick.values), ("recorded", tick.recorded)):
            message = by_topic[f"/policy/{topic}"].get(tick.log_ns)
            assert (message is None) == (values is None)
            if message is not None:
                assert (list(message.name), message.position.tolist()) == (NAMES, values.tolist())
        for topic, value in (("novelty", tick.score), ("reconstruction_error", tick.novelty)):
            message = by_topic[f"/policy/{topic}"].get(tick.log_ns)
            assert (None if message is None else message.data) == value


def test_other_tools_open_it(tmp_path):
    write(tmp_path)
    with AnyReader([tmp_path / "policy_bag"]) as reader:
        assert sum(1 for _ in reader.messages()) == 21


def test_an_older_one_is_replaced_but_nothing_else(tmp_path):
    write(tmp_path)
    write(tmp_path, 2)
    with Bag.open(tmp_path / "policy_bag") as bag:
        assert bag.topics["/policy/seen"].messages == 2
    (tmp_path / "policy_bag" / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="move it away"):
        write(tmp_path)
    assert (tmp_path / "policy_bag" / "mine.txt").read_text() == "keep"


def test_what_fails_leaves_the_older_one(tmp_path):
    write(tmp_path)
    with pytest.raises(KeyError), policy_bag.writing(tmp_path, NAMES):
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy_bag"]


def test_the_layout_shows_this_recording(tmp_path):
    policy_bag.write_layout(tmp_path, "/front/image_raw", ["a", "b", "c"])
    layout = json.loads((tmp_path / "foxglove_layout.json").read_text())
    panels = layout["configById"]
    assert panels["Image!camera"]["imageMode"]["imageTopic"] == "/front/image_raw"
    paths = [(path["value"], path["label"], path["enabled"]) for path in panels["Plot!commands"]["paths"]]
    assert paths[:2] == [
        ("/policy/command.position[0]", "command a", True),
        ("/policy/recorded.position[0]", "recorded a", True),
    ]
    assert len(paths) == 6

    def leaves(node) -> set[str]:
        return {node} if isinstance(node, str) else leaves(node["first"]) | leaves(node["second"])

    assert leaves(layout["layout"]) == set(panels)
    topics = {f"/policy/{name}" for name in policy_bag.TOPICS}
    named = {path["value"].split(".")[0] for panel in panels.values() for path in panel.get("paths", [])} - {"1"}
    assert named | {panels["Image!seen"]["imageMode"]["imageTopic"]} <= topics
