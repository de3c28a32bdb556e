"""A recorded drive for live nodes: images and /clock as they were, commands below /recorded where nobody obeys them."""

import os
import runpy
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable, Shutdown
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
TYPES = {
    "bag": str,
    "rate": float,
    "loop": bool,
    "start_paused": bool,
    "start_s": float,
    "duration_s": float,
    "image_topic": str,
    "as_recorded": bool,
    "publish_clock": bool,
    "wait_for": int,
    "wait_s": float,
}


def generate_launch_description() -> LaunchDescription:
    actions: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument("bag", default_value="", description="the recording: a folder, .mcap, .db3 or .bag"),
        DeclareLaunchArgument("rate", default_value="1.0", description="recorded seconds per second"),
        DeclareLaunchArgument("loop", default_value="false", description="begin again at the end"),
        DeclareLaunchArgument("start_paused", default_value="false", description="wait for ~/resume"),
        DeclareLaunchArgument("start_s", default_value="0.0", description="leave out so much of the beginning, s"),
        DeclareLaunchArgument("duration_s", default_value="0.0", description="play so much, s; 0: to the end"),
        DeclareLaunchArgument("image_topic", default_value="", description="where images go; empty: as recorded"),
        DeclareLaunchArgument(
            "as_recorded", default_value="false", description="commands under their own names: this may move a robot"
        ),
        DeclareLaunchArgument(
            "publish_clock", default_value="true", description="publish the recording's time on /clock"
        ),
        DeclareLaunchArgument("wait_for", default_value="1", description="subscribers of images to wait for"),
        DeclareLaunchArgument("wait_s", default_value="10.0", description="how long to wait for them at most, s"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node, not of what it plays"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    if not DDS_PROFILE_VARIABLES & os.environ.keys():
        actions.append(SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", DDS_PROFILE))
    node = Node(
        package="sac_ae_ros",
        executable="replay_node",
        name="replay_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        additional_env=END_WITH_LAUNCH,
        parameters=[
            {name: ParameterValue(LaunchConfiguration(name), value_type=type_) for name, type_ in TYPES.items()}
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        on_exit=end,
    )
    return declared_only(__file__, [*actions, node])


def end(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End with the replay, in failure if it failed."""
    if context.is_shutdown:  # launch_ros trips over a second shutdown
        return []
    if event.returncode:
        raise RuntimeError("replay_node has failed: its own messages above say why")
    return [Shutdown(reason="the recording is over")]
