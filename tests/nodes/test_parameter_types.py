"""What is said of a value of the wrong type, without a network."""

import pytest
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.parameter import Parameter

from sac_ae_ros.nodes.parameter_types import mismatch, mismatch_of

Type = Parameter.Type


@pytest.mark.parametrize(
    ("wanted", "value", "way_out"),
    [
        (Type.DOUBLE, 1, "write 1.0"),
        (Type.DOUBLE, "0.5", "write 0.5 without quotes"),
        (Type.DOUBLE, "1s", "write one such as 1.0"),
        (Type.DOUBLE, True, "write one such as 1.0"),
        (Type.DOUBLE, [2], "write 2.0"),
        (Type.DOUBLE, [2.0, 3.0], "write one such as 1.0"),
        (Type.INTEGER, 3.0, "write 3"),
        (Type.INTEGER, 3.5, "write one such as 1"),
        (Type.INTEGER, float("inf"), "write one such as 1"),
        (Type.INTEGER, 1e23, "write one such as 1"),
        (Type.INTEGER, 2.0**63, "write one such as 1"),
        (Type.INTEGER, -(2.0**63), "write -9223372036854775808"),
        (Type.INTEGER, "9007199254740993", "write 9007199254740993 without quotes"),
        (Type.INTEGER, "9" * 6000, "write one such as 1"),
        (Type.BOOL, 0, "write false"),
        (Type.BOOL, 2, "write one such as true"),
        (Type.BOOL, "On", "write true without quotes"),
        (Type.BOOL, "maybe", "write one such as true"),
        (
            Type.STRING,
            False,
            """write the word that was meant in quotes, "off", "no" or "false", on a command line -p 'name:="off"'""",
        ),
        (Type.STRING, ["a", "b"], 'write one such as "text"'),
        (Type.DOUBLE_ARRAY, 1, "write [1.0]"),
        (Type.DOUBLE_ARRAY, [1, 2], "write [1.0, 2.0]"),
        (Type.DOUBLE_ARRAY, "[1, 2.5]", "write [1.0, 2.5] without quotes"),
        (Type.DOUBLE_ARRAY, "1.0, 2.0", "write [1.0, 2.0] without quotes"),
        (Type.DOUBLE_ARRAY, ["a"], "write one such as [1.0]"),
        (Type.INTEGER_ARRAY, [1.0, 2.5], "write one such as [1]"),
        (Type.STRING_ARRAY, "linear.x", "write [linear.x]"),
        (Type.STRING_ARRAY, "data[0]", 'write ["data[0]"]'),
        (Type.STRING_ARRAY, [1, 2], 'write ["1", "2"]'),
        (Type.STRING_ARRAY, [True], 'write ["true"]'),
    ],
)
def test_what_was_meant_is_shown(wanted, value, way_out):
    text = mismatch(wanted, Parameter("name", value=value))
    assert text.startswith("name: expected ")
    assert text.partition("; ")[2] == way_out


def test_what_fits_is_no_mismatch():
    assert mismatch(Type.DOUBLE, Parameter("name", value=1.0)) == ""
    assert mismatch(Type.DOUBLE_ARRAY, Parameter("name")) == ""  # an empty list, as rcl has it
    assert mismatch(Type.DOUBLE, Parameter("name")) == "name: expected a float, got nothing; write one such as 1.0"


def test_a_long_or_unprintable_value_makes_one_line():
    text = mismatch(Type.DOUBLE, Parameter("name", value="\x1b[31m\n" + "x" * 5000))
    assert text.isprintable()
    assert len(text) < 250


def test_rclpy_s_own_refusal_is_put_in_the_same_words():
    error = InvalidParameterTypeException(Parameter("use_sim_time", value="true"), "BOOL")
    assert mismatch_of(error) == 'use_sim_time: expected a bool, got a string, "true"; write true without quotes'
