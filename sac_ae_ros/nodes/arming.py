"""Arming by hand, for machines without the `ros2` command: `sac-ae arm`, `disarm`, `state`; a policy node's client."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from sac_ae_ros.core.errors import RunError, printable
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.graph_watch import KILLED_S

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TRIGGER = "std_srvs/srv/Trigger"
# A node that offers all of these is a policy node. Others, a drone's driver for one, must not be disarmed by `--all`.
OFFERED = ("arm", "disarm", "reload", "rollback")
DISCOVERY_S = 2.0  # so long it may take until every node is known, others of the same name included
REPEAT_S = 0.2  # a request to a node that does not know this one yet may be lost
LAST_WORD_S = 1.0
REFUSED, NOT_DONE, INTERRUPTED = 1, 2, 130  # exit codes


class PolicyClient:
    """The services and the state of one policy node."""

    def __init__(self, node: Node, name: str, on_state: Callable[[String], None] | None = None) -> None:
        """Begins to look for them.

        Args:
            node: the one that calls.
            name: of the policy node, in full or relative to the namespace of `node`.
            on_state: gets its `~/state`, the newest at once and each that follows.
        """
        self.arm: Client = node.create_client(Trigger, f"{name}/arm")
        self.disarm: Client = node.create_client(Trigger, f"{name}/disarm")
        if on_state is not None:
            node.create_subscription(String, f"{name}/state", on_state, LATCHED)


class _Operator:
    """Finds policy nodes and asks them, within a time that is counted from the start."""

    def __init__(self, node: Node, end: process.EndRequest, timeout_s: float) -> None:
        self.node = node
        self._end = end
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._timeout_s = timeout_s
        start_s = time.monotonic()
        self.until_s = start_s + timeout_s
        self.known_s = start_s + min(DISCOVERY_S, timeout_s)  # by then every node is

    def close(self) -> None:
        self._executor.shutdown()

    def wait(self, holds: Callable[[], Any], until_s: float) -> bool:
        """Waits for it; returns whether it came.

        Raises:
            KeyboardInterrupt: a signal came first.
        """
        while not holds():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            if self._end.wait(0):
                raise KeyboardInterrupt
            self._executor.spin_once(timeout_sec=min(left_s, 0.02))
        return True

    def found(self) -> list[str]:
        """The full names of all policy nodes that are known by now."""
        services = {name for name, types in self.node.get_service_names_and_types() if TRIGGER in types}
        names = sorted(name.removesuffix("/arm") for name in services if name.endswith("/arm"))
        return [name for name in names if all(f"{name}/{offered}" in services for offered in OFFERED)]

    def expect(self, name: str, ready: Callable[[], bool], hint: str = "") -> None:
        """Waits until that node is there.

        Raises:
            RunError: it is not; the line ends with `hint`.
        """
        if self.wait(ready, self.until_s):
            return
        others = ", ".join(printable(each) for each in self.found()) or "no policy node at all"
        raise RunError(
            f"{name}: expected a node of this name that offers ~/arm and ~/disarm within {self._timeout_s:g} s, found"
            f" {others}; give its full name, and its ROS_DOMAIN_ID{hint}"
        )

    def expect_one(self, name: str, ready: Callable[[], bool]) -> None:
        """Waits until exactly that node is there.

        Raises:
            RunError: it is not, or several processes go by that name.
        """
        self.expect(name, ready)
        self.wait(lambda: False, self.known_s)
        count = self.node.count_services(f"{name}/arm")
        if count > 1:
            raise RunError(
                f"{name}: expected one node that offers {name}/arm, found {count}; end the others, or give each a name"
                f" of its own (a process that was killed counts for up to {KILLED_S:.0f} s)"
            )

    def disarm_soon(self, client: Client) -> None:
        """Takes back an arming that was not answered: of two requests that wait for a node, disarming wins."""
        future = client.call_async(Trigger.Request())
        until_s = time.monotonic() + LAST_WORD_S
        while not future.done() and time.monotonic() < until_s:
            self._executor.spin_once(timeout_sec=0.02)


class _Disarming:
    """Asks the nodes of one name to disarm, again and again, until one has answered; the others hear it as well."""

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        self.answer: Trigger.Response | None = None
        self.asked = False
        self._node = node
        self._client = PolicyClient(node, name).disarm
        self._futures: list[Future] = []
        self._next_s = 0.0

    def count(self) -> int:
        """How many nodes go by this name."""
        return int(self._node.count_services(f"{self.name}/disarm"))

    def ask(self) -> bool:
        """Asks where it is due; returns whether there is an answer."""
        now_s = time.monotonic()
        if now_s >= self._next_s and self._client.service_is_ready() and (self.answer is None or self.count() > 1):
            self._futures.append(self._client.call_async(Trigger.Request()))
            self._next_s, self.asked = now_s + REPEAT_S, True
        self.answer = next((future.result() for future in self._futures if future.done()), None)
        return self.answer is not None

    def tell(self) -> int:
        """Prints what came of it; the exit code."""
        if self.answer is not None:
            return _tell(self.name, self.answer)
        _complain(f"error: {self.name}: no answer to ~/disarm in time; use the robot's own emergency stop")
        return NOT_DONE

    def tell_others(self) -> int:
        """Complains if there were several nodes of this name; the exit code."""
        count = self.count()
        if self.answer is None or count <= 1:
            return 0
        _complain(
            f"error: {self.name}: {count} nodes have this name; all were asked, but the answer is of one (a process"
            f" that was killed counts for up to {KILLED_S:.0f} s)"
        )
        return NOT_DONE


def arm(name: str, timeout_s: float) -> int:
    """Arms the node of this name, and prints its answer; one that does not answer is disarmed.

    Args:
        name: of the policy node; relative to the root namespace unless it begins with a slash.
        timeout_s: how long it may take, s.

    Returns:
        0 armed, 1 refused, 2 not found, several of that name, or no answer, 130 interrupted.
    """
    full_name = _full(name)

    def use(operator: _Operator) -> int:
        policy = PolicyClient(operator.node, full_name)
        operator.expect_one(full_name, policy.arm.service_is_ready)
        future = policy.arm.call_async(Trigger.Request())
        try:
            answered = operator.wait(future.done, max(operator.until_s, time.monotonic() + LAST_WORD_S))
        except KeyboardInterrupt:
            operator.disarm_soon(policy.disarm)
            raise
        if not answered:
            operator.disarm_soon(policy.disarm)
            raise RunError(f"{full_name}: no answer within {timeout_s:g} s; ~/disarm was sent after ~/arm")
        return _tell(full_name, future.result())

    return _run(use, timeout_s)


def disarm(name: str, timeout_s: float) -> int:
    """Disarms the node of this name as soon as it is found, and prints its answer; arguments and result as of `arm`.

    Of several nodes of this name all are asked, but only one answer is known: that is exit code 2.
    """
    full_name = _full(name)

    def use(operator: _Operator) -> int:
        disarming = _Disarming(operator.node, full_name)
        if not operator.wait(disarming.ask, operator.until_s) and not disarming.asked:
            operator.expect(full_name, lambda: disarming.asked, "; --all disarms all of them")
        code = disarming.tell()
        operator.wait(lambda: disarming.ask() and False, operator.known_s)
        return max(code, disarming.tell_others())

    return _run(use, timeout_s)


def disarm_all(timeout_s: float) -> int:
    """Disarms every policy node in this ROS domain that is found in this time, each at once; prints the answers.

    Returns:
        0 all that were found are disarmed, 1 one refused, 2 one did not answer, or none was found, 130 interrupted.
    """

    def use(operator: _Operator) -> int:
        disarmings: dict[str, _Disarming] = {}
        codes: dict[str, int] = {}

        def look() -> bool:
            for name in operator.found():
                if name not in disarmings:
                    disarmings[name] = _Disarming(operator.node, name)
            for name, disarming in disarmings.items():
                if disarming.ask() and name not in codes:
                    codes[name] = disarming.tell()
            return False  # another node may show as long as there is time

        operator.wait(look, operator.until_s)
        if not disarmings:
            raise RunError(
                f"disarm --all: expected policy nodes, found none within {timeout_s:g} s; they may be in another"
                " ROS_DOMAIN_ID"
            )
        unanswered = [disarming.tell() for name, disarming in disarmings.items() if name not in codes]
        return max(*codes.values(), *unanswered, *(each.tell_others() for each in disarmings.values()), 0)

    return _run(use, timeout_s)


def state(name: str, timeout_s: float, *, as_json: bool) -> int:
    """Prints `~/state` of the node of this name, for people or as JSON; arguments and result as of `arm`."""
    full_name = _full(name)

    def use(operator: _Operator) -> int:
        heard: list[str] = []
        policy = PolicyClient(operator.node, full_name, lambda message: heard.append(message.data))
        operator.expect_one(full_name, policy.arm.service_is_ready)
        if not operator.wait(lambda: heard, max(operator.until_s, time.monotonic() + LAST_WORD_S)):
            raise RunError(f"{full_name}: expected {full_name}/state within {timeout_s:g} s, heard nothing")
        try:
            facts = json.loads(heard[-1])
            text = json.dumps(facts, allow_nan=False) if as_json else render(full_name, facts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{full_name}/state: expected a policy node's JSON, got {error}") from error
        print(text)
        return 0

    return _run(use, timeout_s)


def render(name: str, facts: dict[str, Any]) -> str:
    """`~/state` of the node `name`, in lines for people."""
    policy, reload = facts["policy"], facts["reload"]
    lasting, barred = facts["lasting"], facts["barred"]
    rows = {
        "node": f"{name}, {facts['lifecycle']}, output {facts['output'] or 'not configured'}",
        "armed": ("yes, but stopped" if facts["stop"] else "yes") if facts["armed"] else "no",
        "stopped": f"{facts['stop']}: {facts['detail']}" if facts["stop"] else "",
        "lasting": ": ".join(filter(None, [", ".join(facts["causes"]), "" if lasting in barred else lasting])),
        "barred": barred,
        "unheard": facts["unheard"],
        "needs arm": ", ".join(facts["needs_arm"]),
        "novelty": facts["novelty"],
        "policy": f"{policy['name']} {policy['version']}, sha256 {policy['sha256'][:16]}" if policy else "none loaded",
        "newer": f"version {facts['newer']} in policy_dir" if facts["newer"] else "",
        "reload": reload["text"] if reload else "",
    }
    return "\n".join(f"{title:<10} {printable(text)}" for title, text in rows.items() if text)


def _full(name: str) -> str:
    return f"/{name.strip('/')}"


def _run(use: Callable[[_Operator], int], timeout_s: float) -> int:
    """Runs `use` in a node that offers nothing; tells its errors in one line."""

    def make(_: object) -> Node:
        name = f"sac_ae_operator_{os.getpid()}"
        return Node(name, use_global_arguments=False, enable_rosout=False, start_parameter_services=False)

    def guarded(node: Node, end: process.EndRequest) -> int:
        operator = _Operator(node, end, timeout_s)
        try:
            return use(operator)
        except RunError as error:
            _complain(f"error: {error}")
            return NOT_DONE
        except KeyboardInterrupt:
            _complain("interrupted")
            return INTERRUPTED
        finally:
            operator.close()

    return process.run(make, guarded, [])


def _tell(name: str, answer: Any) -> int:
    """Prints a node's answer; the exit code."""
    line = printable(f"{name}: {answer.message}")
    print(line, file=sys.stdout if answer.success else sys.stderr, flush=True)
    return 0 if answer.success else REFUSED


def _complain(text: str) -> None:
    print(printable(text), file=sys.stderr)
