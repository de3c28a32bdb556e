"""Reads an mcap file through the index at its end, chunk by chunk.

The format: https://mcap.dev/spec. Every size that the file claims is checked before memory is taken for it.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sac_ae_ros.bag.inflate import Bounded, Checked, inflate, take
from sac_ae_ros.bag.merge import Stretch
from sac_ae_ros.bag.records import Channel, DamageError, NoIndexError
from sac_ae_ros.bag.salvage_mcap import CHANNEL, CHUNK, MAGIC, MESSAGE, SCHEMA, Tables, text
from sac_ae_ros.bag.scan import Found

MAX_CHUNK = 64 << 20  # bytes; larger ones are read piece by piece, by a scan
_FOOTER, _CHUNK_INDEX, _STATISTICS = 2, 8, 0x0B
_FOOTER_BYTES = 9 + 20 + 8
_MAX_SUMMARY_RECORD = 16 << 20  # bytes
_PIECE = 1 << 20  # bytes


@dataclass(frozen=True)
class _Chunk:
    start_ns: int
    at: int
    compression: str
    packed: int
    size: int
    numbers: tuple[int, ...]  # of its channels; none where it does not tell


class McapIndex:
    """A whole mcap file; attributes as those of Scan.

    Raises:
        NoIndexError: it has none, or one that leaves something out.
        DamageError: it does not end as its writer meant it to, or the index makes no sense.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._tables, self._chunks = Tables(), list[_Chunk]()
        self._statistics: bytes | None = None
        with path.open("rb") as file:
            if file.read(8) != MAGIC:
                raise DamageError("does not start like an mcap file")
            begin, end = self._summary(file)
            file.seek(begin)
            while file.tell() < end:
                self._take(file, end)
        self.ignored = self._tables.ignored
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self.start_ns, self.end_ns = self._count()

    @property
    def channels(self) -> list[Channel]:
        """What the file says of its topics."""
        return list(self._tables.channels.values())

    def close(self) -> None:
        """Nothing stays open."""

    def stretches(self, topics: Collection[str] | None = None) -> list[Stretch[Found]]:
        """The chunks that have messages of these topics (None: of all)."""
        wanted = {n: c for n, c in self._tables.channels.items() if topics is None or c.topic in topics}
        return [
            Stretch(chunk.start_ns, chunk.size, partial(self._read, chunk, wanted))
            for chunk in self._chunks
            if not chunk.numbers or not wanted.keys().isdisjoint(chunk.numbers)
        ]

    def _summary(self, file: BinaryIO) -> tuple[int, int]:
        """Where the summary begins and ends."""
        end = self._size - _FOOTER_BYTES
        file.seek(max(end, 8))
        footer = file.read(_FOOTER_BYTES)
        if len(footer) < _FOOTER_BYTES or footer[-8:] != MAGIC or footer[:9] != struct.pack("<BQ", _FOOTER, 20):
            raise DamageError("no footer: its writer did not finish it")
        begin, offsets, crc = struct.unpack_from("<QQI", footer, 9)
        if not begin:
            raise NoIndexError("no summary")
        if not 8 < begin <= end or not (begin <= offsets <= end or not offsets):
            raise DamageError("the footer names a place that is none")
        if crc:
            file.seek(begin)
            source, found = Bounded(file, end - begin), 0
            while piece := source.read(_PIECE):
                found = zlib.crc32(piece, found)
            if zlib.crc32(footer[:25], found) != crc:
                raise DamageError("the index's checksum does not fit")
        return begin, offsets or end

    def _take(self, file: BinaryIO, end: int) -> None:
        op, length = struct.unpack("<BQ", take(file, 9))
        if file.tell() + length > end:
            raise DamageError("the index ends within a record")
        if op not in (SCHEMA, CHANNEL, _CHUNK_INDEX, _STATISTICS):
            file.seek(length, 1)
            return
        if length > _MAX_SUMMARY_RECORD:
            raise DamageError(f"a record of the index claims {length} bytes")
        body = take(file, length)
        if op == _STATISTICS:
            self._statistics = body
        elif op == _CHUNK_INDEX:
            self._chunks.append(self._chunk(body))
        else:
            self._tables.take(op, body)

    def _chunk(self, body: bytes) -> _Chunk:
        try:
            start_ns, _, at, length, indexed = struct.unpack_from("<QQQQI", body)
            numbers = tuple(number for number, _ in struct.iter_unpack("<HQ", body[36 : 36 + indexed]))
            compression, end = text(body, 36 + indexed + 8)
            packed, size = struct.unpack_from("<QQ", body, end)
        except (struct.error, UnicodeDecodeError) as error:
            raise DamageError("the index of a chunk makes no sense") from error
        if at + length > self._size or packed > length:
            raise DamageError("the index names a chunk beyond the file's end")
        if max(size, packed) > MAX_CHUNK:
            raise NoIndexError("a chunk too large to be read at once")
        return _Chunk(start_ns, at, compression, packed, size, numbers)

    def _count(self) -> tuple[int | None, int | None]:
        """Fills the counts; returns the first and the last log time."""
        if self._statistics is None:
            raise NoIndexError("no statistics")
        try:
            total, _, channels, _, _, chunks, start_ns, end_ns = struct.unpack_from("<QHIIIIQQ", self._statistics)
            (length,) = struct.unpack_from("<I", self._statistics, 42)
            by_number = dict(struct.iter_unpack("<HQ", self._statistics[46 : 46 + length]))
        except struct.error as error:
            raise DamageError("the statistics make no sense") from error
        if len({chunk.at for chunk in self._chunks}) < len(self._chunks):
            raise DamageError("the index names a chunk twice")
        known = len(self._tables.channels) + len(self._tables.strange)
        lost = {number for number, count in by_number.items() if count} - {
            *self._tables.channels,
            *self._tables.strange,
        }
        if (
            chunks != len(self._chunks)
            or channels > known
            or (total and not chunks)
            or sum(by_number.values()) != total
        ):
            raise NoIndexError("an index that leaves something out")
        if lost:
            raise NoIndexError("an index that leaves out channels")
        counts = Counter[str]()
        for number, channel in self._tables.channels.items():
            counts[channel.topic] += by_number.get(number, 0)
        self.counts = dict(counts)
        return (start_ns, end_ns) if total else (None, None)

    def _read(self, chunk: _Chunk, wanted: dict[int, Channel]) -> Iterator[tuple[int, Found]]:
        data = self._unpack(chunk)
        stamps, places, at = array("Q"), array("Q"), 0
        while at < len(data):
            try:
                op, length = struct.unpack_from("<BQ", data, at)
                if op == MESSAGE:
                    number, _, stamp_ns = struct.unpack_from("<HIQ", data, at + 9)
                    if number in wanted:
                        stamps.append(stamp_ns)
                        places.append(at)
            except struct.error as error:
                raise DamageError("a chunk makes no sense") from error
            at += 9 + length
            if at > len(data) or (op == MESSAGE and length < 22):
                raise DamageError("a chunk ends within a record")
        for i in np.argsort(np.frombuffer(stamps, np.uint64), kind="stable") if stamps else ():
            at, stamp_ns = places[i], stamps[i]
            if stamp_ns < chunk.start_ns:
                raise DamageError("the index tells another time of a chunk")
            length, number = struct.unpack_from("<QH", data, at + 1)
            yield stamp_ns, (wanted[number], data[at + 31 : at + 9 + length], (chunk.at, at))

    def _unpack(self, chunk: _Chunk) -> bytes:
        with self._path.open("rb") as file:
            file.seek(chunk.at)
            op, _, _, _, size, crc, named = struct.unpack("<BQQQQII", take(file, 41))
            compression = take(file, min(named, 16)).decode("ascii", "replace")
            (packed,) = struct.unpack("<Q", take(file, 8))
            if op != CHUNK or (size, packed, compression) != (chunk.size, chunk.packed, chunk.compression):
                raise DamageError("the index tells a chunk otherwise than it is")
            source = Checked(inflate(Bounded(file, packed), compression), size)
            data = take(source, size)
            source.check(crc)
        return data
