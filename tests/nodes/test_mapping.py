"""The mapping of actions to the fields of a command message, and what a stop is."""

import re

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistWithCovariance
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.mapping import CommandMapping, StopPolicy, stop_policy

TWIST = "geometry_msgs/msg/Twist"
ARRAY = "std_msgs/msg/Float64MultiArray"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
JOINTS = "sensor_msgs/msg/JointState"
POINT = ("points[0].positions[0]", "points[0].positions[1]")
NAMES = ["a", "b"]
ARM = "joint_names=[shoulder, elbow]"


def mapping(kind: str, *fields: str, constants: tuple[str, ...] = (), **params: object) -> CommandMapping:
    return CommandMapping(CommandParams(type=kind, fields=fields, constants=constants, **params), NAMES, 0.05)


EVERY_KIND = {
    "twist": mapping(TWIST, "linear.x", "angular.z"),
    "twist_stamped": mapping("geometry_msgs/msg/TwistStamped", "twist.angular.z", "twist.linear.y"),
    "array": mapping(ARRAY, "data[1]", "data[0]"),
    "float32_array": mapping("std_msgs/msg/Float32MultiArray", "data[0]", "data[1]"),
    "covariance": mapping("geometry_msgs/msg/TwistWithCovariance", "twist.linear.x", "covariance[35]"),
    "odometry": mapping("nav_msgs/msg/Odometry", "pose.pose.position.x", "twist.covariance[7]"),
    "joint_state": mapping(JOINTS, "position[1]", "position[0]", constants=("name=[x, y]",)),
    "trajectory": mapping(TRAJECTORY, *POINT, constants=(ARM,)),
    "two_points": mapping(
        TRAJECTORY, "points[1].velocities[0]", "points[0].positions[0]", constants=("joint_names=[x]",)
    ),
    "polygon_of_float32": mapping("geometry_msgs/msg/Polygon", "points[1].x", "points[0].z"),
    "bounded": mapping(
        "rcl_interfaces/msg/ParameterDescriptor", "floating_point_range[0].step", "floating_point_range[0].to_value"
    ),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=2, max_size=2))
def test_values_survive_the_round_trip_over_the_wire(kind, values):
    there = EVERY_KIND[kind]
    message = deserialize_message(serialize_message(there.message(values, Time(sec=5))), there.message_class)
    assert there.values(message).tolist() == values


def test_values_land_where_the_fields_say():
    twist = mapping(TWIST, "angular.z", "linear.x").message([1.0, 2.0], Time())
    assert (twist.angular.z, twist.linear.x, twist.linear.y) == (1.0, 2.0, 0.0)
    array = mapping(ARRAY, "data[1]", "data[0]").message(np.array([1.0, 2.0]), Time())
    assert array.data.tolist() == [2.0, 1.0]
    pose = EVERY_KIND["covariance"].message([1, 2], Time())
    assert isinstance(pose, TwistWithCovariance)
    assert (pose.twist.linear.x, pose.covariance[35], pose.covariance[34]) == (1.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (TWIST, ("linear.x", "angular.z")),
        ("geometry_msgs/Twist", ("linear.x", "angular.z")),
        ("geometry_msgs/msg/TwistStamped", ("twist.linear.x", "twist.angular.z")),
        ("geometry_msgs/msg/TwistWithCovarianceStamped", ("twist.twist.linear.x", "twist.twist.angular.z")),
    ],
)
def test_the_type_alone_says_where_the_actions_go(kind, fields):
    assert mapping(kind).message([1.0, 2.0], Time()) == mapping(kind, *fields).message([1.0, 2.0], Time())


def test_a_car_s_usual_fields_are_those_of_its_file():
    assert CommandParams(type="ackermann_msgs/msg/AckermannDriveStamped").places == (
        "drive.speed",
        "drive.steering_angle",
    )


def test_a_type_without_usual_fields_must_say():
    with pytest.raises(ConfigError, match=r"one field for each of \['a', 'b'\], got \[\]"):
        mapping(ARRAY)


def test_messages_share_nothing():
    for kind in ("array", "trajectory", "odometry"):
        there = EVERY_KIND[kind]
        first = there.message([1.0, 2.0], Time())
        there.message([3.0, 4.0], Time())
        assert there.values(first).tolist() == [1.0, 2.0]


