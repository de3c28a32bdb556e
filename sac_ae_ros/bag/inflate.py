"""Decompression piece by piece: what comes before a cut is not lost, and what claims to be huge costs no memory."""

from __future__ import annotations

import bz2
import zlib
from typing import Any, BinaryIO, Protocol

import lz4.frame  # type: ignore[import-untyped]
import zstandard

from sac_ae_ros.bag.records import MAX_RECORD, DamageError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PIECE = 1 << 16  # bytes


class Source(Protocol):
    """Anything that bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""


class Bounded:
    """The next `size` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = _PIECE, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class Checked:
    """What was packed into a chunk; no more of it is unpacked than the chunk says."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size, self._left, self._crc = source, size, size, 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        return data

    def check(self, crc: int) -> None:
        """Compares with what the chunk says, when all is read; a `crc` of 0 says nothing.

        Raises:
            DamageError: it is shorter, longer or another.
        """
        if self._left:
            raise DamageError(f"a chunk ends after {self._size - self._left} of {self._size} bytes")
        if self._source.read(1):
            raise DamageError(f"a chunk holds more than the {self._size} bytes that it claims")
        if crc and self._crc != crc:
            raise DamageError("a chunk's checksum does not fit: some of its messages may be wrong")


class _Pieces:
    """lz4.frame.LZ4FrameFile and bz2.BZ2File lose what precedes a cut; this gives it."""

    def __init__(self, source: Source, frame: Any) -> None:
        self._source, self._frame = source, frame

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size and not self._frame.eof:
            piece = self._source.read(_PIECE) if self._frame.needs_input else b""
            if self._frame.needs_input and not piece:
                break
            data = self._frame.decompress(piece, max_length=size)
            size -= len(data)
            parts.append(data)
        return b"".join(parts)


class _Guarded:
    """Every library's own error becomes DamageError."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        try:
            return self._source.read(size)
        except (zstandard.ZstdError, RuntimeError, EOFError, OSError, MemoryError) as error:
            raise DamageError(f"the compressed data is damaged ({error})") from error


def inflate(source: Any, compression: str) -> Source:
    """The bytes of a Source that were compressed with zstd, lz4, bz2 or not at all ("").

    Raises:
        DamageError: the compression is another; reading raises it where the data is damaged.
    """
    if compression == "zstd":
        return _Guarded(
            zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source, read_across_frames=True)
        )
    if compression == "lz4":
        return _Guarded(_Pieces(source, lz4.frame.LZ4FrameDecompressor()))
    if compression == "bz2":
        return _Guarded(_Pieces(source, bz2.BZ2Decompressor()))
    if compression:
        raise DamageError(f"expected compression zstd, lz4, bz2 or none, got {compression[:20]!r}")
    return source


def take(source: Source, size: int) -> bytes:
    """Exactly `size` bytes.

    Raises:
        DamageError: fewer are there, or the size is absurd.
    """
    if size > MAX_RECORD:
        raise DamageError(f"a record claims {size} bytes")
    data = source.read(size)
    if len(data) < size:
        raise DamageError("the data ends within a record")
    return data


def inflate_message(raw: bytes) -> bytes:
    """A message's payload, which rosbag2 may have compressed; no plain one starts like zstd does.

    Raises:
        DamageError: it is compressed and damaged, or would become absurdly long.
    """
    if raw[:4] != ZSTD_MAGIC:
        return raw
    try:
        if (size := zstandard.frame_content_size(raw)) > MAX_RECORD:
            raise DamageError(f"a message claims {size} bytes")
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) as stream:
            data = stream.read(MAX_RECORD if size < 0 else size + 1)
            if size < 0 and stream.read(1):
                raise DamageError(f"a message inflates to more than {MAX_RECORD} bytes")
    except (zstandard.ZstdError, MemoryError, OverflowError) as error:
        raise DamageError(f"a message's compressed data is damaged ({error})") from error
    if size >= 0 and len(data) != size:
        raise DamageError("a message's compressed data is cut")
    return data
