"""GraphWatch: who else is on a topic according to the ROS graph, and in words what is wrong with them.

Fast DDS tells nobody when a publisher of another type is on the topic, so types are read from the graph. The graph
knows a node that ended properly at once, and one that was killed for up to 20 s more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rclpy.duration import Infinite
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from sac_ae_ros.core.errors import printable

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
BOOL = "std_msgs/msg/Bool"
COMPRESSIONS = ("compressed", "compressedDepth")
TRANSPORTS = (("raw", "", IMAGE), *((name, f"/{name}", COMPRESSED) for name in COMPRESSIONS))
KILLED_S = 20.0  # so long the graph goes on to have a process that was killed
# So long after its start a process may not know every node yet, nor what an emergency stop said before: where a packet
# is lost, DDS repeats it with its next heartbeat, after 3 s.
DISCOVERY_S = 4.0
PARTICIPANT_BYTES = 12  # of a DDS endpoint's id
UNNAMED = "an unnamed node"
SUGGESTED = 3


@dataclass(frozen=True)
class Endpoint:
    """One publisher or subscriber: its node's full name, its message type, its QoS in words ("reliable, volatile").

    participant: what tells two processes of the same node name apart.
    """

    node: str
    type: str
    qos: str
    participant: bytes = field(default=b"", compare=False)

    def __str__(self) -> str:
        """For people."""
        return f"{self.node} ({self.type}, {self.qos})"


@dataclass(frozen=True)
class Seen:
    """Who is on a topic at one moment, sorted by name, and what is wrong: one line each, both sides named."""

    publishers: tuple[Endpoint, ...]
    subscribers: tuple[Endpoint, ...]
    complaints: tuple[str, ...]


class GraphWatch:
    """Looks at one topic that this node hears, or publishes commands on."""

    def __init__(
        self, node: Node, topic: str, message_type: str, qos: QoSProfile | None = None, *, commands: bool = False
    ) -> None:
        """Looks at nothing yet.

        Args:
            node: asks the graph; the one whose topic this is.
            topic: as the node's subscription or publisher was created with: relative, private or full.
            message_type: what this node takes or publishes there, such as "sensor_msgs/msg/Image".
            qos: how this node subscribes or publishes; None: as the graph says.
            commands: this node publishes commands there; otherwise it subscribes.
        """
        self._node, self._topic, self._type, self._qos, self._commands = node, topic, message_type, qos, commands
        self._name = node.resolve_topic_name(topic)
        self._me = node.get_fully_qualified_name()

    def look(self) -> Seen:
        """The topic at this moment; this node's own publishers and subscribers are listed as well."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        subscribers = self._node.get_subscriptions_info_by_topic(self._topic)
        mine, others = (publishers, subscribers) if self._commands else (subscribers, publishers)
        qos = self._qos or next((info.qos_profile for info in mine if full_name(info) == self._me), None)
        others = sorted(others, key=full_name)
        complaints = [text for info in others if (text := self._mismatch(info, qos))]
        if not others:
            complaints.append(self._nobody())
        if not self._commands and self._type in (IMAGE, COMPRESSED, BOOL):
            complaints += self._mixed(publishers)
        return Seen(_endpoints(publishers), _endpoints(subscribers), tuple(dict.fromkeys(complaints)))

    def _mismatch(self, info: TopicEndpointInfo, mine: QoSProfile | None) -> str:
        """Why nothing can flow between this node and that endpoint; empty if it can."""
        theirs, ours = ("takes", "publishes") if self._commands else ("publishes", "takes")
        if info.topic_type != self._type:
            found = f"{full_name(info)} {theirs} {printable(info.topic_type)}, this node {ours} {self._type}"
            return f"{self._name}: {found}; {self._way_out(printable(info.topic_type))}"
        if mine is None:
            return ""
        mine = _spelled_out(mine)
        publisher, subscriber = (mine, info.qos_profile) if self._commands else (info.qos_profile, mine)
        fits, reason = qos_check_compatible(publisher, subscriber)
        if fits != QoSCompatibility.ERROR:
            return ""
        found = f"{full_name(info)} {theirs} {_words(info.qos_profile)}, this node {ours} {_words(mine)}"
        reason = reason.replace("ERROR: ", "").strip(" ;").replace(";", ", ").lower()
        return f"{self._name}: {found}, and nothing gets through ({reason}); change the QoS of {full_name(info)}"

    def _way_out(self, their_type: str) -> str:
        """What to do about another type on this topic."""
        if self._commands:
            return f"set command.type: {their_type} and command.fields to go with it, or remap"
        if (self._type, their_type) == (COMPRESSED, IMAGE):
            return f"set image.transport: raw and remap image:={self._name}"
        if their_type.endswith("/FFMPEGPacket") and self._type in (IMAGE, COMPRESSED):
            return "have the camera send Image or JPEG, or turn its video into images with image_transport's republish"
        if (self._type, their_type) != (IMAGE, COMPRESSED):
            return f"remap to a topic of {self._type}"
        transport = "compressedDepth" if self._name.endswith("/compressedDepth") else "compressed"
        stem = self._name.removesuffix(f"/{transport}")
        remap = f"{stem}/{transport}:={stem}" if stem == self._name else f"image:={stem}"
        return f"set image.transport: {transport} and remap {remap}"

    def _nobody(self) -> str:
        """That nobody is there and, of images only, on which other topics there are some.

        Nobody should be led to command another robot, or to enable this one with whatever else carries a Bool.
        """
        text = f"nobody {'subscribes to' if self._commands else 'publishes'} {self._name}"
        if self._commands or self._type not in (IMAGE, COMPRESSED):
            return text
        sibling = self._sibling()
        if sibling:
            return f"{text}, but {sibling}"
        names = sorted(name for name, types in self._node.get_topic_names_and_types() if self._type in types)
        elsewhere = [name for name in names if self._node.count_publishers(name)][:SUGGESTED]
        if not elsewhere:
            return text
        return f"{text}, but {', '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} type {self._type}; remap"

    def _sibling(self) -> str:
        """The same images on the topic of another transport, as image_transport names it, with what selects them."""
        stem, _, last = self._name.rpartition("/")
        base = stem if self._type == COMPRESSED and last in COMPRESSIONS else self._name
        for transport, suffix, type_ in TRANSPORTS:
            name = f"{base}{suffix}"
            infos = [] if name == self._name else self._node.get_publishers_info_by_topic(name)
            there = sorted(full_name(info) for info in infos if info.topic_type == type_)
            if there:
                return f"{there[0]} publishes {type_} on {name}; set image.transport: {transport}"
        return ""

    def _mixed(self, publishers: Sequence[TopicEndpointInfo]) -> list[str]:
        names = sorted(full_name(info) for info in publishers if info.topic_type == self._type)
        if len(names) < 2:
            return []
        what = "they may contradict each other" if self._type == BOOL else "frames of all are mixed"
        return [f"{len(names)} publishers on {self._name}: {', '.join(names)}: {what}; give each a topic of its own"]


