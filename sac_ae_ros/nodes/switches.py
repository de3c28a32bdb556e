"""Switches: `e_stop`, `enable`, `~/arm` and `~/disarm`, heard from the node's start on by a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from sac_ae_ros.core.command import Stop
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.drive import Drive
from sac_ae_ros.nodes.graph_watch import DISCOVERY_S, KILLED_S, GraphWatch, Seen
from sac_ae_ros.nodes.heartbeat import Heartbeat

BOOL = "std_msgs/msg/Bool"
BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
# Matches every publisher; what is lost comes again.
REPEATED = QoSProfile(depth=10, reliability=BEST_EFFORT)
# A pressed emergency stop may be said only once: heard whatever the publisher offers, with retries where it can
# have them, and from before this node's start where it keeps it.
SAID_ONCE = (
    QoSProfile(depth=100, reliability=RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    QoSProfile(depth=100, reliability=RELIABLE),
    QoSProfile(depth=100, reliability=BEST_EFFORT),
)
SETTLE_S = 0.25
AWAKE_EVERY_S = 0.1
PAUSE_S = 0.5  # what DDS loses in a shorter pause of this process was not seen to come late


class Switches:
    """A node beside policy_node, with an executor of its own; it lives as long."""

    def __init__(self, node: Node, arm: Callable[[], tuple[bool, str]], disarm: Callable[[], bool]) -> None:
        """Begins to listen on the topics and services as `node` has them remapped.

        `arm` returns whether it did, and what to answer; `disarm` returns whether the robot was armed.
        """
        self._log = node.get_logger()
        self.e_stop = Heartbeat(Stop.E_STOP, "the emergency stop", "is pressed", settle_s=SETTLE_S, presumed=True)
        self._drive: Drive | None = None
        self.defect = ""  # what ended the thread
        self._watches = {name: GraphWatch(node, name, BOOL, REPEATED) for name in ("e_stop", "enable")}
        self._seen: dict[str, Seen] = {}  # what `look` read last
        self._looking = threading.Lock()
        self._node = Node(
            f"{node.get_name()}_switches",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,  # they name policy_node
            enable_rosout=False,
            start_parameter_services=False,
        )
        # publishers that this one of several subscriptions does not match are no news
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        for qos in SAID_ONCE:
            topic = node.resolve_topic_name("e_stop")
            self._node.create_subscription(Bool, topic, self._on_e_stop, qos, event_callbacks=quiet)
        topic = node.resolve_topic_name("enable")
        self._node.create_subscription(Bool, topic, self._on_enable, REPEATED, event_callbacks=quiet)
        self._arm, self._disarm = arm, disarm
        # In this order: of two requests that wait, as after a pause, disarming is the last.
        self._node.create_service(Trigger, node.resolve_service_name("~/arm"), self._on_arm)
        self._node.create_service(Trigger, node.resolve_service_name("~/disarm"), self._on_disarm)
        # Others are looked for from now on, whatever the lifecycle state: DDS tells a process of all topics, also of
        # those that it neither hears nor publishes.
        self._awake_s = time.monotonic()
        self._listen_until_s = self._awake_s + DISCOVERY_S
        self._node.create_timer(AWAKE_EVERY_S, self._awake, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="switches", daemon=True)
        self._thread.start()

    def listening_s(self) -> float:
        """How much longer others, or what they have said, may not be known here, s: after a start or a pause.

        What was sent while the process was paused may be lost, and DDS sends it again up to some seconds later.
        """
        self._awake()
        return max(self._listen_until_s - time.monotonic(), 0.0)

    def connect(self, drive: Drive | None) -> None:
        """Lets `enable` switch this drive, or none."""
        self._drive = drive

    def close(self) -> None:
        """Hears nothing any more."""
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=1.0)
        self._node.destroy_node()

    def look(self, *, enable_required: bool) -> str:
        """Asks the graph; returns why the robot must not be armed, since a switch cannot be believed, or nothing.

        Stops the robot while a switch is not heard, or several nodes say whether a person enables it. An emergency
        stop that several nodes say can still be believed when it is pressed: it only bars arming.
        """
        with self._looking:  # of two threads that look, the later one has the last word
            names = ("e_stop", "enable") if enable_required else ("e_stop",)
            self._seen = {name: self._watches[name].look() for name in names}
            unheard = {name: _unheard(name, seen) for name, seen in self._seen.items()}
            doubts = {name: unheard[name] or _contradiction(name, seen) for name, seen in self._seen.items()}
            self.e_stop.doubt(unheard["e_stop"])
            drive = self._drive
            if drive is not None and enable_required:
                drive.doubt_enable(doubts["enable"])
        return next(filter(None, doubts.values()), "")

    def complaints(self, *, enable_required: bool, e_stop_required: bool) -> tuple[str, ...]:
        """What was wrong with those who publish there when `look` asked the graph last, in words."""
        required = {"e_stop": e_stop_required, "enable": enable_required}
        return tuple(
            text for name, seen in self._seen.items() if required[name] or seen.publishers for text in seen.complaints
        )

    def _awake(self) -> None:
        """Notes that this process runs, and begins to listen anew if it did not for a while."""
        now_s = time.monotonic()
        if now_s - self._awake_s > PAUSE_S:
            self._listen_until_s = now_s + DISCOVERY_S
        self._awake_s = now_s

    def _on_e_stop(self, message: Bool) -> None:
        self.e_stop.heard(not message.data)

    def _on_arm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._arm()
        return response

    def _on_disarm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was_armed = self._disarm()
        response.success, response.message = True, "disarmed" if was_armed else "was not armed"
        return response

    def _on_enable(self, message: Bool) -> None:
        drive = self._drive
        outcome = drive.heard_enable(message.data) if drive is not None else ""
        if outcome:
            self._log.info(outcome)

    def _spin(self) -> None:
        defect = process.spin(self._executor)
        if defect:
            self.e_stop.heard(False)  # nobody hears it any more
            self.defect = defect


def _unheard(name: str, seen: Seen) -> str:
    """Names the nodes that publish what cannot be heard as this switch."""
    others = [each for each in seen.publishers if each.type != BOOL]
    if not others:
        return ""
    listed = ", ".join(f"{each.node} ({each.type})" for each in others)
    return f"expected only publishers of {BOOL} on {name}, got {listed}, which nobody hears; remap that topic"


def _contradiction(name: str, seen: Seen) -> str:
    """Names the nodes that may contradict each other."""
    publishers = [each for each in seen.publishers if each.type == BOOL]
    nodes = sorted({(each.node, each.participant) for each in publishers})
    if len(nodes) < 2:
        return ""
    listed = ", ".join(node for node, _ in nodes)
    return (
        f"expected one node that publishes {name}, got {listed}; let one node say it"
        f" (a node that was killed counts for up to {KILLED_S:.0f} s)"
    )
