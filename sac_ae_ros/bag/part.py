"""One file of a recording: read by rosbags, and by a scan of our own where rosbags gives up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import zstandard
from rosbags.interfaces import Connection, ConnectionExtRosbag1, MessageDefinitionFormat, QosDurability
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from sac_ae_ros.bag.inflate import inflate_message
from sac_ae_ros.bag.records import Channel, DamageError, Record
from sac_ae_ros.bag.salvage_mcap import McapScan, is_indexed
from sac_ae_ros.bag.salvage_ros1 import Ros1Scan
from sac_ae_ros.bag.salvage_sqlite import SqliteScan
from sac_ae_ros.bag.sqlite_pages import Pages, has_wal, wal_of

MAX_CHUNK = 64 << 20  # bytes; rosbags reads chunks whole
_FORMATS = {MessageDefinitionFormat.MSG: "msg", MessageDefinitionFormat.IDL: "idl"}


class _Scan(Protocol):
    problems: list[str]
    lost: Counter[int]

    @property
    def channels(self) -> list[Channel]: ...

    def read(self, topics: Collection[str] | None = None) -> Iterator[tuple[Channel, int, bytes]]: ...

    def close(self) -> None: ...


_SCANS: dict[str, Callable[[Path], _Scan]] = {"mcap": McapScan, "sqlite3": SqliteScan, "ros1": Ros1Scan}


class Part:
    """A file's topics and messages.

    channels: what the file says of its topics. counts: messages by topic. start_ns, end_ns: log times of the first
    and the last message, None without any. name: for what is told of it. problems: what is wrong with the file;
    complete once it was read.

    Raises:
        DamageError: nothing in the file can be read.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self.name = path.name
        self.problems: list[str] = []
        self.channels: list[Channel] = []
        self.counts: dict[str, int] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._storage: Any = None
        self._scan: _Scan | None = None
        try:
            self._open_with_rosbags()
        except Exception as error:  # damaged files raise whatever their bytes hit upon
            self._open_scan(error)

    def close(self) -> None:
        """Closes the file."""
        for reader in (self._storage, self._scan):
            if reader is not None:
                reader.close()
        self._storage = self._scan = None

    def records(self, topics: Collection[str] | None) -> Iterator[Record]:
        """The messages of these topics (None: of all), those that a scan had to find in the order of the file."""
        done: Counter[str] = Counter()
        broken = 0
        for channel, stamp_ns, raw in self._found(topics, done):
            try:
                plain = raw if self._kind == "ros1" else inflate_message(raw)
            except DamageError:
                broken += 1
                continue
            yield Record(channel.topic, channel.type, stamp_ns, plain, channel.ros1)
        if broken:
            self._tell(f"{broken} messages whose compression is damaged")

    def _found(self, topics: Collection[str] | None, done: Counter[str]) -> Iterator[tuple[Channel, int, bytes]]:
        if self._storage is not None:
            try:
                for found in self._from_rosbags(topics):
                    done[found[0].topic] += 1
                    yield found
                self._compare(topics, done)
                return
            except Exception as error:  # as above
                self._open_scan(error)
        assert self._scan is not None
        for found in self._scan.read(topics):
            if done[found[0].topic] > 0:  # rosbags gave it before it gave up
                done[found[0].topic] -= 1
                continue
            yield found

    def _compare(self, topics: Collection[str] | None, done: Counter[str]) -> None:
        """Tells where the file's own count is not what it gave."""
        for topic, count in self.counts.items():
            if (topics is None or topic in topics) and done[topic] != count:
                self._tell(f"{done[topic]} of {count} messages of {topic} are there")
                self.counts[topic] = done[topic]

    def _from_rosbags(self, topics: Collection[str] | None) -> Iterator[tuple[Channel, int, bytes]]:
        wanted = [c for c in self._storage.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        channels = {c.id: _channel(c, self._kind) for c in wanted}
        for connection, stamp_ns, raw in self._storage.messages(wanted):
            if not (isinstance(raw, bytes) and isinstance(stamp_ns, int)):  # SQLite keeps any type in any column
                raise DamageError("a message holds no bytes, or no time")
            yield channels[connection.id], stamp_ns, raw

    def _open_with_rosbags(self) -> None:
        readers: dict[str, Callable[[Path], Any]] = {"mcap": McapReader, "sqlite3": Sqlite3Reader, "ros1": Ros1Reader}
        storage = readers[self._kind](self._path)
        self._refuse()
        storage.open()
        try:
            if isinstance(storage, McapReader):
                _vet_chunks(storage, self._path)
            info = storage if isinstance(storage, Ros1Reader) else storage.metadata
            if info.message_count:
                self.start_ns, self.end_ns = info.start_time, info.end_time - 1
            self.channels = [_channel(c, self._kind) for c in storage.connections]
            counts = Counter[str]()
            for connection in storage.connections:
                counts[connection.topic] += connection.msgcount
            self.counts = dict(counts)
        except BaseException:
            storage.close()
            raise
        self._storage = storage

    def _refuse(self) -> None:
        """Spares rosbags what it would read wrongly, or whole into memory."""
        if self._kind == "mcap" and not is_indexed(self._path):
            raise DamageError("no footer with an index")
        if self._kind != "sqlite3":
            return
        if has_wal(wal_of(self._path)):
            raise DamageError(f"{wal_of(self._path).name} holds what is not yet in the file")
        if set("?#%") & set(str(self._path)):
            raise DamageError("a path that SQLite takes for an address")
        pages = Pages(self._path)
        pages.close()
        if pages.cut:
            raise DamageError("the database is cut")

    def _open_scan(self, error: Exception) -> None:
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        why = " ".join(str(error).split())[:200] or type(error).__name__
        scan = _SCANS[self._kind](self._path)
        self._count(scan)
        if scan.lost:  # a topic's name may come after its first message, in the index at the end
            self._count(scan)
        self.channels, self._scan = scan.channels, scan
        self._tell(why)
        for problem in itertools.islice(scan.problems, 5):
            self._tell(problem)
        if len(scan.problems) > 5:
            self._tell(f"and {len(scan.problems) - 5} more places")
        if lost := sum(scan.lost.values()):
            self._tell(f"{lost} messages of topics whose names are lost")
        if not self.channels:
            raise DamageError("; ".join(self.problems))

    def _count(self, scan: _Scan) -> None:
        counts = Counter[str]()
        stamps: tuple[int, int] | None = None
        for channel, stamp_ns, _ in scan.read():
            counts[channel.topic] += 1
            stamps = (min(stamp_ns, stamps[0]), max(stamp_ns, stamps[1])) if stamps else (stamp_ns, stamp_ns)
        self.start_ns, self.end_ns = stamps or (None, None)
        self.counts = dict(counts)

    def _tell(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _channel(connection: Connection, kind: str) -> Channel:
    definition = connection.msgdef
    if not (isinstance(connection.topic, str) and isinstance(connection.msgtype, str)):
        raise DamageError("a topic's name is none")
    form = _FORMATS.get(definition.format, "")
    ext = connection.ext
    if isinstance(ext, ConnectionExtRosbag1):
        latched = bool(ext.latching)
    else:
        latched = any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in ext.offered_qos_profiles)
    return Channel(connection.topic, connection.msgtype, form, definition.data, kind == "ros1", latched)


def _vet_chunks(storage: McapReader, path: Path) -> None:
    """Chunks that rosbags would inflate without limit are for the scan, which reads them in pieces.

    Raises:
        DamageError: a chunk is or claims to be too large, or does not tell.
    """
    if not storage.chunks and storage.statistics and storage.statistics.chunk_count:
        raise DamageError("no index of chunks")
    size = path.stat().st_size
    with path.open("rb") as file:
        for chunk in storage.chunks:
            if max(chunk.uncompressed_size, chunk.compressed_size) > MAX_CHUNK or chunk.chunk_start_offset > size:
                raise DamageError("a chunk is too large")
            if chunk.compression == "zstd":
                file.seek(chunk.chunk_start_offset + 9 + 40 + 4)
                if zstandard.frame_content_size(file.read(18)) != chunk.uncompressed_size:
                    raise DamageError("a chunk's compressed data does not tell its size, or another one")
