"""What of a recording is played to live nodes: under which names, from when to when, and at what time by /clock."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator

from sac_ae_ros.bag.messages import BOOL, EPISODE_END, IMAGE_TYPES, OTHER_CLOCK_S, peek_stamp_ns
from sac_ae_ros.bag.reader import Bag, Record, Topic
from sac_ae_ros.bag.records import few
from sac_ae_ros.core.errors import BagError

CLOCK, CLOCK_TYPE = "/clock", "rosgraph_msgs/msg/Clock"
CLOCKS = (CLOCK, "clock")  # ROS 1 recordings may leave out the slash
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
COMPRESSED = "/compressed"
# What moves nothing: a policy node hears these, a robot does not. By type, or by the last part of the name and type.
# No JointState: many an arm takes it as a command, and a policy node stops an arm at the `joint_states` it hears.
HEARD_TYPES = (*IMAGE_TYPES, CAMERA_INFO)
# These belong to the images that are played along: beside a live camera an episode's end restarts the frame stack, and
# lets a version of the policy take over, in the middle of a drive.
HEARD_WITH_IMAGES = {EPISODE_END: BOOL, "reward": "std_msgs/msg/Float64"}
BELOW = "/recorded"
OUT_OF_ORDER_NS = 10_000_000_000  # recorders write messages later than others by less
ROUND_GAP_NS = 1_000_000_000  # enough for stacks to start anew, and less than a jump that stops policy_node


class Playback:
    """The part of an open recording that is played.

    topics: those with messages, by recorded name. names: where each is published, by recorded name. images: the
    recorded names of those with images. has_clock: /clock was recorded; it is no topic among the others. start_ns,
    end_ns: log times between which messages are played.
    """

    def __init__(
        self,
        bag: Bag,
        topics: Collection[str] = (),
        *,
        image_topic: str = "",
        as_recorded: bool = False,
        start_s: float = 0.0,
        duration_s: float = 0.0,
    ) -> None:
        """Chooses.

        Args:
            bag: the recording.
            topics: recorded names; none: all.
            image_topic: where the images go, and the camera_info beside them along with them; "": as recorded.
            as_recorded: publishes commands and switches under their own names too.
            start_s: leaves out so much of the beginning, s.
            duration_s: plays so much, s; 0: to the end.

        Raises:
            BagError: nothing is there to be played, no such topic, or images of several topics that should become one.
        """
        self._bag = bag
        there = {_absolute(topic.name): topic for topic in bag.topics.values() if topic.messages != 0}
        clock = there.get(CLOCK)
        self.has_clock = clock is not None and clock.type == CLOCK_TYPE
        wanted = _chosen(there, topics)
        self.topics = {t.name: t for t in wanted if not (self.has_clock and _absolute(t.name) == CLOCK)}
        self.images = [topic.name for topic in self.topics.values() if topic.type in IMAGE_TYPES]
        if not self.topics or bag.start_ns is None or bag.end_ns is None:
            raise BagError("bag: expected messages to play, there are none")
        moved = _moved(self.topics, self.images, image_topic) if image_topic else {}
        images = bool(self.images)
        self.names = {t.name: moved.get(t.name) or name_of(t, as_recorded, images) for t in self.topics.values()}
        self.start_ns = bag.start_ns + round(start_s * 1e9)
        self.end_ns = min(self.start_ns + round(duration_s * 1e9), bag.end_ns) if duration_s else bag.end_ns
        if self.start_ns > bag.end_ns:
            length_s = (bag.end_ns - bag.start_ns) * 1e-9
            raise BagError(f"start_s: expected less than the {length_s:.1f} s that were recorded, got {start_s:g}")

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """What is played, in the recording's order, recorded /clock included; of these topics only, if named."""
        for record in self._bag.records(topics or {*self.topics, *(CLOCKS if self.has_clock else ())}):
            if record.stamp_ns > self.end_ns + OUT_OF_ORDER_NS:
                return
            if self.start_ns <= record.stamp_ns <= self.end_ns:
                yield record


