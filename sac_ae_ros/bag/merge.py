"""Stretches of recordings that overlap in time, merged by log time in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sac_ae_ros.bag.records import Record

Item = TypeVar("Item")
MOST_OPEN = 256 << 20  # bytes that the stretches which are open at one time may hold
WINDOW_BYTES, WINDOW_ITEMS = 8 << 20, 4096  # what a Window holds back
MOST_ALIKE = 65536  # messages of one log time that are compared


@dataclass(frozen=True)
class Stretch(Generic[Item]):
    """A part of a recording that can be read by log time.

    start_ns: no item is earlier. size: bytes that it holds in memory while it is read. read: opens it, and gives each
    item with its log time in ns.
    """

    start_ns: int
    size: int
    read: Callable[[], Iterator[tuple[int, Item]]]


class Budget:
    """The memory that merges which run at the same time share, bytes."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self.most, self.used = most, 0


def merge(
    stretches: Iterable[Stretch[Item]], budget: Budget, on_late: Callable[[], None] = lambda: None, paid: int = 0
) -> Iterator[tuple[int, Item]]:
    """Items of all stretches by log time, those of equal times in the order of the stretches.

    A stretch is opened when its time has come, so that only those which overlap are in memory. Where they would hold
    more than the budget, one waits for another to end, and its items come late.

    Args:
        stretches: in the order that breaks ties.
        budget: is charged with the size of each stretch while it is open.
        on_late: is called when a stretch has to wait.
        paid: bytes that the caller has charged already, for the first stretch that is open at any time.
    """
    waiting = deque(sorted(enumerate(stretches), key=lambda pair: pair[1].start_ns))
    heap: list[tuple[int, int, Item, Iterator[tuple[int, Item]], int]] = []
    charged = 0
    try:
        while waiting or heap:
            while waiting and (not heap or waiting[0][1].start_ns <= heap[0][0]):
                order, stretch = waiting[0]
                size = max(stretch.size - paid, 0) if not heap else stretch.size
                if heap and budget.used + size > budget.most:
                    on_late()
                    break
                waiting.popleft()
                iterator = stretch.read()
                budget.used += size
                charged += size
                first = next(iterator, None)
                if first is not None:
                    heapq.heappush(heap, (first[0], order, first[1], iterator, size))
                else:
                    budget.used -= size
                    charged -= size
            if not heap:
                continue
            stamp_ns, order, item, iterator, size = heap[0]
            yield stamp_ns, item
            del item
            following = next(iterator, None)
            if following is not None:
                heapq.heapreplace(heap, (following[0], order, following[1], iterator, size))
            else:
                heapq.heappop(heap)
                budget.used -= size
                charged -= size
    finally:
        budget.used -= charged


class Window(Generic[Item]):
    """Sorts what is out of order by a little: holds the newest items back, 8 MiB or 4096 of them at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Item]] = []
        self._bytes = self._count = 0
        self._given_ns: int | None = None

    def fits(self, stamp_ns: int) -> bool:
        """Whether nothing later was given already."""
        return self._given_ns is None or stamp_ns >= self._given_ns

    def push(self, stamp_ns: int, size: int, item: Item) -> Iterator[tuple[int, Item]]:
        """Takes an item of so many bytes; gives those that need not be held back any more."""
        heapq.heappush(self._heap, (stamp_ns, self._count, size, item))
        self._count += 1
        self._bytes += size
        while self._bytes > WINDOW_BYTES or len(self._heap) > WINDOW_ITEMS:
            yield self._pop()

    def flush(self) -> Iterator[tuple[int, Item]]:
        """Gives what is left."""
        while self._heap:
            yield self._pop()

    def _pop(self) -> tuple[int, Item]:
        self._given_ns, _, size, item = heapq.heappop(self._heap)
        self._bytes -= size
        return self._given_ns, item


class Repeats:
    """Finds the messages that several files have alike, in topic, type, log time and bytes; each of them counts once.

    What one file has several times counts several times: two publishers may say the same.

    counts: how many repeats were found, by topic.
    """

    def __init__(self, topics: Collection[str]) -> None:
        """`topics`: those that more than one file has at the same time; of others nothing is compared."""
        self._topics = frozenset(topics)
        self._at_ns: int | None = None
        self._given: dict[tuple[str, str, bytes], tuple[int, Counter[int]]] = {}
        self.counts = Counter[str]()

    def finds(self, file: int, record: Record) -> bool:
        """Whether another file gave this message; tell it every record by log time, with the number of its file."""
        if record.topic not in self._topics:
            return False
        if record.stamp_ns != self._at_ns:
            self._at_ns = record.stamp_ns
            self._given.clear()
        key = record.topic, record.type, hashlib.blake2b(record.raw, digest_size=16).digest()
        given, by_file = self._given.get(key, (0, Counter[int]()))
        if not given and len(self._given) >= MOST_ALIKE:
            return False
        by_file[file] += 1
        is_new = by_file[file] > given
        self._given[key] = given + is_new, by_file
        self.counts[record.topic] += not is_new
        return not is_new
