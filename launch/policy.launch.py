"""A camera policy on a robot: images in, commands out, and not armed until ``~/arm`` or an enable edge arms it."""

import os
import runpy
import threading
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import Event, EventHandler, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessStart
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch.utilities.type_utils import coerce_to_type
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import Parameter
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client

SHARE = Path(get_package_share_directory("sac_ae_ros"))
declared_only = runpy.run_path(str(Path(__file__).with_name("arguments.py")))["declared_only"]
# launch that is killed, also by SIGTERM, leaves its processes running: the node sees to its own end then
END_WITH_LAUNCH = {"SAC_AE_ROS_LAUNCH_PID": str(os.getpid())}
SHIPPED_POLICY = str(SHARE / "models" / "rover_chase_ball.onnx")
DDS_PROFILE = str(SHARE / "config" / "dds" / "fastdds_shm.xml")
DDS_PROFILE_VARIABLES = {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
STEPS = {"unconfigured": Transition.TRANSITION_CONFIGURE, "inactive": Transition.TRANSITION_ACTIVATE}
COULD_NOT_START = 2  # an exit code of the node
NOT_STARTED = "policy_node could not be started: its own messages above say why"
RESPAWN_DELAY_S = 1.0
ANSWER_WITHIN_S = 1.0


def generate_launch_description() -> LaunchDescription:
    actions: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument("policy", default_value=SHIPPED_POLICY, description="policy file (.onnx)"),
        DeclareLaunchArgument("policy_dir", default_value="", description="folder of policy versions, for ~/reload"),
        DeclareLaunchArgument("output", default_value="", description="command, or shadow for a dry run"),
        DeclareLaunchArgument("image_topic", default_value="image", description="where images come from"),
        DeclareLaunchArgument(
            "camera_info_topic", default_value="", description="empty: camera_info, beside image_topic"
        ),
        DeclareLaunchArgument("command_topic", default_value="cmd_vel", description="where commands go"),
        DeclareLaunchArgument("enable_topic", default_value="enable", description="the deadman (std_msgs/Bool)"),
        DeclareLaunchArgument("e_stop_topic", default_value="e_stop", description="the emergency stop (std_msgs/Bool)"),
        DeclareLaunchArgument("joint_states_topic", default_value="joint_states", description="measured positions"),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(SHARE / "config" / "policy.yaml"),
            description="parameters of the policy node (YAML); an argument that is given wins over it",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument("use_sim_time", default_value="", description="true: take the time from /clock"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate the node"),
        DeclareLaunchArgument("use_respawn", default_value="false", description="start the node anew when it dies"),
        DeclareLaunchArgument(
            "arm_on_activate",
            default_value="false",
            description="arm unasked 4 s after the start (shadow: at the first frame): for simulation only",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    if not DDS_PROFILE_VARIABLES & os.environ.keys():
        actions.append(SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", DDS_PROFILE))
    return declared_only(__file__, [*actions, OpaqueFunction(function=start_policy_node)])


def start_policy_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node, and its autostart if that is wanted."""
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("params_file", "image_topic", "camera_info_topic", "autostart", "use_respawn", "arm_on_activate")
    }
    autostart, respawn, arm = (
        coerce_to_type(given[name], bool) for name in ("autostart", "use_respawn", "arm_on_activate")
    )
    given["params_file"] = os.path.expanduser(given["params_file"])  # no shell does it behind `:=`
    if not Path(given["params_file"]).is_file():
        raise RuntimeError(f"params_file: there is no file {given['params_file']}")
    if respawn and arm:
        raise RuntimeError("use_respawn: expected no arm_on_activate with it; a node that died never arms itself")

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode == COULD_NOT_START:
            raise RuntimeError(NOT_STARTED)
        # launch_ros trips over a second shutdown
        return [] if respawn or context.is_shutdown else [Shutdown(reason="policy_node has ended")]

    topics = {
        "image": "image_topic",
        "cmd_vel": "command_topic",
        "enable": "enable_topic",
        "e_stop": "e_stop_topic",
        "joint_states": "joint_states_topic",
    }
    node = LifecycleNode(
        package="sac_ae_ros",
        executable="policy_node",
        name="policy_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        additional_env=END_WITH_LAUNCH,
        # a params file arms nobody
        parameters=[
            Parameter("policy", SHIPPED_POLICY),
            given["params_file"],
            {"arm_on_activate": arm, **chosen(context)},
        ],
        remappings=[
            *((name, LaunchConfiguration(argument)) for name, argument in topics.items()),
            ("camera_info", given["camera_info_topic"] or sibling(given["image_topic"], "camera_info")),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=on_exit,
    )
    return [*(Autostart(node).handlers() if autostart else []), node]


def chosen(context: LaunchContext) -> dict[str, object]:
    """The parameters that arguments override; those left at their defaults leave the params file's word."""
    texts = {name: LaunchConfiguration(name).perform(context) for name in ("policy_dir", "output", "policy")}
    if texts["policy"] == SHIPPED_POLICY:
        del texts["policy"]
    parameters: dict[str, object] = {name: text for name, text in texts.items() if text}
    use_sim_time = LaunchConfiguration("use_sim_time").perform(context)
    return parameters | ({"use_sim_time": coerce_to_type(use_sim_time, bool)} if use_sim_time else {})


def sibling(topic: str, name: str) -> str:
    """The topic of that name in the same namespace, as image_transport finds camera_info."""
    namespace, slash, _ = topic.rpartition("/")
    return f"{namespace}{slash}{name}"


class Failed(Event):
    """The node refused to be configured or activated."""


class Autostart:
    """Configures, then activates a node whenever its process starts; ends the launch if it refuses.

    For 20 s the ROS graph has the services of a node that was killed, and requests to them get lost: so every
    request is repeated until it is answered.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._life = 0  # how many times the process has started
        self._clients: tuple[Client, Client] | None = None

    def handlers(self) -> list[LaunchDescriptionEntity]:
        """What has to be registered before the node starts."""

        def fail(_: LaunchContext) -> None:
            raise RuntimeError(NOT_STARTED)

        handlers = (
            OnProcessStart(target_action=self._node, on_start=self._begin),
            EventHandler(matcher=lambda event: isinstance(event, Failed), entities=[OpaqueFunction(function=fail)]),
        )
        return [RegisterEventHandler(handler) for handler in handlers]

    def _begin(self, _: Event, context: LaunchContext) -> None:
        self._life += 1
        if self._clients is None:
            node, name = get_ros_node(context), self._node.node_name
            kinds = {"change_state": ChangeState, "get_state": GetState}
            self._clients = tuple(node.create_client(kind, f"{name}/{service}") for service, kind in kinds.items())
        threading.Thread(target=self._bring_up, args=(context, self._life), daemon=True).start()

    def _bring_up(self, context: LaunchContext, life: int) -> None:
        assert self._clients is not None
        change_state, get_state = self._clients
        while life == self._life and not context.is_shutdown:
            answer = answer_of(get_state, GetState.Request())
            if answer is None:
                continue
            transition_id = STEPS.get(answer.current_state.label)
            if transition_id is None:
                return
            future = change_state.call_async(ChangeState.Request(transition=Transition(id=transition_id)))
            # the node answers in turn: once it tells its state again, it has answered this too, or never heard it
            while life == self._life and not context.is_shutdown and not future.done():
                if answer_of(get_state, GetState.Request()) is not None:
                    break
            if future.done() and not future.result().success:
                context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, Failed())
                return


def answer_of(client: Client, request: object) -> Any:
    """What a service answers within a second, or None."""
    answered = threading.Event()
    future = client.call_async(request)
    future.add_done_callback(lambda _: answered.set())
    if answered.wait(ANSWER_WITHIN_S):
        return future.result()
    client.remove_pending_request(future)
    return None
