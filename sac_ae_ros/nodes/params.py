"""ROS parameters as frozen dataclasses: declared from their fields, read nowhere else.

A field's type gives the parameter's type, its metadata the descriptor, a nested dataclass a dotted group. A
list without a default is empty.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sac_ae_ros.nodes import given

Params = TypeVar("Params")

HOUR_S = 3600.0
USE_SIM_TIME = "use_sim_time"  # declared by ROS itself
_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
_LIST_TYPES = {
    tuple[float, ...]: Parameter.Type.DOUBLE_ARRAY,
    tuple[int, ...]: Parameter.Type.INTEGER_ARRAY,
    tuple[str, ...]: Parameter.Type.STRING_ARRAY,
}


def parameter(default: Any, description: str, **constraints: Any) -> Any:
    """A dataclass field with a descriptor; constraints: low, high, choices, read_only; path expands `~`."""
    return dataclasses.field(default=default, metadata={"description": description, **constraints})


def declare(
    node: Node,
    kind: type,
    locked: Callable[[], str | None] = lambda: None,
    arguments: Sequence[str] = (),
) -> None:
    """Declares the parameters of the dataclass `kind`.

    Args:
        node: has no parameters but ROS's own yet.
        kind: its fields are the parameters.
        locked: says why none of them may change at this moment, or None; use_sim_time may not either then.
        arguments: the command line of the process.

    Raises:
        ConfigError: something given from outside is for another node or for no parameter, has the wrong type, or
            stands twice in a file.
        rclpy.exceptions.ParameterException: a value given from outside has the wrong range or choice.
    """
    fields = {name: (type_, field) for name, type_, field in _fields(kind)}
    types = {name: _LIST_TYPES.get(type_) or _TYPES[type_] for name, (type_, _) in fields.items()}
    given.restore_off(node, [name for name, (_, field) in fields.items() if "off" in field.metadata.get("choices", ())])
    given.check(node, types, arguments)
    declared: set[str] = set()

    def check(parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME and locked():
                return SetParametersResult(successful=False, reason=_another_clock(parameter))
            if parameter.name not in fields:
                continue
            reason = locked() if parameter.name in declared else None
            choices = fields[parameter.name][1].metadata.get("choices")
            if choices and parameter.value not in choices:
                expected = ", ".join(map(repr, choices))
                reason = f"{parameter.name}: expected one of {expected}; got {parameter.value!r}"
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for name, (type_, field) in fields.items():
        _declare_one(node, name, type_, field)
        declared.add(name)


def _another_clock(given: Parameter) -> str:
    """Why the clock cannot be changed under a node that goes by it."""
    value = str(given.value).lower() if given.type_ is Parameter.Type.BOOL else "true"
    return (
        f"{USE_SIM_TIME}: expected no change while the node is configured, since its clock dates frames; restart it"
        f" with {USE_SIM_TIME}:={value}, or clean it up first"
    )


def _declare_one(node: Node, name: str, type_: Any, field: dataclasses.Field) -> None:
    """Declares a parameter; a list has a value whatever was given: rclpy's get_parameters fails where one has none."""
    if type_ not in _LIST_TYPES:
        node.declare_parameter(name, field.default, _descriptor(field))
        return
    list_type, changeable, descriptor = _LIST_TYPES[type_], _descriptor(field), _descriptor(field)
    changeable.read_only, descriptor.type = False, list_type.value
    node.declare_parameter(name, list_type, changeable)
    if node.get_parameter_or(name).value is None:
        default: Any = field.default
        node.set_parameters([Parameter(name, list_type, list(default))])  # declare_parameter takes no empty list
    node.set_descriptor(name, descriptor)


def read(node: Node, kind: type[Params]) -> Params:
    """The values at this moment of the parameters that `declare` declared for `kind`."""
    values = {}
    for name, type_, field in _fields(kind):
        value = node.get_parameter_or(name, None)
        found = None if value is None else value.value
        values[name] = field.default if found is None else tuple(found) if type_ in _LIST_TYPES else found
        if field.metadata.get("path"):
            values[name] = os.path.expanduser(str(values[name]))
    return typing.cast(Params, _build(kind, values, ""))


def _fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Full name, type and field of each parameter."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _fields(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], field


def _build(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    arguments = {}
    for name, hint in typing.get_type_hints(kind).items():
        group = dataclasses.is_dataclass(hint)
        arguments[name] = _build(hint, values, f"{prefix}{name}.") if group else values[prefix + name]
    return kind(**arguments)


def _descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    meta = field.metadata
    descriptor = ParameterDescriptor(description=meta["description"], read_only=meta.get("read_only", False))
    if "choices" in meta:
        descriptor.additional_constraints = "one of " + ", ".join(repr(choice) for choice in meta["choices"])
    if "low" in meta:
        low, high = meta["low"], meta["high"]
        if isinstance(field.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
