"""Paths to the fields of messages, such as points[0].positions[2], and values of the types that these have."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
import re
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Duration, Time

from sac_ae_ros.core.errors import ConfigError, quote
from sac_ae_ros.core.field_path import Steps, parse_parts, path, walk

MOST = {"float": 3.402823466e38, "double": 1.7976931348623157e308}  # of float32 as rosidl's setters have it
_INTEGER = re.compile(r"(u?)int(8|16|32|64)")
_TEXT = re.compile(r"w?string(?:<(?P<most>\d+)>)?")
_MESSAGE = re.compile(r"([a-z]\w*)/(?:msg/)?([A-Z]\w*)")
PACKAGE_CUTOFF, TYPE_CUTOFF = 0.8, 0.7  # of difflib: how alike names are that one may stand for the other
LIST = re.compile(r"sequence<(?P<item>.+?)(?:, (?P<most>\d+))?>|(?P<fixed_item>.+)\[(?P<size>\d+)\]")
_TIMES = {"builtin_interfaces/Duration": Duration, "builtin_interfaces/Time": Time}


@dataclass(frozen=True)
class Field:
    """Where a field is in a message class: `steps` are names and, in lists, indices; `type` as rosidl names it.

    `lists` has the item's type of each list on the way that has no fixed size.
    """

    steps: Steps
    type: str
    lists: dict[Steps, str]

    def get(self, message: Any) -> Any:
        """Its value in a message; the lists on the way must be long enough."""
        return walk(message, self.steps)

    def put(self, message: Any, value: Any) -> None:
        """Sets its value; the lists on the way must be long enough."""
        parent, last = walk(message, self.steps[:-1]), self.steps[-1]
        if isinstance(last, int):
            parent[last] = value
        else:
            setattr(parent, last, value)

    def overlaps(self, other: Field) -> bool:
        """Whether they are the same, or one is inside the other."""
        return all(mine == theirs for mine, theirs in zip(self.steps, other.steps, strict=False))


def type_name(kind: Any) -> str:
    """Of a message class, such as sensor_msgs/msg/Image."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def message_class(name: str, title: str = "command.type") -> Any:
    """The class of a message type such as geometry_msgs/msg/Twist.

    Raises:
        ConfigError: no such type on this machine.
    """
    match = _MESSAGE.fullmatch(name)
    try:
        if match:
            return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ImportError, AttributeError):
        pass
    nearest = _nearest_type(name)
    way_out = f"did you mean {nearest}?" if nearest else "install its package"
    raise ConfigError(
        f"{title}: expected an installed message type like geometry_msgs/msg/Twist, got {quote(name)}; {way_out}"
    )


def _nearest_type(name: str) -> str:
    """The installed message type of nearly this name; empty if there is none."""
    tokens = [token for token in re.split(r"[/.:]+", name) if token not in ("", "msg")]
    if not tokens:
        return ""
    installed = [module.name for module in pkgutil.iter_modules() if module.name.endswith("_msgs")]
    packages = difflib.get_close_matches(tokens[0].lower(), installed, 3, PACKAGE_CUTOFF) if tokens[1:] else installed
    types = {type_.rpartition("/")[2].lower(): type_ for package in packages[::-1] for type_ in _types(package)}
    found = difflib.get_close_matches(tokens[-1].lower(), list(types), 1, TYPE_CUTOFF)
    return types[found[0]] if found else ""


def _types(package: str) -> list[str]:
    """The message types of an installed package."""
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError:
        return []
    return [f"{package}/msg/{name}" for name in vars(module) if name[0].isupper()]


