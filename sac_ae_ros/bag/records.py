"""What a recording is made of, whatever file format it lies in."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MAX_NAME_CHARS = 256
_ANY_NODES = ("lifecycle_msgs/", "rcl_interfaces/", "dynamic_reconfigure/", "bond/")  # packages of types
MAX_RECORD = 256 << 20  # bytes; a length beyond is damage or malice, and must not be allocated


_ACTS = "/Twist", "/TwistStamped", "/JointTrajectory"  # endings of types
_SEES = "/Image", "/CompressedImage", "/FFMPEGPacket"
_OF_A_ROBOT = "executed", "reward", "episode_end"
_SIDE = re.compile(r"\d+|left|right")
_LATCHED = re.compile(r"durability:\s*[\"']?(1|transient_local)\b", re.IGNORECASE)


def full_type(name: str) -> str:
    """A type's full name: "sensor_msgs/Image", as ROS 1 and some writers have it, is "sensor_msgs/msg/Image"."""
    package, slash, last = name.partition("/")
    return f"{package}/msg/{last}" if slash and last and "/" not in last else name


def is_latched(profiles: str) -> bool:
    """Whether offered QoS profiles, YAML as rosbag2 records it, have one that is transient local."""
    return _LATCHED.search(profiles) is not None


def few(names: Sequence[str], most: int = 10) -> str:
    """A list as an error may print it: the first of them, and how many there are beside."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_name(text: str) -> bool:
    """Whether it can be the name of a topic or type; others are not listed, played or judged, only counted."""
    return 0 < len(text) <= MAX_NAME_CHARS and text.isprintable()


@dataclass(frozen=True)
class Topic:
    """A recorded topic.

    type: as in ROS 2 ("sensor_msgs/msg/Image"), also for ROS 1 bags.
    messages: how many there are; None where only reading would tell.
    latched: a publisher offered its last messages to late subscribers too (transient local), as far as is known.
    """

    name: str
    type: str
    messages: int | None
    latched: bool = False

    @property
    def last_part(self) -> str:
        """The name without namespaces."""
        return self.name.rpartition("/")[2]


def are_parallel(topics: Collection[Topic], one: str, other: str) -> bool:
    """Whether two topics lie in namespaces that a recording has side by side, as of two robots.

    Of /r1/camera/image and /r2/cmd_vel these are /r1 and /r2. They are taken for those of two robots if their names
    differ in a number or in left and right only, if the recording has topics of one name and type below both, but for
    what any node may publish, if there are commands, rewards or ends of episodes below the first, or pictures below the
    second.
    """
    apart = _apart(one, other)
    if apart is None:
        return False
    mine, theirs = apart
    if _SIDE.sub("", mine) == _SIDE.sub("", theirs):
        return True
    mine_has, theirs_has = (
        {(topic.name.strip("/").removeprefix(prefix), topic.type) for topic in topics if _is_below(topic, prefix)}
        for prefix in apart
    )
    acts = any(kind.endswith(_ACTS) or name.rpartition("/")[2] in _OF_A_ROBOT for name, kind in mine_has)
    return bool(mine_has & theirs_has) or acts or any(kind.endswith(_SEES) for _, kind in theirs_has)


def are_apart(one: str, other: str) -> bool:
    """Whether two topics lie in namespaces of which neither holds the other: they may be of two robots, or of one."""
    return _apart(one, other) is not None


def _apart(one: str, other: str) -> tuple[str, str] | None:
    """Where two topics' namespaces part, each up to there; what a node called policy_node has is in the node's own."""
    mine, theirs = one.strip("/").split("/"), other.strip("/").split("/")
    if theirs[-2:-1] == ["policy_node"]:
        del theirs[-2]
    depth = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
    if depth is None or depth + 1 >= min(len(mine), len(theirs)):
        return None
    return "/".join(mine[: depth + 1]) + "/", "/".join(theirs[: depth + 1]) + "/"


def _is_below(topic: Topic, prefix: str) -> bool:
    return topic.name.strip("/").startswith(prefix) and not topic.type.startswith(_ANY_NODES)


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it was recorded; stamp_ns is the time of recording (log time).

    shift_ns: what was added to that time, since the recording's log times leap.
    """

    topic: str
    type: str
    stamp_ns: int
    raw: bytes | memoryview
    ros1: bool
    shift_ns: int = 0


@dataclass(frozen=True)
class Salvage:
    """What a damaged recording still gave.

    messages: how many could be read, over all topics. by_topic: the same for each topic.
    reason: why normal reading gave up, and where reading stopped.
    """

    messages: int
    by_topic: dict[str, int]
    reason: str


@dataclass(frozen=True)
class Channel:
    """A topic as a file's own tables name it; the definition's format is "msg", "idl" or "" (none is there).

    type: the full name, whatever the file has.
    """

    topic: str
    type: str
    format: str = ""
    definition: str = ""
    ros1: bool = False
    latched: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", full_type(self.type))


class DamageError(Exception):
    """Bytes of a recording are missing or make no sense; never leaves this package."""


class NoIndexError(Exception):
    """A file is whole, but can only be read from its start to its end; never leaves this package."""
