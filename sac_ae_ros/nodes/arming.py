"""Arming by hand, for machines without the `ros2` command: `sac-ae arm`, `disarm`, `state`; a policy node's client."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.exceptions import NameValidationException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from std_msgs.msg import String
from std_srvs.srv import Trigger

from sac_ae_ros.core.errors import ConfigError, RunError, printable, quote
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.graph_watch import DISCOVERY_S, KILLED_S
from sac_ae_ros.nodes.policy_state import LISTENS, parse_state

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TRIGGER = "std_srvs/srv/Trigger"
# A node that offers all of these is a policy node. Others, a drone's driver for one, must not be disarmed by `--all`.
OFFERED = ("arm", "disarm", "reload", "rollback")
REPEAT_S = 0.2  # a request to a node that does not know this one yet may be lost
LAST_WORD_S = 1.0
ANSWER_S = 3.0
CONFIRM_S = 2.0  # ~/state tells of an arming much sooner
DISARMED = "disarmed"  # what ~/disarm answers if the node was armed
REFUSED, NOT_DONE, INTERRUPTED = 1, 2, 130  # exit codes
STDOUT, STDERR = 1, 2


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
        self.end = end
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._timeout_s = timeout_s
        start_s = time.monotonic()
        self.until_s = start_s + timeout_s
        self.known_s = start_s + DISCOVERY_S  # by then every node is

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
            if self.end.wait(0):
                raise KeyboardInterrupt
            self._executor.spin_once(timeout_sec=min(left_s, 0.02))
        return True

    def found(self) -> list[str]:
        """The full names of all policy nodes that are known by now."""
        services = {name for name, types in self.node.get_service_names_and_types() if TRIGGER in types}
        names = sorted(name.removesuffix("/arm") for name in services if name.endswith("/arm"))
        policy_nodes = [name for name in names if all(f"{name}/{offered}" in services for offered in OFFERED)]
        return [name for name in policy_nodes if not _defect(name)]  # DDS without ROS allows any name

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
        """Waits until exactly that node is there, and as long as it takes to know of another.

        Raises:
            RunError: it is not, or several processes go by that name.
        """
        self.expect(name, ready)
        self.wait(lambda: self.others(name), self.known_s)
        others = self.others(name)
        if others:
            raise RunError(others)

    def others(self, name: str) -> str:
        """A complaint of other processes that go by that name, as far as they are known by now, or nothing."""
        offer, publish = self.node.count_services(f"{name}/arm"), self.node.count_publishers(f"{name}/state")
        if max(offer, publish) <= 1:
            return ""
        what = f"offers {name}/arm, found {offer}" if offer > 1 else f"publishes {name}/state, found {publish}"
        return (
            f"{name}: expected one node that {what}; end the others, or give each a name of its own (a process that was"
            f" killed counts for up to {KILLED_S:.0f} s)"
        )

    def ask_to_arm(self, name: str, client: Client) -> Trigger.Response:
        """The answer of a node to `~/arm`, once it has listened for others if it was started just now.

        Raises:
            RunError: there is none.
            KeyboardInterrupt: a signal came first.
        """
        listened_s = time.monotonic() + DISCOVERY_S + REPEAT_S
        told = False
        while True:
            future = client.call_async(Trigger.Request())
            if not self.wait(future.done, max(self.until_s, time.monotonic() + ANSWER_S)):
                raise RunError(f"{name}: no answer to ~/arm in time")
            answer = future.result()
            if answer.success or LISTENS not in answer.message or time.monotonic() > listened_s:
                return answer
            if not told:
                _complain(f"{name}: not yet, asking again: {answer.message}")
                told = True
            self.wait(lambda: False, time.monotonic() + REPEAT_S)

    def confirm(self, name: str, states: deque[str]) -> None:
        """Waits until `~/state`, too, says that the node is armed: any node may answer for it.

        Raises:
            RunError: it does not, or there are several nodes of that name.
        """

        def armed() -> bool:
            return bool(states) and bool(parse_state(name, states[-1], ["armed"])["armed"])

        self.wait(lambda: armed() or self.others(name), time.monotonic() + CONFIRM_S)
        others = self.others(name)
        if others:
            raise RunError(others)
        if not armed():
            said = "says that it is not" if states else "was not heard"
            raise RunError(f"{name}: expected it to be armed, as was answered, but {name}/state {said}")

    def disarm_soon(self, client: Client) -> None:
        """Takes back an arming: of two requests that wait for a node, disarming wins.

        Of several nodes one answers first: the others get the time to hear it as well.
        """
        future = client.call_async(Trigger.Request())
        until_s = time.monotonic() + LAST_WORD_S
        while time.monotonic() < until_s:
            if future.done() and self.node.count_services(client.srv_name) <= 1:
                break
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
        self._most = 0  # nodes that went by this name at a time
        self._crowded_s = 0.0  # when there were more than before

    def ask(self) -> bool:
        """Asks where it is due; returns whether there is an answer."""
        now_s = time.monotonic()
        count = self._node.count_services(f"{self.name}/disarm")
        if count > max(1, self._most):
            self._crowded_s = now_s
        self._most = max(count, self._most)
        if now_s >= self._next_s and self._client.service_is_ready() and (self.answer is None or self._most > 1):
            self._futures.append(self._client.call_async(Trigger.Request()))
            self._next_s, self.asked = now_s + REPEAT_S, True
        if self.answer is None:
            self.answer = next((future.result() for future in self._futures if future.done()), None)
        return self.answer is not None

    def sure_s(self, known_s: float, until_s: float) -> float:
        """Until when to look for others of this name, and to ask them.

        The node that was armed has answered, and nobody else was found: until `known_s`. Otherwise a node that is not
        found yet may be the one that drives: until both have passed.
        """
        stopped = self.answer is not None and self.answer.success and self.answer.message == DISARMED
        enough_s = known_s if stopped and self._most <= 1 else max(known_s, until_s)
        return max(enough_s, self._crowded_s + LAST_WORD_S)

    def tell(self) -> int:
        """Prints what came of it; the exit code."""
        if self.answer is not None:
            return _tell(self.name, self.answer)
        _complain(f"error: {self.name}: no answer to ~/disarm in time; use the robot's own emergency stop")
        return NOT_DONE

    def tell_others(self) -> int:
        """Complains if there were several nodes of this name; the exit code."""
        if self.answer is None or self._most <= 1:
            return 0
        _complain(
            f"error: {self.name}: {self._most} nodes have this name; all were asked, but the answer is of one (a"
            f" process that was killed counts for up to {KILLED_S:.0f} s)"
        )
        return NOT_DONE


def arm(name: str, timeout_s: float) -> int:
    """Arms the node of this name, and prints its answer; it is disarmed again unless all went well.

    A node that has just been started is asked again until it has listened for others, whatever `timeout_s` is.

    Args:
        name: of the policy node; relative to the root namespace unless it begins with a slash.
        timeout_s: how long it may take until it is found and has answered, s.

    Returns:
        0 armed, 1 refused, 2 not found, several of that name, no answer, an answer that `~/state` contradicts, or
        nobody could be told, 130 interrupted. After all but 0 this has armed nothing.

    Raises:
        ConfigError: no node can have this name.
    """
    full_name = _full(name)

    def use(operator: _Operator) -> int:
        states: deque[str] = deque(maxlen=1)
        policy = PolicyClient(operator.node, full_name, lambda message: states.append(message.data))
        operator.expect_one(full_name, policy.arm.service_is_ready)
        try:
            answer = operator.ask_to_arm(full_name, policy.arm)
            if answer.success:
                operator.confirm(full_name, states)
            code = _tell(full_name, answer)
            if code == 0 and not operator.end.delivered():
                raise RunError(f"{full_name}: it was armed, but stdout could not be written to")
            return code
        except RunError as error:
            operator.disarm_soon(policy.disarm)
            raise RunError(f"{error}; ~/disarm was sent after ~/arm") from error
        except KeyboardInterrupt:
            operator.disarm_soon(policy.disarm)
            raise

    return _run(use, timeout_s)


def disarm(name: str, timeout_s: float) -> int:
    """Disarms the node of this name as soon as it is found, and prints its answer; arguments and result as of `arm`.

    Then it looks on for others of this name, which are asked as well: for the time in which DDS shows every node if
    the node was armed, for all of `timeout_s` if it was not, since another may be the one that drives. Of several
    nodes only one answer is known: that is exit code 2.
    """
    full_name = _full(name)

    def use(operator: _Operator) -> int:
        disarming = _Disarming(operator.node, full_name)
        if not operator.wait(disarming.ask, operator.until_s) and not disarming.asked:
            operator.expect(full_name, lambda: disarming.asked, "; --all disarms all of them")
        code = disarming.tell()
        if disarming.answer is None:
            return code

        def left_s() -> float:
            return disarming.sure_s(operator.known_s, operator.until_s) - time.monotonic()

        if left_s() > 0:
            _complain(
                f"{full_name}: one node has answered; looking for other nodes of this name, for {left_s():.1f} s more"
            )
        operator.wait(lambda: disarming.ask() and left_s() <= 0, max(operator.known_s, operator.until_s) + LAST_WORD_S)
        return max(code, disarming.tell_others())

    return _run(use, timeout_s)


def disarm_all(timeout_s: float) -> int:
    """Disarms every policy node in this ROS domain that is found in this time, each at once; prints the answers.

    Once one is found, it looks on for as long as DDS may take to show the others, even if `timeout_s` is less.

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

        def sure_s() -> float:
            until_s = max(operator.known_s, operator.until_s)
            return max((each.sure_s(until_s, until_s) for each in disarmings.values()), default=operator.until_s)

        operator.wait(look, operator.until_s)
        while time.monotonic() < sure_s():
            operator.wait(look, sure_s())
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
        states: deque[str] = deque(maxlen=1)
        policy = PolicyClient(operator.node, full_name, lambda message: states.append(message.data))
        operator.expect_one(full_name, policy.arm.service_is_ready)
        if not operator.wait(lambda: states, max(operator.until_s, time.monotonic() + LAST_WORD_S)):
            raise RunError(f"{full_name}: expected {full_name}/state within {timeout_s:g} s, heard nothing")
        others = operator.others(full_name)
        if others:
            raise RunError(others)
        facts = parse_state(full_name, states[-1])
        if not (
            _write(STDOUT, json.dumps(facts) if as_json else render(full_name, facts)) and operator.end.delivered()
        ):
            raise RunError(f"{full_name}: its state is known, but stdout could not be written to")
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
    """The node's full name.

    Raises:
        ConfigError: no node can have it.
    """
    full_name = f"/{name.strip('/')}"
    defect = _defect(full_name)
    if defect:
        raise ConfigError(f"NODE: expected a node's full name such as /robot1/policy_node, got {quote(name)}: {defect}")
    return full_name


def _defect(full_name: str) -> str:
    """Why no node can have this name, or nothing."""
    namespace, _, node = full_name.rpartition("/")
    try:
        validate_node_name(node)
        validate_namespace(namespace or "/")
        validate_full_topic_name(f"{full_name}/disarm", is_service=True)
    except NameValidationException as error:
        return str(error).partition(":\n")[0]
    except TypeError:  # what is no text for rclpy
        return "it is not UTF-8"
    return ""


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
    _write(STDOUT if answer.success else STDERR, printable(f"{name}: {answer.message}"))
    return 0 if answer.success else REFUSED


def _complain(text: str) -> None:
    _write(STDERR, printable(text))


def _write(number: int, text: str) -> bool:
    """Writes lines to stdout or stderr; returns whether that succeeded: a robot is not kept waiting for a reader."""
    left = f"{text}\n".encode("utf-8", "backslashreplace")
    try:
        while left:
            left = left[os.write(number, left) :]
    except OSError:
        return False
    return True
