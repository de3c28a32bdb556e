"""Stretches and files that overlap in time come by log time, in bounded memory."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import small_bags as bags
import tiny_bag
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer
from tiny_policy import SPEC, write_policy

from sac_ae_ros.bag.beside import Summary
from sac_ae_ros.bag.evaluate import evaluate
from sac_ae_ros.bag.merge import MOST_ALIKE, WINDOW_ITEMS, Budget, Repeats, Stretch, Window, merge
from sac_ae_ros.bag.playback import Playback
from sac_ae_ros.bag.reader import Bag, Record
from sac_ae_ros.bag.transitions import Sources, transitions
from sac_ae_ros.core.policy import OnnxPolicy

S, MS = tiny_bag.START_NS, 1_000_000
ALL = "/image", "/policy_node/executed", "/reward", "/episode_end"


def stretches(opened: list[str], **groups: list[int]) -> list[Stretch[str]]:
    """A stretch of 10 bytes for each group of log times, which gives its name and notes that it was opened."""

    def read(name):
        opened.append(name)
        yield from ((stamp, name) for stamp in groups[name])

    return [Stretch(min(stamps), 10, partial(read, name)) for name, stamps in groups.items()]


def test_items_come_by_time_and_of_one_time_in_the_order_of_the_stretches():
    found = merge(stretches([], b=[1, 5, 5], a=[0, 5, 9], c=[5]), Budget())
    assert list(found) == [(0, "a"), (1, "b"), (5, "b"), (5, "b"), (5, "a"), (5, "c"), (9, "a")]


def test_only_stretches_that_overlap_are_open_at_one_time():
    opened: list[str] = []
    budget = Budget()
    found = merge(stretches(opened, a=[0, 1], b=[1, 3], c=[7, 8]), budget)
    assert opened == []
    assert next(found) == (0, "a")
    assert (opened, budget.used) == (["a"], 10)
    assert [next(found) for _ in range(3)] == [(1, "a"), (1, "b"), (3, "b")]
    assert (opened, budget.used) == (["a", "b"], 10)
    assert list(found) == [(7, "c"), (8, "c")]
    assert budget.used == 0


def test_a_stretch_beyond_the_budget_waits_and_that_is_told():
    late: list[bool] = []
    budget = Budget(25)
    found = merge(stretches([], a=[0, 9], b=[1, 8], c=[2, 3]), budget, lambda: late.append(True))
    used = []
    items = []
    for item in found:
        items.append(item)
        used.append(budget.used)
    assert sorted(items) == [(0, "a"), (1, "b"), (2, "c"), (3, "c"), (8, "b"), (9, "a")]
    assert [name for _, name in items] == ["a", "b", "b", "c", "c", "a"]
    assert max(used) == 20
    assert late


def test_a_merge_that_is_left_early_gives_its_budget_back():
    budget = Budget()
    found = merge(stretches([], a=[0, 1], b=[0, 1]), budget)
    next(found)
    found.close()
    assert budget.used == 0


def test_a_window_puts_right_what_is_out_of_order_by_a_little():
    stamps = [i + random.Random(i).randrange(100) for i in range(3 * WINDOW_ITEMS)]
    window = Window[int]()
    found = [pair for stamp in stamps for pair in window.push(stamp, 1, stamp)] + list(window.flush())
    assert [stamp for stamp, _ in found] == sorted(stamps)
    window = Window[int]()
    for _ in itertools.chain.from_iterable(window.push(stamp, 4 << 20, stamp) for stamp in (5, 1, 9)):
        pass
    assert window.fits(1)
    assert not window.fits(0)


def drive() -> list[tuple]:
    """120 ticks of three episodes; each end is recorded 1 ms before the picture that the next one begins with."""
    messages = []
    for i in range(120):
        at = S + i * 100 * MS
        messages.append((at + 4 * MS, "/image", tiny_bag.image(at, 2 * i)))
        messages.append((at + 9 * MS, "/policy_node/executed", tiny_bag.joints(at, ["linear", "angular"], [0.2, 0])))
        messages.append((at + 102 * MS, "/reward", tiny_bag.float64(float(i))))
    messages += [(S + i * 100 * MS + 3 * MS, "/episode_end", tiny_bag.boolean(True)) for i in (40, 80)]
    return sorted(messages, key=lambda each: each[0])


def by_topic() -> list[list[tuple]]:
    return [[message for message in drive() if message[1] == topic] for topic in ALL]


def mcap(path: Path, groups: list[list[tuple]], chunk: int = 4096, index: IndexType = IndexType.ALL) -> Path:
    """One mcap file with the groups one after the other, as mcap's own writer does it; chunk 0: without chunks."""
    with path.open("wb") as file:
        writer = McapWriter(file, chunk or 1, CompressionType.ZSTD, index_types=index, use_chunking=chunk > 0)
        writer.start("ros2", "test")
        channels: dict[str, int] = {}
        for log_ns, topic, message in itertools.chain.from_iterable(groups):
            kind = message.__msgtype__
            if topic not in channels:
                text, _ = tiny_bag.STORE.generate_msgdef(kind, ros_version=2)
                channels[topic] = writer.register_channel(
                    topic, "cdr", writer.register_schema(kind, "ros2msg", text.encode())
                )
            writer.add_message(channels[topic], log_ns, bytes(tiny_bag.STORE.serialize_cdr(message, kind)), log_ns)
        writer.finish()
    return path


