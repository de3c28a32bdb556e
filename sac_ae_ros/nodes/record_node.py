"""record_node: keeps what a later evaluation or training needs; docs/ros.md has its interface."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.validate_topic_name import validate_topic_name

from sac_ae_ros.core.errors import ConfigError, RunError, printable
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.bag_params import RecordParams
from sac_ae_ros.nodes.definition import definition
from sac_ae_ros.nodes.fields import message_class, type_name
from sac_ae_ros.nodes.graph_watch import COMPRESSED, IMAGE
from sac_ae_ros.nodes.offered_qos import Qos, as_rosbag2, less, wanted
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.silence_watch import Silence, SilenceWatch

if TYPE_CHECKING:
    from sac_ae_ros.bag.record_queue import RecordQueue
    from sac_ae_ros.bag.writer import RecordingWriter

LOOK_EVERY_S = 0.2
REPORT_EVERY_S = 10.0
ABSENT_S = 5.0  # so long a topic may take to appear before its absence is warned of
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMAGES_ELSEWHERE = "Remap `image` (--image-topic), or set transport: compressed (--compressed)"
OPTICS_ELSEWHERE = "Remap `camera_info` (--remap camera_info:=TOPIC), or the recording has none"
DRAIN_S = 0.3  # what was sent before the end is still taken
DEPTH, IMAGES_DEPTH = 1000, 100  # of messages that wait to be taken; raw 640x480 images are 0.9 MB each
TOPICS = ("cmd_vel", "joint_states", "reward", "episode_end", "enable", "e_stop", "/clock")
OF_POLICY_NODE = ("executed", "novelty", "state")


@dataclass
class _Heard:
    """A topic that is recorded: its subscription, and by which QoS it was made."""

    type: str
    kind: Any
    qos: Qos
    subscription: Any
    since_s: float = field(default_factory=time.monotonic)


class RecordNode(Node):
    """Subscribes to whatever of its topics appears, and writes every message as it came."""

    def __init__(self, overrides: Mapping[str, object] | None = None, arguments: Sequence[str] = ()) -> None:
        """Begins the recording.

        Args:
            overrides: parameters that win over those of files and the command line.
            arguments: the process's command line.

        Raises:
            SacAeError: the folder exists already, or cannot be written.
        """
        given = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        super().__init__("record_node", parameter_overrides=given)
        declare(self, RecordParams, arguments=arguments)
        self._params = params = read(self, RecordParams)
        self.folder = Path(params.out or f"drives/drive-{time.strftime('%Y%m%d-%H%M%S')}")
        self._names = list(dict.fromkeys(self._wanted(params)))
        self._image, self._camera_info = self._names[0], self.resolve_topic_name("camera_info")
        self._heard: dict[str, _Heard] = {}
        self._told: set[tuple[str, str]] = set()
        self._lost: Counter[str] = Counter()
        self._silence = SilenceWatch()
        self._error: RunError | None = None
        self._writer, self._queue = _open(self.folder, params, self._fail)
        self._begun_s = self._reported_s = time.monotonic()
        self._warned: set[str] = set()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_EVERY_S, self._look, clock=steady)
        self.get_logger().info(
            f"recording to {printable(str(self.folder))}: {', '.join(self._names)}, as soon as they appear"
        )

    @property
    def error(self) -> RunError | None:
        """What ended the recording, None while it goes on."""
        return self._error

    def close(self) -> int:
        """Finishes the recording and sums up; returns the exit code."""
        for heard in self._heard.values():
            self.destroy_subscription(heard.subscription)
        self._queue.close()
        log, total = self.get_logger(), self._writer.counts.total()
        try:
            self._writer.close()
        except RunError as error:
            self._fail(error)
        if self._error is not None:
            log.error(str(self._error))
        if not total:
            shutil.rmtree(self.folder, ignore_errors=True)
            log.error(f"nothing was recorded: none of {', '.join(self._names)} had a message")
            return 1
        log.info(self._summary())
        return 0 if self._error is None else 1

    def _wanted(self, params: RecordParams) -> list[str]:
        image = self.resolve_topic_name("image") + ("" if params.transport == "raw" else f"/{params.transport}")
        topics = ["camera_info", *TOPICS, *(f"{params.policy_node}/{name}" for name in OF_POLICY_NODE), *params.topics]
        try:
            for topic in topics:
                validate_topic_name(topic)
            return [image, *map(self.resolve_topic_name, topics)]
        except InvalidTopicNameException as error:
            raise ConfigError(f"topics: expected topic names as ROS 2 has them, got {error}") from None

    def _look(self) -> None:
        for name in self._names:
            publishers = [info for info in self.get_publishers_info_by_topic(name) if info.topic_type]
            if publishers:
                try:
                    self._hear(name, publishers)
                except RunError as error:
                    self._fail(error)
        now_s = time.monotonic()
        for silence in self._silence.look(now_s):
            self._warn_of_silence(silence, now_s)
        self._warn_of_absent(self._image, self._begun_s, (IMAGE, COMPRESSED), IMAGES_ELSEWHERE)
        if self._image in self._heard:
            self._warn_of_absent(self._camera_info, self._heard[self._image].since_s, (CAMERA_INFO,), OPTICS_ELSEWHERE)
        if now_s - self._reported_s > REPORT_EVERY_S:
            self._reported_s = now_s
            self.get_logger().info(self._line())

    def _hear(self, name: str, publishers: Sequence[TopicEndpointInfo]) -> None:
        """Subscribes, and anew where the publishers' QoS is another by now."""
        heard = self._heard.get(name)
        type_ = heard.type if heard is not None else publishers[0].topic_type
        for info in publishers:
            if info.topic_type != type_:
                self._tell_once(name, f"{name}: only messages of {type_} are recorded, there are {info.topic_type} too")
        qos = wanted([info.qos_profile for info in publishers if info.topic_type == type_])
        if heard is not None:
            qos = less(qos, heard.qos)
            if qos != heard.qos:
                self.destroy_subscription(heard.subscription)
                heard.qos, heard.subscription = qos, self._subscribe(name, heard.kind, qos)
            return
        try:
            kind = message_class(type_, name)
            text = definition(kind)
        except ConfigError as error:
            self._tell_once(name, f"not recorded: {error}")
            return
        assert qos is not None
        offered = yaml.safe_dump([as_rosbag2(info.qos_profile) for info in publishers if info.topic_type == type_])
        type_hash = str(publishers[0].topic_type_hash)
        try:
            subscription = self._subscribe(name, kind, qos)
        except RuntimeError as error:  # the base of what rcl raises: this process has the topic with another type
            self._tell_once(name, f"not recorded: {name} ({type_}): {error}")
            return
        self._writer.add_topic(name, type_, text, offered, type_hash if "INVALID" not in type_hash else "")
        self._heard[name] = _Heard(type_, kind, qos, subscription)
        self.get_logger().info(f"recording {name} ({printable(type_)})")

    def _subscribe(self, name: str, kind: Any, qos: Qos) -> Any:
        def take(raw: bytes, info: dict[str, int]) -> None:
            received_ns, sent_ns = info["received_timestamp"], info["source_timestamp"]
            log_ns = received_ns or time.time_ns()
            self._queue.put(name, log_ns, sent_ns or log_ns, raw)
            silent_s = self._silence.heard(name, time.monotonic())
            if silent_s is not None:
                self.get_logger().info(f"{name}: messages again, after {silent_s:.1f} s of silence")

        def lost(status: Any) -> None:
            self._lost[name] += status.total_count_change
            self._tell_once(
                name, f"{name}: messages are lost on the way; give its publisher's process the DDS profile too"
            )

        events = SubscriptionEventCallbacks(message_lost=lost, use_default_callbacks=False)
        depth = IMAGES_DEPTH if type_name(kind) in (IMAGE, COMPRESSED) else DEPTH
        profile = QoSProfile(depth=depth, reliability=qos[0], durability=qos[1])
        # rclpy takes callbacks with a message's info, but its types do not say so
        return self.create_subscription(kind, name, cast(Any, take), profile, raw=True, event_callbacks=events)

    def _tell_once(self, name: str, text: str) -> None:
        if (name, text) not in self._told:
            self._told.add((name, text))
            self.get_logger().warning(printable(text))

    def _fail(self, error: RunError) -> None:
        self._error = self._error or error

    def _warn_of_absent(self, name: str, since_s: float, wanted_types: Sequence[str], way_out: str) -> None:
        """Warns once of a topic on which nobody has published for a while, with those of its types that there are."""
        if name in self._heard or name in self._warned or time.monotonic() - since_s < ABSENT_S:
            return
        self._warned.add(name)
        found = [other for other, types in self.get_topic_names_and_types() if set(wanted_types) & set(types)]
        there = printable(", ".join(found)) or f"no topic of {wanted_types[0]} at all"
        self.get_logger().warning(f"{name}: nobody publishes there; there is {there}. {way_out}")

    def _warn_of_silence(self, silence: Silence, now_s: float) -> None:
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - silence.for_s))
        into_s = now_s - self._begun_s - silence.for_s
        gone = "" if self.count_publishers(silence.topic) else "; nobody publishes it any more"
        self.get_logger().warning(
            f"{silence.topic}: silent for {silence.for_s:.1f} s, since {since} ({into_s:.0f} s into the recording);"
            f" it came at {silence.rate_hz:.1f}/s{gone}"
        )

    def _missing(self, name: str) -> int:
        return self._lost[name] + self._queue.lost[name]

    def _line(self) -> str:
        counts, seconds = self._writer.counts, time.monotonic() - self._begun_s
        parts = []
        for name, count in counts.items():
            missing = f", {self._missing(name)} lost" if self._missing(name) else ""
            parts.append(f"{name} {count} ({count / seconds:.1f}/s{missing})")
        return f"{seconds:.0f} s, {self._writer.bytes_written / 1e6:.0f} MB: {', '.join(parts) or 'nothing yet'}"

    def _summary(self) -> str:
        counts, seconds = self._writer.counts, time.monotonic() - self._begun_s
        width = max(map(len, counts))
        rows = [f"  {name:<{width}}  {count:>8}  {self._missing(name):>5}" for name, count in counts.items()]
        head = f"  {'topic':<{width}}  {'messages':>8}  {'lost':>5}"
        size_mb = sum(path.stat().st_size for path in self.folder.iterdir()) / 1e6
        title = f"recorded {seconds:.1f} s, {size_mb:.1f} MB, in {printable(str(self.folder))}"
        return "\n".join(
            [
                title,
                head,
                *rows,
                f"  next: sac-ae bag-eval {printable(str(self.folder))} --policy POLICY.onnx --out DIR",
            ]
        )


