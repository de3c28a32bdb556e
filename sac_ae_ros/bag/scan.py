"""What the scans of files of chunks have in common: a table of channels that grows, and messages that refer to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from sac_ae_ros.bag.records import Channel

Found = tuple[Channel, int, bytes]


class Scan:
    """One file; the channels are those of all passes so far, `problems` and `lost` those of the newest."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._channels: dict[int, Channel] = {}
        self.problems: list[str] = []
        self.lost: Counter[int] = Counter()

    @property
    def channels(self) -> list[Channel]:
        """What the file says of its topics."""
        return list(self._channels.values())

    def close(self) -> None:
        """Nothing stays open between two passes."""

    def read(self, topics: Collection[str] | None = None) -> Iterator[Found]:
        """The messages of these topics (None: of all) in file order: channel, log time in ns, payload."""
        self.lost.clear()
        for number, stamp_ns, data in self._messages():
            channel = self._channels.get(number)
            if channel is None:
                self.lost[number] += 1
            elif topics is None or channel.topic in topics:
                yield channel, stamp_ns, data

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """A pass: the channel's number, log time in ns, payload; begins `problems` anew."""
        raise NotImplementedError
