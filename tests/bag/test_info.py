"""What `sac-ae bag-info` tells of recordings of every kind, counted by hand."""

import contextlib
import fcntl
import json
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import small_bags
import tiny_bag
from mcap.writer import Writer
from small_bags import PERIOD_NS, START_NS

from sac_ae_ros.bag.info import MOST_LISTED, describe, render
from sac_ae_ros.cli import main
from sac_ae_ros.core.errors import BagError

DOCS = Path(__file__).parents[2] / "docs/bags.md"


def write(path, kind: str):
    """300 images and 300 commands, ten of each a second."""
    if kind == "ros1":
        return small_bags.write_ros1(path / "drive.bag")
    if kind == "cut":
        return small_bags.cut(small_bags.write(path / "bag")).parent
    storage, mode = kind.split("+")
    return small_bags.write(path / "bag", storage, mode).parent


@pytest.mark.parametrize(
    ("kind", "file_kind"),
    [("mcap+none", "mcap"), ("mcap+file", "zstd"), ("sqlite3+none", "sqlite3"), ("ros1", "ros1")],
)
def test_topics_rates_and_clocks_of_every_format(tmp_path, kind, file_kind):
    facts = describe(write(tmp_path, kind))
    json.dumps(facts, allow_nan=False)
    assert [each["kind"] for each in facts["files"]] == [file_kind]
    assert (facts["messages"], facts["start_ns"], facts["salvage"]) == (600, START_NS, None)
    assert facts["duration_s"] == pytest.approx(29.901)
    command, image = facts["topics"]
    assert (command["topic"], command["type"], command["messages"]) == ("/cmd_vel", small_bags.TWIST, 300)
    assert (command["stamps"], command["image"]) == (None, None)
    assert (image["topic"], image["image"], image["problem"]) == ("/image", "8x8 rgb8", None)
    assert (image["first_s"], image["last_s"]) == (0, pytest.approx(29.9))
    assert (image["rate_hz"], image["longest_gap_s"]) == (pytest.approx(10), pytest.approx(0.1))
    assert image["stamps"] == {
        "least_s": pytest.approx(0.005), "median_s": pytest.approx(0.005), "most_s": pytest.approx(0.005),
        "recorders_clock": True, "zero": 0, "backward": 0,
    }  # fmt: skip
    assert [each["topics"] for each in facts["clocks"]] == [["/image"]]


