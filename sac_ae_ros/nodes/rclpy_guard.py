"""Keeps messages that rclpy itself trips over from ending a node: foreign types of parameters, times before 1970."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

SETTERS = ("set_parameters", "set_parameters_atomically")
LAST_TYPE = ParameterType.PARAMETER_STRING_ARRAY


def guard(node: Node) -> None:
    """Has `node` refuse parameters of types that do not exist, and ignore a /clock that is negative."""
    for service in node.services:
        if service.srv_name.rpartition("/")[2] in SETTERS:
            service.callback = functools.partial(_set_parameters, service.callback)
    source = node._time_source
    hear = functools.partial(_hear_clock, source.clock_callback)
    source.clock_callback = hear  # type: ignore[method-assign]  # for a later use_sim_time
    if source._clock_sub is not None:
        source._clock_sub.callback = hear


def _set_parameters(set_all: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    wrong = [each.value.type for each in request.parameters if each.value.type > LAST_TYPE]
    if not wrong:
        return set_all(request, response)
    reason = (
        f"expected types of parameters up to {LAST_TYPE}, as rcl_interfaces/msg/ParameterType has them, got {wrong[0]}"
    )
    result = SetParametersResult(successful=False, reason=reason)
    if isinstance(request, SetParametersAtomically.Request):
        response.result = result
    else:
        response.results = [result for _ in request.parameters]
    return response


def _hear_clock(hear: Callable[[Clock], None], message: Clock) -> None:
    if message.clock.sec >= 0:
        hear(message)
