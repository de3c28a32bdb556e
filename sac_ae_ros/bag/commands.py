"""Recorded commands: on which topic, how they are read, and which of them counts for which tick."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag import metrics
from sac_ae_ros.bag.clocks import Clock, lateness
from sac_ae_ros.bag.messages import header_stamp_ns
from sac_ae_ros.bag.records import are_apart, are_parallel, few
from sac_ae_ros.core import field_path
from sac_ae_ros.core.errors import BagError, ConfigError, SacAeError
from sac_ae_ros.core.frames import GAP_PERIODS

if TYPE_CHECKING:
    from sac_ae_ros.bag.evaluate import Evaluation
    from sac_ae_ros.bag.reader import Bag, Record, Topic

JOINT_STATE, JOINT_TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
EXECUTED = "executed"
SAME_STAMPS = 0.5  # of the commands: if as many have the very stamps of frames, they are of one clock
TWISTS = {
    "geometry_msgs/msg/Twist": ("linear.x", "angular.z"),
    "geometry_msgs/msg/TwistStamped": ("twist.linear.x", "twist.angular.z"),
}
LISTS = {
    "std_msgs/msg/Float32MultiArray": "data[{}]",
    "std_msgs/msg/Float64MultiArray": "data[{}]",
}
FOUND_BY_TYPE = (*TWISTS, *LISTS, JOINT_TRAJECTORY)

Read = Callable[[Any], list[float]]


@dataclass(frozen=True)
class CommandSource:
    """A topic of commands; `read` gives a message's [A] numbers in the policy's order, or raises ConfigError."""

    topic: str
    type: str
    read: Read


def find_commands(
    bag: Bag, name: str, fields: Sequence[str], actions: Sequence[str], image: str
) -> CommandSource | None:
    """The recorded commands; None when no topic is named and none is there.

    Without a name, policy_node's `~/executed` with these actions comes first: it has what was really sent, under
    the stamps of the frames. Then the only topic of a type that commands usually have.

    Args:
        bag: the recording.
        name: the topic, or "".
        fields: where each action is, as policy_node's command.fields; empty: what is usual for the type.
        actions: the policy's action names.
        image: the topic of the images; commands in a parallel namespace, another robot's, must be named.

    Raises:
        BagError: no such topic, or several that it could be, or only another robot's.
        ConfigError: the fields don't fit the type or the number of actions.
    """
    executed = find_executed(bag, actions, image, "--command-topic") if not name and not fields else None
    if executed is not None:
        return CommandSource(executed.name, executed.type, _by_joint(JOINT_STATE, actions))
    if name:
        topic = _named(bag, name)
    else:
        if not any(topic.type in FOUND_BY_TYPE for topic in bag.topics.values()):
            return None
        topic = bag.topic("", FOUND_BY_TYPE, "commands", flag="--command-topic", beside=image)
    return CommandSource(topic.name, topic.type, reader(topic.type, fields, actions))


def find_executed(bag: Bag, actions: Collection[str], image: str, flag: str) -> Topic | None:
    """The topic of what policy_node really sent: the one called `executed` that has these actions; None without.

    Errors name the `flag` that chooses one.

    Raises:
        BagError: several of the robot that has the images.
    """
    topics = bag.topics
    called = [topic for topic in topics.values() if topic.type == JOINT_STATE and topic.last_part == EXECUTED]
    near = [topic for topic in called if not are_parallel(topics.values(), image, topic.name)]
    found = [topic for topic in near if _has_joints(bag, topic, actions)]
    found = [topic for topic in found if not are_apart(image, topic.name)] or found
    if len(found) > 1:
        names = few([topic.name for topic in found])
        raise BagError(f"{bag.path}: several topics may be executed commands: {names}; name one with {flag}")
    return found[0] if found else None


class RecordedCommands:
    """Collects recorded commands, and pairs them with ticks in the end."""

    def __init__(self, bag: Bag, source: CommandSource | None, result: Evaluation) -> None:
        self._bag, self._source, self._result = bag, source, result
        self._logs_ns: list[int] = []
        self._shifts_ns: list[int] = []
        self._stamps_ns: list[int | None] = []
        self._values: list[list[float]] = []
        self._holes_ns: list[tuple[int, int | None]] = []  # log times and stamps of what could not be read

    def take(self, record: Record) -> None:
        """Takes every record of the command topic."""
        assert self._source is not None
        message = None
        try:
            message = self._bag.message(record, (self._source.type,))
            values = self._source.read(message)
        except SacAeError as error:
            self._result.refused_commands.append((record.stamp_ns, str(error)))
            self._holes_ns.append((record.stamp_ns, header_stamp_ns(message)))
            return
        self._values.append(values)
        self._logs_ns.append(record.stamp_ns)
        self._shifts_ns.append(record.shift_ns)
        self._stamps_ns.append(header_stamp_ns(message))

    def finish(self, by_header: bool, stamps_ns: NDArray[np.int64], late_s: NDArray[np.float64]) -> None:
        """Compares. Commands meet frames by stamps where these are of one clock, else by when both were recorded.

        Args:
            by_header: stamps may be used.
            stamps_ns: of all images, int64 [N].
            late_s: how much later than its stamp each was recorded, float64 [N].
        """
        result = self._result
        result.clocks[result.image_topic] = Clock.of(late_s)
        result.commands = len(self._values)
        if result.refused_commands and not self._values:
            raise BagError(f"commands on {result.command_topic}: none can be read; {result.refused_commands[0][1]}")
        if not self._values:
            there = f"{result.command_topic} has no messages" if self._source else "no commands were recorded"
            result.no_pairs = f"{there}; name a topic with --command-topic"
            return
        result.paired_why = self._why_by_log(by_header, stamps_ns)
        stamped = not result.paired_why
        result.paired_by = "header" if stamped else "log"
        theirs_ns = np.array([*(self._stamps_ns if stamped else self._logs_ns), *self._holes(stamped)], np.int64)
        mine_ns = np.array([tick.stamp_ns if stamped else tick.log_ns for tick in result.ticks])
        origin_ns, period_s = mine_ns[0], result.spec.control_period_s
        mine_s, theirs_s = (mine_ns - origin_ns) * 1e-9, (theirs_ns - origin_ns) * 1e-9
        nothing = [[np.nan] * len(self._values[0])] * len(self._holes_ns)  # which no older command holds over
        recorded = np.array([*self._values, *nothing])
        missing = np.full(recorded.shape[1], np.nan)
        policy = np.array([missing if tick.values is None else tick.values for tick in result.ticks])
        held = metrics.hold(mine_s, theirs_s, recorded, GAP_PERIODS * period_s)
        for tick, row in zip(result.ticks, held, strict=True):
            tick.recorded = row if np.isfinite(row).all() else None
        result.actions = metrics.compare(mine_s, policy, theirs_s, recorded, result.spec.actions, period_s)
        if not any(errors.pairs for errors in result.actions.values()):
            result.no_pairs = self._why_none(mine_s, theirs_s)

    def _holes(self, stamped: bool) -> list[int]:
        """When the commands were that could not be read; where they tell no stamp, as late as the others were."""
        late_ns = round(self._result.clocks[str(self._result.command_topic)].median_s * 1e9) if stamped else 0
        return [(stamped and stamp_ns) or log_ns - late_ns for log_ns, stamp_ns in self._holes_ns]

    def _why_by_log(self, by_header: bool, images_ns: NDArray[np.int64]) -> str:
        """Why stamps cannot tell which command meets which frame; "" where they can."""
        result, topic = self._result, str(self._result.command_topic)
        stamps_ns = np.array([stamp_ns for stamp_ns in self._stamps_ns if stamp_ns is not None], np.int64)
        if len(stamps_ns) == len(self._stamps_ns):
            logs_ns, shifts_ns = np.array(self._logs_ns, np.int64), np.array(self._shifts_ns, np.int64)
            result.clocks[topic] = Clock.of(lateness(logs_ns, shifts_ns, stamps_ns))
        if not by_header:
            return "as asked, by --stamp-source log"
        if topic not in result.clocks:
            return f"{'not all' if len(stamps_ns) else 'no'} commands on {topic} have stamps"
        images, commands = result.clocks[result.image_topic], result.clocks[topic]
        if images.is_apart_from(commands) and np.isin(stamps_ns, images_ns).mean() < SAME_STAMPS:
            apart_s, result.two_clocks = images.ahead_of(commands), True
            return (
                f"two clocks: stamps on {result.image_topic} are {abs(apart_s):.6g} s"
                f" {'ahead of' if apart_s > 0 else 'behind'} those on {topic}"
            )
        return ""

    def _why_none(self, mine_s: NDArray[np.float64], theirs_s: NDArray[np.float64]) -> str:
        """Why not one tick has both a command of the policy and a recorded one; times are of one clock."""
        result = self._result
        if all(tick.values is None for tick in result.ticks):
            return "the policy's actions are not finite"
        if not np.isfinite(np.array(self._values)).any():
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
    if not fields and type_ in (JOINT_STATE, JOINT_TRAJECTORY):
        return _by_joint(type_, actions)
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


def _by_joint(type_: str, actions: Sequence[str]) -> Read:
    """Reads the positions of the joints that are called like the actions, in whatever order a message has them."""
    kind = type_.rpartition("/")[2]

    def read(message: Any) -> list[float]:
        if type_ == JOINT_STATE:
            names, numbers = message.name, message.position
        else:
            names, numbers = message.joint_names, message.points[0].positions if message.points else ()
        if twice := [action for action in actions if list(names).count(action) > 1]:
            raise ConfigError(f"recorded {kind}: expected each joint once, got {', '.join(twice)} several times")
        positions = dict(zip(names, numbers, strict=False))
        if any(action not in positions for action in actions):
            raise ConfigError(
                f"recorded {kind}: expected positions of joints called like the actions, {', '.join(actions)}, got"
                f" {', '.join(positions) or 'none'}; with bag-eval, say where each action is (--command-field)"
            )
        return [float(positions[action]) for action in actions]

    return read


def _has_joints(bag: Bag, topic: Topic, actions: Collection[str]) -> bool:
    """By the first message that can be read."""
    for record in bag.records([topic.name]):
        try:
            return set(actions) <= set(bag.message(record, (JOINT_STATE,)).name)
        except BagError:
            continue
    return False


def _named(bag: Bag, name: str) -> Topic:
    """Any type may be a command, so that the name alone decides."""
    found = bag.topics.get(name) or bag.topics.get("/" + name)
    if found is None:
        listed = few([f"{topic.name} ({topic.type})" for topic in bag.topics.values()])
        raise BagError(
            f"command: expected the topic {name} in the bag, which has {listed or 'no topics'};"
            " name one with --command-topic"
        )
    return found
