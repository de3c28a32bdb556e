"""Recorded commands: on which topic, how they are read, and which of them counts for which tick."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag import metrics
from sac_ae_ros.bag.messages import header_stamp_ns
from sac_ae_ros.core import field_path
from sac_ae_ros.core.errors import BagError, ConfigError, SacAeError
from sac_ae_ros.core.frames import GAP_PERIODS

if TYPE_CHECKING:
    from sac_ae_ros.bag.evaluate import Evaluation
    from sac_ae_ros.bag.reader import Bag, Record, Topic

JOINT_STATE = "sensor_msgs/msg/JointState"
EXECUTED = "executed"
TWISTS = {
    "geometry_msgs/msg/Twist": ("linear.x", "angular.z"),
    "geometry_msgs/msg/TwistStamped": ("twist.linear.x", "twist.angular.z"),
}
LISTS = {
    "std_msgs/msg/Float32MultiArray": "data[{}]",
    "std_msgs/msg/Float64MultiArray": "data[{}]",
    "trajectory_msgs/msg/JointTrajectory": "points[0].positions[{}]",
}
FOUND_BY_TYPE = (*TWISTS, *LISTS)

Read = Callable[[Any], list[float]]


@dataclass(frozen=True)
class CommandSource:
    """A topic of commands; `read` gives a message's [A] numbers in the policy's order, or raises ConfigError."""

    topic: str
    type: str
    read: Read


def find_commands(bag: Bag, name: str, fields: Sequence[str], actions: Sequence[str]) -> CommandSource | None:
    """The recorded commands; None when no topic is named and none is there.

    Without a name, policy_node's `~/executed` with these actions comes first: it has what was really sent, under
    the stamps of the frames. Then the only topic of a type that commands usually have.

    Args:
        bag: the recording.
        name: the topic, or "".
        fields: where each action is, as policy_node's command.fields; empty: what is usual for the type.
        actions: the policy's action names.

    Raises:
        BagError: no such topic, or several that it could be.
        ConfigError: the fields don't fit the type or the number of actions.
    """
    executed = find_executed(bag, actions) if not name and not fields else None
    if executed is not None:
        return CommandSource(executed.name, executed.type, _by_joint(actions))
    if name:
        topic = _named(bag, name)
    else:
        if not any(topic.type in FOUND_BY_TYPE for topic in bag.topics.values()):
            return None
        topic = bag.topic("", FOUND_BY_TYPE, "commands")
    return CommandSource(topic.name, topic.type, reader(topic.type, fields, actions))


def find_executed(bag: Bag, actions: Collection[str]) -> Topic | None:
    """The topic of what policy_node really sent: the first called `executed` that has these actions; None without."""
    for topic in bag.topics.values():
        if topic.type == JOINT_STATE and topic.last_part == EXECUTED and _has_joints(bag, topic, actions):
            return topic
    return None


class RecordedCommands:
    """Collects recorded commands, and pairs them with ticks in the end."""

    def __init__(self, bag: Bag, source: CommandSource | None, result: Evaluation) -> None:
        self._bag, self._source, self._result = bag, source, result
        self._logs_ns: list[int] = []
        self._stamps_ns: list[int | None] = []
        self._values: list[list[float]] = []

    def take(self, record: Record) -> None:
        """Takes every record of the command topic."""
        assert self._source is not None
        try:
            message = self._bag.message(record)
            values = self._source.read(message)
        except SacAeError as error:
            self._result.refused_commands.append((record.stamp_ns, str(error)))
            return
        self._values.append(values)
        self._logs_ns.append(record.stamp_ns)
        self._stamps_ns.append(header_stamp_ns(message))

    def finish(self, by_header: bool) -> None:
        """Compares. Commands with stamps of their own meet frames by stamps, others by when both were recorded."""
        result = self._result
        result.commands = len(self._values)
        if result.refused_commands and not self._values:
            raise BagError(f"commands on {result.command_topic}: none can be read; {result.refused_commands[0][1]}")
        if not self._values:
            there = f"{result.command_topic} has no messages" if self._source else "no commands were recorded"
            result.no_pairs = f"{there}; name a topic with --command-topic"
            return
        stamped = by_header and None not in self._stamps_ns
        theirs_ns = np.array(self._stamps_ns if stamped else self._logs_ns, np.int64)
        mine_ns = np.array([tick.stamp_ns if stamped else tick.log_ns for tick in result.ticks])
        origin_ns, period_s = mine_ns[0], result.spec.control_period_s
        mine_s, theirs_s = (mine_ns - origin_ns) * 1e-9, (theirs_ns - origin_ns) * 1e-9
        recorded = np.array(self._values)
        missing = np.full(recorded.shape[1], np.nan)
        policy = np.array([missing if tick.values is None else tick.values for tick in result.ticks])
        held = metrics.hold(mine_s, theirs_s, recorded, GAP_PERIODS * period_s)
        for tick, row in zip(result.ticks, held, strict=True):
            tick.recorded = row if np.isfinite(row).all() else None
        result.actions = metrics.compare(mine_s, policy, theirs_s, recorded, result.spec.actions, period_s)
        if not any(errors.pairs for errors in result.actions.values()):
            result.no_pairs = self._why_none(mine_s, theirs_s)

    def _why_none(self, mine_s: NDArray[np.float64], theirs_s: NDArray[np.float64]) -> str:
        """Why not one tick has both a command of the policy and a recorded one; times are of one clock."""
        result = self._result
        if all(tick.values is None for tick in result.ticks):
            return "the policy's actions are not finite"
        if not np.isfinite(np.array(self._values)).all(axis=1).any():
            return f"no message on {result.command_topic} has finite numbers"
        if mine_s.max() < theirs_s.min() or theirs_s.max() < mine_s.min():
            when = "before the first" if mine_s.max() < theirs_s.min() else "after the last"
            return f"every frame is {when} command on {result.command_topic}"
        return (
            f"no command on {result.command_topic} was newer than {GAP_PERIODS:g} periods"
            f" ({GAP_PERIODS * result.spec.control_period_s:g} s) when a frame came"
        )


def reader(type_: str, fields: Sequence[str], actions: Sequence[str]) -> Read:
    """Reads a command message of this type.

    Raises:
        ConfigError: the fields don't fit the number of actions, or the type has no usual ones.
    """
    if not fields and type_ == JOINT_STATE:
        return _by_joint(actions)
    if not fields and type_ in TWISTS:
        fields = TWISTS[type_]
    elif not fields and type_ in LISTS:
        fields = [LISTS[type_].format(i) for i in range(len(actions))]
    if len(fields) != len(actions):
        raise ConfigError(
            f"--command-field: expected one for each action ({', '.join(actions)}) of a {type_}, got"
            f" {', '.join(fields) or 'none'}; give them in this order, such as --command-field twist.linear.x"
        )
    paths = [field_path.parse(field, "--command-field") for field in fields]
    return lambda message: [field_path.get(message, steps) for steps in paths]


def _by_joint(actions: Sequence[str]) -> Read:
    def read(message: Any) -> list[float]:
        positions = dict(zip(message.name, message.position, strict=False))
        missing = [action for action in actions if action not in positions]
        if missing:
            raise ConfigError(
                f"recorded JointState: expected positions of {', '.join(actions)}, got {', '.join(positions) or 'none'}"
            )
        return [float(positions[action]) for action in actions]

    return read


def _has_joints(bag: Bag, topic: Topic, actions: Collection[str]) -> bool:
    for record in bag.records([topic.name]):
        return set(actions) <= set(bag.message(record).name)
    return False


def _named(bag: Bag, name: str) -> Topic:
    """Any type may be a command, so that the name alone decides."""
    found = bag.topics.get(name) or bag.topics.get("/" + name)
    if found is None:
        listed = ", ".join(f"{topic.name} ({topic.type})" for topic in bag.topics.values())
        raise BagError(f"command: expected the topic {name} in the bag, which has {listed or 'no topics'}")
    return found
