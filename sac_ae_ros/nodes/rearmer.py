"""Rearmer: sim.launch.py's own helper, which arms the simulation's policy_node anew when a busy machine has stopped it.

Only after stale and clock stops, only a node that was not disarmed since, and only where no robot can be: in the domain
that sim.launch.py has chosen, limited to this host. It has no executable: nothing but sim.launch.py starts it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import ConfigError, RunError, printable
from sac_ae_ros.core.share import WAYS_OUT
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.arming import PolicyClient
from sac_ae_ros.nodes.params import declare, parameter, read
from sac_ae_ros.nodes.policy_state import parse_state

OF_A_BUSY_MACHINE = frozenset({Stop.STALE.value, Stop.CLOCK.value})
AFTER_S = 1.0  # let the machine calm down first
ANSWER_S = 5.0
LOG_EVERY_S = 2.0
STATE_KEYS = ("armed", "stop", "causes", "latched", "needs_arm", "disarms")
CROSSED_S = 1.0  # so soon a disarm that crossed the arming is known of


@dataclass(frozen=True)
class RearmerParams:
    """Parameters of the rearmer; none changes while it runs."""

    domain_id: int = parameter(-1, "the simulation's ROS domain", low=-1, high=232, read_only=True)
    policy_node: str = parameter("policy_node", "name of the policy node", read_only=True)


def may_rearm(state: dict[str, Any]) -> bool:
    """Whether policy_node, by its `~/state`, is armed but stopped by a busy machine alone, and could go on now."""
    stops = {*state["latched"], *state["needs_arm"]}
    return bool(state["armed"] and state["stop"] and not state["causes"] and stops <= OF_A_BUSY_MACHINE)


class Rearmer(Node):
    """Hears `~/state` of policy_node, and calls its `~/arm`."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Begins to listen.

        `arguments`: the process's command line.

        Raises:
            ConfigError: a robot could be in this network.
        """
        super().__init__("rearmer")
        declare(self, RearmerParams, arguments=arguments)
        params = read(self, RearmerParams)
        _refuse_robots(params.domain_id, self.context.get_domain_id())
        self._state: dict[str, Any] | None = None
        self._since_s: float | None = None  # since when the node could go on
        self._call: tuple[Future, float] | None = None
        self._crossing: tuple[int, float] | None = None  # how often it had been disarmed when it was armed, until when
        self._policy = PolicyClient(self, params.policy_node, self._on_state)
        self.create_timer(AFTER_S / 4, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_state(self, message: String) -> None:
        try:
            self._state = state = parse_state("policy_node", message.data, STATE_KEYS)
        except RunError as error:  # of somebody else
            self.get_logger().warning(str(error), throttle_duration_sec=LOG_EVERY_S)
            return
        now_s = time.monotonic()
        self._since_s = (self._since_s or now_s) if may_rearm(state) else None
        if self._crossing is not None and state["armed"] and state["disarms"] > self._crossing[0]:
            self._crossing = None
            self.get_logger().warning("policy_node was disarmed while it was being armed anew: disarming it")
            self._policy.disarm.call_async(Trigger.Request())

    def _look(self) -> None:
        now_s = time.monotonic()
        if self._call is not None:
            self._look_at_call(*self._call, now_s)
        elif self._crossing is not None and now_s > self._crossing[1]:
            self._crossing = None
        elif self._state is not None and self._since_s is not None and now_s - self._since_s >= AFTER_S:
            self._crossing = self._state["disarms"], now_s + ANSWER_S + CROSSED_S
            self._call = self._policy.arm.call_async(Trigger.Request()), now_s

    def _look_at_call(self, future: Future, called_s: float, now_s: float) -> None:
        if not future.done() and now_s - called_s < ANSWER_S:
            return
        self._call, self._since_s = None, None if self._since_s is None else now_s
        if not future.done():
            self._policy.arm.remove_pending_request(future)
            return
        response = future.result()
        if response is not None and response.success:
            disarms = self._crossing[0] if self._crossing is not None else 0
            self._crossing = disarms, now_s + CROSSED_S
            self.get_logger().info("armed anew: this machine was too busy for the simulation")
        elif response is not None:
            self._crossing = None
            self.get_logger().warning(printable(f"not armed anew yet: {response.message}"))


def _refuse_robots(wanted: int, domain_id: int) -> None:
    """Raises ConfigError unless this process is in the domain `wanted` and sees this host alone."""
    discovery = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
    ways_out = [name for name in WAYS_OUT if name in os.environ]
    if wanted != domain_id or discovery != "LOCALHOST" or ways_out:
        found = [f"ROS_DOMAIN_ID={domain_id}", f"ROS_AUTOMATIC_DISCOVERY_RANGE={discovery}", *ways_out]
        raise ConfigError(
            f"rearmer: expected the parameter domain_id, the domain of sim.launch.py ({wanted}), and"
            f" ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, got {', '.join(found)}; it must reach no robot:"
            " leave it to sim.launch.py"
        )


def _use(node: Rearmer, end: process.EndRequest) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not end.wait(0):
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until a signal asks for its end; returns the process's exit code."""
    return process.run(Rearmer, _use, args)


if __name__ == "__main__":
    raise SystemExit(main())
