"""Reads a ROS 1 bag record by record from its start, so that its index is not needed.

The format: http://wiki.ros.org/Bags/Format/2.0. A cut last chunk is decompressed as far as it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import BinaryIO

from sac_ae_ros.bag.inflate import Bounded, Source, inflate, take
from sac_ae_ros.bag.records import Channel, DamageError
from sac_ae_ros.bag.scan import Scan

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_OPS = range(2, 8)
_MAX_HEADER = 1 << 20  # bytes; headers hold a few short fields


class Ros1Scan(Scan):
    """One .bag file."""

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        self.problems = []
        with self._path.open("rb") as file:
            at = len(MAGIC)
            while at < self._size:
                start = at
                try:
                    at = yield from self._record(file, start)
                except _ChunkError as error:
                    self.problems.append(f"{error} at byte {start} of {self._size}")
                    at = error.end
                except DamageError as error:
                    self.problems.append(f"{error} at byte {start} of {self._size}")
                    return

    def _record(self, file: BinaryIO, at: int) -> Generator[tuple[int, int, bytes], None, int]:
        """Reads the record at this byte; returns where the next one is."""
        file.seek(at)
        fields, length = _head(file)
        end = file.tell() + length
        if fields["op"][0] == _CHUNK:
            compression = fields.get("compression", b"").decode("ascii", "replace")
            try:
                source = inflate(Bounded(file, length), "" if compression == "none" else compression)
                while (first := source.read(4)) != b"":
                    inner, size = _head(source, first)
                    yield from self._body(inner, take(source, size))
            except DamageError as error:
                raise _ChunkError("the file ends within a chunk" if end > self._size else str(error), end) from error
        elif fields["op"][0] in (_CONNECTION, _MESSAGE):
            yield from self._body(fields, take(file, length))
        if end > self._size:
            raise DamageError("the file ends within a record")
        return end

    def _body(self, fields: dict[str, bytes], data: bytes) -> Iterator[tuple[int, int, bytes]]:
        op = fields["op"][0]
        try:
            if op == _MESSAGE:
                (number,), (sec, nanosec) = struct.unpack("<I", fields["conn"]), struct.unpack("<II", fields["time"])
                yield number, sec * 1_000_000_000 + nanosec, data
            elif op == _CONNECTION:
                (number,) = struct.unpack("<I", fields["conn"])
                told = _fields(data)
                kind, text = told["type"].decode(), told.get("message_definition", b"").decode(errors="replace")
                kind = kind if "/msg/" in kind else kind.replace("/", "/msg/")
                self._channels.setdefault(number, Channel(fields["topic"].decode(), kind, "msg", text, True))
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise DamageError("a record makes no sense") from error


class _ChunkError(DamageError):
    """A chunk is damaged; what follows it may not be."""

    def __init__(self, message: str, end: int) -> None:
        super().__init__(message)
        self.end = end


def _head(source: Source, first: bytes = b"") -> tuple[dict[str, bytes], int]:
    """A record's header, and how many bytes follow it."""
    (length,) = struct.unpack("<I", first + take(source, 4 - len(first)))
    if length > _MAX_HEADER:
        raise DamageError(f"a record's header claims {length} bytes")
    fields = _fields(take(source, length))
    if len(fields.get("op", b"")) != 1 or fields["op"][0] not in _OPS:
        raise DamageError("expected a record")
    return fields, struct.unpack("<I", take(source, 4))[0]


def _fields(data: bytes) -> dict[str, bytes]:
    fields, at = {}, 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        name, _, value = data[at + 4 : at + 4 + length].partition(b"=")
        fields[name.decode("ascii", "replace")] = value
        at += 4 + length
    return fields
