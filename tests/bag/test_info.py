"""What `sac-ae bag-info` tells of recordings of every kind, counted by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import small_bags
import tiny_bag
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


def test_every_key_is_documented(tmp_path):
    facts = describe(write(tmp_path, "mcap+none"))
    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCS.read_text().split("## What is in a recording")[1]))
    keys = {*facts, *facts["files"][0], *facts["clocks"][0], *facts["topics"][1], *facts["topics"][1]["stamps"]}
    assert keys <= documented