def test_a_trajectory_starts_on_arrival_and_lasts_one_period():
    message = EVERY_KIND["trajectory"].message([1.0, 2.0], Time(sec=7))
    assert message.header.stamp == Time()
    assert message.joint_names == ["shoulder", "elbow"]
    assert len(message.points) == 1
    assert message.points[0].positions.tolist() == [1.0, 2.0]
    assert (message.points[0].time_from_start.sec, message.points[0].time_from_start.nanosec) == (0, 50_000_000)


def test_each_point_of_a_trajectory_comes_later():
    fields = "points[0].positions[0]", "points[1].positions[0]"
    named = "joint_names=[x]", "points[1].velocities=[0]"
    first, second = mapping(TRAJECTORY, *fields, constants=named, time_from_start_s=0.2).message([1, 2], Time()).points
    assert (first.time_from_start.nanosec, first.velocities.tolist()) == (200_000_000, [])
    assert (second.time_from_start.nanosec, second.velocities.tolist()) == (400_000_000, [0.0])
    late = mapping(TRAJECTORY, *fields, constants=(*named, "points[1].time_from_start=1.5"), time_from_start_s=0.2)
    first, second = late.message([1, 2], Time()).points
    assert first.time_from_start.nanosec == 200_000_000
    assert (second.time_from_start.sec, second.time_from_start.nanosec) == (1, 500_000_000)


def test_other_stamped_messages_carry_stamp_and_frame():
    message = EVERY_KIND["joint_state"].message([1.0, 2.0], Time(sec=7))
    assert (message.header.stamp.sec, message.header.frame_id) == (7, "base_link")
    fixed = mapping(JOINTS, "position[0]", "position[1]", constants=("name=[x, y]", "header.stamp=0"), frame_id="arm")
    assert fixed.message([1.0, 2.0], Time(sec=7)).header.stamp.sec == 0
    assert fixed.message([1.0, 2.0], Time(sec=7)).header.frame_id == "arm"
    named = mapping("geometry_msgs/msg/TwistStamped", "twist.linear.x", "twist.angular.z", constants=FRAME)
    assert named.message([1.0, 2.0], Time(sec=7)).header.frame_id == "odom"


FRAME = ("header.frame_id=odom",)


