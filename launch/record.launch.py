"""Records what a later evaluation or training needs, each topic as soon as it appears."""

import os
import runpy
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("sac_ae_ros"))
declared_only = runpy.run_path(str(Path(__file__).with_name("arguments.py")))["declared_only"]
# launch that is killed, also by SIGTERM, leaves its processes running: the node sees to its own end then
END_WITH_LAUNCH = {"SAC_AE_ROS_LAUNCH_PID": str(os.getpid())}
DDS_PROFILE = str(SHARE / "config" / "dds" / "fastdds_shm.xml")
DDS_PROFILE_VARIABLES = {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
# arguments that are the node's parameters
TYPES = {"out": str, "transport": str, "policy_node": str, "keep_free_mb": int}


def generate_launch_description() -> LaunchDescription:
    actions: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument("out", default_value="", description="new folder; empty: drives/drive-TIME"),
        DeclareLaunchArgument("image_topic", default_value="image", description="images to record"),
        DeclareLaunchArgument("transport", default_value="raw", description="raw, compressed or compressedDepth"),
        DeclareLaunchArgument(
            "camera_info_topic", default_value="", description="empty: camera_info, beside image_topic"
        ),
        DeclareLaunchArgument("command_topic", default_value="cmd_vel", description="commands to record"),
        DeclareLaunchArgument("enable_topic", default_value="enable", description="the deadman (std_msgs/Bool)"),
        DeclareLaunchArgument("e_stop_topic", default_value="e_stop", description="the emergency stop (std_msgs/Bool)"),
        DeclareLaunchArgument("joint_states_topic", default_value="joint_states", description="measured positions"),
        DeclareLaunchArgument("policy_node", default_value="policy_node", description="name of the policy node"),
        DeclareLaunchArgument("topics", default_value="", description="more topics, separated by commas"),
        DeclareLaunchArgument("keep_free_mb", default_value="500", description="end when less is left on the disk, MB"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its topics"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    if not DDS_PROFILE_VARIABLES & os.environ.keys():
        actions.append(SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", DDS_PROFILE))
    return declared_only(__file__, [*actions, OpaqueFunction(function=start_record_node)])


def start_record_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node with the topics that are wanted."""
    given = {
        name: LaunchConfiguration(name).perform(context) for name in ("image_topic", "camera_info_topic", "topics")
    }
    topics = {
        "cmd_vel": "command_topic",
        "enable": "enable_topic",
        "e_stop": "e_stop_topic",
        "joint_states": "joint_states_topic",
    }
    more = [name.strip() for name in given["topics"].split(",") if name.strip()]
    base = given["image_topic"].removesuffix("/compressed").removesuffix("/compressedDepth")
    namespace, slash, _ = base.rpartition("/")
    node = Node(
        package="sac_ae_ros",
        executable="record_node",
        name="record_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        additional_env=END_WITH_LAUNCH,
        parameters=[
            {name: ParameterValue(LaunchConfiguration(name), value_type=type_) for name, type_ in TYPES.items()},
            *([{"topics": more}] if more else []),
        ],
        remappings=[
            ("image", given["image_topic"]),
            *((name, LaunchConfiguration(argument)) for name, argument in topics.items()),
            ("camera_info", given["camera_info_topic"] or f"{namespace}{slash}camera_info"),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        # launch's second signal, 5 s after the first, would end the node before its file is whole on a slow disk
        sigterm_timeout="60",
        sigkill_timeout="60",
        on_exit=end,
    )
    return [node]


def end(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End with the recording, in failure if it failed."""
    if context.is_shutdown:  # launch_ros trips over a second shutdown
        return []
    if event.returncode:
        raise RuntimeError("record_node has failed: its own messages above say why")
    return [Shutdown(reason="the recording has ended")]
