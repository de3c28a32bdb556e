"""Reads the tables of a whole SQLite recording, with bounds on what a query may cost."""

from __future__ import annotations

import itertools
import urllib.parse
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import apsw

from sac_ae_ros.bag.merge import Stretch
from sac_ae_ros.bag.messages import LEAP_NS
from sac_ae_ros.bag.records import Channel, DamageError, full_type, is_latched
from sac_ae_ros.bag.scan import Found
from sac_ae_ros.bag.sqlite_pages import FORMATS, Pages, bound, check_tables, few, has_wal, wal_of

_CACHE = 4 << 20  # bytes, about what SQLite keeps of a file


class SqliteRows:
    """A whole .db3 file; attributes as those of Scan.

    marks_ns: the first and last log time within each hour.

    Raises:
        DamageError: it is cut, a write-ahead log holds a part of it, or it is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if has_wal(wal_of(path)):
            raise DamageError(f"{wal_of(path).name} holds what is not yet in the file")
        pages = Pages(path)
        pages.close()
        if pages.cut:
            raise DamageError("the database is cut")
        self.problems: list[str] = []
        self.ignored: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._channels: dict[int, Channel] = {}
        self._strange = set[int]()  # topics of other encodings
        connection = self._open()
        try:
            check_tables(connection, ("topics", "messages"))
            self._read_topics(connection)
            self.start_ns, self.end_ns = self._count(connection)
            hours = f"SELECT min(timestamp), max(timestamp) FROM messages GROUP BY timestamp / {LEAP_NS}"
            self.marks_ns = sorted(itertools.chain.from_iterable(few(connection, hours)))
        except (apsw.Error, UnicodeDecodeError, OverflowError) as error:
            raise DamageError(" ".join(str(error).split()) or type(error).__name__) from error
        finally:
            connection.close()

    @property
    def channels(self) -> list[Channel]:
        """What the file says of its topics."""
        return list(self._channels.values())

    def close(self) -> None:
        """Nothing stays open."""

    def stretches(self, topics: Collection[str] | None = None) -> list[Stretch[Found]]:
        """All messages of these topics (None: of all)."""
        wanted = {n: c for n, c in self._channels.items() if topics is None or c.topic in topics}
        if self.start_ns is None or not wanted:
            return []
        return [Stretch(self.start_ns, _CACHE, partial(self._read, wanted))]

    def _open(self) -> apsw.Connection:
        address = f"file:{urllib.parse.quote(str(self._path.absolute()))}?immutable=1"
        connection = apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        bound(connection, self._path.stat().st_size)
        return connection

    def _read_topics(self, connection: apsw.Connection) -> None:
        definitions: dict[str, tuple[str, str]] = {}
        if check_tables(connection, ("message_definitions",), optional=True):
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {full_type(n): (FORMATS[e], text) for n, e, text in few(connection, query) if e in FORMATS}
        columns = {column for _, column, *_ in few(connection, "PRAGMA table_info(topics)")}
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        query = f"SELECT id, name, type, serialization_format, {qos} FROM topics ORDER BY id"
        for number, name, kind, encoding, profiles in few(connection, query):
            if not (isinstance(number, int) and isinstance(name, str) and isinstance(kind, str)):
                raise DamageError("a topic's name is none")
            if encoding not in ("cdr", ""):
                self.ignored[name] = str(encoding)
                self._strange.add(number)
                continue
            latched = isinstance(profiles, str) and is_latched(profiles)
            self._channels[number] = Channel(name, kind, *definitions.get(full_type(kind), ("", "")), latched=latched)

    def _count(self, connection: apsw.Connection) -> tuple[int | None, int | None]:
        """Fills the counts; returns the first and the last log time."""
        counts = Counter({channel.topic: 0 for channel in self._channels.values()})
        spans: list[tuple[int, int]] = []
        lost = 0
        query = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY topic_id"
        for number, count, first, last in few(connection, query):
            if not (isinstance(first, int) and isinstance(last, int)):
                raise DamageError("a message holds no time")
            if (channel := self._channels.get(number)) is not None:
                counts[channel.topic] += count
                spans.append((first, last))
            elif number not in self._strange:
                lost += count
        if lost:
            self.problems.append(f"{lost} messages of topics whose names are lost")
        self.counts = dict(counts)
        return min((first for first, _ in spans), default=None), max((last for _, last in spans), default=None)

    def _read(self, wanted: dict[int, Channel]) -> Iterator[tuple[int, Found]]:
        connection = self._open()
        try:
            rows = connection.execute("SELECT rowid, topic_id FROM messages ORDER BY timestamp, rowid")
            for row, number in rows:
                if number not in wanted:
                    continue
                ((stamp_ns, data),) = connection.execute("SELECT timestamp, data FROM messages WHERE rowid = ?", (row,))
                if not (isinstance(data, bytes) and isinstance(stamp_ns, int)):  # SQLite keeps any type in any column
                    raise DamageError("a message holds no bytes, or no time")
                yield stamp_ns, (wanted[number], data, (row, 0))
        finally:
            connection.close()