def _open(
    folder: Path, params: RecordParams, on_error: Callable[[RunError], None]
) -> tuple[RecordingWriter, RecordQueue]:
    try:
        from sac_ae_ros.bag.record_queue import RecordQueue
        from sac_ae_ros.bag.writer import RecordingWriter
    except ModuleNotFoundError as error:
        raise ConfigError(f"recording: expected the package mcap, got {error}; install the extra `bag`") from None
    writer = RecordingWriter(folder, keep_free_bytes=params.keep_free_mb << 20)
    return writer, RecordQueue(writer, params.queue_mb << 20, on_error)


def _use(node: RecordNode, end: process.EndRequest) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not end.wait(0) and node.error is None:
            executor.spin_once(timeout_sec=0.1)
        until_s = time.monotonic() + DRAIN_S
        while time.monotonic() < until_s and node.error is None:
            executor.spin_once(timeout_sec=0.05)
    finally:  # whatever happens, the file gets its end
        executor.shutdown()
        code = node.close()
    return code


def main(args: Sequence[str] | None = None, overrides: Mapping[str, object] | None = None) -> int:
    """Records until a signal asks for the end; returns the process's exit code.

    `overrides`: parameters that win over others.
    """
    return process.run(lambda arguments: RecordNode(overrides, arguments), _use, args)


if __name__ == "__main__":
    raise SystemExit(main())
