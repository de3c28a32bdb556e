"""Reads a ROS 1 bag through the index at its end, chunk by chunk.

The format: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sac_ae_ros.bag.inflate import Checked, take
from sac_ae_ros.bag.mcap_index import MAX_CHUNK
from sac_ae_ros.bag.merge import Stretch
from sac_ae_ros.bag.records import Channel, DamageError, NoIndexError
from sac_ae_ros.bag.salvage_ros1 import (
    BAG_HEADER,
    CHUNK,
    CHUNK_INFO,
    CONNECTION,
    MAGIC,
    MESSAGE,
    channel_of,
    head,
    message_of,
    unpacked,
)
from sac_ae_ros.bag.scan import Found


@dataclass(frozen=True)
class _Chunk:
    at: int
    start_ns: int
    end_ns: int
    counts: dict[int, int]
    size: int


class Ros1Index:
    """A whole .bag file; attributes as those of Scan.

    Raises:
        NoIndexError: a chunk is too large to be read at once, or the index leaves something out.
        DamageError: its writer did not finish it, or the index makes no sense.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channels: dict[int, Channel] = {}
        self.ignored: dict[str, str] = {}
        self.problems: list[str] = []
        try:
            with path.open("rb") as file:
                self._chunks = self._read_index(file)
        except (struct.error, KeyError) as error:
            raise DamageError("the index makes no sense") from error
        if not self._channels.keys() >= {number for chunk in self._chunks for number in chunk.counts}:
            raise NoIndexError("an index that leaves out connections")
        counts = Counter[str]()
        for number, channel in self._channels.items():
            counts[channel.topic] += sum(chunk.counts.get(number, 0) for chunk in self._chunks)
        self.counts = dict(counts)
        full = [chunk for chunk in self._chunks if chunk.counts]
        self.start_ns = min((chunk.start_ns for chunk in full), default=None)
        self.end_ns = max((chunk.end_ns for chunk in full), default=None)

    @property
    def channels(self) -> list[Channel]:
        """What the file says of its topics."""
        return list(self._channels.values())

    def close(self) -> None:
        """Nothing stays open."""

    def stretches(self, topics: Collection[str] | None = None) -> list[Stretch[Found]]:
        """The chunks that have messages of these topics (None: of all)."""
        wanted = {n: c for n, c in self._channels.items() if topics is None or c.topic in topics}
        return [
            Stretch(chunk.start_ns, chunk.size, partial(self._read, chunk, wanted))
            for chunk in self._chunks
            if not wanted.keys().isdisjoint(chunk.counts)
        ]

    def _read_index(self, file: BinaryIO) -> list[_Chunk]:
        if file.read(len(MAGIC)) != MAGIC:
            raise DamageError("does not start like a ROS 1 bag")
        fields, _ = head(file)
        if fields["op"][0] != BAG_HEADER:
            raise DamageError("expected the bag's header")
        if fields.get("encryptor"):
            raise DamageError("it is encrypted")
        (begin,) = struct.unpack("<Q", fields["index_pos"])
        connections, chunks = (struct.unpack("<I", fields[name])[0] for name in ("conn_count", "chunk_count"))
        if not begin:
            raise DamageError("no index: its writer did not finish it")
        file.seek(begin)
        for _ in range(connections):
            fields, length = head(file)
            if fields["op"][0] != CONNECTION:
                raise DamageError("the index lacks a connection")
            number, channel = channel_of(fields, take(file, length))
            self._channels[number] = channel
        infos = []
        for _ in range(chunks):
            fields, length = head(file)
            if fields["op"][0] != CHUNK_INFO:
                raise DamageError("the index lacks a chunk")
            infos.append((fields, take(file, length)))
        return [self._chunk(file, *info) for info in infos]

    def _chunk(self, file: BinaryIO, info: dict[str, bytes], counted: bytes) -> _Chunk:
        (at,) = struct.unpack("<Q", info["chunk_pos"])
        times = [struct.unpack("<II", info[name]) for name in ("start_time", "end_time")]
        start_ns, end_ns = (sec * 1_000_000_000 + nanosec for sec, nanosec in times)
        file.seek(at)
        fields, packed = head(file)
        (size,) = struct.unpack("<I", fields["size"])
        if fields["op"][0] != CHUNK:
            raise DamageError("the index names a chunk that is none")
        if max(packed, size) > MAX_CHUNK:
            raise NoIndexError("a chunk too large to be read at once")
        return _Chunk(at, start_ns, end_ns, dict(struct.iter_unpack("<II", counted)), size)

    def _read(self, chunk: _Chunk, wanted: dict[int, Channel]) -> Iterator[tuple[int, Found]]:
        found: list[tuple[int, Found]] = []
        with self._path.open("rb") as file:
            file.seek(chunk.at)
            fields, packed = head(file)
            source = Checked(unpacked(file, fields, packed), chunk.size)
            while (first := source.read(4)) != b"":
                fields, size = head(source, first)
                data = take(source, size)
                if fields["op"][0] != MESSAGE:
                    continue
                number, stamp_ns = message_of(fields)
                if stamp_ns < chunk.start_ns:
                    raise DamageError("the index tells another time of a chunk")
                if number in wanted:
                    found.append((stamp_ns, (wanted[number], data, (chunk.at, len(found)))))
            source.check(0)
        found.sort(key=lambda each: each[0])
        yield from found