class PlayedClock:
    """The time that goes with what is played, ns: what /clock says, and by how much stamps are moved in later rounds.

    It is the recorded /clock where there is one. Otherwise log time, or, where the images' stamps are of another clock
    (a simulation's), log time less the age of the newest image. It never goes back.
    """

    def __init__(self, playback: Playback) -> None:
        """Looks for the first image that is played, and the first time that was recorded on /clock."""
        self._has_clock, self._images = playback.has_clock, frozenset(playback.images)
        self._log_to_clock_ns = 0  # to add to log times
        self._by_images = False
        self.shift_ns = 0
        self._now_ns: int | None = None
        self._span_ns: tuple[int, int] | None = None
        if self._has_clock:
            first = next(playback.records(CLOCKS), None)
            self._now_ns = _clock_ns(first) if first is not None else None
        elif self._images:
            first = next(playback.records(self._images), None)
            stamp_ns = first and peek_stamp_ns(first)
            if first is not None and stamp_ns and abs(first.stamp_ns - stamp_ns) > OTHER_CLOCK_S * 1e9:
                self._by_images, self._log_to_clock_ns = True, stamp_ns - first.stamp_ns

    def at(self, log_ns: int) -> int:
        """The time at that log time; recorded times are told by `take` alone."""
        if not self._has_clock:
            self._advance(log_ns + self._log_to_clock_ns)
        return self._now_ns or 0

    def take(self, record: Record) -> int:
        """The time when this record is played, which it may itself decide."""
        stamp_ns = None
        if self._has_clock and is_clock(record):
            stamp_ns = _clock_ns(record)
        elif self._by_images and record.topic in self._images:
            stamp_ns = peek_stamp_ns(record)
        if stamp_ns:
            self._log_to_clock_ns = stamp_ns - record.stamp_ns
            self._advance(stamp_ns)
        return self.at(record.stamp_ns)

    def next_round(self) -> None:
        """Goes on from the beginning, at times that are all later."""
        if self._span_ns is not None:
            self.shift_ns += self._span_ns[1] - self._span_ns[0] + ROUND_GAP_NS
        self._span_ns = None

    def _advance(self, to_ns: int) -> None:
        first_ns, last_ns = self._span_ns or (to_ns, to_ns)
        self._span_ns = min(first_ns, to_ns), max(last_ns, to_ns)
        self._now_ns = max(to_ns + self.shift_ns, self._now_ns or 0)


def name_of(topic: Topic, as_recorded: bool, with_images: bool) -> str:
    """Where a recorded topic is published: under its own name only if nothing obeys it, or if that is wanted.

    `with_images`: images are played as well.
    """
    name = _absolute(topic.name)
    belongs = with_images and HEARD_WITH_IMAGES.get(name.rpartition("/")[2]) == topic.type
    return name if topic.type in HEARD_TYPES or belongs or as_recorded else BELOW + name


def is_clock(record: Record) -> bool:
    """Whether it is a time on /clock."""
    return record.type == CLOCK_TYPE and _absolute(record.topic) == CLOCK


def _clock_ns(record: Record) -> int | None:
    """What /clock said; in ROS 1 nothing stands before the time. None where it is cut."""
    if not record.ros1:
        return peek_stamp_ns(record)
    if len(record.raw) < 8:
        return None
    sec, nanosec = struct.unpack_from("<2I", record.raw)
    return int(sec) * 10**9 + int(nanosec)


def _absolute(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _chosen(there: dict[str, Topic], names: Iterable[str]) -> list[Topic]:
    chosen = list(dict.fromkeys(map(_absolute, names)))
    unknown = [name for name in chosen if name not in there]
    if unknown:
        listed = few([f"{t.name} ({t.type}, {t.messages})" for t in there.values()]) or "no topics"
        raise BagError(
            f"topics: expected recorded topics, got {few(unknown)}; there is {listed}; name them with --topic"
        )
    return [there[name] for name in chosen or there]


def _moved(topics: dict[str, Topic], images: list[str], new: str) -> dict[str, str]:
    """New names of the images and the camera_info beside them, as image_transport names both."""
    if len(images) != 1:
        found = few(images) or "none"
        raise BagError(f"image_topic: expected one topic of images to go to {new}, got {found}; choose it with topics")
    (name,) = images
    stem, end = name, ""
    if topics[name].type != IMAGE_TYPES[0]:
        stem, new, end = name.removesuffix(COMPRESSED), new.removesuffix(COMPRESSED), COMPRESSED
    beside = {_sibling(stem): _sibling(new)}
    return {name: new + end} | {old: to for old, to in beside.items() if old in topics}


def _sibling(topic: str) -> str:
    namespace, slash, _ = topic.rpartition("/")
    return f"{namespace}{slash}camera_info"
