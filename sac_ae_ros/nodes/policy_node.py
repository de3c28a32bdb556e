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
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpHandle, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import RunError, SacAeError, quote
from sac_ae_ros.core.image import ENCODINGS
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.bridge import CvBridge
from sac_ae_ros.nodes.clock_watch import ClockWatch
from sac_ae_ros.nodes.convert import to_image, to_ns
from sac_ae_ros.nodes.drive import NOT_ACTIVE, REFUSED, Drive
from sac_ae_ros.nodes.graph_watch import Seen
from sac_ae_ros.nodes.inputs import Inputs, missing_images
from sac_ae_ros.nodes.loaded_policy import LoadedPolicy
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.policy_params import PolicyParams
from sac_ae_ros.nodes.reloader import Reloader, answer
from sac_ae_ros.nodes.reporter import Parts, Reporter
from sac_ae_ros.nodes.rivals import rival_clocks
from sac_ae_ros.nodes.switches import Switches

LOG_EVERY_S = 2.0
LOOK_EVERY_S = 0.05
GRAPH_EVERY_S = 1.0
MANAGED_WITHIN_S = 5.0  # a launch file or a lifecycle manager configures the node so soon after its start
NO_POLICY_DIR = "expected the parameter policy_dir, a folder of policy versions, got none; launch the node with it"

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
        node.give_up(step.__name__)
        return TransitionCallbackReturn.FAILURE

    return guarded


