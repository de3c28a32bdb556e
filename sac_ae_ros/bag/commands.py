"""Which recorded topic holds the commands that a policy is compared with, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sac_ae_ros.core import field_path
from sac_ae_ros.core.errors import BagError, ConfigError

if TYPE_CHECKING:
    from sac_ae_ros.bag.reader import Bag, Topic

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
    if not name and not fields:
        for topic in bag.topics.values():
            if topic.type == JOINT_STATE and _last_part(topic.name) == EXECUTED and _has_joints(bag, topic, actions):
                return CommandSource(topic.name, topic.type, _by_joint(actions))
    if name:
        topic = _named(bag, name)
    else:
        if not any(topic.type in FOUND_BY_TYPE for topic in bag.topics.values()):
            return None
        topic = bag.topic("", FOUND_BY_TYPE, "commands")
    return CommandSource(topic.name, topic.type, reader(topic.type, fields, actions))


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


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