def test_constants_fill_lists_beside_and_between_the_actions():
    message = mapping(
        ARRAY, "data[0]", "data[2]", constants=("data[1]=0.5", "layout.data_offset=3"), stop_constants=("data[1]=0",)
    ).message([1, 2], 0)
    assert message.data.tolist() == [1.0, 0.5, 2.0]
    assert message.layout.data_offset == 3
    named = mapping(JOINTS, "position[0]", "position[1]", constants=("name[1]=y", "name[0]=x", "effort=[1, 2]"))
    message = named.message([0.0, 0.0], Time())
    assert (message.name, message.effort.tolist()) == (["x", "y"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (TWIST, ("linear.x",), "one field for each"),
        (TWIST, ("linear.x", "linear.x"), "every field once"),
        (ARRAY, ("data[0]", "data[00]"), "every field once"),
        (TWIST, ("linear.x", "angular.w"), r"command.fields\[1\].*no field 'w', only x, y, z"),
        (TWIST, ("linear.x", "angular"), "expected a number.*got geometry_msgs/Vector3"),
        (TWIST, ("linear.x", "angular.z.q"), "'angular.z' is a double"),
        (TWIST, ("linear.x", "linear.x[0]"), r"'linear.x' is a double and has no \[0\]"),
        (TWIST, ("linear.x", "__class__"), "field path"),
        (TWIST, ("linear.x", "angular.z; exit()"), "field path"),
        (TWIST, ("linear.x", "angular..z"), "field path"),
        (TWIST, ("linear.x", ""), "field path"),
        (ARRAY, ("data[0]", "data[2]"), "without gaps"),
        (ARRAY, ("data[0]", "data"), "expected a number.*got sequence<double>"),
        (ARRAY, ("data[0]", "layout.dim[0].label"), "expected a number.*got string"),
        (TRAJECTORY, ("points[0].positions[0]", "points[2].positions[0]"), "points.0. onwards without gaps"),
        (TRAJECTORY, ("points.positions[0]", "points[0].positions[0]"), "'points' is a sequence<.*no fields"),
        (
            "rcl_interfaces/msg/ParameterDescriptor",
            ("floating_point_range[0].step", "floating_point_range[1].step"),
            "1",
        ),
        ("geometry_msgs/msg/TwistWithCovariance", ("twist.linear.x", "covariance[36]"), "double.36"),
        ("geometry_msgs/msg/Nothing", ("a", "b"), "installed message type"),
        ("no_such_msgs/msg/Twist", ("a", "b"), "installed message type"),
        ("../evil", ("a", "b"), "installed message type"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(kind, fields, says):
    with pytest.raises(ConfigError, match=says) as refused:
        mapping(kind, *fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "fields", "constants", "says"),
    [
        (TRAJECTORY, POINT, (), r"expected the joints' names.*add 'joint_names=\[shoulder, elbow\]'"),
        (JOINTS, ("position[0]", "position[1]"), (), r"add 'name=\["),
        (JOINTS, ("position[0]", "position[1]"), ("name=[x, x]",), "each once"),
        (TRAJECTORY, POINT, ("joint_names=[x, y, z]",), r"points\[0\].positions to have a value for each.*got 2"),
        (TRAJECTORY, POINT, (ARM, "points[0].effort=[1.0]"), r"points\[0\].effort.*got 1"),
        (JOINTS, ("position[0]", "position[1]"), ("name=[x, y]", "velocity=[0, 0, 0]"), "velocity.*got 3"),
        (TRAJECTORY, POINT, (ARM, "points[0].positions=[0, 0]"), "every field once"),
        (TRAJECTORY, POINT, (ARM, "points[0].positions[1]=0"), "every field once"),
        (TRAJECTORY, POINT, (ARM, ARM), "every field once, got 'joint_names'"),
        (TRAJECTORY, POINT, (ARM, "joint_nmes=[a]"), "command.constants 'joint_nmes': JointTrajectory has no field"),
        (TRAJECTORY, POINT, (ARM, "header=[a]"), "'header': is a std_msgs/Header"),
        (TWIST, ("linear.x", "angular.z"), ("linear.y",), "field=value, got 'linear.y'"),
        (TWIST, ("linear.x", "angular.z"), ("linear.y=[",), "linear.y': expected a value in YAML"),
        (TWIST, ("linear.x", "angular.z"), ("linear.y=" + "[" * 3000,), "linear.y': expected a value in YAML"),
        (TWIST, ("linear.x", "angular.z"), ("linear.y=fast",), "linear.y': expected a number.*got 'fast'"),
    ],
)
def test_constants_that_do_not_fit_are_refused(kind, fields, constants, says):
    with pytest.raises(ConfigError, match=says) as refused:
        mapping(kind, *fields, constants=constants)
    assert "\n" not in str(refused.value)


def test_in_a_stop_constants_that_move_something_are_zero():
    drifting = mapping(TWIST, "linear.x", "angular.z", constants=("linear.y=99999", "angular.x=-3"))
    assert (drifting.message([1, 2], Time()).linear.y, drifting.message([1, 2], Time()).angular.x) == (99999, -3)
    assert drifting.stop([0, 0], Time()) == EVERY_KIND["twist"].message([0, 0], Time())
    stamped = mapping(
        "geometry_msgs/msg/TwistStamped",
        "twist.linear.x",
        "twist.angular.z",
        constants=("twist.linear.z=1", "header.frame_id=it"),
    )
    assert stamped.stop([0, 0], Time()).twist.linear.z == 0
    assert stamped.stop([0, 0], Time()).header.frame_id == "it"
    point = ("points[0].velocities=[1, 2]", "points[0].effort=[3, 4]", "points[0].accelerations=[5, 6]")
    arm = mapping(TRAJECTORY, *POINT[:2], constants=("joint_names=[x, y]", *point))
    moves, rests = arm.message([1, 2], Time()).points[0], arm.stop([1, 2], Time()).points[0]
    assert (list(moves.velocities), list(moves.effort)) == ([1, 2], [3, 4])
    assert (list(rests.velocities), list(rests.effort), list(rests.accelerations)) == ([0, 0], [0, 0], [5, 6])
    assert list(rests.positions) == [1, 2]


def test_stop_constants_say_what_holds_an_arm_and_nothing_else():
    named = ("name=[x, y]", "effort=[3, 4]")
    fields = ("position[0]", "position[1]")
    arm = mapping(JOINTS, *fields, constants=named, stop_constants=("effort=[1, 2]",))
    assert list(arm.stop([0, 0], Time()).effort) == [1, 2]
    for text in ("velocity=[1, 2]", "name=[a, b]"):
        with pytest.raises(
            ConfigError, match=r"command\.stop_constants: expected fields of command\.constants that are"
        ):
            mapping(JOINTS, *fields, constants=named, stop_constants=(text,))
    with pytest.raises(ConfigError, match=r"command\.stop_constants 'effort'\[0\]: expected a finite number"):
        mapping(JOINTS, *fields, constants=named, stop_constants=("effort=[.nan, 2]",))


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("Twist", ""), ("TwistStamped", "twist."), ("TwistWithCovarianceStamped", "twist.twist.")],
)
def test_the_stop_of_a_twist_is_zeros_whatever_is_asked(kind, prefix):
    fields, constants = (f"{prefix}linear.x", f"{prefix}angular.z"), (f"{prefix}linear.y=1",)
    with pytest.raises(ConfigError, match=rf"command\.stop_constants: expected none for a {kind}, whose stop is zeros"):
        mapping(f"geometry_msgs/msg/{kind}", *fields, constants=constants, stop_constants=(f"{prefix}linear.y=9",))
    stop = mapping(f"geometry_msgs/msg/{kind}", *fields, constants=constants).stop([0, 0], Time())
    assert "9" not in str(stop)
    for name in filter(None, prefix.split(".")):
        stop = getattr(stop, name)
    assert stop == Twist()


