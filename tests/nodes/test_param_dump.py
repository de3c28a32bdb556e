"""All parameters of a real node can be read at once, as `ros2 param dump` does, and make the same node again."""

from typing import Any

import pytest
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from ros_network import CONFIGURE
from tiny_bag import START_NS, image, write
from tiny_policy import write_policy

GIVEN = {
    "policy_node": {"limits": {"max_slew": [0.5, 3.0]}, "command": {"fields": ["data[0]", "data[1]"]}},
    "record_node": {"keep_free_mb": 1},
    "replay_node": {"start_paused": True, "wait_for": 0},
}


def all_values(network, node: str) -> dict[str, Any]:
    """What `ros2 param dump` gets."""
    listed = network.call(ListParameters, f"{node}/list_parameters", ListParameters.Request()).result.names
    answer = network.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=listed)).values
    assert len(answer) == len(listed) > 5
    values = {name: parameter_value_to_python(value) for name, value in zip(listed, answer, strict=True)}
    return {
        name: value if isinstance(value, str | bool | int | float) else list(value) for name, value in values.items()
    }


@pytest.mark.parametrize("node", GIVEN)
def test_every_parameter_has_a_value_and_a_dump_makes_the_same_node(network, tmp_path, node):
    given = dict(GIVEN[node])
    if node == "record_node":
        given["out"] = str(tmp_path / "drive")
    if node == "replay_node":
        given["bag"] = str(write(tmp_path / "bag", [(START_NS, "/camera/image", image(START_NS, 90))]))
    first = network.start(node, given)
    values = all_values(network, node)
    lists = [name for name, value in values.items() if value == []]
    assert lists
    first.end()
    again = network.start(node, values)
    assert all_values(network, node) == values
    assert again.popen.poll() is None


def test_a_path_may_begin_at_home(network, tmp_path):
    network.start("record_node", {"out": "~/drive"}, HOME=str(tmp_path))
    network.meet("record_node")
    assert (tmp_path / "drive").is_dir()
    write_policy(tmp_path / "tiny.onnx")
    given = {"policy": "~/tiny.onnx", "policy_dir": "~/versions"}
    (tmp_path / "versions").mkdir()
    network.start("policy_node", given, HOME=str(tmp_path))
    assert network.change(CONFIGURE)


def test_the_type_alone_configures_a_command(network, tmp_path):
    given = {"policy": str(write_policy(tmp_path / "tiny.onnx")), "command": {"type": "geometry_msgs/msg/TwistStamped"}}
    network.start("policy_node", given)
    assert network.change(CONFIGURE)


def test_an_empty_list_keeps_its_type_and_whether_it_is_read_only(network, tmp_path):
    network.start("record_node", {"out": str(tmp_path / "drive")})
    network.start("policy_node", {})
    assert "read-only" in network.set("record_node", topics=["/other"])
    assert "expected a list of floats" in network.set("policy_node", limits__low=["low", "lower"])
    assert network.set("policy_node", limits__low=[-1.0, -2.0]) == ""
    request = DescribeParameters.Request(names=["command.joints"])
    (descriptor,) = network.call(DescribeParameters, "policy_node/describe_parameters", request).descriptors
    assert descriptor.type == Parameter.Type.STRING_ARRAY.value
    assert descriptor.description
