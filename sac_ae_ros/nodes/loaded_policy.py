"""LoadedPolicy: a policy with its command mapping and its publishers, from configure to clean-up."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from sac_ae_ros.core.command import SafetyGate, Values
from sac_ae_ros.core.errors import ConfigError, ImageError
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.convert import to_ns
from sac_ae_ros.nodes.drive import make_gate, max_age_s
from sac_ae_ros.nodes.mapping import CommandMapping, stop_policy
from sac_ae_ros.nodes.params import PolicyParams

NEWEST_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
RECEIPT_S = 0.5


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
        self._rest = stop_policy(params.command, len(self._names)).values
        self._mapping = CommandMapping(params.command, self._names)
        self.gate()  # says now what does not fit
        self._max_age_s = max_age_s(params, spec.control_period_s)
        self._commands = node.create_publisher(self._mapping.message_class, "cmd_vel", NEWEST_COMMAND)
        self._executed = node.create_publisher(JointState, "~/executed", 10)
        node.get_logger().info(
            f"policy {spec.name} {spec.version} ({self.policy.sha256[:12]}) on {self.policy.provider}:"
            f" every {spec.control_period_s:g} s -> {', '.join(self._names)}"
        )
        self._warn_if_slow()

    def gate(self) -> SafetyGate:
        """A fresh, disarmed gate."""
        return make_gate(self.policy, self.params, self._rest)

    def close(self) -> None:
        """Destroys the publishers."""
        for publisher in (self._commands, self._executed):
            self._node.destroy_publisher(publisher)

    def send(self, values: Values) -> None:
        """Publishes a command, float64 [A]."""
        self._commands.publish(self._mapping.message(values, self._now().to_msg()))

    def stop(self) -> None:
        """Publishes a stop."""
        self.send(np.array(self._rest))

    def wait_acknowledged(self) -> None:
        """Waits, but not for long, until every subscriber has the last command."""
        self._commands.wait_for_all_acked(Duration(seconds=RECEIPT_S))

    def publish_executed(self, header: Header, values: Values) -> None:
        """Publishes the command that was really sent for the frame of this header."""
        self._executed.publish(JointState(header=header, name=self._names, position=values.tolist()))

    def stamp_ns(self, header: Header) -> int:
        """The time that counts for a frame.

        Raises:
            ImageError: the frame is too old.
        """
        now_ns = self._now().nanoseconds
        if self.params.stamp_source == "arrival":
            return now_ns
        stamp_ns = to_ns(header.stamp)
        age_s = (now_ns - stamp_ns) * 1e-9
        if age_s > self._max_age_s:
            raise ImageError(
                f"expected a stamp at most {self._max_age_s:g} s old, got one of {age_s:.3f} s;"
                " synchronise the camera's clock or set stamp_source: arrival"
            )
        return stamp_ns

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
