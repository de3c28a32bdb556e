"""Reads an mcap file record by record from its start, so that neither index nor footer is needed.

The format: https://mcap.dev/spec. A cut last chunk is decompressed as far as it goes; after damage, reading goes on
at the next chunk or message that makes sense.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sac_ae_ros.bag.inflate import Bounded, Checked, inflate, take
from sac_ae_ros.bag.records import MAX_RECORD, Channel, DamageError, is_latched
from sac_ae_ros.bag.scan import Place, Scan

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, _LAST = 3, 4, 5, 6, 0x0F
_FORMATS = {"ros1msg": "msg", "ros2msg": "msg", "ros2idl": "idl", "omgidl": "idl"}
_ENCODINGS = ("cdr", "ros1", "")  # of messages; others (json, protobuf) are of no ROS
_HEADS = re.compile(rb"[\x05\x06](?=.{5}\0\0\0)", re.DOTALL)  # of messages and chunks of less than a TiB
_HEAD = 64  # bytes
_BLOCK = 1 << 20  # bytes searched at once


class Tables:
    """Schemas and channels of an mcap file, as its records name them.

    channels: by number, those that ROS can read. ignored: the encodings of the other topics, by name. strange: the
    numbers of these.
    """

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.ignored: dict[str, str] = {}
        self.strange: set[int] = set()
        self._schemas: dict[int, tuple[str, str, str]] = {}

    def take(self, op: int, body: bytes) -> None:
        """Takes a schema's or channel's record.

        Raises:
            DamageError: it makes no sense.
        """
        try:
            if op == SCHEMA:
                (number,), at = struct.unpack_from("<H", body), 2
                name, at = text(body, at)
                encoding, at = text(body, at)
                definition = text(body, at)[0] if encoding in _FORMATS else ""
                self._schemas.setdefault(number, (name, _FORMATS.get(encoding, ""), definition))
                return
            number, schema = struct.unpack_from("<HH", body)
            topic, at = text(body, 4)
            encoding, at = text(body, at)
            kind, form, definition = self._schemas.get(schema, ("", "", ""))
            if encoding not in _ENCODINGS:
                self.ignored[topic] = encoding
                self.strange.add(number)
            elif number not in self.channels:
                latched = is_latched(body[at:].decode(errors="replace"))
                self.channels[number] = Channel(topic, kind, form, definition, encoding == "ros1", latched)
        except (struct.error, UnicodeDecodeError) as error:
            raise DamageError("a schema or channel makes no sense") from error


class McapScan(Scan):
    """One mcap file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tables = Tables()
        self._channels, self.ignored = self._tables.channels, self._tables.ignored

    def _messages(self, begin: Place, problems: list[str]) -> Iterator[tuple[Place, int, int, bytes]]:
        with self._path.open("rb") as file:
            reader = _Pass(file, self._size, self._tables)
            at = begin[0]
            if at == 0:
                at = 8
                if file.read(8) != MAGIC:
                    problems.append("does not start like an mcap file")
                    at = 0
            while at < self._size:
                start = at
                try:
                    for count, found in enumerate(reader.record(start)):
                        if (start, count) >= begin and found[0] not in self._tables.strange:
                            yield (start, count), *found
                    at = reader.next
                except DamageError as error:
                    problems.append(f"{error} at byte {start} of {self._size}")
                    at = reader.search(max(reader.reached, start + 1))


