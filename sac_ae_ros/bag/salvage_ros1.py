"""Reads a ROS 1 bag record by record from its start, so that its index is not needed.

The format: http://wiki.ros.org/Bags/Format/2.0. A cut last chunk is decompressed as far as it goes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from sac_ae_ros.bag.inflate import Bounded, Source, inflate, take
from sac_ae_ros.bag.records import Channel, DamageError
from sac_ae_ros.bag.scan import Place, Scan

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 5, 6, 7
_OPS = range(2, 8)
_MAX_HEADER = 1 << 20  # bytes; headers hold a few short fields


class Ros1Scan(Scan):
    """One .bag file."""

    def _messages(self, begin: Place, problems: list[str]) -> Iterator[tuple[Place, int, int, bytes]]:
        with self._path.open("rb") as file:
            at = max(begin[0], len(MAGIC))
            while at < self._size:
                start = at
                try:
                    file.seek(at)
                    fields, length = head(file)
                    at = file.tell() + length
                    for count, found in enumerate(self._record(file, fields, length)):
                        if (start, count) >= begin:
                            yield (start, count), *found
                except _ChunkError as error:
                    problems.append(f"{error} at byte {start} of {self._size}")
                except DamageError as error:
                    problems.append(f"{error} at byte {start} of {self._size}")
                    return

    def _record(self, file: BinaryIO, fields: dict[str, bytes], length: int) -> Iterator[tuple[int, int, bytes]]:
        end = file.tell() + length
        if fields["op"][0] == CHUNK:
            try:
                source = unpacked(file, fields, length)
                while (first := source.read(4)) != b"":
                    inner, size = head(source, first)
                    yield from self._body(inner, take(source, size))
            except DamageError as error:
                raise _ChunkError("the file ends within a chunk" if end > self._size else str(error)) from error
        elif fields["op"][0] in (CONNECTION, MESSAGE):
            yield from self._body(fields, take(file, length))
        if end > self._size:
            raise DamageError("the file ends within a record")

    def _body(self, fields: dict[str, bytes], data: bytes) -> Iterator[tuple[int, int, bytes]]:
        if fields["op"][0] == MESSAGE:
            yield *message_of(fields), data
        elif fields["op"][0] == CONNECTION:
            number, channel = channel_of(fields, data)
            self._channels.setdefault(number, channel)


def message_of(fields: dict[str, bytes]) -> tuple[int, int]:
    """The connection's number and the log time in ns of a message's header.

    Raises:
        DamageError: it has none.
    """
    try:
        (number,), (sec, nanosec) = struct.unpack("<I", fields["conn"]), struct.unpack("<II", fields["time"])
    except (struct.error, KeyError) as error:
        raise DamageError("a record makes no sense") from error
    return number, sec * 1_000_000_000 + nanosec


def channel_of(fields: dict[str, bytes], data: bytes) -> tuple[int, Channel]:
    """A connection's number and what it says of its topic.

    Raises:
        DamageError: it makes no sense.
    """
    try:
        (number,) = struct.unpack("<I", fields["conn"])
        told = _fields(data)
        definition = told.get("message_definition", b"").decode(errors="replace")
        topic = re.sub("/+", "/", fields["topic"].decode())
        latched = told.get("latching") == b"1"
        return number, Channel(topic, told["type"].decode(), "msg", definition, True, latched)
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise DamageError("a record makes no sense") from error


def unpacked(file: BinaryIO, fields: dict[str, bytes], length: int) -> Source:
    """What the chunk with this header holds; `file` is where its `length` bytes begin.

    Raises:
        DamageError: its compression is unknown; reading raises it where the data is damaged.
    """
    compression = fields.get("compression", b"").decode("ascii", "replace")
    return inflate(Bounded(file, length), "" if compression == "none" else compression)


class _ChunkError(DamageError):
    """A chunk is damaged; what follows it may not be."""


def head(source: Source, first: bytes = b"") -> tuple[dict[str, bytes], int]:
    """A record's header, of which `first` was read already, and how many bytes follow it.

    Raises:
        DamageError: it makes no sense, or is cut.
    """
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
