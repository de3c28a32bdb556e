"""A recording, whatever its format and however damaged: its topics and messages, in flat memory."""

from __future__ import annotations

import bisect
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from sac_ae_ros.bag.clocks import duration
from sac_ae_ros.bag.definitions import Definitions
from sac_ae_ros.bag.files import decompress, find_files, kind_of
from sac_ae_ros.bag.merge import Budget, Repeats, Stretch, merge
from sac_ae_ros.bag.messages import FFMPEG_PACKET, FFMPEG_PACKET_FIELDS, LEAP_NS
from sac_ae_ros.bag.part import Part
from sac_ae_ros.bag.records import DamageError, Record, Salvage, Topic, are_apart, are_parallel, few, is_name
from sac_ae_ros.core.errors import BagError, printable

__all__ = ["Bag", "Record", "Salvage", "Topic"]


class Bag:
    """An open recording; `open` makes it. Nothing is ever written to it or beside it."""

    def __init__(
        self,
        path: Path,
        parts: list[Part],
        problems: list[str],
        remarks: list[str],
        copies: tempfile.TemporaryDirectory,
        definitions: Definitions | None = None,
    ) -> None:
        self._definitions = definitions
        self._limits_ns = -math.inf, math.inf
        self._path, self._parts, self._problems, self._copies = path, parts, problems, copies
        self._remarks = remarks
        self._shifts: dict[int, list[tuple[int, int]]] = {}  # by input: from which log time on, and what to add
        self._leaps: list[str] | None = None  # what to say of them, once they were looked for
        self._repeats = Counter[str]()  # by topic, as far as they were read
        self._stores = {True: get_typestore(Stores.EMPTY), False: get_typestore(Stores.EMPTY)}  # by Record.ros1
        self._defaults = {True: get_typestore(Stores.ROS1_NOETIC), False: get_typestore(Stores.LATEST)}
        self._defaults[False].register(get_types_from_msg(FFMPEG_PACKET_FIELDS, FFMPEG_PACKET))
        self._registered: set[tuple[bool, str]] = set()

    @staticmethod
    def open(path: Path, *others: Path, msg_path: Path | None = None) -> Bag:
        """Opens a recording, or several that are merged into one.

        Args:
            path: a file (.mcap, .db3, .bag, also .zstd of them) or a folder of several, with metadata.yaml or without.
            others: recordings that are merged into it; of messages with one log time those of earlier ones come first.
            msg_path: a folder with .msg files of types that the recording does not define.

        Raises:
            BagError: nothing there can be read; names what is there.
        """
        definitions = None if msg_path is None else Definitions(msg_path)
        files: list[tuple[int, Path]] = []
        problems: list[str] = []
        remarks: list[str] = []
        for number, each in enumerate((path, *others)):
            found, wrong, notes = find_files(each)
            files += [(number, file) for file in found]
            problems, remarks = problems + wrong, remarks + notes
        copies = tempfile.TemporaryDirectory(prefix="sac_ae_bag_")
        parts: list[Part] = []
        failures: list[str] = []
        for number, file in files:
            try:
                part = _open_part(file, Path(tempfile.mkdtemp(dir=copies.name)))
                part.input = number
                parts.append(part)
            except (DamageError, OSError) as error:
                failures.append(f"{file.name}: {error}")
        if not parts:
            copies.cleanup()
            raise BagError(f"{path}: nothing in it can be read: {'; '.join(failures[:5])}")
        return Bag(path, parts, problems + failures, remarks, copies, definitions)

    @property
    def topics(self) -> dict[str, Topic]:
        """The topics by name."""
        counts, types, latched = Counter[str](), dict[str, str](), set[str]()
        for part in self._parts:
            counts.update(part.counts)
            for channel in part.channels:
                types.setdefault(channel.topic, channel.type)
                latched.update([channel.topic] if channel.latched else [])
        counts.subtract(self._repeats)
        known = {name: kind for name, kind in sorted(types.items()) if is_name(name) and is_name(kind)}
        return {name: Topic(name, kind, counts[name], name in latched) for name, kind in known.items()}

    @property
    def path(self) -> Path:
        """What was opened."""
        return self._path

    @property
    def ignored(self) -> dict[str, str]:
        """Topics whose messages no ROS reads, with their encodings (json, protobuf); not among `topics`."""
        return {name: code for part in self._parts for name, code in part.ignored.items() if is_name(name)}

    @property
    def remarks(self) -> list[str]:
        """What else there is to say about it, although nothing is damaged."""
        ignored = [f"{name} ({printable(code)[:20]})" for name, code in self.ignored.items()]
        self._find_leaps()
        leaps = [*(self._leaps or []), *self._apart()]
        leaps += [f"{part.name}: {remark}" for part in self._parts for remark in part.remarks]
        repeats = self._repeats.total()
        alike = [f"{repeats} messages are in several files, alike in topic, time and bytes: each counts once"]
        return (
            self._remarks
            + (alike if repeats else [])
            + leaps
            + self._mixed()
            + ([f"topics that are of no ROS are ignored: {few(ignored)}"] if ignored else [])
        )

    def _mixed(self) -> list[str]:
        """Return a remark that names the topics with messages of several types."""
        types: dict[str, dict[str, None]] = {}
        for part in self._parts:
            for channel in part.channels:
                if is_name(channel.topic) and is_name(channel.type):
                    types.setdefault(channel.topic, {})[channel.type] = None
        mixed = [f"{name} ({' and '.join(list(kinds)[:3])})" for name, kinds in types.items() if len(kinds) > 1]
        return [f"topics that are of several types, of which the first counts: {few(mixed)}"] if mixed else []

    @property
    def start_ns(self) -> int | None:
        """The log time of the first message, None without any."""
        self._find_leaps()
        parts = [(part.input, part.start_ns) for part in self._parts if part.start_ns is not None]
        return min((at_ns + self._shift_ns(number, at_ns) for number, at_ns in parts), default=None)

    @property
    def end_ns(self) -> int | None:
        """The log time of the last message, None without any."""
        self._find_leaps()
        parts = [(part.input, part.end_ns) for part in self._parts if part.end_ns is not None]
        return max((at_ns + self._shift_ns(number, at_ns) for number, at_ns in parts), default=None)

    @property
    def salvage(self) -> Salvage | None:
        """What damage left, None while nothing was wrong; complete only after `records` ran through."""
        reasons = list(self._problems)
        for part in self._parts:
            reasons += [f"{part.name}: {problem}" for problem in part.problems]
            strange = sum(not (is_name(channel.topic) and is_name(channel.type)) for channel in part.channels)
            reasons += [f"{part.name}: {strange} topics whose names are none are left out"] if strange else []
        if not reasons:
            return None
        by_topic = {name: topic.messages or 0 for name, topic in self.topics.items()}
        return Salvage(sum(by_topic.values()), by_topic, printable("; ".join(reasons)))

    def limit(self, start_s: float, duration_s: float) -> None:
        """Leaves out `start_s` of the beginning, and what comes more than `duration_s` later (0: nothing), by log time.

        Raises:
            BagError: nothing is left.
        """
        first_ns, last_ns = self.start_ns, self.end_ns
        self._limits_ns = -math.inf, math.inf
        if first_ns is None or last_ns is None or not (start_s or duration_s):
            return
        from_ns = first_ns + round(start_s * 1e9)
        if from_ns > last_ns:
            length_s = (last_ns - first_ns) * 1e-9
            raise BagError(f"--start: expected less than the {length_s:.1f} s that were recorded, got {start_s:g}")
        self._limits_ns = from_ns, from_ns + round(duration_s * 1e9) if duration_s else math.inf

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """The messages of these topics (None: of all) by log time, from all files, in bounded memory.

        Only those within what `limit` left. Of messages with one log time the file that metadata.yaml names first gives
        its own first; what several files have alike comes once. Where log times of one recording leap by more than an
        hour, as those of a robot do that learns the time after it has begun to record, the leap is left out; between
        recordings that are merged it is not.

        Raises:
            BagError: a file that was there cannot be read any more.
        """
        self._find_leaps()
        yield from filter(self._is_wanted, self._merged(topics, self._parts))

    def _merged(self, topics: Collection[str] | None, parts: Sequence[Part]) -> Iterator[Record]:
        budget, repeats = Budget(), Repeats(self._shared())
        stretches = [
            Stretch(
                at_ns + self._shift_ns(part.input, at_ns), part.size, partial(self._read, number, part, topics, budget)
            )
            for number, part in enumerate(parts)
            if (at_ns := part.start_ns) is not None
        ]
        for _, (number, record) in merge(stretches, budget, self._overlaps):
            if not (is_name(record.topic) and is_name(record.type)):
                continue
            if repeats.finds(number, record):
                self._repeats[record.topic] = max(self._repeats[record.topic], repeats.counts[record.topic])
                continue
            yield record

    def _shared(self) -> set[str]:
        """The topics that two files may have at the same time."""
        shared: set[str] = set()
        ends_ns: dict[str, int] = {}
        spans = [(p.start_ns, p.end_ns, p) for p in self._parts if p.start_ns is not None and p.end_ns is not None]
        for start_ns, end_ns, part in sorted(spans, key=lambda span: span[0]):
            for topic in {channel.topic for channel in part.channels}:
                shared.update([topic] if start_ns <= ends_ns.get(topic, start_ns - 1) else [])
                ends_ns[topic] = max(end_ns, ends_ns.get(topic, end_ns))
        return shared

    def _shift_ns(self, number: int, stamp_ns: int) -> int:
        """What to add to a log time of this input, so that those before and after a leap follow each other."""
        shifts = self._shifts.get(number, [])
        place = bisect.bisect_right(shifts, stamp_ns, key=lambda each: each[0])
        return shifts[place - 1][1] if place else 0

    def _find_leaps(self) -> None:
        """Reads all log times, but only of an input that has no message for an hour; most of them stay as they are."""
        if self._leaps is not None:
            return
        self._leaps = []
        for number in sorted({part.input for part in self._parts}):
            parts = [part for part in self._parts if part.input == number]
            marks_ns = sorted(at_ns for part in parts for at_ns in part.marks_ns)
            if any(b - a > LEAP_NS for a, b in itertools.pairwise(marks_ns)):
                self._leaps += self._leave_out(number, parts)

    def _leave_out(self, number: int, parts: Sequence[Part]) -> Iterator[str]:
        """Fills the shifts of an input, and tells its leaps."""
        spans: list[list[int]] = []  # first and last log time, and how many messages
        for record in self._merged(None, parts):
            if spans and abs(record.stamp_ns - spans[-1][1]) <= LEAP_NS:
                spans[-1][1:] = record.stamp_ns, spans[-1][2] + 1
            else:
                spans.append([record.stamp_ns, record.stamp_ns, 1])
        spans.sort()
        counts = [count for _, _, count in spans]
        kept = counts.index(max(counts, default=0)) if counts else 0
        shifts = [0] * len(spans)
        for i in range(kept - 1, -1, -1):
            shifts[i] = spans[i + 1][0] + shifts[i + 1] - spans[i][1]
        for i in range(kept + 1, len(spans)):
            shifts[i] = spans[i - 1][1] + shifts[i - 1] - spans[i][0]
        self._shifts[number] = [(span[0], shift) for span, shift in zip(spans, shifts, strict=True)]
        where = f"{parts[0].name}: " if len({part.input for part in self._parts}) > 1 else ""
        for i, (a, b) in enumerate(itertools.pairwise(spans)):
            length = duration((b[0] - a[1]) * 1e-9)
            yield f"{where}log times leap by {length} after {sum(counts[: i + 1])} messages, which is left out"

    def _apart(self) -> Iterator[str]:
        """Tells of merged recordings that have no time in common, and none nearby."""
        spans: dict[int, tuple[int, int, str]] = {}
        for part in self._parts:
            if part.start_ns is None or part.end_ns is None:
                continue
            first_ns = part.start_ns + self._shift_ns(part.input, part.start_ns)
            last_ns = part.end_ns + self._shift_ns(part.input, part.end_ns)
            start_ns, end_ns, name = spans.get(part.input, (first_ns, last_ns, part.name))
            spans[part.input] = min(start_ns, first_ns), max(end_ns, last_ns), name
        latest_ns, latest = None, ""
        for start_ns, end_ns, name in sorted(spans.values()):
            if latest_ns is not None and start_ns - latest_ns > LEAP_NS:
                length = duration((start_ns - latest_ns) * 1e-9)
                yield f"{name} begins {length} after {latest} ends: merged, they have no time in common"
            if latest_ns is None or end_ns > latest_ns:
                latest_ns, latest = end_ns, name

    def _read(
        self, number: int, part: Part, topics: Collection[str] | None, budget: Budget
    ) -> Iterator[tuple[int, tuple[int, Record]]]:
        try:
            for stamp_ns, record in part.records(topics, budget):
                if shift_ns := self._shift_ns(part.input, stamp_ns):
                    record = replace(record, stamp_ns=stamp_ns + shift_ns, shift_ns=shift_ns)
                yield record.stamp_ns, (number, record)
        except (DamageError, OSError) as error:
            raise BagError(f"{self._path}: {part.name} cannot be read to its end: {error}") from error

    def _overlaps(self) -> None:
        problem = "its files overlap in time by more than fits in memory: some messages come out of turn"
        if problem not in self._problems:
            self._problems.append(problem)

    def message(self, record: Record, types: Collection[str] = ()) -> Any:
        """A record's message: attributes named like its fields, arrays as numpy arrays.

        Args:
            record: of `records`.
            types: what it must be one of, as a topic's messages need not all be of one type; empty: anything.

        Raises:
            BagError: the type is unknown, or another than wanted, or the bytes are no such message.
        """
        if types and record.type not in types:
            raise BagError(f"{self._path}: {record.topic}: expected {' or '.join(types)}, got a {record.type}")
        store = self._store(record)
        if record.type not in store.fielddefs:
            raise BagError(
                f"{self._path}: {record.topic}: the recording has no definition of {record.type}, as sqlite3"
                " recordings of Humble and older have none; name the folder of its .msg files with --msg-path"
            )
        try:
            if record.ros1:
                return store.deserialize_ros1(record.raw, record.type)
            return store.deserialize_cdr(record.raw, record.type)
        except Exception as error:  # damaged bytes raise whatever they hit upon
            raise BagError(
                f"{self._path}: {record.topic}: expected a message of {record.type},"
                f" got {len(record.raw)} bytes that are none ({type(error).__name__}: {error})"
            ) from error

    def cdr(self, record: Record) -> bytes:
        """A record as ROS 2 sends it: the recorded bytes as they are, those of ROS 1 converted.

        Raises:
            BagError: a ROS 1 message whose type ROS 2 has otherwise, or whose bytes are no such message.
        """
        if not record.ros1:
            return bytes(record.raw)
        try:
            return bytes(self._ros2_store(record.type).ros1_to_cdr(record.raw, record.type))
        except Exception as error:  # as above
            raise BagError(
                f"{self._path}: {record.topic}: expected {record.type} as ROS 2 has it, got {len(record.raw)} bytes of"
                f" ROS 1 that are none ({type(error).__name__}: {error})"
            ) from error

    def topic(
        self, name: str, types: Collection[str], what: str, last_part: str = "", *, flag: str = "", beside: str = ""
    ) -> Topic:
        """The topic of this name, or the only one of these types when no name is given.

        Args:
            name: "" to choose by type.
            types: as "sensor_msgs/msg/Image".
            what: what it is for, named in errors: "images".
            last_part: what a topic that is chosen by type must be called, namespaces aside; "" for anything.
            flag: the option that names the topic, for errors.
            beside: a topic of the same robot; what is in a namespace parallel to its own is not chosen by type, what is
                in one apart from it only where there is nothing else.

        Raises:
            BagError: none, several, or one of another type; names what is there.
        """
        topics = self.topics
        say = f"; name one with {flag}" if flag else "; name one"
        there = few([f"{t.name} ({t.type}, {t.messages})" for t in topics.values()]) or "no topics"
        if name:
            found = topics.get(name) or topics.get("/" + name)
            if found is None:
                raise BagError(f"{self._path}: expected {what} on {name}, there is {there}{flag and say}")
            if found.type not in types:
                raise BagError(f"{self._path}: {name}: expected {' or '.join(types)} for {what}, got {found.type}")
            return found
        fitting = [t for t in topics.values() if t.type in types and last_part in ("", t.last_part)]
        fitting = [t for t in fitting if t.messages != 0] or fitting
        if not fitting:
            called = f"`{last_part}` of " if last_part else ""
            raise BagError(f"{self._path}: expected {what} ({called}{' or '.join(types)}), there is {there}")
        near = [t for t in fitting if not (beside and are_parallel(topics.values(), beside, t.name))]
        if not near:
            names = few([t.name for t in fitting])
            raise BagError(f"{self._path}: {what} ({names}) are in another namespace than {beside}{say}")
        fitting = [t for t in near if not (beside and are_apart(beside, t.name))] or near
        if len(fitting) > 1:
            names = few([t.name for t in fitting])
            raise BagError(f"{self._path}: several topics may be {what}: {names}{say}")
        return fitting[0]

    def close(self) -> None:
        """Closes all files and removes temporary copies."""
        for part in self._parts:
            part.close()
        self._copies.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _is_wanted(self, record: Record) -> bool:
        from_ns, until_ns = self._limits_ns
        return from_ns <= record.stamp_ns <= until_ns

    def _store(self, record: Record) -> Any:
        """Knows the record's type as the recording defines it, else as ROS does."""
        key = (record.ros1, record.type)
        store = self._stores[record.ros1]
        if key not in self._registered:
            self._registered.add(key)
            for part in self._parts:
                for channel in part.channels:
                    if channel.type == record.type and channel.definition and record.type not in store.fielddefs:
                        _register(store, channel.format, channel.definition, channel.type)
            if self._definitions is not None and not record.ros1 and record.type not in store.fielddefs:
                known = {**self._defaults[False].fielddefs, **store.fielddefs}
                found = self._definitions.types(record.type, known)
                store.register({name: fields for name, fields in found.items() if name not in store.fielddefs})
        return store if record.type in store.fielddefs else self._defaults[record.ros1]

    def _ros2_store(self, kind: str) -> Any:
        """Knows what ROS 1 and ROS 2 have in common as ROS 2 does, and a recording's own types as it defines them."""
        store, key = self._defaults[False], (False, kind)
        if key not in self._registered:
            self._registered.add(key)
            for part in self._parts:
                for channel in part.channels:
                    if channel.type == kind and channel.definition and kind not in store.fielddefs:
                        _register(store, channel.format, channel.definition, kind)
        return store


def _register(store: Any, form: str, definition: str, kind: str) -> None:
    """A damaged definition is none."""
    try:
        if form == "msg":
            types = get_types_from_msg(definition, kind)
        else:
            types = {}
            for text in definition.split("=" * 80 + "\n"):
                types |= get_types_from_idl(text.split("\n", 1)[1] if text.startswith("IDL: ") else text)
        store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
    except Exception:  # whatever the text makes the parser hit upon
        return


def _open_part(file: Path, copies: Path) -> Part:
    kind, path, problem = kind_of(file), file, None
    if kind == "zstd":
        path, problem = decompress(file, copies)
        if not path.stat().st_size:
            raise DamageError(problem or "its compressed data is cut before anything of it can be read")
        kind = kind_of(path)
    if kind not in ("mcap", "sqlite3", "ros1"):
        raise DamageError("no recording")
    part = Part(path, kind)
    part.name = file.name
    if problem:
        part.problems.append(problem)
    return part
