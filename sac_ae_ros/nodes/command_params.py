"""Parameters of commands, for the node that sends them and the one that obeys."""

from __future__ import annotations

from dataclasses import dataclass

from sac_ae_ros.nodes.params import HOUR_S, parameter

STOPS = ("zero", "custom", "hold_measured")
FIELDS = {
    "geometry_msgs/Twist": ("linear.x", "angular.z"),
    "geometry_msgs/TwistStamped": ("twist.linear.x", "twist.angular.z"),
    "geometry_msgs/TwistWithCovarianceStamped": ("twist.twist.linear.x", "twist.twist.angular.z"),
    "ackermann_msgs/AckermannDriveStamped": ("drive.speed", "drive.steering_angle"),
}


@dataclass(frozen=True)
class HeardCommandParams:
    """The group `command` of a node that obeys: which message carries the command, and where in it each action goes."""

    type: str = parameter("geometry_msgs/msg/Twist", "type of the command message, any installed one")
    fields: tuple[str, ...] = parameter(
        (),
        "where each action goes, in the policy's order: linear.x, twist.linear.x, data[0], points[0].positions[2];"
        " unset: forward speed and turn of a Twist, TwistStamped, TwistWithCovarianceStamped or AckermannDriveStamped",
    )
    constants: tuple[str, ...] = parameter(
        (), "fields that never change, each as field=value in YAML: joint_names=[shoulder, elbow], drive.jerk=0.5"
    )

    @property
    def places(self) -> tuple[str, ...]:
        """`fields`, or where they are unset the usual ones of the type; none for a type that has no usual ones."""
        return self.fields or FIELDS.get(self.type.replace("/msg/", "/"), ())


@dataclass(frozen=True)
class CommandParams(HeardCommandParams):
    """The group `command` of a node that sends them: also what a stop is."""

    stop_constants: tuple[str, ...] = parameter(
        (),
        "what those of `constants` are in a stop that are velocities or efforts, each as field=value; unset: zero",
    )
    frame_id: str = parameter("base_link", "header.frame_id of stamped commands")
    time_from_start_s: float = parameter(
        0.0, "of each point of a JointTrajectory, s; 0 means one policy period", low=0.0, high=HOUR_S
    )
    stop: str = parameter(
        "",
        "what a stop sends: zero, custom or hold_measured; empty means zero for Twist types, others must say",
        choices=("", *STOPS),
    )
    stop_values: tuple[float, ...] = parameter((), "with stop: custom, one value for each action")
    joints: tuple[str, ...] = parameter((), "with stop: hold_measured, the joint in `joint_states` of each action")
    joint_timeout_s: float = parameter(
        0.5, "with stop: hold_measured, joint_states silent for this long stop the robot, s", low=0.01, high=HOUR_S
    )