class PolicyNode(LifecycleNode):
    """Configure loads the policy, activate starts inference, `~/arm` lets commands pass."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Declares parameters; everything else waits for configure. `arguments`: the process's command line."""
        super().__init__("policy_node")
        self._loaded: LoadedPolicy | None = None
        self._reloader: Reloader | None = None
        self._drive: Drive | None = None
        self._inputs: Inputs | None = None
        self._clock_watch: ClockWatch | None = None
        self._clock_back: JumpHandle | None = None
        self._ending = False
        self._end_lock = threading.Lock()
        self._idle_lock = threading.Lock()  # between an activation and a version that takes over without one
        declare(self, PolicyParams, self._locked, arguments)
        self._switches = Switches(self, self._arm, self._disarm)
        self._keeps_disarmed = False  # disarmed while inactive: the next activation does not arm by itself
        self._graph_s = 0.0  # when it was looked at last
        self._hint_s: float | None = None  # when to say that nobody configures it
        self._commands: Seen | None = None  # who is on the topic of commands, as looked at last
        self._rivals = ""
        self._clocks = ""  # that several nodes publish /clock
        self._obstacle = ""  # to arming, in the graph
        self._held: frozenset[Stop] = frozenset()  # what only ~/arm clears, from one activation to the next
        self._reporter = Reporter(self, read(self, PolicyParams).hardware_id)
        self._bridge = CvBridge()
        change_state = self._service_change_state
        change_state.callback = functools.partial(self._on_change_state, change_state.callback)
        # a group of its own: nothing else of the same group is called while it awaits something
        apart = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reload", self._on_reload, callback_group=apart)
        self.create_service(Trigger, "~/rollback", self._on_rollback)

    @_transition
    def on_configure(self, _: LifecycleState) -> None:
        """Loads and checks the policy, the limits and the command mapping."""
        params = read(self, PolicyParams)
        self._loaded = LoadedPolicy(self, params)
        self._commands, self._graph_s = None, 0.0
        if params.policy_dir:
            self._reloader = Reloader(self, self._loaded, self._swap_if_idle)

    @_transition
    def on_activate(self, _: LifecycleState) -> None:
        """Starts inference; with arm_on_activate a used frame arms."""
        loaded = self._ready()
        with self._idle_lock:
            switches = self._switches
            drive = loaded.drive(switches.e_stop, self._find_obstacle, self._held, switches.listening_s)
            self._drive = drive
            self._graph_s = 0.0
            if self._keeps_disarmed:
                drive.disarm()
            self._keeps_disarmed = False
        if self._ending:  # asked only now, so that either this or end_for_good sees the other
            raise RunError("expected a node that goes on, but this one is about to end")
        self._clock_watch = ClockWatch(
            simulated=self.get_clock().ros_time_is_active,  # type: ignore[attr-defined]
            max_jump_s=loaded.params.max_clock_jump_s,
            pause_s=drive.timeout_s / 2,
        )
        # asked of every /clock, since a look now and then misses what goes back and forth
        back_s = loaded.params.max_clock_back_s or drive.period_s
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-back_s), on_clock_change=False)
        self._clock_back = self.get_clock().create_jump_callback(
            threshold, post_callback=lambda jump: drive.clock_jumped(jump.delta.nanoseconds * 1e-9)
        )
        self._inputs = Inputs(self, loaded, drive, self._on_image, self._on_episode_end)
        self._switches.connect(drive)
        commands = loaded.params.output == "command"
        where = "" if commands else f"; commands go to {loaded.command_topic} only"
        way = "call ~/arm, or release and press enable" if loaded.params.enable_required else "call ~/arm"
        left_s = drive.listening_s
        soon, later = (f", in {left_s:.1f} s", f" after {left_s:.1f} s") if left_s else ("", "")
        armed = f"arms at the first frame{later}" if drive.arms_itself else f"not armed: {way}{soon}"
        self.get_logger().info(f"active and {armed}{where}")

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

    def autostart(self) -> bool:
        """Configures and activates if the parameter autostart says so; returns whether nothing failed."""
        if not read(self, PolicyParams).autostart:
            self._hint_s = time.monotonic() + MANAGED_WITHIN_S
            return True
        steps = (self.trigger_configure, self.trigger_activate)
        return all(step() is TransitionCallbackReturn.SUCCESS for step in steps)

    def end_drive(self) -> None:
        """Disarms, sends the last stops and waits for their receipt; safe from any thread, even twice."""
        with self._end_lock:  # whoever comes second waits until the last stops are out
            drive, loaded, self._drive = self._drive, self._loaded, None
            if drive is None or loaded is None:
                return
            self._switches.connect(None)
            drive.end()
            self._held = drive.state.held
            loaded.wait_acknowledged()

    def give_up(self, transition: str) -> None:
        """Takes back what a transition that failed has made."""
        if transition == "on_configure":
            self._forget()
        else:
            self.end_drive()
            self._unsubscribe()

    def end_for_good(self) -> None:
        """Ends the drive as end_drive does, and lets no other begin."""
        self._ending = True
        self.end_drive()

    def give_up_reload(self) -> bool:
        """Ends a reload that is under way; returns whether it ended, which one that hangs in inference does not."""
        return self._reloader is None or self._reloader.swap.close()

    def destroy_node(self) -> None:
        """Ends the node and the one beside it that hears the switches."""
        self._switches.close()
        super().destroy_node()

    def tell(self) -> None:
        """Looks at the clock and reports; called often, from a thread that inference cannot hang."""
        if self._switches.defect:
            raise RuntimeError(f"nobody hears e_stop any more: {self._switches.defect}")
        drive, clock_watch, loaded = self._drive, self._clock_watch, self._loaded
        if drive is not None and clock_watch is not None:
            self._look_at_clock(drive, clock_watch)
        if loaded is not None and time.monotonic() - self._graph_s > GRAPH_EVERY_S:
            self._look_at_graph(loaded, drive)
        if drive is None:
            self._rivals = self._clocks = self._obstacle = ""
        lifecycle = self._state_machine.current_state[1]
        self._hint(lifecycle)
        self._reporter.tell(
            Parts(
                lifecycle=lifecycle,
                loaded=loaded,
                commands=self._commands if loaded is not None else None,
                drive=drive,
                inputs=self._inputs,
                reloader=self._reloader,
                switches=self._switches,
                rivals=self._rivals,
                clocks=self._clocks,
                obstacle=self._obstacle,
                held=self._held,
            )
        )

    def _hint(self, lifecycle: str) -> None:
        """Says what to do where nobody configures the node, once."""
        if self._hint_s is None:
            return
        if lifecycle != "unconfigured":
            self._hint_s = None
        elif time.monotonic() > self._hint_s:
            self._hint_s = None
            self.get_logger().info("unconfigured: configure and activate it, or start it with -p autostart:=true")

    def _look_at_graph(self, loaded: LoadedPolicy, drive: Drive | None) -> None:
        """Looks for what the graph alone tells: switches that cannot be believed, and others that command the robot."""
        self._graph_s = time.monotonic()
        self._commands = loaded.command_watch.look()
        if drive is None:
            return
        doubts = self._switches.look(enable_required=loaded.params.enable_required)
        rivals, clocks = loaded.rivals.look(self._commands.publishers), rival_clocks(self)
        for found, told in ((rivals, self._rivals), (clocks, self._clocks)):
            if found and found != told:
                self.get_logger().warning(found)
        self._rivals, self._clocks, self._obstacle = rivals, clocks, doubts or rivals or clocks
        if loaded.params.command.other_publishers == "stop":
            drive.rivals.doubt(self._rivals)

    def _look_at_clock(self, drive: Drive, watch: ClockWatch) -> None:
        now_s = time.monotonic()
        if drive.working_s > LOOK_EVERY_S:  # nobody hears /clock meanwhile
            watch.skip(now_s)
            return
        trouble = watch.look(self.get_clock().now().nanoseconds * 1e-9, now_s)
        if trouble.jumped_s:
            drive.clock_jumped(trouble.jumped_s)
        drive.clock_paused(trouble.paused_s)

    def _forget(self) -> None:
        self.end_drive()
        self._unsubscribe()
        if self._reloader is not None:
            self._reloader.close()
            self._reloader = None
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

    def _unsubscribe(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self._clock_back is not None:
            self._clock_back.unregister()
        self._inputs = self._clock_watch = self._clock_back = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        drive, loaded = self._drive, self._loaded
        if drive is None or loaded is None:
            return
        drive.input.received(time.monotonic(), to_ns(message.header.stamp) if loaded.dated_by_header else None)
        if self._reloader is not None and self._reloader.at_next_frame:
            self._swap(loaded, drive)
        try:
            stamp_ns = loaded.stamp_ns(message.header)
            step = drive.process(to_image(self._known(message)), stamp_ns)
        except SacAeError as error:
            drive.refuse(error)
            self.get_logger().warning(f"frame not used: {error}", throttle_duration_sec=LOG_EVERY_S)
            return
        if step is not None:
            drive.input.used(time.monotonic(), loaded.age_s(stamp_ns), stamp_ns)
            if self._inputs is not None:
                self._inputs.judge_image(step.complaints)
            loaded.publish(step, message.header)

    def _known(self, message: Image | CompressedImage) -> Image | CompressedImage:
        """An image that core can decode, by way of cv_bridge if need be."""
        strange = isinstance(message, Image) and message.encoding not in ENCODINGS
        return self._bridge.to_rgb8(message) if strange else message

    def _on_episode_end(self, _: Bool) -> None:
        drive, loaded = self._drive, self._loaded
        if drive is not None and loaded is not None:
            self._swap(loaded, drive)
            drive.reset()

    def _swap(self, loaded: LoadedPolicy, drive: Drive | None) -> None:
        """Lets a checked version take over; called between two frames only."""
        policy = self._reloader.swap.take() if self._reloader is not None else None
        if policy is None:
            return
        loaded.policy = policy
        if drive is not None:
            drive.swap(policy)
        spec = policy.spec
        self.get_logger().info(f"now running policy {spec.name} {spec.version} ({policy.sha256[:12]})")

    def _swap_if_idle(self) -> None:
        """Without an activation no frame comes that could do it."""
        with self._idle_lock:
            loaded = self._loaded
            if self._drive is None and loaded is not None:
                self._swap(loaded, None)

    def _on_change_state(
        self, change: Callable[..., Any], request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Refuses what the state does not allow; rclpy itself would raise and end the node."""
        possible = {number: label for number, label, *_ in self._state_machine.available_transitions}
        asked = request.transition
        if asked.label in possible.values() if asked.label else asked.id in possible:
            return change(request, response)
        name, state = quote(asked.label) if asked.label else asked.id, self._state_machine.current_state[1]
        expected = ", ".join(f"{label} ({number})" for number, label in possible.items())
        self.get_logger().warning(f"transition {name} refused: from {state} expected one of {expected}")
        response.success = False
        return response

    def _find_obstacle(self) -> str:
        """Why the robot must not be armed, as the graph has it at this moment."""
        loaded = self._loaded
        if loaded is None:
            return ""
        doubts = self._switches.look(enable_required=loaded.params.enable_required)
        return doubts or loaded.rivals.look(loaded.command_watch.look().publishers) or rival_clocks(self)

    def _disarm(self) -> bool:
        with self._idle_lock:  # an activation either sees this, or has made a drive to disarm
            drive = self._drive
            if drive is None:
                self._keeps_disarmed = True
                return False
        return drive.disarm()

    def _arm(self) -> tuple[bool, str]:
        """Arms; returns whether it did, and what to answer: why not, or what keeps the commands from the robot."""
        drive, loaded = self._drive, self._loaded
        if drive is None or loaded is None:
            return False, f"{REFUSED}{NOT_ACTIVE}"
        try:
            drive.arm()
        except SacAeError as error:
            inputs = self._inputs
            missing = () if inputs is None else missing_images(drive.state.causes, inputs.image_watch.look())
            return False, "; ".join([str(error), *missing])
        return True, "; ".join(filter(None, ["armed", loaded.unheard(loaded.command_watch.look())]))

    async def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._reloader is None:
            response.message = f"reload refused: {NO_POLICY_DIR}"
            return response
        return answer(response, await self._reloader.reload())  # type: ignore[no-any-return]

    def _on_rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._reloader is None:
            response.message = f"rollback refused: {NO_POLICY_DIR}"
            return response
        return answer(response, self._reloader.rollback())  # type: ignore[no-any-return]


def _spin(executor: SingleThreadedExecutor, node: PolicyNode, end: process.EndRequest) -> None:
    code = 1
    try:
        defect = process.spin(executor)
        if defect:
            node.get_logger().fatal(f"a defect ends this node: {defect}")
        else:
            code = 0
    finally:
        end.give(code)


def _use(node: PolicyNode, end: process.EndRequest) -> int:
    """Spins in a thread of its own, so that signals are taken even while inference hangs."""
    if not node.autostart():
        return process.COULD_NOT_START
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
    if spinning.is_alive() or not node.give_up_reload():
        node.get_logger().error("inference hangs: ending without it")
        time.sleep(0.1)
        os._exit(1)
    return end.code


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node until a signal asks for its end; returns the process's exit code."""
    return process.run(PolicyNode, _use, args)


if __name__ == "__main__":
    raise SystemExit(main())
