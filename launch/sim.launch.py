"""A simulated robot and an armed policy node, on this machine only and in a namespace and domain of their own."""

import os
import runpy
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    SetEnvironmentVariable,
    Shutdown,
    UnsetEnvironmentVariable,
)
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("sac_ae_ros"))
declared_only = runpy.run_path(str(Path(__file__).with_name("arguments.py")))["declared_only"]
# launch that is killed, also by SIGTERM, leaves its processes running: the node sees to its own end then
END_WITH_LAUNCH = {"SAC_AE_ROS_LAUNCH_PID": str(os.getpid())}
WAYS_OUT = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")


def generate_launch_description() -> LaunchDescription:
    # those of policy.launch.py count as well
    arguments = [
        DeclareLaunchArgument("task", default_value="rover/chase_ball", description="what to simulate"),
        DeclareLaunchArgument("real_time_factor", default_value="1.0", description="simulated over real time"),
        DeclareLaunchArgument("episode_seed", default_value="0", description="seed of the first episode"),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(SHARE / "config" / "policy_sim.yaml"),
            description="parameters of the policy node (YAML)",
        ),
        DeclareLaunchArgument(
            "domain_id", default_value="87", description="ROS domain of both nodes; ROS_DOMAIN_ID is not heeded"
        ),
        DeclareLaunchArgument("namespace", default_value="sim", description="namespace of both nodes"),
        DeclareLaunchArgument("use_sim_time", default_value="true", description="policy node follows /clock"),
    ]
    # whatever the user's shell says: an armed simulation and its /clock must not reach a robot
    own_network = {"ROS_DOMAIN_ID": LaunchConfiguration("domain_id"), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    network = [
        *(SetEnvironmentVariable(name, value) for name, value in own_network.items()),
        *(UnsetEnvironmentVariable(name) for name in WAYS_OUT),
    ]
    where = [part for name in own_network for part in (f" {name}=", EnvironmentVariable(name))]
    policy = IncludeLaunchDescription(
        str(SHARE / "launch" / "policy.launch.py"), launch_arguments={"arm_on_activate": "true"}.items()
    )
    robot = Node(
        package="sac_ae_ros",
        executable="sim_robot_node",
        name="sim_robot_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        additional_env=END_WITH_LAUNCH,
        parameters=[
            str(SHARE / "config" / "sim_robot.yaml"),
            {
                "task": LaunchConfiguration("task"),
                "real_time_factor": ParameterValue(LaunchConfiguration("real_time_factor"), value_type=float),
                "episode_seed": ParameterValue(LaunchConfiguration("episode_seed"), value_type=int),
            },
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        # launch_ros trips over a second shutdown
        on_exit=lambda _, context: [] if context.is_shutdown else [Shutdown(reason="sim_robot_node has ended")],
    )
    rearmer = Node(
        exec_name="rearmer",
        executable="python3",
        name="rearmer",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        additional_env=END_WITH_LAUNCH,
        parameters=[{"domain_id": ParameterValue(LaunchConfiguration("domain_id"), value_type=int)}],
        arguments=["-m", "sac_ae_ros.nodes.rearmer"],
    )
    return declared_only(
        __file__,
        [
            *arguments,
            *network,
            LogInfo(msg=["To look on from another terminal: export", *where]),
            policy,  # before the robot: its DDS profile and its log_level are for both
            robot,
            rearmer,
        ],
    )
