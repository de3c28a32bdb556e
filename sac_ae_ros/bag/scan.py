"""What the scans of files have in common: the first pass finds what is there, and later ones give it by log time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sac_ae_ros.bag.merge import WINDOW_BYTES, Stretch, Window
from sac_ae_ros.bag.records import Channel

Place = tuple[int, int]  # where a message lies: in which record or page, and which one it is there
Found = tuple[Channel, bytes, Place]
MOST_RUNS = 50_000
MOST_INSIDE = 500  # runs that begin within a chunk, which must be unpacked from its start for each of them


@dataclass(frozen=True)
class _Run:
    """Messages that follow each other by log time, but for what a Window puts right."""

    begin: Place
    end: Place | None
    start_ns: int


class Scan:
    """One file, read from its start to its end.

    channels: what it says of its topics. ignored: the encodings of topics whose messages no ROS reads, by name. counts:
    messages by topic. start_ns, end_ns: the earliest and the latest log time, None without messages. problems: what is
    damaged, and where. lost: messages of channels without a name.
    """

    _cheap_places = False  # whether reading can begin at any place at no cost

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._channels: dict[int, Channel] = {}
        self.ignored: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.problems: list[str] = []
        self.lost: Counter[int] = Counter()
        self._runs: list[_Run] = []

    @property
    def channels(self) -> list[Channel]:
        """What the file says of its topics."""
        return list(self._channels.values())

    def close(self) -> None:
        """Closes the file, where it stays open between two passes."""

    def survey(self) -> None:
        """Goes through the file; once more if a topic's name came after its first message, in the index at the end."""
        self._pass()
        if self.lost:
            self._pass()

    def stretches(self, topics: Collection[str] | None = None) -> list[Stretch[Found]]:
        """The messages of these topics (None: of all); call `survey` first."""
        whole = None if topics is None else frozenset(topics)
        return [Stretch(run.start_ns, WINDOW_BYTES, partial(self._read, run, whole)) for run in self._runs]

    def _pass(self) -> None:
        self.problems, self._runs = [], []
        self.lost.clear()
        counts, window = Counter[int](), Window[None]()
        begin: Place | None = None
        first_ns, last_ns, inside, ordered = 0, 0, 0, True
        for place, number, stamp_ns, data in self._messages((0, 0), self.problems):
            if number in self._channels:
                counts[number] += 1
            else:
                self.lost[number] += 1
            if begin is None:
                begin, first_ns, last_ns = place, stamp_ns, stamp_ns
                self.start_ns = stamp_ns
            elif ordered and not window.fits(stamp_ns):
                inside += place[1] > 0 and not self._cheap_places
                if ordered := len(self._runs) < MOST_RUNS and inside <= MOST_INSIDE:
                    self._runs.append(_Run(begin, place, first_ns))
                    begin, first_ns, window = place, stamp_ns, Window()
            for _ in window.push(stamp_ns, len(data), None):
                pass
            first_ns, last_ns = min(first_ns, stamp_ns), max(last_ns, stamp_ns)
        if begin is None:
            self.start_ns = self.end_ns = None
        else:
            self._runs.append(_Run(begin, None, first_ns))
            self.start_ns, self.end_ns = min(run.start_ns for run in self._runs), last_ns
        by_topic = Counter[str]()
        for number, count in counts.items():
            by_topic[self._channels[number].topic] += count
        self.counts = dict(by_topic)
        if not ordered:
            self.problems.append("its messages are in no order, some come out of turn")

    def _read(self, run: _Run, topics: frozenset[str] | None) -> Iterator[tuple[int, Found]]:
        window = Window[Found | None]()
        found = itertools.takewhile(lambda each: run.end is None or each[0] < run.end, self._messages(run.begin, []))
        for place, number, stamp_ns, data in found:
            channel = self._channels.get(number)
            wanted = channel is not None and (topics is None or channel.topic in topics)
            item = (channel, data, place) if channel is not None and wanted else None
            yield from ((at, each) for at, each in window.push(stamp_ns, len(data), item) if each is not None)
        yield from ((at, each) for at, each in window.flush() if each is not None)

    def _messages(self, begin: Place, problems: list[str]) -> Iterator[tuple[Place, int, int, bytes]]:
        """A pass from a place on: places, the channels' numbers, log times in ns, payloads; tells its problems."""
        raise NotImplementedError
