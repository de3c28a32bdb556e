"""The mapping of actions to the fields of a command message, and what a stop is."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistWithCovariance
from std_msgs.msg import Float64MultiArray

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.mapping import CommandMapping, message_class, stop_policy
from sac_ae_ros.nodes.params import CommandParams

TWIST = "geometry_msgs/msg/Twist"
ARRAY = "std_msgs/msg/Float64MultiArray"
NAMES = ["a", "b"]


def mapping(kind: str, *fields: str) -> CommandMapping:
    return CommandMapping(CommandParams(type=kind, fields=fields), NAMES)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (TWIST, ("linear.x", "angular.z")),
        ("geometry_msgs/msg/TwistStamped", ("twist.angular.z", "twist.linear.y")),
        (ARRAY, ("data[1]", "data[0]")),
        ("geometry_msgs/msg/TwistWithCovariance", ("twist.linear.x", "covariance[7]")),
    ],
)
def test_values_survive_the_round_trip(kind, fields):
    there = mapping(kind, *fields)
    message = there.message([0.25, -1.5], Time(sec=5))
    assert there.values(message).tolist() == [0.25, -1.5]


def test_values_land_where_the_fields_say():
    twist = mapping(TWIST, "angular.z", "linear.x").message([1.0, 2.0], Time())
    assert (twist.angular.z, twist.linear.x, twist.linear.y) == (1.0, 2.0, 0.0)
    array = mapping(ARRAY, "data[1]", "data[0]").message(np.array([1.0, 2.0]), Time())
    assert array.data.tolist() == [2.0, 1.0]
    pose = mapping("geometry_msgs/msg/TwistWithCovariance", "twist.linear.z", "covariance[35]").message([1, 2], Time())
    assert isinstance(pose, TwistWithCovariance)
    assert (pose.twist.linear.z, pose.covariance[35]) == (1.0, 2.0)


def test_messages_share_nothing():
    there = mapping(ARRAY, "data[0]", "data[1]")
    first = there.message([1.0, 2.0], Time())
    there.message([3.0, 4.0], Time())
    assert first.data.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (TWIST, ("linear.x",), "one field for each"),
        (TWIST, ("linear.x", "linear.x"), "one field for each"),
        (TWIST, ("linear.x", "angular.w"), r"command.fields\[1\].*no field 'w', only x, y, z"),
        (TWIST, ("linear.x", "angular"), "floating point number, got geometry_msgs/Vector3"),
        (TWIST, ("linear.x", "angular.z.q"), "'z' is a double"),
        (TWIST, ("linear.x", "linear.x[0]"), "floating point number"),
        (TWIST, ("linear.x", "__class__"), "field path"),
        (TWIST, ("linear.x", "angular.z; exit()"), "field path"),
        (ARRAY, ("data[0]", "data[2]"), "without gaps"),
        (ARRAY, ("data[0]", "data"), "floating point number"),
        (ARRAY, ("data[0]", "layout.data_offset"), "floating point number, got uint32"),
        ("geometry_msgs/msg/TwistWithCovariance", ("twist.linear.x", "covariance[36]"), "double.36"),
        ("geometry_msgs/msg/Nothing", ("a", "b"), "installed message type"),
        ("no_such_msgs/msg/Twist", ("a", "b"), "installed message type"),
        ("../evil", ("a", "b"), "installed message type"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(kind, fields, says):
    with pytest.raises(ConfigError, match=says):
        mapping(kind, *fields)


def test_command_messages_that_do_not_fit_are_refused():
    there = mapping(ARRAY, "data[0]", "data[1]")
    for data, says in (
        ([1.0], "expected 2 numbers"),
        ([1.0, 2.0, 3.0], "expected 2 numbers"),
        ([1.0, np.nan], "finite"),
    ):
        with pytest.raises(ConfigError, match=says):
            there.values(Float64MultiArray(data=data))


def test_the_class_of_a_type_is_found_in_both_spellings():
    assert message_class("geometry_msgs/msg/Twist") is Twist
    assert message_class("geometry_msgs/Twist") is Twist


@pytest.mark.parametrize(
    ("params", "values"),
    [
        (CommandParams(), (0.0, 0.0)),
        (CommandParams(type=ARRAY, stop="zero"), (0.0, 0.0)),
        (CommandParams(type=ARRAY, stop="custom", stop_values=(1.0, 2.0)), (1.0, 2.0)),
    ],
)
def test_what_a_stop_sends(params, values):
    assert stop_policy(params, 2).values == values


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (CommandParams(type=ARRAY), "expected zero or custom"),
        (CommandParams(stop="hold_measured"), "not built yet"),
        (CommandParams(stop="custom", stop_values=(1.0,)), "expected 2 numbers"),
        (CommandParams(stop="zero", stop_values=(1.0, 1.0)), "expected none"),
    ],
)
def test_a_stop_that_says_too_little_or_too_much_is_refused(params, says):
    with pytest.raises(ConfigError, match=says):
        stop_policy(params, 2)
