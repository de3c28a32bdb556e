"""Which files a recording consists of, in which order, and of what kind each is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePath

import yaml
import zstandard

from sac_ae_ros.bag import salvage_mcap, salvage_ros1, sqlite_pages
from sac_ae_ros.bag.inflate import ZSTD_MAGIC
from sac_ae_ros.core.errors import BagError

_KINDS = {
    salvage_mcap.MAGIC: "mcap",
    sqlite_pages.MAGIC: "sqlite3",
    salvage_ros1.MAGIC: "ros1",
    ZSTD_MAGIC: "zstd",
}
_SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3", ".bag": "ros1"}
_MOST_METADATA = 4 << 20  # bytes, of thousands of files and topics
_DEEPEST = 100  # levels of metadata.yaml
_LEAST_COPY, _MOST_RATIO = 4 << 30, 1000  # a copy may have so many bytes, or be so many times larger, no more
_KEEP_FREE = 1 << 30  # bytes of the temporary folder's disk that a decompressed copy leaves


def kind_of(path: Path) -> str | None:
    """ "mcap", "sqlite3", "ros1" or "zstd", by the first bytes, else by the name; None: no recording."""
    with path.open("rb") as file:
        start = file.read(16)
    for magic, kind in _KINDS.items():
        if start.startswith(magic):
            return kind
    return _SUFFIXES.get(path.suffix)


def find_files(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """The files of a recording, oldest first, what is wrong with it, and what else there is to say.

    Args:
        path: a file, or the folder that ros2 bag writes.

    Raises:
        BagError: no recording is there; names what is.
    """
    try:
        if path.name == "metadata.yaml":
            path = path.parent
        if path.is_file():
            if kind_of(path) is None:
                raise BagError(f"{path}: expected a recording (.mcap, .db3, .bag), got another file")
            if not path.stat().st_size:
                raise BagError(f"{path}: expected a recording, it is empty (0 bytes): nothing was ever written to it")
            return [path], [], []
        if not path.is_dir():
            raise BagError(f"{path}: expected a recording, nothing is there")
        there = sorted((p for p in path.iterdir() if p.is_file()), key=_natural)
        here = [p for p in there if p.stat().st_size and kind_of(p)]
        empty = [p.name for p in there if not p.stat().st_size and _plain(p).suffix in _SUFFIXES]
    except OSError as error:
        raise BagError(f"{path}: cannot be read: {error.strerror}") from error
    if not here:
        folders = [f"{p.name}/" for p in sorted(path.iterdir()) if p.is_dir()]
        names = ", ".join([p.name for p in there[:10]] + folders[:10]) or "nothing"
        if empty:
            raise BagError(f"{path}: expected a recording, {', '.join(empty[:5])} is empty (0 bytes)")
        raise BagError(f"{path}: expected a recording's files (.mcap, .db3, .bag), got {names}")
    problems = [f"{name} is empty" for name in empty]
    try:
        listed = _listed(path / "metadata.yaml")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        if any(kind_of(p) != "ros1" for p in here):
            if isinstance(error, FileNotFoundError):
                return here, problems, ["no metadata.yaml"]
            problems.append("damaged metadata.yaml")
        return here, problems, []
    return *_in_order(here, listed, problems), []


def _in_order(here: list[Path], listed: list[str], problems: list[str]) -> tuple[list[Path], list[str]]:
    by_name = {p.name: p for p in here}
    if missing := [name for name in listed if name not in by_name]:
        problems.append(f"metadata.yaml names {', '.join(missing[:5])}, not there")
    files = [by_name[name] for name in dict.fromkeys(listed) if name in by_name]
    held = {_plain(p).name for p in files}  # a file may lie beside its compressed copy
    extra = [p for p in here if p not in files and _plain(p).name not in held]
    if extra:
        problems.append(f"metadata.yaml does not name {', '.join(p.name for p in extra[:5])}")
    return files + extra, problems


def _listed(path: Path) -> list[str]:
    if path.exists() and not path.is_file():
        raise ValueError("a pipe, device or folder")
    if (size := path.stat().st_size) > _MOST_METADATA:
        raise ValueError(f"{size} bytes")
    return [PurePath(name).name for name in _names(path.read_bytes())]


def _names(text: bytes) -> list[str]:
    """The scalars of `relative_file_paths`, read event by event: nothing is built of what else is there.

    Raises:
        KeyError: there is no such list.
        ValueError: it is nested too deeply.
        yaml.YAMLError: it is no YAML.
    """
    names: list[str] = []
    depth, listing = 0, None  # listing: the depth of the list
    key = ""
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionEndEvent):
            if depth == listing:
                return names
            depth, key = depth - 1, ""
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise ValueError("nested too deeply")
            if isinstance(event, yaml.SequenceStartEvent) and key == "relative_file_paths" and listing is None:
                listing = depth
            key = ""
        elif isinstance(event, yaml.ScalarEvent):
            key = event.value
            if depth == listing:
                names.append(event.value)
    raise KeyError("relative_file_paths")


def _plain(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (".zstd", ".zst") else path


def _natural(path: Path) -> list[tuple[int, str]]:
    """bag_2 before bag_10."""
    return [(int(part[:18]), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def decompress(path: Path, folder: Path) -> tuple[Path, str | None]:
    """Decompresses a file into a folder as far as it goes; returns the copy, and what stopped it before the end."""
    copy = folder / _plain(path).name
    problem = None
    left = max(_LEAST_COPY, _MOST_RATIO * path.stat().st_size)
    with path.open("rb") as file, copy.open("wb") as out:
        stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file, read_across_frames=True)
        try:
            while data := stream.read(1 << 20):
                if shutil.disk_usage(folder).free < _KEEP_FREE:
                    problem = f"the disk of {folder} is full"
                    break
                out.write(data)
                left -= len(data)
                if left < 0:
                    problem = f"it inflates to more than {_MOST_RATIO} times its size, which no recording does"
                    break
        except (zstandard.ZstdError, MemoryError) as error:
            problem = f"its compression is damaged ({error})"
    return copy, problem
