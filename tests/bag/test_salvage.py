"""Damaged recordings: what is physically there is read, and what is not is told."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import sqlite3
import struct
from pathlib import Path

import pytest
import small_bags as bags
from mcap.writer import Writer
from rosbags.highlevel import AnyReader

from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import BagError


def read(path):
    """The numbers of the commands and the count of images that can be deserialised, and the salvage."""
    with Bag.open(path) as bag:
        commands, frames = [], 0
        for record in bag.records():
            message = bag.message(record)
            if record.topic == "/image":
                frames += 1
            else:
                commands.append(round(message.linear.x * 1000))
        salvage = bag.salvage
    if salvage is not None:
        assert salvage.messages == len(commands) + frames
        assert salvage.by_topic == {"/cmd_vel": len(commands), "/image": frames}
    return commands, frames, salvage


def rosbags_fails(path):
    """Whether rosbags alone refuses it."""
    try:
        with AnyReader([path]) as reader:
            list(reader.messages())
    except Exception:
        return True
    return False


# Of 600; at most 420 lie before the cut. zstd gives whole blocks of 128 KiB only, lz4 of 64 KiB.
@pytest.mark.parametrize(
    ("storage", "mode", "least"),
    [
        ("mcap", "none", 420),
        ("mcap", "message", 420),
        ("mcap", "storage", 420),
        ("mcap", "file", 400),
        ("sqlite3", "none", 416),
        ("sqlite3", "message", 416),
        ("sqlite3", "file", 370),
    ],
)
def test_a_file_without_its_last_third_gives_what_is_left(storage, mode, least, tmp_path):
    file = bags.cut(bags.write(tmp_path / "drive", storage, mode, side=32))
    assert rosbags_fails(file.parent)

    commands, frames, salvage = read(file.parent)

    assert len(commands) + frames >= least
    assert commands == list(range(len(commands)))
    assert file.name in salvage.reason
    assert read(file)[:2] == (commands, frames)


def test_a_cut_sqlite_file_gives_no_less_than_padding_it(tmp_path):
    file = bags.write(tmp_path / "drive", "sqlite3", side=64)
    size = file.stat().st_size
    bags.cut(file)
    padded = tmp_path / "padded.db3"
    padded.write_bytes(file.read_bytes().ljust(size, b"\0"))
    rows = 0
    with contextlib.suppress(sqlite3.DatabaseError):
        for _ in sqlite3.connect(padded).execute("SELECT data FROM messages"):
            rows += 1
    commands, frames, _ = read(file)
    assert len(commands) + frames >= max(rows, 417)


def test_lz4_chunks_are_read_up_to_the_cut(tmp_path):
    commands, frames, _ = read(bags.cut(bags.write_mcap(tmp_path / "drive.mcap", side=32)))
    assert len(commands) + frames >= 400


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_a_cut_ros1_bag_is_read_up_to_the_cut(compression, tmp_path):
    commands, frames, _ = read(bags.cut(bags.write_ros1(tmp_path / "drive.bag", compression)))
    assert len(commands) + frames >= 340
    assert commands == list(range(len(commands)))


def test_an_mcap_file_without_footer_loses_nothing(tmp_path):
    file = bags.write(tmp_path / "drive", mode="storage")
    file.write_bytes(file.read_bytes()[:-37])
    commands, frames, salvage = read(file)
    assert (len(commands), frames) == (300, 300)
    assert "no footer" in salvage.reason


def test_a_broken_chunk_costs_only_itself(tmp_path):
    file = bags.write_mcap(tmp_path / "drive.mcap", chunk_bytes=8192)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    file.write_bytes(data)
    commands, frames, salvage = read(file)
    assert 500 <= len(commands) + frames < 600
    assert commands[-1] == 299
    assert len(set(commands)) == len(commands)
    assert salvage.reason


@pytest.mark.parametrize("chunked", [True, False])
def test_damage_among_uncompressed_messages_costs_only_those_that_it_hit(chunked, tmp_path):
    file = bags.write_mcap(tmp_path / "drive.mcap", compression="NONE", chunked=chunked)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    file.write_bytes(data)
    commands, frames, salvage = read(file)
    assert 590 <= len(commands) + frames < 600
    assert commands[-1] == 299
    later = [c for c in commands if c]  # a wiped payload reads as command 0
    assert later == sorted(set(later))
    assert salvage.reason


def test_a_wiped_page_costs_only_its_rows(tmp_path):
    file = bags.write(tmp_path / "drive", "sqlite3", side=32)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    file.write_bytes(data)
    commands, frames, _ = read(file)
    assert 580 <= len(commands) + frames < 600
    assert commands[-1] == 299


def test_what_a_write_ahead_log_still_holds_is_read_and_left_alone(tmp_path):
    file = bags.write(tmp_path / "drive", "sqlite3")
    bags.leave_in_wal(file, 50)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    commands, frames, salvage = read(file.parent)
    assert (commands, frames) == (list(range(350)), 300)
    assert "-wal" in salvage.reason
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_database_that_is_all_in_its_write_ahead_log_is_read(tmp_path):
    whole = bags.write(tmp_path / "drive", "sqlite3")
    live, killed = tmp_path / "live.db3", tmp_path / "killed.db3"
    with contextlib.closing(sqlite3.connect(live)) as connection, contextlib.closing(sqlite3.connect(whole)) as source:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.executescript("\n".join(source.iterdump()))
        killed.write_bytes(live.read_bytes())
        killed.with_name("killed.db3-wal").write_bytes(live.with_name("live.db3-wal").read_bytes())
    assert killed.stat().st_size < 10_000
    commands, frames, _ = read(killed)
    assert (commands, frames) == (list(range(300)), 300)


def test_a_message_that_sqlite_holds_as_something_else_costs_only_itself(tmp_path):
    file = bags.write(tmp_path / "drive", "sqlite3")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE messages SET data = 'text' WHERE id = 100")
        connection.commit()
    commands, frames, salvage = read(file)
    assert len(commands) + frames == 599
    assert "holds no bytes" in salvage.reason


MAKERS = {
    "mcap": lambda path: bags.write(path, count=20),
    "mcap-zstd": lambda path: bags.write(path, mode="storage", count=20),
    "mcap-lz4": lambda path: bags.write_mcap(path, 20, 2048),
    "mcap-file": lambda path: bags.write(path, mode="file", count=20),
    "sqlite3": lambda path: bags.write(path, "sqlite3", count=20),
    "sqlite3-message": lambda path: bags.write(path, "sqlite3", "message", count=20),
    "ros1": lambda path: bags.write_ros1(path, count=20),
    "ros1-bz2": lambda path: bags.write_ros1(path, "bz2", count=20),
}


def damage(data, rng):
    """Flipped bytes, absurd lengths, a wiped or a missing stretch."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 3, 20])):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 8] = rng.choice([b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x40\0\0\0\0"])
        elif kind == 2:
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        else:
            del data[at : at + rng.randrange(200)]
    return bytes(data)


