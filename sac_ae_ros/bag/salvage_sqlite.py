"""Reads the messages of an SQLite file page by page: no damaged page hides those behind it.

Every leaf page of the table `messages` (id, topic_id, timestamp, data) tells by itself which rows it holds; only
their long tails lie in pages that it names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from sac_ae_ros.bag.records import MAX_RECORD, Channel, DamageError, full_type
from sac_ae_ros.bag.scan import Place, Scan
from sac_ae_ros.bag.sqlite_pages import FORMATS, Pages, select

_LEAF = 13
_INTEGER_BYTES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # by serial type


class SqliteScan(Scan):
    """One .db3 file.

    Raises:
        DamageError: the header or the table of topics cannot be read.
    """

    _cheap_places = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._pages = Pages(path)
        try:
            columns = "topic_type, encoding, encoded_message_definition"
            rows = select(self._pages, "message_definitions", columns)
            definitions = {full_type(name): (FORMATS.get(encoding, ""), text) for name, encoding, text in rows}
            for number, name, kind, encoding in select(self._pages, "topics", "id, name, type, serialization_format"):
                if not (isinstance(number, int) and isinstance(name, str) and isinstance(kind, str)):
                    continue
                if encoding in ("cdr", ""):
                    self._channels[number] = Channel(name, kind, *definitions.get(full_type(kind), ("", "")))
                else:
                    self.ignored[name] = str(encoding)
            if not self._channels:
                raise DamageError("its table of topics cannot be read")
        except DamageError:
            self._pages.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._pages.close()

    def _messages(self, begin: Place, problems: list[str]) -> Iterator[tuple[Place, int, int, bytes]]:
        broken = 0
        for number in range(max(begin[0], 2), self._pages.count + 1):
            page = self._pages.page(number)
            if page[0] != _LEAF or not self._pages.has(number):
                continue
            for cell, at in enumerate(_cells(page)):
                if (number, cell) < begin:
                    continue
                try:
                    found = self._row(page, at)
                except DamageError:
                    broken += 1
                    continue
                if found:
                    yield (number, cell), *found
        if self._pages.cut:
            there, all_ = self._pages.count, self._pages.declared
            problems.append(f"{all_ - there} of {all_} pages are missing from byte {there * self._pages.size}")
        if broken:
            problems.append(f"{broken} messages are cut or damaged")

    def _row(self, page: bytes, at: int) -> tuple[int, int, bytes] | None:
        """A message; None for a row of another table."""
        try:
            length, at = _varint(page, at)
            _, at = _varint(page, at)
            head, inner = _varint(page, at)
            kinds = []
            while inner < at + head:
                kind, inner = _varint(page, inner)
                kinds.append(kind)
            if len(kinds) != 4 or kinds[3] < 12 or kinds[3] % 2 or any(k not in _INTEGER_BYTES for k in kinds[:3]):
                return None
            body = inner + _INTEGER_BYTES[kinds[0]]
            topic, body = _integer(page, body, kinds[1])
            stamp_ns, body = _integer(page, body, kinds[2])
        except IndexError as error:
            raise DamageError("a row's header is damaged") from error
        size = (kinds[3] - 12) // 2
        if topic not in self._channels or length != body - at + size:
            return None
        return topic, stamp_ns, self._payload(page, at, length)[body - at :]

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        """A row's bytes, with those in its overflow pages."""
        usable = self._pages.usable
        if length > min(MAX_RECORD, self._pages.count * usable):
            raise DamageError(f"a row claims {length} bytes")
        most = usable - 35
        local = length
        if length > most:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (usable - 4)
            local = local if local <= most else least
        if at + local + (4 if local < length else 0) > usable:
            raise DamageError("a row leaves its page")
        parts, left = [page[at : at + local]], length - local
        following = struct.unpack_from(">I", page, at + local)[0] if left else 0
        while left:
            if not self._pages.has(following, 4 + min(left, usable - 4)):
                raise DamageError("a row is cut")
            more = self._pages.page(following)
            following = struct.unpack_from(">I", more)[0]
            parts.append(more[4 : 4 + min(left, usable - 4)])
            left -= len(parts[-1])
        return b"".join(parts)


def _cells(page: bytes) -> Iterator[int]:
    """Where a leaf page's rows start."""
    (count,) = struct.unpack_from(">H", page, 3)
    for i in range(min(count, (len(page) - 8) // 2)):
        (at,) = struct.unpack_from(">H", page, 8 + 2 * i)
        if 8 <= at < len(page):
            yield at


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = page[at + i]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, at + i + 1
    return value << 8 | page[at + 8], at + 9


def _integer(page: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind >= 8:
        return kind - 8, at
    end = at + _INTEGER_BYTES[kind]
    if end > len(page):
        raise IndexError
    return int.from_bytes(page[at:end], "big", signed=True), end
