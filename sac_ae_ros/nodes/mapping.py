"""CommandMapping: which message carries the command, and where in it each action goes; what a stop is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.fields import MOST, Field, bounds, find, message_class, path, walk
from sac_ae_ros.nodes.template import constants_of_stop, joint_names, make_template, parse_constants, takes_stamp

_TWIST = re.compile(r"geometry_msgs/(msg/)?Twist(WithCovariance)?(Stamped)?")
_NO_POSITION = re.compile(r"velocit|accelerat|effort|twist|linear|angular|speed|jerk|torque")


class CommandMapping:
    """Where each action goes in a command message; everything is checked against the message class."""

    def __init__(self, params: CommandParams, actions: Sequence[str], period_s: float = 0.1) -> None:
        """`actions`: the names, in the policy's order, of what `params.places` places.

        `period_s`, the policy period, is the default of `params.time_from_start_s`.

        Raises:
            ConfigError: an unknown type or field, not one distinct field for each action, a constant that does
                not fit, or joints without names.
        """
        self.message_class = message_class(params.type)
        self._fields = _action_fields(self.message_class, params.places, actions)
        self._bounds = [bounds(field.type) or (0.0, 0.0) for field in self._fields]
        self._whole = [field.type not in MOST for field in self._fields]
        constants = parse_constants(self.message_class, params.constants)
        self._stamped = takes_stamp(self.message_class, constants)
        template = make_template(self.message_class, self._fields, constants, params, period_s)
        self._lengths = {steps: len(walk(template, steps)) for field in self._fields for steps in field.lists}
        self._names = joint_names(template)
        self._template = serialize_message(template)  # to make messages of: twice as fast as copying
        resting = constants_of_stop(self.message_class, self._fields, constants, params.stop_constants)
        self._stop = serialize_message(make_template(self.message_class, self._fields, resting, params, period_s))

    def check(self, values: Sequence[float] | NDArray[np.float64], title: str) -> None:
        """Raises ConfigError where one of the actions' values [A] is not finite or does not fit into its field."""
        for i, (value, (low, high), field) in enumerate(zip(values, self._bounds, self._fields, strict=True)):
            if not np.isfinite(value) or not low <= self._number(i, value) <= high:
                where = f"'{path(field.steps)}', a {field.type},"
                raise ConfigError(f"{title}: expected a finite number that {where} can hold, got {value}")

    def check_limits(self, values: Sequence[float] | NDArray[np.float64], title: str) -> None:
        """As `check`; and those of integer fields must be integers, or else rounding could pass them."""
        self.check(values, title)
        for value, whole, field in zip(values, self._whole, self._fields, strict=True):
            if whole and value != round(float(value)):
                raise ConfigError(
                    f"{title}: expected an integer, as '{path(field.steps)}' is a {field.type}, got {value}"
                )

    def message(self, values: Sequence[float] | NDArray[np.float64], stamp: Time) -> Any:
        """A message with one value for each action, physical units; stamped if its type has a header.

        Raises:
            ConfigError: a value is not finite, or does not fit into its field.
        """
        return self._filled(self._template, values, stamp)

    def stop(self, values: Sequence[float] | NDArray[np.float64], stamp: Time) -> Any:
        """As `message`, for a stop: constants that are velocities or efforts are zero, or as `stop_constants` say."""
        return self._filled(self._stop, values, stamp)

    def _filled(self, template: bytes, values: Sequence[float] | NDArray[np.float64], stamp: Time) -> Any:
        self.check(values, "command")
        message = deserialize_message(template, self.message_class)
        if self._stamped:
            message.header.stamp = stamp
        for i, (field, value) in enumerate(zip(self._fields, values, strict=True)):
            field.put(message, self._number(i, value))
        return message

    def _number(self, action: int, value: float) -> float | int:
        """What stands for an action's finite value in its field: integer fields take the nearest integer."""
        return round(float(value)) if self._whole[action] else float(value)

    def values(self, message: Any) -> NDArray[np.float64]:
        """The actions' values [A] in a command message.

        Raises:
            ConfigError: a list is too short or too long, joints have other names, or a value is not finite.
        """
        for steps, length in self._lengths.items():
            came = len(walk(message, steps))
            if came != length:
                raise ConfigError(f"command: expected {length} items in '{path(steps)}', got {came}")
        if self._names:
            field, names = self._names
            if list(getattr(message, field)) != names:
                raise ConfigError(f"command: expected {field} {names}, got {list(getattr(message, field))}")
        values = np.array([field.get(message) for field in self._fields], np.float64)
        if not np.isfinite(values).all():
            raise ConfigError(f"command: expected finite numbers, got {values.tolist()}")
        return values


def _action_fields(kind: Any, texts: Sequence[str], actions: Sequence[str]) -> list[Field]:
    if len(texts) != len(actions):
        raise ConfigError(
            f"command.fields: expected one field for each of {list(actions)}, got {list(texts)}; set command.type and"
            " command.fields, such as std_msgs/msg/Float64MultiArray and data[0], data[1]"
        )
    fields = [find(kind, text, f"command.fields[{i}]") for i, text in enumerate(texts)]
    for i, field in enumerate(fields):
        if bounds(field.type) is None:
            raise ConfigError(
                f"command.fields[{i}] '{texts[i]}': expected a number (float32, float64 or an integer type),"
                f" got {field.type}"
            )
    return fields


@dataclass(frozen=True)
class StopPolicy:
    """What a stop sends: `values` [A], or with kind hold_measured the measured positions of the joints."""

    kind: str
    values: tuple[float, ...]


def stop_policy(params: CommandParams, actions: int) -> StopPolicy:
    """What a stop sends, for so many `actions`.

    Raises:
        ConfigError: an unknown type, or the parameters don't say what a stop is, or contradict themselves.
    """
    message_class(params.type)  # a misspelt type is no reason to ask what its stop is
    stop = params.stop or ("zero" if _TWIST.fullmatch(params.type) else "")
    if not stop:
        raise ConfigError(
            f"command.stop: expected zero, custom or hold_measured for {params.type}, got nothing;"
            " say what stops your robot"
        )
    if stop == "custom":
        if len(params.stop_values) != actions or not np.isfinite(params.stop_values).all():
            raise ConfigError(f"command.stop_values: expected {actions} finite numbers, got {list(params.stop_values)}")
    elif params.stop_values:
        raise ConfigError(f"command.stop_values: expected none with stop: {stop}, got {list(params.stop_values)}")
    if stop == "hold_measured":
        _check_held(params, actions)
    elif params.joints:
        raise ConfigError(f"command.joints: expected none with stop: {stop}, got {list(params.joints)}")
    return StopPolicy(stop, params.stop_values if stop == "custom" else (0.0,) * actions)


def _check_held(params: CommandParams, actions: int) -> None:
    if len(params.joints) != actions or len(set(params.joints)) != actions or "" in params.joints:
        raise ConfigError(
            f"command.joints: expected {actions} different joints of `joint_states`, one for each action,"
            f" got {list(params.joints)}"
        )
    moving = [field for field in params.places if _NO_POSITION.search(field)]
    if moving:
        raise ConfigError(
            f"command.stop: hold_measured sends measured positions, but {moving} take no positions;"
            " expected zero or custom"
        )
