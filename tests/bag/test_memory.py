"""A recording's size costs no memory, whole or damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_bags as bags
import tiny_bag
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter

# In a process of its own: the largest memory so far is a process's, and never falls.
READ = r"""
import re, sys
from pathlib import Path
from sac_ae_ros.bag.reader import Bag
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
with Bag.open(Path(sys.argv[1])) as bag:
    read = sum(len(record.raw) for record in bag.records())
print(peak() - before, read >> 20)
"""


def grown_mib(path, code=READ):
    """How far reading a file pushed the peak memory, and how much was read, both in MiB."""
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=env)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("storage", "mode"), [("mcap", "none"), ("mcap", "storage"), ("sqlite3", "none")])
def test_memory_stays_flat(storage, mode, tmp_path):
    file = bags.write(tmp_path / "drive", storage, mode, count=100, side=600)  # 103 MiB
    for damaged in (False, True):
        if damaged:
            bags.cut(file, 0.01)
        grown, read = grown_mib(file)
        assert read >= 100
        assert grown < 60


TRANSITIONS = READ.replace(
    "from sac_ae_ros.bag.reader import Bag",
    """
from sac_ae_ros.bag.beside import Summary
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.transitions import Sources, transitions
from tiny_policy import SPEC
""",
).replace(
    "sum(len(record.raw) for record in bag.records())",
    "sum(1 << 20 for moment in transitions(bag, SPEC, Sources(), Summary()))",
)  # as if each were of a MiB, to be counted like the others


def test_transitions_are_read_in_flat_memory(tmp_path):
    pixels = np.zeros(1 << 20, np.uint8)
    stamps = [tiny_bag.START_NS + i * 100_000_000 for i in range(100)]
    images = [
        tiny_bag.make("sensor_msgs/msg/Image", tiny_bag.header(at), 1024, 1024, "mono8", 0, 1024, pixels)
        for at in stamps
    ]
    messages = [(at, "/image", message) for at, message in zip(stamps, images, strict=True)]
    messages += [(at, "/executed", tiny_bag.joints(at, ["linear", "angular"], [0.1, 0.2])) for at in stamps]
    messages += [(at, "/reward", tiny_bag.float64(1.0)) for at in stamps]
    bag = tiny_bag.write(tmp_path / "drive", messages)
    grown, moments = grown_mib(bag, TRANSITIONS)
    assert moments == 100
    assert grown < 60


@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE])
def test_topics_one_after_the_other_are_merged_in_flat_memory(index, tmp_path):
    pixels = np.zeros(1 << 20, np.uint8)
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, 1 << 20, CompressionType.NONE, index_types=index)
        writer.start("ros2", "test")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        for topic in range(3):
            channel = writer.register_channel(f"/camera_{topic}", "cdr", schema)
            for i in range(40):
                at = tiny_bag.START_NS + i * 100_000_000
                writer.add_message(channel, at, pixels.tobytes(), at)
        writer.finish()
    grown, read = grown_mib(path)
    assert read == 120
    assert grown < 60


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_memory_stays_flat_over_gigabytes(storage, tmp_path):
    file = bags.write(tmp_path / "drive", storage, count=1000, side=1000)  # 2.8 GiB
    assert file.stat().st_size > 2 << 30
    for damaged in (False, True):
        if damaged:
            with file.open("r+b") as out:
                out.truncate(file.stat().st_size * 9 // 10)
        grown, read = grown_mib(file)
        assert read >= 2000
        assert grown < 100


def test_a_chunk_that_claims_gigabytes_allocates_none(tmp_path):
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))  # one GiB of zeros
    name = b"\x04\0\0\0zstd"
    body = bytes(16) + (1 << 30).to_bytes(8, "little") + bytes(4) + name + len(bomb).to_bytes(8, "little") + bomb
    file = bags.write(tmp_path / "drive", count=20)
    whole = file.read_bytes()
    file.write_bytes(whole[:-37] + b"\x06" + len(body).to_bytes(8, "little") + body)
    grown, _ = grown_mib(file)
    assert grown < 60