@pytest.mark.parametrize(
    ("kind", "fields", "constant"),
    [
        (ARRAY, ("data[0]", "data[1]"), "data[2]"),
        ("geometry_msgs/msg/Vector3", ("x", "y"), "z"),
        ("std_msgs/msg/Int16MultiArray", ("data[0]", "data[1]"), "data[2]"),
    ],
)
def test_a_number_that_may_move_the_robot_needs_a_word_for_stops(kind, fields, constant):
    with pytest.raises(
        ConfigError, match=rf"command\.stop_constants: expected a value for {re.escape(constant)} in a stop"
    ):
        mapping(kind, *fields, constants=(f"{constant}=7",))
    mapping(kind, *fields, constants=(f"{constant}=0",))
    said = mapping(kind, *fields, constants=(f"{constant}=7",), stop_constants=(f"{constant}=3",))
    assert "7" in str(said.message([0, 0], Time()))
    assert "3" in str(said.stop([0, 0], Time()))
    assert "7" not in str(said.stop([0, 0], Time()))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_constants_are_finite(value):
    with pytest.raises(ConfigError, match=r"command\.constants 'linear\.y': expected a finite number"):
        mapping(TWIST, "linear.x", "angular.z", constants=(f"linear.y={value}",))


def test_time_from_start_belongs_to_trajectories():
    with pytest.raises(ConfigError, match="time_from_start_s: expected 0 for geometry_msgs/msg/Twist"):
        mapping(TWIST, "linear.x", "angular.z", time_from_start_s=0.1)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [("twist", np.nan), ("twist", np.inf), ("float32_array", 1e39), ("polygon_of_float32", -1e39)],
)
def test_what_a_field_cannot_hold_is_never_sent(kind, bad):
    with pytest.raises(ConfigError, match="command: expected a finite number that"):
        EVERY_KIND[kind].message([0.0, bad], Time())
    with pytest.raises(ConfigError, match=r"^limits\.high: expected"):
        EVERY_KIND[kind].check([bad, 0.0], "limits.high")
    EVERY_KIND["twist"].message([1e39, 0.0], Time())


@pytest.mark.parametrize(
    ("kind", "fields", "fits", "wrong"),
    [
        ("std_msgs/msg/Int16MultiArray", ("data[0]", "data[1]"), ([-32768.4, 32767.4], [-32768, 32767]), 32767.6),
        ("std_msgs/msg/UInt8MultiArray", ("data[0]", "data[1]"), ([-0.4, 254.6], [0, 255]), -0.6),
        ("std_msgs/msg/Int64MultiArray", ("data[0]", "data[1]"), ([-(2.0**63), 1.6], [-(2**63), 2]), 2.0**63),
        ("std_msgs/msg/UInt64MultiArray", ("data[0]", "data[1]"), ([0.0, 2.0**63], [0, 2**63]), np.nan),
        (ARRAY, ("data[0]", "layout.data_offset"), ([0.25, 7.5], [0.25, 8]), np.inf),
    ],
)
def test_integer_fields_take_the_nearest_integer_or_refuse(kind, fields, fits, wrong):
    there = mapping(kind, *fields)
    message = deserialize_message(serialize_message(there.message(fits[0], Time())), there.message_class)
    assert there.values(message).tolist() == fits[1]
    with pytest.raises(ConfigError, match=r"^limits\.high: expected a finite number that"):
        there.check([0.0, wrong], "limits.high")
    with pytest.raises(ConfigError, match="command: expected a finite number that"):
        there.message(np.array([0.0, wrong]), Time())


