"""Recordings that claim or compute more than they hold: refused or read in one line, at little cost."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import mcap.writer
import pytest
import small_bags as bags
import zstandard

from sac_ae_ros.bag import files
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import BagError

# In a process of its own, which 3 GiB of addresses must do: what is claimed is more.
READ = r"""
import re, resource, sys
from pathlib import Path
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.errors import BagError
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    with Bag.open(Path(sys.argv[1])) as bag:
        count = sum(1 for _ in bag.records())
        print(count, "messages;", bag.salvage and bag.salvage.reason)
except BagError as error:
    print(error)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
MOST_MIB = 400


def told(path: Path, most_mib: int = MOST_MIB) -> str:
    """The one line that reading it gives; it takes little memory, and no minute."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 0, done.stderr
    line, mib = done.stdout.splitlines()
    assert int(mib) < most_mib
    return line


def database(tmp_path: Path, *statements: str) -> Path:
    path = bags.write(tmp_path / "drive", "sqlite3", count=20)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
TOPICS = "i AS id, 'x' || i AS name, 'std_msgs/msg/Bool' AS type, 'cdr' AS serialization_format FROM n"


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["DROP TABLE topics", f"CREATE VIEW topics AS {ENDLESS} {TOPICS}"], "expected a table `topics`, it is a view"),
        (
            ["DROP TABLE topics", "CREATE VIRTUAL TABLE topics USING fts5(id, name, type, serialization_format)"],
            "expected a table `topics`, it is a virtual table",
        ),
        (
            [
                "DROP TABLE topics",
                "CREATE TABLE topics(id INTEGER PRIMARY KEY, type TEXT, serialization_format TEXT,"
                " name TEXT AS (hex(zeroblob(200000000))))",
                "INSERT INTO topics VALUES (1, 'std_msgs/msg/Bool', 'cdr')",
            ],
            "expected a table `topics` that holds its values, it computes some",
        ),
        (
            [
                "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n LIMIT 150000)"
                " INSERT INTO topics SELECT i, 'x' || i, 'std_msgs/msg/Bool', 'cdr', '', '' FROM n"
            ],
            "a table of topics has more than 100000 rows",
        ),
    ],
)
def test_a_table_of_topics_that_computes_or_floods_is_refused(statements, says, tmp_path):
    line = told(database(tmp_path, *statements))
    assert "nothing in it can be read" in line
    assert says in line


def test_messages_that_a_view_computes_are_none(tmp_path):
    view = f"CREATE VIEW messages AS {ENDLESS} i AS id, 1 AS topic_id, i AS timestamp, zeroblob(1000000) AS data FROM n"
    line = told(database(tmp_path, "ALTER TABLE messages RENAME TO kept", view))
    assert line.startswith("40 messages;")  # the rows that are really there
    assert "expected a table `messages`, it is a view" in line


def test_definitions_that_a_view_computes_are_none(tmp_path):
    view = f"CREATE VIEW message_definitions AS {ENDLESS} 'x' || i AS topic_type, 'ros2msg' AS encoding,"
    view += " zeroblob(1000000) AS encoded_message_definition FROM n"
    assert "expected a table `message_definitions`, it is a view" in told(
        database(tmp_path, "DROP TABLE message_definitions", view)
    )


def indexed(path: Path, data: bytes, size: int, claims: int = 1) -> Path:
    """An mcap file of one zstd chunk that claims so many bytes, and an index that names it so often."""

    def text(words: bytes) -> bytes:
        return struct.pack("<I", len(words)) + words

    def record(op: int, body: bytes) -> bytes:
        return struct.pack("<BQ", op, len(body)) + body

    packed = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    head = mcap.writer.MCAP0_MAGIC + record(1, text(b"ros2") + text(b"x"))
    tables = record(3, struct.pack("<H", 1) + text(b"std_msgs/msg/Bool") + text(b"ros2msg") + text(b"bool data"))
    tables += record(4, struct.pack("<HH", 0, 1) + text(b"/x") + text(b"cdr") + text(b""))
    chunk = record(6, struct.pack("<QQQI", 0, 9, size, 0) + text(b"zstd") + struct.pack("<Q", len(packed)) + packed)
    named = struct.pack("<QQQQ", 0, 9, len(head), len(chunk)) + text(struct.pack("<HQ", 0, 0)) + bytes(8)
    named = record(8, named + text(b"zstd") + struct.pack("<QQ", len(packed), size))
    counts = struct.pack("<QHIIIIQQ", 1, 1, 1, 0, 0, claims, 0, 9) + text(struct.pack("<HQ", 0, 1))
    summary = tables + named * claims + record(0x0B, counts)
    footer = record(2, struct.pack("<QQI", len(head) + len(chunk), 0, 0))
    path.write_bytes(head + chunk + summary + footer + mcap.writer.MCAP0_MAGIC)
    return path


def message(length: int) -> bytes:
    return struct.pack("<BQHIQQ", 5, 22 + length, 0, 0, 5, 5) + bytes(length)


def test_a_chunk_of_the_size_it_claims_is_whole(tmp_path):
    data = message(5)
    assert told(indexed(tmp_path / "x.mcap", data, len(data))) == "1 messages; None"


@pytest.mark.parametrize(
    ("length", "size", "claims", "says"),
    [
        (1 << 30, 100, 1, "a record claims 1073741846 bytes"),  # inflates to a GiB where it claims 100 bytes
        (1 << 30, (1 << 30) + 31, 1, "a record claims 1073741846 bytes"),
        (5, 1 << 62, 1, "a chunk ends after 36 of 4611686018427387904 bytes"),
        (48 << 20, (48 << 20) + 31, 100, "the index names a chunk twice"),  # 4.7 GiB, were all open
    ],
)
def test_a_chunk_that_claims_another_size_costs_no_memory(length, size, claims, says, tmp_path):
    line = told(indexed(tmp_path / "x.mcap", message(length), size, claims))
    assert says in line


def test_chunks_that_all_overlap_are_read_within_the_budget(tmp_path):
    path = tmp_path / "x.mcap"
    with path.open("wb") as file:
        out = mcap.writer.Writer(file, 40 << 20, mcap.writer.CompressionType.ZSTD)
        out.start("ros2", "test")
        channel = out.register_channel("/x", "cdr", out.register_schema("std_msgs/msg/Empty", "ros2msg", b""))
        for _ in range(30):  # 1.2 GiB, of which each first message is held twice
            for stamp, size in ((0, 39 << 20), (10, 1 << 20)):
                out.add_message(channel, stamp, bytes(size), 0)
        out.finish()
    line = told(path, 700)
    assert line.startswith("60 messages;")
    assert "more than 256 MiB of it overlap in time" in line


def test_a_message_that_inflates_without_end_is_left_out(tmp_path):
    path = bags.write(tmp_path / "drive", "sqlite3", "message", count=20)
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 30))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE messages SET data = ? WHERE id = 5", (bomb,))
        connection.commit()
    assert told(path).startswith("39 messages;")


def test_a_file_that_inflates_without_end_is_read_up_to_a_bound(tmp_path, monkeypatch):
    path = bags.write(tmp_path / "drive", mode="file", count=20)
    with path.open("ab") as file:
        file.write(zstandard.ZstdCompressor().compress(bytes(64 << 20)))
    monkeypatch.setattr(files, "_LEAST_COPY", 1 << 20)
    monkeypatch.setattr(files, "_MOST_RATIO", 10)
    with Bag.open(path) as bag:
        assert sum(1 for _ in bag.records()) == 40
        assert "it inflates to more than 10 times its size" in bag.salvage.reason


@pytest.mark.parametrize("name", ["drive.mcap", "drive.db3", "drive.bag"])
def test_an_empty_file_is_called_empty(name, tmp_path):
    (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(BagError, match=re.escape("is empty (0 bytes)")):
            Bag.open(path)


@pytest.mark.parametrize("text", ["x: " + "a" * (5 << 20), "[" * 200_000, "- a: 1\n" * 1000, "&a [*a]"])
def test_a_metadata_file_that_is_huge_or_deep_is_damaged_and_costs_nothing(text, tmp_path):
    path = bags.write(tmp_path / "bag", count=3)
    (path.parent / "metadata.yaml").write_text(text)
    with Bag.open(path.parent) as bag:
        assert sum(1 for _ in bag.records()) == 6
        assert bag.salvage is not None
        assert bag.salvage.reason == "damaged metadata.yaml"


@pytest.mark.parametrize("link", ["{{<<: [*{0}, *{0}]}}", "[*{0}, *{0}]"], ids=["merge keys", "aliases"])
def test_a_metadata_file_whose_aliases_stand_for_billions_of_values_is_damaged(link, tmp_path):
    folder = bags.write(tmp_path / "drive", "mcap").parent
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {link.format(f'a{i - 1}')}" for i in range(1, 40)]
    (folder / "metadata.yaml").write_text("\n".join([*lines, "rosbag2_bagfile_information: *a39"]))
    assert "damaged metadata.yaml" in told(folder)