def folder(path: Path, groups: list[list[tuple]], metadata: bool) -> Path:
    """Each group as a file of its own; metadata.yaml names them in the order of the groups."""
    path.mkdir()
    names = [mcap(path / f"part_{i}.mcap", [group]).name for i, group in enumerate(groups)]
    if metadata:
        text = f"rosbag2_bagfile_information: {{relative_file_paths: [{', '.join(names)}]}}"
        (path / "metadata.yaml").write_text(text)
    return path


def sqlite(path: Path, groups: list[list[tuple]]) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {}
        for log_ns, topic, message in itertools.chain.from_iterable(groups):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=tiny_bag.STORE)
            writer.write(connections[topic], log_ns, tiny_bag.STORE.serialize_cdr(message, kind))
    return next(path.glob("*.db3"))


def cut(path: Path, length: int) -> Path:
    """Without the index at its end, and with it whatever lies there."""
    path.write_bytes(path.read_bytes()[:-length])
    return path


def halves() -> list[list[tuple]]:
    """Each topic in two files, the later one named first."""
    return [group[half] for group in by_topic() for half in (slice(len(group) // 2, None), slice(len(group) // 2))]


def in_turn() -> list[list[tuple]]:
    """Three files of which each has every third message."""
    return [drive()[i::3] for i in range(3)]


MAKERS = {
    "one sorted file": lambda path: mcap(path / "drive.mcap", [drive()]),
    "a file for each topic": lambda path: folder(path / "drive", by_topic(), False),
    "halves of topics, misnamed": lambda path: folder(path / "drive", halves(), True),
    "every third message": lambda path: folder(path / "drive", in_turn(), True),
    "topics one after the other": lambda path: mcap(path / "drive.mcap", by_topic()),
    "without an index": lambda path: mcap(path / "drive.mcap", by_topic(), index=IndexType.NONE),
    "without chunks": lambda path: mcap(path / "drive.mcap", by_topic(), 0),
    "cut behind the last chunk": lambda path: cut(mcap(path / "drive.mcap", by_topic()), 60),
    "sqlite": lambda path: sqlite(path / "drive", by_topic()),
    "sqlite, cut": lambda path: cut(sqlite(path / "drive", by_topic()), 4096),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_topics_whose_parts_overlap_give_the_ticks_and_episodes_of_one_sorted_file(maker, tmp_path):
    policy = OnnxPolicy.load(write_policy(tmp_path / "policy.onnx"))
    with Bag.open(MAKERS[maker](tmp_path)) as bag:
        logs = [record.stamp_ns for record in bag.records()]
        result, summary = evaluate(bag, policy), Summary()
        moments = list(transitions(bag, SPEC, Sources(), summary))
        played = [(record.stamp_ns, record.topic) for record in Playback(bag).records()]
    assert logs == [log_ns for log_ns, _, _ in drive()]
    assert [tick.restarted for tick in result.ticks] == [i in (0, 40, 80) for i in range(120)]
    assert len(summary.returns) == 3
    assert (summary.transitions, summary.terminated) == (119, 2)
    assert [moment.reward for moment in moments if moment.terminated] == [39.0, 79.0]
    assert played == [(log_ns, topic) for log_ns, topic, _ in drive()]


def test_metadata_breaks_ties(tmp_path):
    texts = [("/b", 2.0), ("/a", 1.0)]
    groups = [[(S, topic, tiny_bag.float64(value))] for topic, value in texts]
    with Bag.open(folder(tmp_path / "drive", groups, True)) as bag:
        assert [record.topic for record in bag.records()] == ["/b", "/a"]
    with Bag.open(folder(tmp_path / "other", groups[::-1], True)) as bag:
        assert [record.topic for record in bag.records()] == ["/a", "/b"]


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_messages_that_are_late_by_little_come_in_their_turn(index, tmp_path):
    messages = [(S + (i + (-1) ** i * (i % 7)) * MS, "/reward", tiny_bag.float64(float(i))) for i in range(500)]
    with Bag.open(mcap(tmp_path / "drive.mcap", [messages], index=index)) as bag:
        logs = [record.stamp_ns for record in bag.records()]
        assert bag.salvage is None
    assert logs == sorted(log_ns for log_ns, _, _ in messages)


def test_files_of_three_formats_are_one_recording(tmp_path):
    whole = tmp_path / "drive"
    mcap(whole.with_suffix(".mcap"), [in_turn()[0]])
    whole.mkdir()
    whole.with_suffix(".mcap").rename(whole / "first.mcap")
    sqlite(tmp_path / "second", [in_turn()[1]]).rename(whole / "second.db3")
    bags.write_ros1(whole / "third.bag", count=3)
    with Bag.open(whole) as bag:
        logs = [record.stamp_ns for record in bag.records()]
    assert len(logs) == len(in_turn()[0]) + len(in_turn()[1]) + 6
    assert logs == sorted(logs)


def sac_ae(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sac_ae_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])


def test_several_recordings_are_one_with_merge(tmp_path):
    policy = write_policy(tmp_path / "policy.onnx")
    images, *rest = by_topic()
    recordings = mcap(tmp_path / "camera.mcap", [images]), sqlite(tmp_path / "robot", rest)
    scored = sac_ae("bag-eval", *recordings, "--merge", "--policy", policy, "--json")
    facts = json.loads(scored.stdout)
    assert (facts["ticks"], facts["restarts"], facts["commands"]) == (120, 3, 120)
    assert facts["bag"] == f"{recordings[0]} + {recordings[1]}"
    filled = sac_ae("bag-to-replay", *recordings, "--merge", "--policy", policy, "--out", tmp_path / "out", "--json")
    facts = json.loads(filled.stdout)
    assert (facts["transitions"], facts["episodes"], facts["terminated"]) == (119, 3, 2)
    assert len(facts["bags"]) == 1


OVERLAPPING = {
    "given twice": lambda path: [mcap(path / "drive.mcap", [drive()])] * 2,
    "in two formats": lambda path: [mcap(path / "drive.mcap", [drive()]), sqlite(path / "drive", by_topic())],
    "without an index": lambda path: [mcap(path / i.name, [drive()], index=i) for i in (IndexType.ALL, IndexType.NONE)],
    "files that overlap": lambda path: [folder(path / "drive", [drive()[:200], drive()[100:]], True)],
}


@pytest.mark.parametrize("maker", OVERLAPPING)
def test_what_several_files_have_alike_counts_once(maker, tmp_path):
    policy = OnnxPolicy.load(write_policy(tmp_path / "policy.onnx"))
    first, *others = OVERLAPPING[maker](tmp_path)
    with Bag.open(first, *others) as bag:
        logs = [record.stamp_ns for record in bag.records()]
        assert logs == [log_ns for log_ns, _, _ in drive()]
        counts = {name: topic.messages for name, topic in bag.topics.items()}
        assert counts == {group[0][1]: len(group) for group in by_topic()}
        result, summary = evaluate(bag, policy), Summary()
        rewards = [moment.reward for moment in transitions(bag, SPEC, Sources(), summary)]
        repeats = len(others) * len(drive()) or 100
        told = f"{repeats} messages are in several files, alike in topic, time and bytes: each counts once"
        assert [remark for remark in bag.remarks if "alike" in remark] == [told]
    assert (len(result.ticks), result.frames, result.commands, bag.salvage) == (120, 120, 120, None)
    with Bag.open(mcap(tmp_path / "once.mcap", [drive()])) as bag:
        assert rewards == [moment.reward for moment in transitions(bag, SPEC, Sources(), Summary())]
        assert bag.remarks == []


def test_only_what_another_file_gave_is_a_repeat():
    repeats = Repeats(["/a"])

    def finds(file: int, data: bytes, stamp_ns: int = 1, topic: str = "/a", kind: str = "x/msg/Y") -> bool:
        return repeats.finds(file, Record(topic, kind, stamp_ns, data, False))

    assert [finds(0, b"1"), finds(0, b"1")] == [False, False]  # two publishers in one file
    assert [finds(1, b"1"), finds(1, b"1"), finds(1, b"1")] == [True, True, False]
    assert [finds(1, b"2"), finds(1, b"1", kind="x/msg/Z"), finds(1, b"1", topic="/b")] == [False] * 3
    assert [finds(1, b"1", stamp_ns=2), finds(0, b"1", stamp_ns=2)] == [False, True]
    assert repeats.counts == {"/a": 3}


def test_messages_of_one_log_time_are_compared_in_bounded_memory():
    repeats = Repeats(["/a"])
    records = [Record("/a", "x/msg/Y", 0, i.to_bytes(4, "little"), False) for i in range(MOST_ALIKE + 100)]
    assert not any(repeats.finds(0, record) for record in records)
    assert sum(repeats.finds(1, record) for record in records) == MOST_ALIKE


def test_a_part_of_several_recordings_is_by_their_common_log_time(tmp_path):
    policy = write_policy(tmp_path / "policy.onnx")
    images, *rest = by_topic()
    recordings = mcap(tmp_path / "camera.mcap", [images]), sqlite(tmp_path / "robot", rest)
    options = "--merge", "--policy", policy, "--start", 4, "--duration", 2, "--json"
    facts = json.loads(sac_ae("bag-eval", *recordings, *options).stdout)
    one = json.loads(sac_ae("bag-eval", mcap(tmp_path / "one.mcap", in_turn()), *options[1:]).stdout)
    assert facts["recorded_s"] == pytest.approx(2, abs=0.1)
    keys = "frames", "ticks", "restarts", "commands", "actions", "paired_by"
    assert {key: facts[key] for key in keys} == {key: one[key] for key in keys}
    filled = sac_ae("bag-to-replay", *recordings, *options, "--out", tmp_path / "out")
    assert json.loads(filled.stdout)["images"] == facts["frames"]


def test_several_recordings_are_not_played_without_it(tmp_path):
    done = sac_ae("replay", tmp_path / "a.mcap", tmp_path / "b.mcap")
    assert done.returncode == 2
    assert "expected one BAG, got 2; give --merge" in done.stderr
    assert len(done.stderr.splitlines()) == 1