def find(kind: Any, text: str, title: str) -> Field:
    """Parses a field path and follows it through the message classes, from the class `kind` on.

    Raises:
        ConfigError: not a path, no such field, or an index where there is no such place.
    """
    steps: Steps = ()
    lists: dict[Steps, str] = {}
    type_ = ""
    for name, index in parse_parts(text, title):
        if steps:
            if not _MESSAGE.fullmatch(type_):
                raise ConfigError(f"{title} '{text}': '{path(steps)}' is a {type_}, which has no fields")
            kind = message_class(type_, title)
        fields = kind.get_fields_and_field_types()
        if name not in fields:
            raise ConfigError(f"{title} '{text}': {kind.__name__} has no field {name!r}, only {', '.join(fields)}")
        steps, type_ = (*steps, name), fields[name]
        if index is None:
            continue
        found = LIST.fullmatch(type_)
        if not found or index >= int(found["size"] or found["most"] or index + 1):
            raise ConfigError(f"{title} '{text}': '{path(steps)}' is a {type_} and has no [{index}]")
        if not found["size"]:
            lists[steps] = found["item"]
        steps, type_ = (*steps, index), found["item"] or found["fixed_item"]
    return Field(steps, type_, lists)


def initial(type_: str) -> Any:
    """A new value of this type, which is no list."""
    if _MESSAGE.fullmatch(type_):
        return message_class(type_)()
    if _TEXT.fullmatch(type_):
        return ""
    return {"double": 0.0, "float": 0.0, "boolean": False, "octet": b"\0"}.get(type_, 0)


def converted(type_: str, value: Any, title: str) -> Any:
    """A value out of YAML as a field of this type takes it; a Duration or Time is given in seconds.

    Raises:
        ConfigError: the value is of another type, out of range, or too long.
    """
    found = LIST.fullmatch(type_)
    if found:
        return _list(found, value, title)
    if type_ in MOST:
        return _float(type_, value, title)
    if type_ in _TIMES:
        return _time(type_, value, title)
    text, integer = _TEXT.fullmatch(type_), _INTEGER.fullmatch(type_)
    if text:
        most = text["most"]
        _require(isinstance(value, str), title, "text; put it in quotes", value)
        _require(most is None or len(value.encode()) <= int(most), title, f"at most {most} bytes", value)
    elif type_ == "boolean":
        _require(isinstance(value, bool), title, "true or false", value)
    elif type_ == "octet" or integer:
        low, high = _integer_bounds(integer) if integer else (0, 255)
        _require(type(value) is int and low <= value <= high, title, f"an integer of {low}..{high}", value)
        return bytes([value]) if type_ == "octet" else value
    else:
        raise ConfigError(f"{title}: is a {type_}; expected a number, a text, a truth value or a list of these")
    return value


def bounds(type_: str) -> tuple[float, float] | None:
    """The smallest and the largest number that a field of this type can hold; None for what holds no numbers."""
    if type_ in MOST:
        return -MOST[type_], MOST[type_]
    integer = _INTEGER.fullmatch(type_)
    return _integer_bounds(integer) if integer else None


def _integer_bounds(integer: re.Match[str]) -> tuple[int, int]:
    bits = int(integer[2])
    return (0, 2**bits - 1) if integer[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _list(found: re.Match[str], value: Any, title: str) -> list[Any]:
    _require(isinstance(value, list), title, "a list such as [a, b]", value)
    size, most = found["size"], found["most"]
    _require(size is None or len(value) == int(size), title, f"{size} values", value)
    _require(most is None or len(value) <= int(most), title, f"at most {most} values", value)
    item = found["item"] or found["fixed_item"]
    return [converted(item, each, f"{title}[{i}]") for i, each in enumerate(value)]


def _float(type_: str, value: Any, title: str) -> float:
    number = _number(type_, value, title)
    _require(abs(number) <= MOST[type_], title, f"a finite number that a {type_} can hold", value)  # false for NaN
    return number


def _number(type_: str, value: Any, title: str) -> float:
    try:  # YAML 1.1 takes 1e-3 for text
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{title}: expected a number that a {type_} can hold, got {value!r:.60}") from None
    _require(not isinstance(value, bool), title, "a number", value)
    return number


def _time(type_: str, value: Any, title: str) -> Any:
    seconds = _number("double", value, title)
    _require(0 <= seconds < 2**31 - 1, title, f"a {_TIMES[type_].__name__} in seconds", value)
    sec, nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return _TIMES[type_](sec=sec, nanosec=nanosec)


def _require(holds: bool, title: str, expected: str, came: object) -> None:
    if not holds:
        raise ConfigError(f"{title}: expected {expected}, got {came!r:.60}")
