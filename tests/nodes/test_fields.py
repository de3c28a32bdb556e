"""Paths to the fields of messages, and values for what they lead to."""

import math

import pytest
from geometry_msgs.msg import Twist
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from trajectory_msgs.msg import JointTrajectory

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.fields import converted, find, message_class


def test_the_class_of_a_type_is_found_in_both_spellings():
    assert message_class("geometry_msgs/msg/Twist") is Twist
    assert message_class("geometry_msgs/Twist") is Twist


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("geometry_msgs/msg/Twits", "did you mean geometry_msgs/msg/Twist?"),
        ("geometry_msgs/msg/twiststamped", "did you mean geometry_msgs/msg/TwistStamped?"),
        ("geometry_msg/msg/Twist", "did you mean geometry_msgs/msg/Twist?"),
        ("geometry_msgs.msg.Twist", "did you mean geometry_msgs/msg/Twist?"),
        ("TwistStamped", "did you mean geometry_msgs/msg/TwistStamped?"),
        ("my_robot_msgs/msg/Wheels", "install its package"),
        ("", "install its package"),
    ],
)
def test_the_nearest_installed_type_is_named(name, way_out):
    with pytest.raises(ConfigError, match="expected an installed message type") as caught:
        message_class(name)
    assert str(caught.value).endswith(f"; {way_out}")


def test_a_path_leads_through_messages_and_lists():
    field = find(JointTrajectory, "points[0].positions[2]", "here")
    assert (field.steps, field.type) == (("points", 0, "positions", 2), "double")
    assert list(field.lists) == [("points",), ("points", 0, "positions")]
    field = find(Odometry, "pose.covariance[7]", "here")
    assert (field.type, field.lists) == ("double", {})
    message = Odometry()
    field.put(message, 2.0)
    assert field.get(message) == message.pose.covariance[7] == 2.0


@given(st.text(st.sampled_from("abpoints.[]0123 _-\n"), max_size=30))
def test_no_text_does_more_than_be_refused(text):
    try:
        field = find(JointTrajectory, text, "here")
    except ConfigError:
        return
    assert field.steps[0] in JointTrajectory.get_fields_and_field_types()


@pytest.mark.parametrize(
    ("type_", "value", "is_"),
    [
        ("double", 1, 1.0),
        ("double", "1e-3", 0.001),
        ("uint8", 255, 255),
        ("int8", -128, -128),
        ("octet", 7, b"\7"),
        ("boolean", True, True),
        ("string", "base", "base"),
        ("string<4>", "base", "base"),
        ("sequence<string>", ["a", "b"], ["a", "b"]),
        ("sequence<double, 2>", [1, 2], [1.0, 2.0]),
        ("sequence<string<5>, 3>", ["a"], ["a"]),
        ("float[2]", [1, 2], [1.0, 2.0]),
    ],
)
def test_values_become_what_the_field_takes(type_, value, is_):
    result = converted(type_, value, "x")
    assert result == is_
    assert type(result) is type(is_)


def test_times_are_given_in_seconds():
    duration = converted("builtin_interfaces/Duration", 0.2, "x")
    assert (duration.sec, duration.nanosec) == (0, 200_000_000)
    assert converted("builtin_interfaces/Time", 3, "x").sec == 3


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        ("double", True, "a number, got True"),
        ("double", None, "a number"),
        ("double", [1.0], "a number"),
        ("double", 10**400, "a number"),
        ("float", 1e39, "a finite number that a float can hold"),
        ("float", math.inf, "a finite number that a float can hold"),
        ("double", math.nan, "a finite number that a double can hold"),
        ("double", -math.inf, "a finite number that a double can hold"),
        ("uint8", 256, r"0\.\.255, got 256"),
        ("uint16", -1, r"0\.\.65535"),
        ("int32", 1.0, "an integer"),
        ("int64", True, "an integer"),
        ("octet", 256, r"0\.\.255"),
        ("boolean", 1, "true or false"),
        ("string", True, "put it in quotes"),
        ("string<3>", "base", "at most 3 bytes"),
        ("sequence<string>", "ab", "a list"),
        ("sequence<string>", ["a", 1], r"\[1\]: expected text"),
        ("sequence<double, 2>", [1, 2, 3], "at most 2 values"),
        ("double[2]", [1], "2 values"),
        ("builtin_interfaces/Duration", -1.0, "in seconds"),
        ("builtin_interfaces/Duration", math.nan, "in seconds"),
        ("builtin_interfaces/Duration", 2**31, "in seconds"),
        ("geometry_msgs/Vector3", 1.0, "is a geometry_msgs/Vector3"),
    ],
)
def test_values_that_do_not_fit_are_refused(type_, value, says):
    with pytest.raises(ConfigError, match=f"^x.*{says}"):
        converted(type_, value, "x")
