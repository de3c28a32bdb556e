"""LoadedPolicy: a policy with its command mapping and its publishers, from configure to clean-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Header

from sac_ae_ros.core.command import SafetyGate, Stop, Values
from sac_ae_ros.core.errors import ConfigError, ImageError, StampError
from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.pipeline import Step
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.trial import Probes
from sac_ae_ros.nodes.convert import forward_header, to_ns
from sac_ae_ros.nodes.drive import Drive, Links, first_causes, make_gate, make_guard, make_view
from sac_ae_ros.nodes.fields import type_name
from sac_ae_ros.nodes.graph_watch import GraphWatch, Seen
from sac_ae_ros.nodes.heartbeat import Heartbeat
from sac_ae_ros.nodes.joints import HeldJoints
from sac_ae_ros.nodes.mapping import CommandMapping, stop_policy
from sac_ae_ros.nodes.policy_params import PolicyParams
from sac_ae_ros.nodes.rivals import Rivals

NEWEST_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
RECEIPT_S = 0.5
FAR_S = 3600.0  # no clock that is merely not synchronised is off by so much
LATE_S = 2.0  # too old by less, frames are taken for late; by more, for those of another clock
COMMAND_TOPICS = {"command": "cmd_vel", "shadow": "~/shadow_cmd"}


class LoadedPolicy:
    """What configure makes and clean-up destroys."""

    def __init__(self, node: Node, params: PolicyParams) -> None:
        """Checks everything, then makes the publishers.

        Raises:
            SacAeError: the policy cannot be loaded, or a parameter does not fit it.
        """
        if not params.policy:
            raise ConfigError("policy: expected the path of a policy file (.onnx), got nothing; set -p policy:=FILE")
        self.params, self._node = params, node
        self.policy = OnnxPolicy.load(params.policy, provider=params.provider, threads=params.threads)
        spec = self.policy.spec
        self._names = [action.name for action in spec.actions]
        self._stop = stop_policy(params.command, len(self._names))
        hold = self._stop.kind == "hold_measured"
        self.joints = HeldJoints(params.command.joints, params.command.joint_timeout_s) if hold else None
        self._mapping = CommandMapping(params.command, self._names, spec.control_period_s)
        self._check()
        self._max_age_s = params.max_age_s or GAP_PERIODS * spec.control_period_s
        self._max_future_s = params.max_future_s or spec.control_period_s
        self.probes = Probes() if params.policy_dir else None
        self._warn_if_slow()
        self._commands = node.create_publisher(self.command_class, COMMAND_TOPICS[params.output], NEWEST_COMMAND)
        self.command_topic = str(self._commands.topic_name)
        self.command_watch = GraphWatch(node, COMMAND_TOPICS[params.output], self.command_type, commands=True)
        self.rivals = Rivals(node, self.command_topic, params.command.allow_publishers)
        self._executed = node.create_publisher(JointState, "~/executed", 10)
        self._novelty = node.create_publisher(Float64, "~/novelty", 10)
        node.get_logger().info(
            f"policy {spec.name} {spec.version} ({self.policy.sha256[:12]}) on {self.policy.provider}:"
            f" every {spec.control_period_s:g} s -> {', '.join(self._names)}"
        )

    @property
    def command_class(self) -> Any:
        """The message class of commands."""
        return self._mapping.message_class

    @property
    def command_type(self) -> str:
        """Its name, such as geometry_msgs/msg/Twist."""
        return type_name(self.command_class)

    def drive(
        self, e_stop: Heartbeat, obstacle: Callable[[], str], held: Iterable[Stop], listening_s: Callable[[], float]
    ) -> Drive:
        """A fresh activation, disarmed.

        `held` is what the one before left for ~/arm to clear. `listening_s` gives how much longer nothing arms what
        commands a robot, s.
        """
        simulated = self._node.get_clock().ros_time_is_active  # type: ignore[attr-defined]
        clock_ns = (lambda: self._now().nanoseconds) if simulated else time.monotonic_ns
        links = Links(self.send, self.send_stop, e_stop, obstacle, self.probes, clock_ns)
        if self.params.output == "command":
            links = replace(links, listening_s=listening_s)
        return Drive(self.policy, self.params, self._gate(held), links)

    def unheard(self, seen: Seen) -> str:
        """Why no subscriber that is `seen` gets the commands, where all of them take another type; empty otherwise."""
        types = {each.type for each in seen.subscribers}
        return seen.complaints[0] if types and self.command_type not in types else ""

    def close(self) -> None:
        """Destroys the publishers."""
        for publisher in (self._commands, self._executed, self._novelty):
            self._node.destroy_publisher(publisher)

    def send(self, values: Values) -> None:
        """Publishes a command, float64 [A]."""
        self._commands.publish(self._mapping.message(values, self._now().to_msg()))

    def send_stop(self, values: Values) -> None:
        """Publishes a stop, float64 [A]."""
        self._commands.publish(self._mapping.stop(values, self._now().to_msg()))

    def wait_acknowledged(self) -> None:
        """Waits, but not for long, until every subscriber has the last command."""
        self._commands.wait_for_all_acked(Duration(seconds=RECEIPT_S))

    def publish(self, step: Step, header: Header) -> None:
        """Publishes what became of a frame: the command that was really sent, and novelty where it was measured."""
        if step.sent and step.values is not None:
            executed = JointState(header=forward_header(header), name=self._names, position=step.values.tolist())
            self._executed.publish(executed)
        if step.reading is not None:
            self._novelty.publish(Float64(data=step.reading.score))

    def stamp_ns(self, header: Header) -> int:
        """The time that counts for a frame.

        Raises:
            ImageError: the frame is too old.
            StampError: its stamp lies in the future.
        """
        now_ns = self._now().nanoseconds
        if not self.dated_by_header:
            return int(now_ns)
        stamp_ns = to_ns(header.stamp)
        age_s = (now_ns - stamp_ns) * 1e-9
        if age_s > self._max_age_s:
            raise ImageError(
                f"expected a stamp at most {self._max_age_s:g} s old, got {_stamp(stamp_ns, age_s)};"
                f" {self._way_out(stamp_ns, age_s)}"
            )
        if -age_s > self._max_future_s:
            raise StampError(
                f"expected a stamp at most {self._max_future_s:g} s ahead, got {_stamp(stamp_ns, -age_s)};"
                f" {self._way_out(stamp_ns, age_s)}"
            )
        return stamp_ns

    @property
    def dated_by_header(self) -> bool:
        """Whether its header dates a frame, or its arrival."""
        return self.params.stamp_source == "header"

    def _way_out(self, stamp_ns: int, age_s: float) -> str:
        """What to do about a stamp of that age."""
        if stamp_ns == 0:
            return "the camera driver sets none: set stamp_source: arrival"
        simulated = self._node.get_clock().ros_time_is_active  # type: ignore[attr-defined]
        if simulated and not self._now().nanoseconds:
            return "use_sim_time is true and no /clock has come yet"
        if -age_s > FAR_S and simulated:
            return "this camera does not follow /clock: start the node with use_sim_time:=false"
        late = 0 < age_s < self._max_age_s + LATE_S
        if late:
            clock = ", or /clock runs ahead: see who publishes it" if simulated else ""
            return "frames come late (transport, or a busy machine): lighten the load, or raise max_age_s" + clock
        if simulated:
            return "the stamps are not of this /clock: see who publishes it (ros2 topic info -v /clock)"
        host = "synchronise the camera host's clock (chrony, PTP) or set stamp_source: arrival"
        if age_s < 0:
            return host
        return f"for a simulation or a recording start the node with use_sim_time:=true; else {host}"

    def age_s(self, stamp_ns: int) -> float:
        """How old a frame is now."""
        return float((self._now().nanoseconds - stamp_ns) * 1e-9)

    def _rest(self) -> Values:
        positions = self.joints.positions if self.joints is not None else None
        return np.array(self._stop.values) if positions is None else positions

    def _gate(self, held: Iterable[Stop] = ()) -> SafetyGate:
        return make_gate(self.policy, self.params, self._rest, held)

    def _check(self) -> None:
        """Says at configure what would not fit at activate."""
        gate = self._gate()
        for title, values in (("limits.low", gate.low), ("limits.high", gate.high)):
            self._mapping.check_limits(values, title)
        self._mapping.check(self._stop.values, "stop")
        make_view(self.params)
        guard = make_guard(self.policy, self.params)
        if guard is not None and guard.blind:
            self._node.get_logger().warning(
                "novelty: this policy file has no statistics to judge by; export it again, or set novelty.every: 0"
            )
        first = first_causes(self.params)
        if self.params.arm_on_activate and first:
            raise ConfigError(
                f"arm_on_activate: expected false where arming waits for {', '.join(first)}, got true;"
                " such a robot is armed by a person"
            )
        stop = np.array(self._stop.values)
        if self._stop.kind == "custom" and ((stop < gate.low) | (stop > gate.high)).any():
            raise ConfigError(
                f"command.stop_values: expected values within the limits {gate.low.tolist()}..{gate.high.tolist()},"
                f" got {stop.tolist()}"
            )

    def _warn_if_slow(self) -> None:
        spec = self.policy.spec
        frames = np.zeros((3 * spec.frame_stack, spec.camera.height, spec.camera.width), np.uint8)
        start_s = time.monotonic()
        self.policy.act(frames)
        took_s = time.monotonic() - start_s
        if took_s > spec.control_period_s:
            self._node.get_logger().warning(
                f"this machine is too slow: expected inference within the policy period of {spec.control_period_s:g} s,"
                f" it took {took_s:.3g} s; commands come late or not at all"
            )

    def _now(self) -> Any:
        return self._node.get_clock().now()


def _stamp(stamp_ns: int, off_s: float) -> str:
    return "a stamp of 0" if stamp_ns == 0 else f"one of {off_s:.3f} s"