class _Pass:
    """One way through the file. next: where the next record is. reached: where to look for more after damage."""

    def __init__(self, file: BinaryIO, size: int, tables: Tables) -> None:
        self._file, self._size, self._tables = file, size, tables
        self.next = self.reached = 0

    def record(self, at: int) -> Iterator[tuple[int, int, bytes]]:
        """The messages of the record at this byte: channel's number, log time in ns, payload."""
        file = self._file
        file.seek(at)
        if file.read(8) == MAGIC:
            self.next = self._size
            return
        file.seek(at)
        op, length = struct.unpack("<BQ", take(file, 9))
        end = self.next = at + 9 + length
        if not op:
            raise DamageError(f"expected a record, got opcode {op}")
        if op == CHUNK:
            try:
                yield from self._chunk(end)
            except DamageError as error:
                raise DamageError("the file ends within a chunk" if end > self._size else str(error)) from error
        elif op in (SCHEMA, CHANNEL, MESSAGE):
            yield from self._body(op, take(file, length))
        elif op > _LAST and not self._is_followed(end):  # of an extension, or of none
            raise DamageError(f"expected a record, got opcode {op}")
        if end > self._size:
            raise DamageError("the file ends within a record")

    def _chunk(self, end: int) -> Iterator[tuple[int, int, bytes]]:
        file = self._file
        _, _, size, crc, named = struct.unpack("<QQQII", take(file, 32))
        if named > 16:
            raise DamageError("a chunk's compression has an absurd name")
        compression = take(file, named).decode("ascii", "replace")
        (packed,) = struct.unpack("<Q", take(file, 8))
        if compression and file.tell() + packed == end:
            self.reached = min(end, self._size)  # its lengths agree with each other: the next record is there
        bounded = Bounded(file, min(packed, max(end - file.tell(), 0)))
        source = Checked(inflate(bounded, compression), size)
        while head := source.read(9):
            if len(head) < 9:
                raise DamageError("a chunk is cut")
            op, inner = struct.unpack("<BQ", head)
            if op not in (SCHEMA, CHANNEL, MESSAGE):
                raise DamageError(f"a chunk holds a record of opcode {op}")
            yield from self._body(op, take(source, inner))
            if not compression:
                self.reached = file.tell()
        source.check(crc)

    def _body(self, op: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
        if op != MESSAGE:
            self._tables.take(op, body)
            return
        if len(body) < 22:
            raise DamageError("a message is too short")
        number, _, stamp_ns, _ = struct.unpack_from("<HIQQ", body)
        yield number, stamp_ns, body[22:]

    def search(self, at: int) -> int:
        """Where the next chunk or message that makes sense starts; the file's end if there is none."""
        file = self._file
        while at < self._size:
            file.seek(at)
            block = file.read(_BLOCK + _HEAD)
            for match in _HEADS.finditer(block, 0, _BLOCK + 9):
                if match.start() < _BLOCK and self._is_record(at + match.start()):
                    return at + match.start()
            at += _BLOCK
        return self._size

    def _is_record(self, at: int) -> bool:
        """Whether a chunk's lengths agree with each other, or a message's with what follows it."""
        file, tables = self._file, self._tables
        file.seek(at)
        head = file.read(_HEAD)
        if len(head) < _HEAD:
            return False
        op, length = struct.unpack_from("<BQ", head)
        if at + 9 + length > self._size:
            return False
        if op == CHUNK:
            (named,) = struct.unpack_from("<I", head, 37)
            return named < 8 and length == 40 + named + struct.unpack_from("<Q", head, 41 + named)[0]
        (number,) = struct.unpack_from("<H", head, 9)
        if length < 22 or (number not in tables.channels and number not in tables.strange):
            return False
        return self._is_followed(at + 9 + length)

    def _is_followed(self, at: int) -> bool:
        """Whether another record, or the file's end, is at this byte."""
        if at >= self._size:
            return at == self._size
        self._file.seek(at)
        following = self._file.read(9)
        if len(following) < 9:
            return False
        op, length = struct.unpack("<BQ", following)
        return following[:8] == MAGIC or (0 < op <= _LAST and at + 9 + length <= self._size)


def text(body: bytes, at: int) -> tuple[str, int]:
    """A text at this byte of a record, and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    data = body[at + 4 : at + 4 + length]
    if len(data) < length or length > MAX_RECORD:
        raise DamageError("a text is cut")
    return data.decode(), at + 4 + length
