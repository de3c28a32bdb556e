"""The pages of an SQLite file, as far as they are there, without ever writing to it or beside it.

The format: https://sqlite.org/fileformat2.html. Committed pages of a left-over write-ahead log (-wal) are laid over
the file's own; what a cut took reads as zeros, which is what SQLite needs to open the rest.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import apsw

from sac_ae_ros.bag.records import MAX_RECORD, DamageError

MAGIC = b"SQLite format 3\0"
FORMATS = {"ros2msg": "msg", "ros2idl": "idl"}  # of message definitions
_WAL_HEAD, _FRAME_HEAD = 32, 24  # bytes
_MOST_ROWS, _MOST_ROW_BYTES = 100_000, 64 << 20  # of a table of topics or definitions
_STEPS = 100_000  # of SQLite's machine between two looks at the budget


class Pages:
    """Pages 1 to count of `size` bytes each.

    Raises:
        DamageError: the header makes no sense.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._wal: BinaryIO | None = None
        self._length = path.stat().st_size
        head = self._file.read(100)
        if len(head) < 100 or head[:16] != MAGIC:
            self._file.close()
            raise DamageError("does not start like an SQLite database")
        (size,) = struct.unpack_from(">H", head, 16)
        self.size = 65536 if size == 1 else size
        self.usable = self.size - head[20]
        if self.size < 512 or self.size & (self.size - 1) or self.usable < 480:
            self._file.close()
            raise DamageError(f"an SQLite database of pages of {self.size} bytes")
        self._frames: dict[int, int] = {}  # page -> where it lies in the log
        (self.declared,) = struct.unpack_from(">I", head, 28)
        self._open_wal(wal_of(path))
        self.count = max(self._length // self.size, max(self._frames, default=0))

    @property
    def cut(self) -> int:
        """How many pages the header declares that are not there."""
        return max(self.declared - self.count, 0)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._wal:
            self._wal.close()

    def has(self, number: int, length: int = 0) -> bool:
        """Whether the first `length` bytes of this page are there, all of them unless it is given."""
        if number in self._frames:
            return True
        return number > 0 and (number - 1) * self.size + (length or self.size) <= self._length

    def page(self, number: int) -> bytes:
        """A page's bytes, zeros where it is not there."""
        if (at := self._frames.get(number)) is not None and self._wal:
            data = os.pread(self._wal.fileno(), self.size, at)
        else:
            data = os.pread(self._file.fileno(), self.size, (number - 1) * self.size)
        return data.ljust(self.size, b"\0")

    def _open_wal(self, path: Path) -> None:
        if not has_wal(path):
            return
        self._wal = path.open("rb")
        head = self._wal.read(_WAL_HEAD)
        magic, _, size = struct.unpack_from(">III", head)
        if magic & ~1 != 0x377F0682 or size != self.size:
            return
        waiting: dict[int, int] = {}
        at = _WAL_HEAD
        while len(frame := os.pread(self._wal.fileno(), _FRAME_HEAD, at)) == _FRAME_HEAD:
            number, committed = struct.unpack_from(">II", frame)
            if frame[8:16] != head[16:24] or at + _FRAME_HEAD + size > path.stat().st_size:
                break  # of a log before this one, or cut
            waiting[number] = at + _FRAME_HEAD
            if committed:  # only what a commit closes counts
                self._frames |= waiting
                self.declared, waiting = committed, {}
            at += _FRAME_HEAD + size


def wal_of(path: Path) -> Path:
    """Where SQLite puts the write-ahead log of this database."""
    return path.with_name(path.name + "-wal")


def has_wal(wal: Path) -> bool:
    """Whether this log is there with more than its header."""
    return wal.is_file() and wal.stat().st_size > _WAL_HEAD


class _File(apsw.VFSFile):
    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        size = self._pages.size
        first, last = offset // size + 1, (offset + amount - 1) // size + 1
        data = bytearray(b"".join(self._pages.page(number) for number in range(first, last + 1)))
        if first == 1:
            data[18:20] = b"\1\1"  # not the mode of write-ahead logs: ours is laid over already
            data[28:32] = struct.pack(">I", max(self._pages.declared, self._pages.count))
            data[92:96] = data[24:28]  # the page count just written is valid
        skip = offset - (first - 1) * size
        return bytes(data[skip : skip + amount])

    def xFileSize(self) -> int:  # noqa: N802
        return max(self._pages.declared, self._pages.count) * self._pages.size

    def xClose(self) -> None:  # noqa: N802
        pass

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xSectorSize(self) -> int:  # noqa: N802
        return 0

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False


class _Vfs(apsw.VFS):
    def __init__(self, name: str, pages: Pages) -> None:
        super().__init__(name, "")
        self._pages = pages

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            flags[1] = apsw.SQLITE_OPEN_READONLY
            return _File(self._pages)
        return super().xOpen(name, flags)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return False  # no journal


def bound(connection: apsw.Connection, file_bytes: int) -> None:
    """Lets queries cost what reading a file of this size from end to end may cost, and no more.

    SQLite gives up beyond with InterruptError, or TooBigError where a single value is the trouble.
    """
    left = [10_000_000 + 20 * file_bytes]

    def spend() -> bool:
        left[0] -= _STEPS
        return left[0] < 0

    connection.set_progress_handler(spend, _STEPS)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_RECORD)


def check_tables(connection: apsw.Connection, names: Collection[str], optional: bool = False) -> bool:
    """Whether these are there; views and virtual tables, which compute what they give, are none.

    Raises:
        DamageError: one is something else, or is missing without being `optional`.
    """
    there = {}
    for name, kind, root in few(connection, "SELECT lower(name), type, rootpage FROM sqlite_schema"):
        if kind != "index":
            there[name] = kind if kind != "table" or root else "virtual table"
    for name in names:
        if name not in there:
            if optional:
                return False
            raise DamageError(f"no table `{name}`")
        if there[name] != "table":
            raise DamageError(f"expected a table `{name}`, it is a {there[name]}")
        if any(hidden for *_, hidden in few(connection, f"PRAGMA table_xinfo({name})")):
            raise DamageError(f"expected a table `{name}` that holds its values, it computes some")
    return True


def few(connection: apsw.Connection, query: str) -> list[tuple]:
    """All rows of a query that must give few.

    Raises:
        DamageError: there are more, or they are large.
        apsw.Error: SQLite cannot reach them, or not within the bounds.
    """
    rows, size = [], 0
    for row in connection.execute(query):
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(rows) > _MOST_ROWS or size > _MOST_ROW_BYTES:
            raise DamageError(f"a table of topics has more than {_MOST_ROWS} rows or {_MOST_ROW_BYTES >> 20} MiB")
    return rows


def select(pages: Pages, table: str, columns: str) -> list[tuple]:
    """The rows of a small table; none where SQLite cannot reach them.

    Raises:
        DamageError: it is no table, or not small.
    """
    name = f"sac_ae_pages_{id(pages)}"
    vfs = _Vfs(name, pages)
    try:
        connection = apsw.Connection("pages", flags=apsw.SQLITE_OPEN_READONLY, vfs=name)
        try:
            bound(connection, pages.count * pages.size)
            if not check_tables(connection, [table], optional=True):
                return []
            return few(connection, f"SELECT {columns} FROM {table}")
        finally:
            connection.close()
    except (apsw.Error, UnicodeDecodeError):
        return []
    finally:
        vfs.unregister()
