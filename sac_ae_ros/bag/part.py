"""One file of a recording: read through its index, and by a scan from its start where that does not do."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from sac_ae_ros.bag.clocks import SAME_CLOCK_S, duration
from sac_ae_ros.bag.inflate import inflate_message
from sac_ae_ros.bag.mcap_index import McapIndex
from sac_ae_ros.bag.merge import Budget, Stretch, merge
from sac_ae_ros.bag.records import Channel, DamageError, NoIndexError, Record, few, is_name
from sac_ae_ros.bag.ros1_index import Ros1Index
from sac_ae_ros.bag.salvage_mcap import McapScan
from sac_ae_ros.bag.salvage_ros1 import Ros1Scan
from sac_ae_ros.bag.salvage_sqlite import SqliteScan
from sac_ae_ros.bag.scan import Found, Place, Scan
from sac_ae_ros.bag.sqlite_rows import SqliteRows

_APART_NS = 10_000_000_000  # two times that log times went back, rather than one that lasts


class _File(Protocol):
    """What the readers of all formats have in common; Scan says what it means."""

    start_ns: int | None
    end_ns: int | None
    counts: dict[str, int]
    ignored: dict[str, str]
    problems: list[str]

    @property
    def channels(self) -> list[Channel]: ...

    def stretches(self, topics: Collection[str] | None = None) -> list[Stretch[Found]]: ...

    def close(self) -> None: ...


_INDEXES: dict[str, Callable[[Path], _File]] = {"mcap": McapIndex, "sqlite3": SqliteRows, "ros1": Ros1Index}
_SCANS: dict[str, Callable[[Path], Scan]] = {"mcap": McapScan, "sqlite3": SqliteScan, "ros1": Ros1Scan}


class _Order:
    """Finds out, of one topic's messages by log time, where the file has them in another order."""

    def __init__(self) -> None:
        self._last: tuple[Place, int] = (0, 0), 0  # of those so far the one that is last in the file, and its log time
        self._since_ns: int | None = None
        self._until_ns = 0

    def back_ns(self, place: Place, stamp_ns: int) -> int:
        """By how much log times had gone back in the file before this message came in its turn, ns; 0: by nothing."""
        if place >= self._last[0]:
            self._last = place, stamp_ns
            return 0
        if self._since_ns is None or stamp_ns - self._until_ns > _APART_NS:
            self._since_ns = self._last[1]
        self._until_ns = stamp_ns
        return stamp_ns - self._since_ns


class Part:
    """A file's topics and messages.

    channels: what the file says of its topics. ignored: the encodings of topics whose messages no ROS reads, by name.
    counts: messages by topic. start_ns, end_ns: log times of the first and the last message, None without any.
    name: for what is told of it. input: the how manieth of the recordings that are merged it belongs to. problems: what
    is wrong with the file; complete once it was read.

    Raises:
        DamageError: nothing in the file can be read.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self.name = path.name
        self.input = 0
        self.problems: list[str] = []
        self._backward: dict[str, float] = {}  # by how many seconds log times go back in the file, by topic
        self._scanned = False
        try:
            self._take(_INDEXES[kind](path))
            for problem in self._file.problems:
                self._tell(problem)
        except Exception as error:  # damaged files raise whatever their bytes hit upon
            self._scan(error)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def remarks(self) -> list[str]:
        """Remarks on log times that go back in the file, which is no damage."""
        if not self._backward:
            return []
        by, topics = duration(max(self._backward.values())), few(sorted(self._backward))
        return [
            f"log times go back by {by} within the file, on {topics}: the recorder's clock was set back, or the file"
            " has another order; messages are taken by log time"
        ]

    @property
    def marks_ns(self) -> list[int]:
        """Log times of which two neighbours are farther apart than LEAP_NS wherever two messages are."""
        if isinstance(self._file, SqliteRows):
            return self._file.marks_ns
        ends_ns = [] if self.end_ns is None else [self.end_ns]
        return [stretch.start_ns for stretch in self._file.stretches()] + ends_ns

    @property
    def size(self) -> int:
        """The memory that reading it takes at least, bytes."""
        return max((stretch.size for stretch in self._file.stretches()), default=0)

    def records(self, topics: Collection[str] | None, budget: Budget) -> Iterator[tuple[int, Record]]:
        """The messages of these topics (None: of all) by log time, with it; `size` of the budget is charged already."""
        broken = 0
        orders: dict[str, _Order] = {}
        for stamp_ns, (channel, raw, place) in self._found(topics, budget):
            try:
                plain = raw if self._kind == "ros1" else inflate_message(raw)
            except DamageError:
                broken += 1
                continue
            back_s = orders.setdefault(channel.topic, _Order()).back_ns(place, stamp_ns) * 1e-9
            if back_s > SAME_CLOCK_S and is_name(channel.topic):
                self._backward[channel.topic] = max(back_s, self._backward.get(channel.topic, 0.0))
            yield stamp_ns, Record(channel.topic, channel.type, stamp_ns, plain, channel.ros1)
        if broken:
            self._tell(f"{broken} messages whose compression is damaged")

    def _found(self, topics: Collection[str] | None, budget: Budget) -> Iterator[tuple[int, Found]]:
        done: Counter[str] = Counter()
        if not self._scanned:
            try:
                for stamp_ns, found in self._merged(topics, budget):
                    done[found[0].topic] += 1
                    yield stamp_ns, found
                self._compare(topics, done)
                return
            except Exception as error:  # as above
                self._scan(error)
        for stamp_ns, found in self._merged(topics, budget):
            if done[found[0].topic] > 0:  # it was given before the index proved wrong
                done[found[0].topic] -= 1
                continue
            yield stamp_ns, found

    def _merged(self, topics: Collection[str] | None, budget: Budget) -> Iterator[tuple[int, Found]]:
        def late() -> None:
            self._tell(f"more than {budget.most >> 20} MiB of it overlap in time: some messages come out of turn")

        return merge(self._file.stretches(topics), budget, late, paid=self.size)

    def _compare(self, topics: Collection[str] | None, done: Counter[str]) -> None:
        """Tells where the file's own count is not what it gave."""
        for topic, count in self.counts.items():
            if (topics is None or topic in topics) and done[topic] != count:
                self._tell(f"{done[topic]} of {count} messages of {topic} are there")
                self.counts[topic] = done[topic]

    def _take(self, file: _File) -> None:
        self._file = file
        self.channels, self.ignored, self.counts = file.channels, file.ignored, file.counts
        self.start_ns, self.end_ns = file.start_ns, file.end_ns

    def _scan(self, error: Exception) -> None:
        """Goes through the file from its start, whether it is damaged or just has no index."""
        whole = isinstance(error, NoIndexError)
        if not whole:
            self._tell(" ".join(str(error).split())[:200] or type(error).__name__)
        try:
            scan = _SCANS[self._kind](self._path)
        except DamageError as second:
            self._tell(str(second))
            raise DamageError("; ".join(self.problems)) from error
        self._scanned = True
        scan.survey()
        self._take(scan)
        for problem in itertools.islice(scan.problems, 5):
            self._tell(problem)
        if len(scan.problems) > 5:
            self._tell(f"and {len(scan.problems) - 5} more places")
        if lost := sum(scan.lost.values()):
            self._tell(f"{lost} messages of topics whose names are lost")
        if not self.channels and not (whole and not self.problems):
            raise DamageError("; ".join(self.problems))

    def _tell(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
