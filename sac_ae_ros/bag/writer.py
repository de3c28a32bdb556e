"""Writes a recording as `ros2 bag` does: a folder with one mcap file, safe against kill -9, and metadata.yaml.

The format: https://mcap.dev/spec with the profile ros2. What is in a finished chunk stays readable whatever happens to
the writer; summary and metadata.yaml come at the end.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from sac_ae_ros.core.errors import RunError

CHUNK_BYTES = 4 << 20
METADATA = "metadata.yaml"
VERSION = 9


class RecordingWriter:
    """A recording under way; a context that finishes it. Topics may be added in one thread, messages in another.

    counts: messages by topic; after an error, those in the file. unwritten: those that it kept out of the file.
    """

    def __init__(self, folder: Path, *, keep_free_bytes: int = 0) -> None:
        """Makes the folder.

        Args:
            folder: a new one, whose name the file in it gets.
            keep_free_bytes: what must stay free on the disk.

        Raises:
            RunError: something is there already, it cannot be written, or the disk has too little room from the start.
        """
        self.folder, self._keep_free_bytes = folder, keep_free_bytes
        self.path = folder / f"{folder.resolve().name}_0.mcap"
        self.counts: Counter[str] = Counter()
        self.unwritten: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()  # in the chunk in progress
        self._whole = 0  # where the newest chunk ends in the file
        self._failure: RunError | None = None
        self._channels: dict[str, _Channel] = {}
        self._schemas: dict[str, int] = {}
        self._span_ns: tuple[int, int] | None = None
        try:
            folder.mkdir(parents=True)
            try:
                self._check_room()
            except RunError:
                folder.rmdir()
                raise
            self._file = _File(self.path)
        except FileExistsError:
            raise RunError(f"recording: {folder} exists already; name another folder") from None
        except OSError as error:
            raise RunError(f"recording: cannot write {folder} ({error.strerror}); name another folder") from None
        self._turn = threading.Lock()
        self._writer = McapWriter(cast(Any, self._file), CHUNK_BYTES, CompressionType.ZSTD)
        with self._writing():
            self._writer.start("ros2", "sac_ae_ros")

    @property
    def bytes_written(self) -> int:
        """The size of the file so far."""
        return self._file.size

    def add_topic(self, name: str, type_: str, definition: str, offered_qos: str = "", type_hash: str = "") -> None:
        """Registers a topic, once.

        Args:
            name: such as "/camera/image_raw".
            type_: such as "sensor_msgs/msg/Image".
            definition: as ROS 2 concatenates them: the type's own text, then those that it uses behind lines of =.
            offered_qos: its publishers' QoS, as rosbag2 writes it in YAML.
            type_hash: of the type's description (REP 2011), "RIHS01_..."; "" where it is not known.

        Raises:
            RunError: as `write`.
        """
        about = {"offered_qos_profiles": offered_qos, "topic_type_hash": type_hash}
        with self._writing():
            if type_ not in self._schemas:
                self._schemas[type_] = self._writer.register_schema(type_, "ros2msg", definition.encode())
            channel = self._writer.register_channel(name, "cdr", self._schemas[type_], about)
        self._channels[name] = _Channel(channel, type_, offered_qos, type_hash)
        self.counts[name] += 0

    def write(self, topic: str, log_ns: int, publish_ns: int, raw: bytes) -> None:
        """Writes a serialized message (CDR).

        Args:
            topic: one that `add_topic` knows.
            log_ns: when it was received.
            publish_ns: when it was sent.
            raw: the message.

        Raises:
            RunError: the disk is full, or nearly so; the file ends with its newest whole chunk.
        """
        first, last = self._span_ns or (log_ns, log_ns)
        whole = self._whole
        with self._writing():
            self._writer.add_message(self._channels[topic].number, log_ns, raw, publish_ns, self.counts[topic])
        self._span_ns = min(first, log_ns), max(last, log_ns)
        self.counts[topic] += 1
        self._pending[topic] += self._whole == whole

    def flush(self) -> None:
        """Finishes the chunk: what came until now survives kill -9. Call it often enough.

        Raises:
            RunError: as `write`.
        """
        with self._writing():
            self._writer.flush()
            self._check_room()

    def close(self) -> None:
        """Writes summary and metadata.yaml; after an error there is nothing to be done.

        Raises:
            RunError: they cannot be written; what was recorded stays readable.
        """
        if self._file.closed:
            return
        with self._writing():
            self._writer.flush()
        facts = self._metadata()
        with self._writing():
            self._writer.add_metadata("rosbag2", {"serialized_metadata": _yaml(facts)})
            self._writer.finish()
            self._file.sync()
        with self._writing():
            partial = self.folder / f".{METADATA}"
            partial.write_text(_yaml({"rosbag2_bagfile_information": facts}))
            partial.replace(self.folder / METADATA)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < self._keep_free_bytes:
            raise RunError(
                f"recording: stopped, since {free >> 20} MB are left on the disk of {self.folder}, expected at least"
                f" {self._keep_free_bytes >> 20} MB; make room, or lower keep_free_mb"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """mcap's writer cannot go on after an error: what it has not written whole is taken off again."""
        with self._turn:
            if self._failure is not None:
                raise self._failure
            try:
                yield
            except OSError as error:
                self._file.end_at(self._whole)
                self.counts.subtract(self._pending)
                self.unwritten = self._pending
                self._failure = RunError(
                    f"recording: cannot write {self.path} ({error.strerror}); stopped after {self._whole / 1e6:.1f} MB,"
                    " which `sac-ae bag-eval` reads nevertheless"
                )
                raise self._failure from error
            if self._file.size > self._whole:  # it grows by whole chunks
                self._whole = self._file.size
                self._pending = Counter()

    def _metadata(self) -> dict[str, Any]:
        first, last = self._span_ns or (0, 0)
        span = {"starting_time": {"nanoseconds_since_epoch": first}, "duration": {"nanoseconds": last - first}}
        count = self.counts.total()
        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": channel.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": yaml.safe_load(channel.offered_qos) or [],
                    "type_description_hash": channel.type_hash,
                },
                "message_count": self.counts[name],
            }
            for name, channel in self._channels.items()
        ]
        return {
            "version": VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [self.path.name],
            **span,
            "message_count": count,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": self.path.name, **span, "message_count": count}],
            "custom_data": None,
            "ros_distro": os.environ.get("ROS_DISTRO", ""),
        }


@dataclass(frozen=True)
class _Channel:
    number: int
    type: str
    offered_qos: str
    type_hash: str


class _File:
    """What mcap's writer writes to. It has no buffer, which could not be emptied on a full disk: chunks come whole."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            count = os.write(self._fd, left)
            self.size += count
            left = left[count:]
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        os.fsync(self._fd)

    def end_at(self, size: int) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, size)
        self.size = size
        self.close()

    def close(self) -> None:
        os.close(self._fd)
        self.closed = True


class _Dumper(yaml.SafeDumper):
    """Writes out what stands twice, instead of referring to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
