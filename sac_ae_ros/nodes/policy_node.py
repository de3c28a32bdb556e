"""policy_node: a lifecycle node that turns camera images into commands; docs/ros.md has its interface."""

from __future__ import annotations

import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from sac_ae_ros.core.command import GateState
from sac_ae_ros.core.errors import RunError, SacAeError
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.convert import to_image
from sac_ae_ros.nodes.drive import Drive, Sink
from sac_ae_ros.nodes.loaded_policy import LoadedPolicy
from sac_ae_ros.nodes.params import PolicyParams, declare, read

NEWEST_FRAME = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LOG_EVERY_S = 2.0
LOOK_EVERY_S = 0.05

Transition = Callable[["PolicyNode", LifecycleState], None]


def _transition(step: Transition) -> Callable[[PolicyNode, LifecycleState], TransitionCallbackReturn]:
    """rclpy swallows what a transition raises: log it in one line and fail the transition instead."""

    @functools.wraps(step)
    def guarded(node: PolicyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            step(node, state)
            return TransitionCallbackReturn.SUCCESS
        except SacAeError as error:
            reason = str(error)
        except Exception:
            reason = traceback.format_exc()
        node.get_logger().error(f"{step.__name__.removeprefix('on_')} failed: {reason}")
        node.end_drive()
        return TransitionCallbackReturn.FAILURE

    return guarded


class PolicyNode(LifecycleNode):
    """Configure loads the policy, activate starts inference, `~/arm` lets commands pass."""

    def __init__(self) -> None:
        """Declares parameters; everything else waits for configure."""
        super().__init__("policy_node")
        self._loaded: LoadedPolicy | None = None
        self._drive: Drive | None = None
        self._subscriptions_of_drive: list[Any] = []
        self._told = GateState(False, None, frozenset())
        self._ending = False
        declare(self, PolicyParams, self._locked)
        change_state = self._service_change_state
        change_state.callback = functools.partial(self._on_change_state, change_state.callback)
        self.create_service(Trigger, "~/arm", self._on_arm)
        self.create_service(Trigger, "~/disarm", self._on_disarm)

    @_transition
    def on_configure(self, _: LifecycleState) -> None:
        """Loads and checks the policy, the limits and the command mapping."""
        self._loaded = LoadedPolicy(self, read(self, PolicyParams))

    @_transition
    def on_activate(self, _: LifecycleState) -> None:
        """Starts inference; arms only if the parameter arm_on_activate says so."""
        loaded = self._ready()
        params = loaded.params
        drive = self._drive = Drive(loaded.policy, params, loaded.gate(), Sink(loaded.send, loaded.stop))
        if self._ending:  # asked only now, so that either this or end_for_good sees the other
            raise RunError("expected a node that goes on, but this one is about to end")
        if params.arm_on_activate:
            drive.arm()
        # before the images, so that an episode's end is heard before the next episode's first frame
        self._subscriptions_of_drive = [
            self.create_subscription(Bool, "episode_end", self._on_episode_end, 10),
            self._subscribe_images(params.image.transport),
        ]
        self.get_logger().info("active and " + ("armed" if params.arm_on_activate else "not armed: call ~/arm"))

    @_transition
    def on_deactivate(self, _: LifecycleState) -> None:
        """Ends inference; stops are sent first if the node was armed."""
        self.end_drive()
        self._unsubscribe()

    @_transition
    def on_cleanup(self, _: LifecycleState) -> None:
        """Forgets the policy."""
        self._forget()

    @_transition
    def on_shutdown(self, _: LifecycleState) -> None:
        """Ends whatever runs."""
        self._forget()

    def end_drive(self) -> None:
        """Disarms, sends the last stops and waits for their receipt; safe from any thread, even twice."""
        drive, self._drive = self._drive, None
        if drive is None or self._loaded is None:
            return
        drive.end()
        self._loaded.wait_acknowledged()

    def end_for_good(self) -> None:
        """Ends the drive as end_drive does, and lets no other begin."""
        self._ending = True
        self.end_drive()

    def tell(self) -> None:
        """Logs what has changed; called often, from a thread that inference cannot hang."""
        drive = self._drive
        state = drive.state if drive else GateState(False, None, frozenset())
        if state.stop is not None and state.stop is not self._told.stop:
            self.get_logger().error(f"stopped: {state.stop.value}; call ~/arm once the cause has ended")
        if state.armed != self._told.armed:
            self.get_logger().info("armed" if state.armed else "disarmed")
        self._told = state
        if drive and drive.trouble:
            self.get_logger().error(f"a stop could not be sent: {drive.trouble}", throttle_duration_sec=LOG_EVERY_S)

    def _forget(self) -> None:
        self.end_drive()
        self._unsubscribe()
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _ready(self) -> LoadedPolicy:
        assert self._loaded is not None, "the lifecycle lets only a configured node be activated"
        return self._loaded

    def _locked(self) -> str | None:
        if self._loaded is None:
            return None
        return "applies when the node is configured: deactivate it and clean it up first"

    def _subscribe_images(self, transport: str) -> Any:
        if transport == "raw":
            return self.create_subscription(Image, "image", self._on_image, NEWEST_FRAME)
        topic = self.resolve_topic_name("image") + "/compressed"  # remapping `image` moves it along
        return self.create_subscription(CompressedImage, topic, self._on_image, NEWEST_FRAME)

    def _unsubscribe(self) -> None:
        for subscription in self._subscriptions_of_drive:
            self.destroy_subscription(subscription)
        self._subscriptions_of_drive = []

    def _on_image(self, message: Image | CompressedImage) -> None:
        drive, loaded = self._drive, self._loaded
        if drive is None or loaded is None:
            return
        try:
            step = drive.process(to_image(message), loaded.stamp_ns(message.header))
        except SacAeError as error:
            self.get_logger().warning(f"frame not used: {error}", throttle_duration_sec=LOG_EVERY_S)
            return
        if step is not None and step.sent and step.values is not None:
            loaded.publish_executed(message.header, step.values)

    def _on_episode_end(self, _: Bool) -> None:
        if self._drive is not None:
            self._drive.reset()

    def _on_change_state(
        self, change: Callable[..., Any], request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Refuses what the state does not allow; rclpy itself would raise and end the node."""
        possible = {number: label for number, label, *_ in self._state_machine.available_transitions}
        asked = request.transition
        if asked.label in possible.values() if asked.label else asked.id in possible:
            return change(request, response)
        name, state = asked.label or asked.id, self._state_machine.current_state[1]
        expected = ", ".join(f"{label} ({number})" for number, label in possible.items())
        self.get_logger().warning(f"transition {name} refused: from {state} expected one of {expected}")
        response.success = False
        return response

    def _on_arm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        drive = self._drive
        if drive is None:
            response.message = "arm refused: expected the node to be active, but it is not; activate it first"
            return response
        try:
            drive.arm()
        except SacAeError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, "armed"
        return response

    def _on_disarm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was_armed = self._drive.disarm() if self._drive is not None else False
        response.success, response.message = True, "disarmed" if was_armed else "was not armed"
        return response


def _spin(executor: SingleThreadedExecutor, node: PolicyNode, end: process.EndRequest) -> None:
    code = 1
    try:
        executor.spin()
        code = 0
    except Exception:
        node.get_logger().fatal(f"a defect ends this node: {traceback.format_exc()}")
    finally:
        end.give(code)


def _use(node: PolicyNode, end: process.EndRequest) -> int:
    """Spins in a thread of its own, so that signals are taken even while inference hangs."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor, node, end), name="spin", daemon=True)
    spinning.start()
    try:
        while not end.wait(LOOK_EVERY_S):
            node.tell()
    finally:
        node.end_for_good()
    executor.shutdown(timeout_sec=1.0)
    spinning.join(timeout=1.0)
    node.end_drive()  # of an activate that was under way
    if spinning.is_alive():
        node.get_logger().error("inference hangs: ending without it")
        time.sleep(0.1)
        os._exit(1)
    return end.code


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until a signal asks for its end; returns the process's exit code."""
    return process.run(PolicyNode, _use, args)


if __name__ == "__main__":
    raise SystemExit(main())
