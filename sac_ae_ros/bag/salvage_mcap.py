"""Reads an mcap file record by record from its start, so that neither index nor footer is needed.

The format: https://mcap.dev/spec. A cut last chunk is decompressed as far as it goes; after damage, reading goes on
at the next chunk or message that makes sense.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from sac_ae_ros.bag.inflate import Bounded, Checked, inflate, take
from sac_ae_ros.bag.records import MAX_RECORD, Channel, DamageError
from sac_ae_ros.bag.scan import Scan

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _LAST = 3, 4, 5, 6, 0x0F
_FORMATS = {"ros1msg": "msg", "ros2msg": "msg", "ros2idl": "idl", "omgidl": "idl"}
_HEADS = re.compile(rb"[\x05\x06](?=.{5}\0\0\0)", re.DOTALL)  # of messages and chunks of less than a TiB
_HEAD = 64  # bytes
_BLOCK = 1 << 20  # bytes searched at once


class McapScan(Scan):
    """One mcap file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._reached = 0  # where to look for more after damage

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        self.problems = []
        with self._path.open("rb") as file:
            at = 0
            if file.read(8) == MAGIC:
                at = 8
            else:
                self.problems.append("does not start like an mcap file")
            while at < self._size:
                start = at
                try:
                    at = yield from self._record(file, start)
                except DamageError as error:
                    self.problems.append(f"{error} at byte {start} of {self._size}")
                    at = self._next(file, max(self._reached, start + 1))

    def _record(self, file: BinaryIO, at: int) -> Generator[tuple[int, int, bytes], None, int]:
        """Reads the record at this byte; returns where the next one is, past the file's end after the last."""
        file.seek(at)
        if file.read(8) == MAGIC:
            return self._size
        file.seek(at)
        op, length = struct.unpack("<BQ", take(file, 9))
        end = at + 9 + length
        if not 0 < op <= _LAST:
            raise DamageError(f"expected a record, got opcode {op}")
        if op == _CHUNK:
            try:
                yield from self._chunk(file, end)
            except DamageError as error:
                raise DamageError("the file ends within a chunk" if end > self._size else str(error)) from error
        elif op in (_SCHEMA, _CHANNEL, _MESSAGE):
            yield from self._body(op, take(file, length))
        if end > self._size:
            raise DamageError("the file ends within a record")
        return end

    def _chunk(self, file: BinaryIO, end: int) -> Iterator[tuple[int, int, bytes]]:
        _, _, size, crc, named = struct.unpack("<QQQII", take(file, 32))
        if named > 16:
            raise DamageError("a chunk's compression has an absurd name")
        compression = take(file, named).decode("ascii", "replace")
        (packed,) = struct.unpack("<Q", take(file, 8))
        if compression and file.tell() + packed == end:
            self._reached = min(end, self._size)  # its lengths agree with each other: the next record is there
        source = Checked(inflate(Bounded(file, min(packed, max(end - file.tell(), 0))), compression))
        while head := source.read(9):
            if len(head) < 9:
                raise DamageError("a chunk is cut")
            op, inner = struct.unpack("<BQ", head)
            if op not in (_SCHEMA, _CHANNEL, _MESSAGE):
                raise DamageError(f"a chunk holds a record of opcode {op}")
            yield from self._body(op, take(source, inner))
            if not compression:
                self._reached = file.tell()
        if source.count != size:
            raise DamageError(f"a chunk ends after {source.count} of {size} bytes")
        if crc and source.crc != crc:
            raise DamageError("a chunk's checksum does not fit: some of its messages may be wrong")

    def _body(self, op: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
        if op == _MESSAGE:
            if len(body) < 22:
                raise DamageError("a message is too short")
            number, _, stamp_ns, _ = struct.unpack_from("<HIQQ", body)
            yield number, stamp_ns, body[22:]
            return
        try:
            if op == _SCHEMA:
                (number,), at = struct.unpack_from("<H", body), 2
                name, at = _text(body, at)
                encoding, at = _text(body, at)
                self._schemas.setdefault(number, (name, _FORMATS.get(encoding, ""), _text(body, at)[0]))
            else:
                number, schema = struct.unpack_from("<HH", body)
                topic, at = _text(body, 4)
                kind, form, text = self._schemas.get(schema, ("", "", ""))
                if ros1 := _text(body, at)[0] == "ros1":
                    kind = kind if "/msg/" in kind else kind.replace("/", "/msg/")
                self._channels.setdefault(number, Channel(topic, kind, form, text, ros1))
        except (struct.error, UnicodeDecodeError) as error:
            raise DamageError("a schema or channel makes no sense") from error

    def _next(self, file: BinaryIO, at: int) -> int:
        """Where the next chunk or message that makes sense starts; the file's end if there is none."""
        while at < self._size:
            file.seek(at)
            block = file.read(_BLOCK + _HEAD)
            for match in _HEADS.finditer(block, 0, _BLOCK + 9):
                if match.start() < _BLOCK and self._is_record(file, at + match.start()):
                    return at + match.start()
            at += _BLOCK
        return self._size

    def _is_record(self, file: BinaryIO, at: int) -> bool:
        """Whether a chunk's lengths agree with each other, or a message's with what follows it."""
        file.seek(at)
        head = file.read(_HEAD)
        if len(head) < _HEAD:
            return False
        op, length = struct.unpack_from("<BQ", head)
        if at + 9 + length > self._size:
            return False
        if op == _CHUNK:
            (named,) = struct.unpack_from("<I", head, 37)
            return named < 8 and length == 40 + named + struct.unpack_from("<Q", head, 41 + named)[0]
        if length < 22 or struct.unpack_from("<H", head, 9)[0] not in self._channels:
            return False
        file.seek(at + 9 + length)
        following = file.read(9)
        if len(following) < 9:
            return not following
        op, length = struct.unpack("<BQ", following)
        return 0 < op <= _LAST and file.tell() + length <= self._size


def _text(body: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, at)
    data = body[at + 4 : at + 4 + length]
    if len(data) < length or length > MAX_RECORD:
        raise DamageError("a text is cut")
    return data.decode(), at + 4 + length


def is_indexed(path: Path) -> bool:
    """Whether the file ends as its writer meant it to, with a summary; only then need it not be read from its start."""
    with path.open("rb") as file:
        if file.seek(0, 2) < 45:
            return False
        file.seek(-37, 2)
        tail = file.read(37)
    return tail[-8:] == MAGIC and tail[0] == 2 and tail[9:17] != bytes(8)
