"""What a recording holds and what is wrong with it: what `sac-ae bag-info` prints."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.clocks import SAME_CLOCK_S, Clock, describe_leaps, lateness
from sac_ae_ros.bag.files import find_files, kind_of
from sac_ae_ros.bag.messages import FFMPEG_PACKET, PICTURE_TYPES, peek_stamp_ns, to_image
from sac_ae_ros.bag.progress import progress
from sac_ae_ros.bag.reader import Bag, Record, Topic
from sac_ae_ros.core.errors import BagError, SacAeError, printable
from sac_ae_ros.core.image import CompressedImage

SCHEMA_VERSION = 1  # of what `describe` gives; grows when a key changes its meaning or goes
MOST_REMARKS = 10  # of topics whose stamps leap
MOST_LISTED = 200  # topics in the table for people
_HEADER = "header"


def describe(path: Path, msg_path: Path | None = None) -> dict[str, Any]:
    """Reads a recording once, to its end, and tells its topics, clocks and damage as JSON takes them; docs/bags.md.

    Raises:
        BagError: nothing there can be read.
    """
    with Bag.open(path, msg_path=msg_path) as bag, progress(bag, path.resolve().name) as advance:
        columns = {name: _Column(bag, topic) for name, topic in bag.topics.items()}
        for record in bag.records():
            if record.topic in columns:
                columns[record.topic].take(record)
            advance(record.stamp_ns)
        topics = [column.facts(bag.start_ns or 0) for column in columns.values()]
        start_ns, end_ns, salvage, remarks = bag.start_ns, bag.end_ns, bag.salvage, bag.remarks
        stamped = [each for column in columns.values() for each in column.leaps()]
        more = (
            [f"stamps of {len(stamped) - MOST_REMARKS} topics more leap or go back"] if stamped[MOST_REMARKS:] else []
        )
    files = [{"name": each.name, "kind": kind_of(each), "bytes": each.stat().st_size} for each in find_files(path)[0]]
    return {
        "schema_version": SCHEMA_VERSION,
        "bag": str(path),
        "files": files,
        "start_ns": start_ns,
        "duration_s": None if start_ns is None or end_ns is None else (end_ns - start_ns) * 1e-9,
        "messages": sum(topic["messages"] for topic in topics),
        "topics": topics,
        "clocks": _clocks(topics),
        "salvaged": salvage.messages if salvage else 0,
        "salvage": salvage.reason if salvage else None,
        "remarks": remarks + stamped[:MOST_REMARKS] + more,
    }


def render(facts: dict[str, Any]) -> str:
    """The same for people."""
    files = facts["files"]
    kinds = " and ".join(dict.fromkeys(each["kind"] for each in files))
    size = sum(each["bytes"] for each in files)
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    lines = [f"{printable(facts['bag'])}: {kinds}, {count}, {size / 1e6:.3g} MB, {facts['messages']} messages"]
    if facts["duration_s"] is not None:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(facts["start_ns"] // 10**9))
        lines.append(f"recorded  {facts['duration_s']:.1f} s from {when}")
    rows = [["topic", "type", "messages", "Hz", "longest gap", "stamps", ""]]
    rows += [_row(topic) for topic in facts["topics"][:MOST_LISTED]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if (left := len(facts["topics"]) - MOST_LISTED) > 0:
        lines.append(f"and {left} topics more, which --json lists")
    if len(facts["clocks"]) > 1:
        groups = [f"{_offset(each['least_s'])}: {_names(each['topics'])}" for each in facts["clocks"]]
        lines.append(f"clocks    {len(groups)}, which cannot be compared: {'; '.join(groups)}")
    lines += [f"note      {remark}" for remark in facts["remarks"]]
    lines.append(f"damage    {facts['salvage'] or 'none'}")
    return "\n".join(lines)


class _Column:
    """What is measured of one topic while the recording is read."""

    def __init__(self, bag: Bag, topic: Topic) -> None:
        self._bag, self._topic = bag, topic
        self._logs_ns, self._shifts_ns, self._stamps_ns, self._bytes = array("q"), array("q"), array("q"), 0
        self._has_header = False
        self._problem: str | None = None
        self._image: str | None = None

    def take(self, record: Record) -> None:
        """Takes every record of the topic; the first one is looked into."""
        if not self._logs_ns:
            self._look(record)
        self._logs_ns.append(record.stamp_ns)
        self._bytes += len(record.raw)
        if self._has_header:
            self._shifts_ns.append(record.shift_ns)
            self._stamps_ns.append(peek_stamp_ns(record) or 0)

    def _look(self, record: Record) -> None:
        try:
            message = self._bag.message(record)
        except BagError as error:
            self._problem = str(error)
            return
        self._has_header = next(iter(getattr(message, "__dataclass_fields__", ())), "") == _HEADER
        if record.type in PICTURE_TYPES:
            self._image = _picture(message, record.type == FFMPEG_PACKET)

    def leaps(self) -> list[str]:
        """Return the remarks on stamps that leap or go back."""
        return list(describe_leaps(self._topic.name, np.array(self._stamps_ns, np.int64)))

    def facts(self, start_ns: int) -> dict[str, Any]:
        """What came of it; `start_ns` is when the recording begins."""
        logs_ns = np.sort(np.array(self._logs_ns, np.int64))
        intervals_s = np.diff(logs_ns) * 1e-9
        median_s = float(np.median(intervals_s)) if len(intervals_s) else 0.0
        return {
            "topic": self._topic.name,
            "type": self._topic.type,
            "messages": len(logs_ns),
            "bytes": self._bytes,
            "rate_hz": 1 / median_s if median_s > 0 else None,
            "first_s": float(logs_ns[0] - start_ns) * 1e-9 if len(logs_ns) else None,
            "last_s": float(logs_ns[-1] - start_ns) * 1e-9 if len(logs_ns) else None,
            "longest_gap_s": float(intervals_s.max()) if len(intervals_s) else None,
            "stamps": _stamps(
                *(np.array(each, np.int64) for each in (self._logs_ns, self._shifts_ns, self._stamps_ns))
            ),
            "image": self._image,
            "problem": self._problem,
        }


def _stamps(
    logs_ns: NDArray[np.int64], shifts_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64]
) -> dict[str, Any] | None:
    """How stamps are against log times; None for messages without a header."""
    if not len(stamps_ns):
        return None
    there = stamps_ns != 0
    clock = Clock.of(lateness(logs_ns[there], shifts_ns[there], stamps_ns[there])) if there.any() else None
    return {
        "least_s": clock and clock.least_s,
        "median_s": clock and clock.median_s,
        "most_s": clock and clock.most_s,
        "recorders_clock": clock and clock.is_recorders,
        "zero": int((~there).sum()),
        "backward": int((np.diff(stamps_ns[there]) < 0).sum()),
    }


def _clocks(topics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The topics with stamps, those of one clock together."""
    stamped = [topic for topic in topics if topic["stamps"] and topic["stamps"]["least_s"] is not None]
    groups: list[dict[str, Any]] = []
    for topic in sorted(stamped, key=lambda topic: topic["stamps"]["least_s"]):
        least_s = topic["stamps"]["least_s"]
        if not groups or least_s - groups[-1]["least_s"] > SAME_CLOCK_S:
            groups.append({"least_s": least_s, "topics": []})
        groups[-1]["topics"].append(topic["topic"])
    return groups