def test_limits_of_integer_fields_are_integers():
    there = mapping(ARRAY, "data[0]", "layout.data_offset")
    there.check_limits([0.5, 3.0], "limits.high")
    with pytest.raises(
        ConfigError, match=r"^limits\.high: expected an integer, as 'layout.data_offset' is a uint32, got"
    ):
        there.check_limits([0.5, 0.6], "limits.high")


def test_command_messages_that_do_not_fit_are_refused():
    there = mapping(ARRAY, "data[0]", "data[1]")
    for data, says in (
        ([1.0], "expected 2 items in 'data', got 1"),
        ([1.0, 2.0, 3.0], "expected 2 items"),
        ([1.0, np.nan], "finite"),
    ):
        with pytest.raises(ConfigError, match=says):
            there.values(Float64MultiArray(data=data))
    there = EVERY_KIND["trajectory"]
    for message, says in (
        (JointTrajectory(joint_names=["shoulder", "elbow"]), "expected 1 items in 'points', got 0"),
        (JointTrajectory(points=[JointTrajectoryPoint(positions=[1.0])]), r"2 items in 'points\[0\].positions'"),
        (
            JointTrajectory(joint_names=["elbow", "shoulder"], points=[JointTrajectoryPoint(positions=[1.0, 2.0])]),
            r"joint_names \['shoulder', 'elbow'\], got \['elbow', 'shoulder'\]",
        ),
    ):
        with pytest.raises(ConfigError, match=says):
            there.values(message)


@pytest.mark.parametrize(
    ("params", "stop"),
    [
        (CommandParams(), StopPolicy("zero", (0.0, 0.0))),
        (CommandParams(type="geometry_msgs/TwistStamped"), StopPolicy("zero", (0.0, 0.0))),
        (CommandParams(type="geometry_msgs/msg/TwistWithCovariance"), StopPolicy("zero", (0.0, 0.0))),
        (CommandParams(type="geometry_msgs/msg/TwistWithCovarianceStamped"), StopPolicy("zero", (0.0, 0.0))),
        (CommandParams(type=ARRAY, stop="zero"), StopPolicy("zero", (0.0, 0.0))),
        (CommandParams(type=ARRAY, stop="custom", stop_values=(1.0, 2.0)), StopPolicy("custom", (1.0, 2.0))),
        (
            CommandParams(type=TRAJECTORY, fields=POINT, stop="hold_measured", joints=("x", "y")),
            StopPolicy("hold_measured", (0.0, 0.0)),
        ),
    ],
)
def test_what_a_stop_sends(params, stop):
    assert stop_policy(params, 2) == stop


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (CommandParams(type=ARRAY), "expected zero, custom or hold_measured"),
        (CommandParams(type="nav_msgs/msg/Odometry"), "expected zero, custom or hold_measured"),
        (CommandParams(stop="custom", stop_values=(1.0,)), "expected 2 finite numbers"),
        (CommandParams(stop="custom", stop_values=(1.0, np.nan)), "expected 2 finite numbers"),
        (CommandParams(stop="zero", stop_values=(1.0, 1.0)), "expected none"),
        (CommandParams(stop="zero", joints=("x", "y")), "command.joints: expected none"),
        (CommandParams(type=ARRAY, fields=("data[0]", "data[1]"), stop="hold_measured"), "command.joints: expected 2"),
        (CommandParams(type=ARRAY, fields=("data[0]",), stop="hold_measured", joints=("x", "x")), "2 different joints"),
        (CommandParams(stop="hold_measured", joints=("x", "y")), "take no positions"),
        (
            CommandParams(type=JOINTS, fields=("effort[0]", "effort[1]"), stop="hold_measured", joints=("x", "y")),
            "no p",
        ),
    ],
)
def test_a_stop_that_says_too_little_or_too_much_is_refused(params, says):
    with pytest.raises(ConfigError, match=says):
        stop_policy(params, 2)
