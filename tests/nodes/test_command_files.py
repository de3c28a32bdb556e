"""The example parameter files of config/commands, as ROS reads them."""

from pathlib import Path

import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions

from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.fields import message_class
from sac_ae_ros.nodes.joints import HeldJoints
from sac_ae_ros.nodes.mapping import CommandMapping, stop_policy
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.policy_params import PolicyParams

FILES = sorted((Path(__file__).parents[2] / "config" / "commands").glob("*.yaml"))
KINDS = {
    "ackermann": "zero",
    "joint_state": "hold_measured",
    "joint_trajectory": "hold_measured",
    "multi_array": "zero",
    "twist_stamped": "zero",
}


def command_params(file: Path) -> CommandParams:
    """What a node called policy_node would read with this parameter file."""
    context = Context()
    rclpy.init(context=context, domain_id=99, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node("policy_node", context=context, cli_args=["--ros-args", "--params-file", str(file)])
        declare(node, PolicyParams)
        params = read(node, PolicyParams).command
        node.destroy_node()
    finally:
        context.shutdown()
    return params


def test_there_is_a_file_for_each_kind():
    assert {file.stem for file in FILES} == set(KINDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_configures_a_command(file, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    params = command_params(file)
    assert params.fields != CommandParams().fields
    if file.stem == "ackermann":
        pytest.importorskip("ackermann_msgs", reason="ackermann_msgs is not installed: no such message type")
    mapping = CommandMapping(params, ["a", "b"], 0.1)
    assert mapping.message_class is message_class(params.type)
    message = mapping.message([0.25, -0.5], Time(sec=1))
    assert mapping.values(message).tolist() == [0.25, -0.5]
    assert serialize_message(message)
    stop = stop_policy(params, 2)
    assert stop.kind == KINDS[file.stem]
    if stop.kind == "hold_measured":
        assert HeldJoints(params.joints, params.joint_timeout_s).positions is None