def _picture(message: Any, is_packet: bool) -> str:
    """Size and encoding of an image, as far as they can be told without decoding."""
    if is_packet:
        return f"{_either(message, 'width')}x{_either(message, 'height')} {message.encoding}"
    image = to_image(message)
    if not isinstance(image, CompressedImage):
        return f"{image.width}x{image.height} {image.encoding}"
    try:
        return f"{image.header.width}x{image.header.height} {image.format}"
    except SacAeError:
        return image.format


def _either(message: Any, name: str) -> int:
    """A packet's size, which has another name in ROS 1."""
    return int(getattr(message, name, 0) or getattr(message, f"img_{name}", 0))


def _row(topic: dict[str, Any]) -> list[str]:
    stamps = topic["stamps"]
    if stamps is None:
        told = "-"
    elif stamps["least_s"] is None:
        told = "0"
    else:
        told = _offset(stamps["least_s"]) + (f", {stamps['zero']} are 0" if stamps["zero"] else "")
    rate, gap_s = topic["rate_hz"], topic["longest_gap_s"]
    numbers = [
        str(topic["messages"]),
        "-" if rate is None else f"{rate:.3g}",
        "-" if gap_s is None else f"{gap_s:.3g} s",
    ]
    note = printable(topic["problem"] or topic["image"] or "")
    return [topic["topic"], topic["type"], *numbers, told, note]


def _offset(least_s: float) -> str:
    if abs(least_s) <= SAME_CLOCK_S:
        return "the recorder's clock"
    return f"{abs(least_s):.6g} s {'behind' if least_s > 0 else 'ahead of'} it"


def _names(topics: Sequence[str], most: int = 5) -> str:
    return ", ".join(topics[:most]) + (f" and {len(topics) - most} more" if len(topics) > most else "")
