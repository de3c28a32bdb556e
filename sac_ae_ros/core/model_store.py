"""ModelStore: a folder of policy versions, written whole or not at all, read by robots while it grows.

    $ ls policies
    000001-6b1f...e2.onnx          an earlier version: its number, the SHA-256 of its bytes
    000002-93aa...41.onnx          the newest version
    000003-c07d...9b.withdrawn     rolled back: never loaded, its number never given again

There is no manifest that could be damaged or contradict the files: a name holds all there is to know of a version, and
the highest number that ends in .onnx is the newest. Publishing and rolling back are one rename each, so a reader sees a
version whole or not at all, whenever a process is killed (a file `.publishing` may stay; the next one removes it).
Writers wait for each other by a lock on the folder. To free space delete old files; nothing else refers to them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import StoreError

MAX_NUMBER = 999_999
MAX_ANNOUNCEMENT_CHARS = 500
LOCK_PATIENCE_S = 30.0
_NAME = re.compile(r"(?!000000)([0-9]{6})-([0-9a-f]{64})\.(onnx|withdrawn)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".publishing"
_ADVICE = {
    errno.ENOENT: "mount its disk, or publish a policy there first",
    errno.ENOTDIR: "give a folder",
    errno.EACCES: "mend its permissions",
    errno.EPERM: "mend its permissions",
    errno.EROFS: "mount its disk for writing",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "free some space",
}


@dataclass(frozen=True)
class Version:
    """One stored policy: `number` from 1 on, `sha256` of its bytes in lower-case hex, `path` for people to read."""

    number: int
    sha256: str
    path: Path


class Announcement(NamedTuple):
    """What `policy/latest` says of a version; it names no path, so that nothing outside the folder can be meant."""

    number: int
    sha256: str


def to_json(version: Version | Announcement) -> str:
    """The announcement of a version: {"version": int, "sha256": str}."""
    return json.dumps({"version": version.number, "sha256": version.sha256})


def from_json(text: str) -> Announcement:
    """Reads an announcement, which anybody may have published.

    Raises:
        StoreError: anything but those two fields in range.
    """
    try:
        value = json.loads(text) if len(text) <= MAX_ANNOUNCEMENT_CHARS else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and sorted(value) == ["sha256", "version"]:
        number, sha256 = value["version"], value["sha256"]
        whole = type(number) is int and 1 <= number <= MAX_NUMBER
        if whole and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return Announcement(number, sha256)
    raise StoreError(
        'announcement of a policy: expected {"version": 1, "sha256": "64 lower-case hex digits"},'
        f" got {text[:120]!r}; publish what `sac-ae publish --json` prints"
    )


class ModelStore:
    """The versions in one folder; any number of processes may publish and read at once.

    Every method raises StoreError, one line, for a folder that is missing, full or not permitted.
    """

    def __init__(self, folder: str | Path) -> None:
        """Touches no disk: `folder` may appear and vanish while a robot drives."""
        self.folder = Path(folder)

    def publish(self, data: bytes, title: str) -> Version:
        """Stores the bytes of a policy file, which errors call `title`, as the newest version; makes the folder.

        Bytes that are the newest version already stay that version.

        Raises:
            ModelError, SpecError: it is no policy, or cannot be run; nothing is stored.
            StoreError: it could not be stored; no version is half there.
        """
        policy_file.vet(data, title)
        if len(data) > policy_file.MAX_FILE_BYTES:
            raise StoreError(f"{title}: expected at most {policy_file.MAX_FILE_BYTES >> 20} MiB, got {len(data)} bytes")
        sha256 = hashlib.sha256(data).hexdigest()
        with self._errors("publish to"):
            self._make()
            with _opened(self.folder) as folder, self._locked(folder):
                known = self._names(folder)
                newest = max((number for number, _, kind in known if kind == "onnx"), default=0)
                if (newest, sha256, "onnx") in known:
                    return self._version(newest, sha256)
                number = max((number for number, _, _ in known), default=0) + 1
                _write(folder, _name(number, sha256), data)
                return self._version(number, sha256)

    def versions(self) -> list[Version]:
        """All versions that are not withdrawn, oldest first; files with other names do not count."""
        with self._errors("read"), _opened(self.folder) as folder:
            return self._versions(folder)

    def latest(self) -> Version | None:
        """The newest version, None in an empty folder."""
        return next(reversed(self.versions()), None)

    def find(self, number: int, sha256: str) -> Version:
        """The version with this number and SHA-256.

        Raises:
            StoreError: there is none, it was rolled back, or the number's SHA-256 is another.
        """
        with self._errors("read"), _opened(self.folder) as folder:
            found = {(sha, kind) for known, sha, kind in self._names(folder) if known == number}
        if (sha256, "onnx") in found:
            return self._version(number, sha256)
        if (sha256, "withdrawn") in found:
            raise StoreError(f"version {number} in {self.folder} was rolled back; publish it again to use it")
        came = ", ".join(sorted(f"sha256 {sha[:16]}" for sha, _ in found)) or "no such number"
        raise StoreError(
            f"version {number} in {self.folder}: expected sha256 {str(sha256)[:16]}, got {came};"
            " is it the folder that the version was published to, copied whole?"
        )

    def read(self, version: Version) -> bytes:
        """The bytes of a version, read once and checked against its SHA-256; its `path` is not followed.

        Raises:
            StoreError: gone, no plain file (a link, for one), larger than 256 MiB, or not those bytes.
        """
        name = _name(version.number, version.sha256)
        with self._errors("read"), _opened(self.folder) as folder:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                raise StoreError(f"version {version.number} is not in {self.folder}; rolled back or deleted") from None
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise StoreError(f"{self.folder / name}: expected a file, got a link; publish it again") from None
            with open(descriptor, "rb") as file:
                facts = os.fstat(descriptor)
                if not stat.S_ISREG(facts.st_mode) or facts.st_size > policy_file.MAX_FILE_BYTES:
                    most = policy_file.MAX_FILE_BYTES >> 20
                    raise StoreError(f"{self.folder / name}: expected a file of at most {most} MiB; publish it again")
                data = file.read(policy_file.MAX_FILE_BYTES + 1)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != version.sha256:
            raise StoreError(
                f"{self.folder / name}: expected the sha256 of its name, got {sha256[:16]} of {len(data)} bytes;"
                " the file is damaged: delete it and publish the policy again"
            )
        return data

    def rollback(self) -> Version:
        """Withdraws the newest version for good and returns the one before it, the newest from now on.

        Raises:
            StoreError: there are not two versions.
        """
        with self._errors("roll back in"), _opened(self.folder) as folder, self._locked(folder):
            versions = self._versions(folder)
            if len(versions) < 2:
                raise StoreError(
                    f"rollback in {self.folder}: expected two versions or more, got {len(versions)};"
                    " publish the policy to go back to"
                )
            name = _name(versions[-1].number, versions[-1].sha256)
            os.rename(name, f"{name.removesuffix('.onnx')}.withdrawn", src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
            return versions[-2]

    def _version(self, number: int, sha256: str) -> Version:
        return Version(number, sha256, self.folder / _name(number, sha256))

    def _versions(self, folder: int) -> list[Version]:
        names = self._names(folder)
        for (number, _, _), (following, _, _) in pairwise(names):
            if number == following:
                raise StoreError(f"{self.folder}: expected one file of version {number}, got more; delete the others")
        return [self._version(number, sha256) for number, sha256, kind in names if kind == "onnx"]

    def _names(self, folder: int) -> list[tuple[int, str, str]]:
        """Number, SHA-256 and onnx or withdrawn, of every version that was ever published here, by number."""
        matches = (_NAME.fullmatch(name) for name in os.listdir(folder))
        return sorted((int(match[1]), match[2], match[3]) for match in matches if match)

    def _make(self) -> None:
        """Makes the last folder of the path, no more: what a missing disk is mounted on is not to be filled."""
        with suppress(FileExistsError):
            try:
                os.mkdir(self.folder)
            except FileNotFoundError:
                raise StoreError(
                    f"cannot publish to {self.folder}: {self.folder.parent} is no folder; mount its disk or make it"
                ) from None
            with _opened(self.folder.parent) as parent:
                os.fsync(parent)

    @contextmanager
    def _locked(self, folder: int) -> Iterator[None]:
        """Keeps other writers out until done, or killed."""
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self.folder}: another process has been publishing for {LOCK_PATIENCE_S:g} s; end it"
                    ) from None
                time.sleep(0.01)
        try:
            yield
        finally:
            fcntl.flock(folder, fcntl.LOCK_UN)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turns the operating system's errors into one line that says what to do."""
        try:
            yield
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, "check its disk")
            raise StoreError(f"cannot {doing} {self.folder}: {error.strerror or error}; {advice}") from None


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Its descriptor: all that follows happens in this folder, whatever its path comes to mean."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _name(number: int, sha256: str) -> str:
    name = f"{number:06d}-{sha256}.onnx"
    if not _NAME.fullmatch(name):
        raise StoreError(f"expected a version number of 1..{MAX_NUMBER} and a SHA-256, got {number}, {sha256[:80]!r}")
    return name


def _write(folder: int, name: str, data: bytes) -> None:
    """Writes beside, makes the disk keep it, renames. Under the lock whatever is unfinished is a dead process's."""
    with suppress(FileNotFoundError):
        os.unlink(_UNFINISHED, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(_UNFINISHED, flags, 0o644, dir_fd=folder), "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.rename(_UNFINISHED, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(_UNFINISHED, dir_fd=folder)
        raise
    os.fsync(folder)
