"""A camera policy on a robot: images in, commands out, and not armed until ``~/arm`` is called."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import Event, EventHandler, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    UnregisterEventHandler,
)
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState, StateTransition
from launch_ros.parameter_descriptions import Parameter, ParameterValue
from lifecycle_msgs.msg import Transition

SHARE = Path(get_package_share_directory("sac_ae_ros"))
SHIPPED_POLICY = str(SHARE / "models" / "rover_chase_ball.onnx")
DDS_PROFILE = str(SHARE / "config" / "dds" / "fastdds_shm.xml")
DDS_PROFILE_VARIABLES = {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
FAILURES = {
    ("configuring", "unconfigured"),
    ("configuring", "errorprocessing"),
    ("activating", "inactive"),
    ("activating", "errorprocessing"),
}


def generate_launch_description() -> LaunchDescription:
    actions: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument("policy", default_value=SHIPPED_POLICY, description="policy file (.onnx)"),
        DeclareLaunchArgument("image_topic", default_value="image", description="where images come from"),
        DeclareLaunchArgument("command_topic", default_value="cmd_vel", description="where commands go"),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(SHARE / "config" / "policy.yaml"),
            description="parameters of the policy node (YAML)",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate the node"),
        DeclareLaunchArgument("arm_on_activate", default_value="false", description="arm unasked: for simulation only"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    if not DDS_PROFILE_VARIABLES & os.environ.keys():
        actions.append(SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", DDS_PROFILE))
    return LaunchDescription([*actions, OpaqueFunction(function=start_policy_node)])


def start_policy_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node; a policy named in the params file holds unless the argument names another."""
    policy, params_file, autostart = (
        LaunchConfiguration(name).perform(context) for name in ("policy", "params_file", "autostart")
    )
    if not Path(params_file).is_file():
        raise RuntimeError(f"params_file: there is no file {params_file}")
    typed = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in ("use_sim_time", "arm_on_activate")
    }
    chosen = {"policy": policy} if policy != SHIPPED_POLICY else {}
    node = LifecycleNode(
        package="sac_ae_ros",
        executable="policy_node",
        name="policy_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[Parameter("policy", SHIPPED_POLICY), params_file, {**typed, **chosen}],
        remappings=[
            ("image", LaunchConfiguration("image_topic")),
            ("cmd_vel", LaunchConfiguration("command_topic")),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        # launch_ros trips over a second shutdown
        on_exit=lambda _, context: [] if context.is_shutdown else [Shutdown(reason="policy_node has ended")],
    )
    return [node, *(autostart_of(node) if autostart.lower() in {"true", "1"} else [])]


def autostart_of(node: LifecycleNode) -> list[LaunchDescriptionEntity]:
    """Configure, then activate, once; end the launch with an error if either fails."""

    def change(transition_id: int) -> EmitEvent:
        event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id)
        return EmitEvent(event=event)

    def is_failure(event: Event) -> bool:
        return (
            isinstance(event, StateTransition)
            and event.action is node
            and (event.start_state, event.goal_state) in FAILURES
        )

    def fail(_: LaunchContext) -> None:
        raise RuntimeError("policy_node could not be started: its own messages above say why")

    failed = EventHandler(matcher=is_failure, entities=[OpaqueFunction(function=fail)])
    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
        handle_once=True,
    )
    active = OnStateTransition(
        target_lifecycle_node=node,
        goal_state="active",
        entities=[UnregisterEventHandler(failed)],
        handle_once=True,
    )
    handlers = [RegisterEventHandler(handler) for handler in (failed, configured, active)]
    return [*handlers, change(Transition.TRANSITION_CONFIGURE)]
