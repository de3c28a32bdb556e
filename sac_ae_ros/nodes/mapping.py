"""Commands: which message carries them, where in it each action goes, and what a stop is."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.params import CommandParams

ZERO_BY_DEFAULT = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
_TYPE = re.compile(r"([a-z]\w*)/(?:msg/)?([A-Z]\w*)")
_PATH = re.compile(r"(?P<names>[a-z]\w*(\.[a-z]\w*)*)(\[(?P<index>\d{1,4})\])?")
_NUMBER = re.compile(r"(double|float)")
_SEQUENCE = re.compile(r"sequence<(double|float)>")


@dataclass(frozen=True)
class StopPolicy:
    """What a stop sends: `values` [A], or with kind hold_measured the newest measured positions."""

    kind: str
    values: tuple[float, ...]


def stop_policy(params: CommandParams, actions: int) -> StopPolicy:
    """What a stop sends, for so many `actions`.

    Raises:
        ConfigError: the parameters don't say what a stop is, or contradict themselves.
    """
    stop = params.stop or ("zero" if params.type in ZERO_BY_DEFAULT else "")
    if not stop:
        raise ConfigError(
            f"command.stop: expected zero or custom for {params.type}, got nothing; say what stops your robot"
        )
    if stop == "hold_measured":
        raise ConfigError("command.stop: hold_measured is not built yet; expected zero or custom")
    if stop == "zero" and params.stop_values:
        raise ConfigError(f"command.stop_values: expected none with stop: zero, got {list(params.stop_values)}")
    if stop == "custom" and len(params.stop_values) != actions:
        raise ConfigError(f"command.stop_values: expected {actions} numbers, got {list(params.stop_values)}")
    return StopPolicy(stop, params.stop_values if stop == "custom" else (0.0,) * actions)


@dataclass(frozen=True)
class _Path:
    """One field path: the attributes to walk, and an index where the last of them is a list."""

    names: tuple[str, ...]
    index: int | None
    fixed: bool

    def parent(self, message: Any) -> Any:
        return reduce(getattr, self.names[:-1], message)


class CommandMapping:
    """Where each action goes in a command message; checked against the message class."""

    def __init__(self, params: CommandParams, actions: Sequence[str]) -> None:
        """`actions`: the names, in the policy's order, of what `params.fields` places.

        Raises:
            ConfigError: an unknown type or field, or not one distinct field for each action.
        """
        self.message_class = message_class(params.type)
        self._frame_id = params.frame_id
        self._stamped = self.message_class.get_fields_and_field_types().get("header") == "std_msgs/Header"
        if len(params.fields) != len(actions) or len(set(params.fields)) != len(actions):
            raise ConfigError(
                f"command.fields: expected one field for each of {list(actions)}, got {list(params.fields)}"
            )
        self._paths = [_path(self.message_class, f"command.fields[{i}]", text) for i, text in enumerate(params.fields)]
        self._sizes = _list_sizes(self._paths)

    def message(self, values: Sequence[float] | NDArray[np.float64], stamp: Time) -> Any:
        """A message with one value for each action, physical units; stamped if its type has a header."""
        message = self.message_class()
        if self._stamped:
            message.header.stamp, message.header.frame_id = stamp, self._frame_id
        for names, size in self._sizes.items():
            setattr(reduce(getattr, names[:-1], message), names[-1], [0.0] * size)
        for path, value in zip(self._paths, values, strict=True):
            if path.index is None:
                setattr(path.parent(message), path.names[-1], float(value))
            else:
                getattr(path.parent(message), path.names[-1])[path.index] = float(value)
        return message

    def values(self, message: Any) -> NDArray[np.float64]:
        """The actions' values [A] in a command message.

        Raises:
            ConfigError: a list is too short, or a value is not finite.
        """
        for names, size in self._sizes.items():
            came = len(reduce(getattr, names, message))
            if came != size:
                raise ConfigError(f"command: expected {size} numbers in '{'.'.join(names)}', got {came}")
        found = [getattr(path.parent(message), path.names[-1]) for path in self._paths]
        values = [
            value if path.index is None else value[path.index] for path, value in zip(self._paths, found, strict=True)
        ]
        if not np.isfinite(values).all():
            raise ConfigError(f"command: expected finite numbers, got {values}")
        return np.array(values, np.float64)


def message_class(name: str) -> Any:
    """The class of a message type such as geometry_msgs/msg/Twist.

    Raises:
        ConfigError: no such type on this machine.
    """
    match = _TYPE.fullmatch(name)
    try:
        if match:
            return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ImportError, AttributeError):
        pass
    raise ConfigError(f"command.type: expected an installed message type like geometry_msgs/msg/Twist, got {name!r}")


def _path(kind: Any, title: str, text: str) -> _Path:
    """Parses one field path and follows it through the message classes."""
    match = _PATH.fullmatch(text)
    if not match:
        raise ConfigError(f"{title}: expected a field path like twist.linear.x or data[0], got {text!r}")
    names = tuple(match["names"].split("."))
    index = None if match["index"] is None else int(match["index"])
    for depth, name in enumerate(names):
        fields = kind.get_fields_and_field_types()
        if name not in fields:
            raise ConfigError(f"{title} '{text}': {kind.__name__} has no field {name!r}, only {', '.join(fields)}")
        type_ = fields[name]
        if depth < len(names) - 1:
            if not re.fullmatch(r"\w+/\w+", type_):
                raise ConfigError(f"{title} '{text}': {name!r} is a {type_}, which has no fields")
            kind = message_class(type_)
    leaf = _NUMBER if index is None else _SEQUENCE
    fixed = re.fullmatch(r"(double|float)\[(\d+)\]", type_)
    if fixed and index is not None and index < int(fixed[2]):
        return _Path(names, index, True)
    if not leaf.fullmatch(type_):
        raise ConfigError(f"{title} '{text}': expected a floating point number, got {type_}")
    return _Path(names, index, False)


def _list_sizes(paths: Sequence[_Path]) -> dict[tuple[str, ...], int]:
    """The length of each list that must be made; every place in it must belong to an action."""
    places: dict[tuple[str, ...], list[int]] = {}
    for path in paths:
        if path.index is not None and not path.fixed:
            places.setdefault(path.names, []).append(path.index)
    for names, indices in places.items():
        if sorted(indices) != list(range(len(indices))):
            raise ConfigError(
                f"command.fields: expected {'.'.join(names)}[0] onwards without gaps, got {sorted(indices)}"
            )
    return {names: len(indices) for names, indices in places.items()}
