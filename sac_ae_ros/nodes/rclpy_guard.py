"""Keeps messages that rclpy trips over from ending a node, and says what to do about a parameter's wrong type.

rclpy trips over types of parameters that do not exist, and over times before 1970.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from sac_ae_ros.nodes.parameter_types import mismatch

SETTERS = ("set_parameters", "set_parameters_atomically")
LAST_TYPE = ParameterType.PARAMETER_STRING_ARRAY
WRONG_TYPE = "Wrong parameter type"  # how rclpy's reason begins


def guard(node: Node) -> None:
    """Has `node` refuse parameters of types that do not exist, and ignore a /clock that is negative."""
    for service in node.services:
        if service.srv_name.rpartition("/")[2] in SETTERS:
            service.callback = functools.partial(_set_parameters, node, service.callback)
    source = node._time_source
    hear = functools.partial(_hear_clock, source.clock_callback)
    source.clock_callback = hear  # type: ignore[method-assign]  # for a later use_sim_time
    if source._clock_sub is not None:
        source._clock_sub.callback = hear


def _set_parameters(node: Node, set_all: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    atomically = isinstance(request, SetParametersAtomically.Request)
    wrong = [each.value.type for each in request.parameters if each.value.type > LAST_TYPE]
    if not wrong:
        response = set_all(request, response)
        if atomically:
            _explain(node, response.result, request.parameters)
        else:
            for result, parameter in zip(response.results, request.parameters, strict=True):
                _explain(node, result, [parameter])
        return response
    reason = (
        f"expected types of parameters up to {LAST_TYPE}, as rcl_interfaces/msg/ParameterType has them, got {wrong[0]}"
    )
    result = SetParametersResult(successful=False, reason=reason)
    if atomically:
        response.result = result
    else:
        response.results = [result for _ in request.parameters]
    return response


def _explain(node: Node, result: SetParametersResult, messages: Sequence[Any]) -> None:
    """Says what to write instead where rclpy has refused a wrong type."""
    if not result.reason.startswith(WRONG_TYPE):
        return
    given = [Parameter.from_parameter_msg(each) for each in messages if node.has_parameter(each.name)]
    told = [mismatch(Parameter.Type(node.describe_parameter(each.name).type), each) for each in given]
    result.reason = "; ".join(filter(None, told)) or result.reason


def _hear_clock(hear: Callable[[Clock], None], message: Clock) -> None:
    if message.clock.sec >= 0:
        hear(message)