def test_damage_is_told(tmp_path, capsys):
    bag = write(tmp_path, "cut")
    facts = describe(bag)
    assert 0 < facts["messages"] == facts["salvaged"] < 600
    assert main(["bag-info", str(bag)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"damage    {facts['salvage']}"
    assert lines[0].startswith(f"{bag}: mcap, 1 file, ")


def test_clocks_zero_and_backward_stamps_and_gaps(tmp_path):
    stamps = [START_NS + i * PERIOD_NS for i in range(20)]
    stamps[10:] = [at + 2 * 10**9 for at in stamps[10:]]
    uptime_ns = [at - START_NS + 10**9 for at in stamps]
    uptime_ns[3] = 0
    uptime_ns[5], uptime_ns[6] = uptime_ns[6], uptime_ns[5]
    messages = [(at, "/camera", tiny_bag.image(stamp, 9)) for at, stamp in zip(stamps, uptime_ns, strict=True)]
    messages += [(at, "/arm", tiny_bag.joints(at - 4_000_000, ["a"], [0.0])) for at in stamps]
    messages += [(at, "/unset", tiny_bag.joints(0, ["a"], [0.0])) for at in stamps[:1]]
    facts = describe(tiny_bag.write(tmp_path / "bag", messages))
    camera = next(topic for topic in facts["topics"] if topic["topic"] == "/camera")
    assert (camera["stamps"]["zero"], camera["stamps"]["backward"]) == (1, 1)
    assert camera["stamps"]["recorders_clock"] is False
    assert (camera["rate_hz"], camera["longest_gap_s"]) == (pytest.approx(10), pytest.approx(2.1))
    assert [each["topics"] for each in facts["clocks"]] == [["/arm"], ["/camera"]]
    text = render(facts)
    assert "clocks    2, which cannot be compared: the recorder's clock: /arm; 1.7e+09 s behind it: /camera" in text
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert ", 1 are 0" in rows["/camera"]
    assert rows["/unset"].split()[2:] == ["1", "-", "-", "0"]


def test_compressed_images_and_many_topics(tmp_path):
    jpeg = tiny_bag.coded_image(START_NS, np.zeros((6, 9, 3), np.uint8), ".jpg", "rgb8; jpeg compressed bgr8")
    messages = [(START_NS, "/image/compressed", jpeg)]
    messages += [(START_NS, f"/topic{i}", tiny_bag.boolean(True)) for i in range(MOST_LISTED)]
    facts = describe(tiny_bag.write(tmp_path / "bag", messages))
    assert facts["topics"][0]["image"] == "9x6 rgb8; jpeg compressed bgr8"
    assert len(facts["topics"]) == MOST_LISTED + 1
    assert "and 1 topics more, which --json lists" in render(facts).splitlines()


def test_a_topic_that_cannot_be_read_and_a_recording_that_is_none(tmp_path, capsys):
    with pytest.raises(BagError, match="expected a recording"):
        describe(tmp_path / "none")
    assert main(["bag-info", str(tmp_path / "none"), "--json"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_what_is_no_damage_is_a_note(tmp_path, capsys):
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        out = Writer(file)
        out.start("ros2", "test")
        ended = out.register_channel("/ended", "cdr", out.register_schema("std_msgs/Bool", "ros2msg", b"bool data"))
        gps = out.register_channel("/gps", "json", out.register_schema("gps.Fix", "jsonschema", b"{}"))
        for i in range(100):
            out.add_message(ended, START_NS + i, b"\0\1\0\0\1", START_NS)
            out.add_message(gps, START_NS + i, b"{}", START_NS)
        out.finish()
    told = "topics that are of no ROS are ignored: /gps (json)"
    facts = describe(path)
    assert (facts["remarks"], facts["salvage"], facts["messages"]) == ([told], None, 100)
    assert [(each["type"], each["problem"]) for each in facts["topics"]] == [("std_msgs/msg/Bool", None)]
    assert main(["bag-info", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [f"note      {told}", "damage    none"]


def test_files_that_overlap_are_one_recording(tmp_path):
    stamps = [START_NS + i * PERIOD_NS for i in range(60)]
    (tmp_path / "drive").mkdir()
    for part in range(3):
        messages = [(at, "/image", tiny_bag.image(at, 9)) for at in stamps[part::3]]
        (file,) = tiny_bag.write(tmp_path / f"{part}", messages).glob("*.mcap")
        file.rename(tmp_path / f"drive/part_{part}.mcap")
    facts = describe(tmp_path / "drive")
    assert [each["name"] for each in facts["files"]] == ["part_0.mcap", "part_1.mcap", "part_2.mcap"]
    (image,) = facts["topics"]
    assert (image["messages"], image["stamps"]["backward"]) == (60, 0)
    assert (image["rate_hz"], image["longest_gap_s"]) == (pytest.approx(10), pytest.approx(0.1))
    assert (facts["remarks"], facts["salvage"]) == (["no metadata.yaml"], None)


def test_a_leap_of_the_log_times_is_no_gap(tmp_path):
    times = [i * PERIOD_NS for i in range(3)] + [START_NS + i * PERIOD_NS for i in range(20)]
    facts = describe(tiny_bag.write(tmp_path / "bag", [(at, "/arm", tiny_bag.boolean(True)) for at in times]))
    (arm,) = facts["topics"]
    assert (arm["longest_gap_s"], facts["duration_s"]) == (pytest.approx(0.1), pytest.approx(2.1))
    assert facts["remarks"] == ["log times leap by 53.9 years after 3 messages, which is left out"]


def test_hostile_and_empty_recordings_are_one_line(tmp_path, capsys):
    hostile = small_bags.write(tmp_path / "view", "sqlite3", count=3)
    with contextlib.closing(sqlite3.connect(hostile)) as connection:
        connection.execute("ALTER TABLE topics RENAME TO topics_then")
        connection.execute(
            "CREATE VIEW topics AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
            " SELECT id, '/t' || id AS name, 'a/msg/B' AS type, 'cdr' AS serialization_format FROM n"
        )
        connection.commit()
    (tmp_path / "empty.mcap").touch()
    for path, says in ((hostile, "expected a table `topics`, it is a view"), (tmp_path / "empty.mcap", "is empty")):
        assert main(["bag-info", str(path)]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert says in captured.err


def test_a_terminal_shows_how_far_it_is(tmp_path):
    bag = write(tmp_path, "mcap+none")
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    os.set_blocking(terminal, False)
    command = [sys.executable, "-m", "sac_ae_ros.cli", "bag-info", str(bag), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, check=True)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(end)
    os.close(terminal)
    assert json.loads(done.stdout)["messages"] == 600
    assert "bag:" in shown
    assert "/29" in shown  # seconds


def test_every_key_is_documented(tmp_path):
    facts = describe(write(tmp_path, "mcap+none"))
    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCS.read_text().split("## What is in a recording")[1]))
    keys = {*facts, *facts["files"][0], *facts["clocks"][0], *facts["topics"][1], *facts["topics"][1]["stamps"]}
    assert keys <= documented