def survive(path, whole, seeds):
    """Opens damaged copies; anything but records and BagError is a failure."""
    records = 0
    for seed in seeds:
        path.write_bytes(damage(whole, random.Random(seed)))
        try:
            with Bag.open(path) as bag:
                for record in bag.records():
                    records += 1
                    with contextlib.suppress(BagError):
                        bag.message(record)
        except BagError:
            pass
    return records


@pytest.mark.parametrize("kind", MAKERS)
def test_no_damage_does_more_than_lose_messages(kind, tmp_path):
    whole = MAKERS[kind](tmp_path / "drive")
    path = tmp_path / f"damaged{whole.suffix}"
    assert survive(path, whole.read_bytes(), range(60)) > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB


def without_names(kind: str, folder: Path) -> Path:
    """30 images and 30 commands, of which nothing tells the topic of the latter."""
    if kind == "sqlite3":
        path = bags.write(folder / "bag", kind, count=30)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM topics WHERE name = '/cmd_vel'")
            connection.commit()
        return path
    if kind == "ros1":
        path = bags.write_ros1(folder / "drive.bag", count=30)
        data = path.read_bytes().replace(struct.pack("<II", 1, 30), struct.pack("<II", 9, 30))  # what the index counts
        one, nine = (b"conn=" + struct.pack("<I", number) for number in (1, 9))
        data, count = re.subn(b"(op=\x02.{0,4})" + re.escape(one), lambda found: found[1] + nine, data, flags=re.DOTALL)
        assert count == 30
        path.write_bytes(data)
        return path
    path = folder / "drive.mcap"
    with path.open("wb") as file:
        out = Writer(file)
        out.start("ros2", "test")
        channel = out.register_channel("/image", "cdr", out.register_schema("std_msgs/msg/Empty", "ros2msg", b""))
        for i in range(60):
            out.add_message(channel if i % 2 else 9, bags.START_NS + i, b"\0\1\0\0\0", bags.START_NS)
        out.finish()
    return path


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
def test_messages_of_topics_that_are_not_there_are_damage(kind, tmp_path):
    with Bag.open(without_names(kind, tmp_path)) as bag:
        assert sum(1 for record in bag.records(["/image"])) == 30
        assert bag.salvage is not None
        assert "30 messages of topics whose names are lost" in bag.salvage.reason
        assert bag.salvage.messages == 30