def wanted_reliability(publishers: Sequence[Endpoint]) -> ReliabilityPolicy:
    """Reliable where every publisher is, and there is one; best effort, which hears everybody, otherwise."""
    reliable = bool(publishers) and all(each.qos.startswith("reliable") for each in publishers)
    return ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT


def full_name(info: TopicEndpointInfo) -> str:
    """The node's; a publisher without ROS never has one, and others get theirs a moment after their topics."""
    if not info.node_name or info.node_name == "_NODE_NAME_UNKNOWN_":
        return UNNAMED
    return printable(f"{info.node_namespace.rstrip('/')}/{info.node_name}")


def _spelled_out(qos: QoSProfile) -> QoSProfile:
    """With default durations as the graph has them: a default is 0 and means none, to which the check objects."""
    times = {name: getattr(qos, name) for name in ("deadline", "liveliness_lease_duration")}
    return QoSProfile(
        depth=1,
        reliability=qos.reliability,
        durability=qos.durability,
        liveliness=qos.liveliness,
        **{name: time if time.nanoseconds else Infinite for name, time in times.items()},
    )


def _words(qos: QoSProfile) -> str:
    return f"{qos.reliability.name}, {qos.durability.name}".lower().replace("_", " ")


def _endpoints(infos: Sequence[TopicEndpointInfo]) -> tuple[Endpoint, ...]:
    found = [
        Endpoint(
            full_name(info),
            printable(info.topic_type),
            _words(info.qos_profile),
            bytes(info.endpoint_gid)[:PARTICIPANT_BYTES],
        )
        for info in infos
    ]
    return tuple(sorted(found, key=lambda each: (each.node, each.type, each.qos)))
