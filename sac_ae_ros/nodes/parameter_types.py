"""How a parameter given with another type should have been written: ROS converts none, not even 1 to 1.0."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.parameter import Parameter

from sac_ae_ros import bounded_yaml
from sac_ae_ros.core.errors import LONGEST_QUOTE, printable

Type = Parameter.Type

# what one value is called, several, and an example
_WORDS = {
    Type.BOOL: ("bool", "bools", "true"),
    Type.INTEGER: ("integer", "integers", "1"),
    Type.DOUBLE: ("float", "floats", "1.0"),
    Type.STRING: ("string", "strings", '"text"'),
}
_ITEMS = {
    Type.BOOL_ARRAY: Type.BOOL,
    Type.INTEGER_ARRAY: Type.INTEGER,
    Type.DOUBLE_ARRAY: Type.DOUBLE,
    Type.STRING_ARRAY: Type.STRING,
}
MAX_INTEGER = 2**63  # the least that is too large for an integer parameter
_INTEGER = re.compile(r"[-+]?\d{1,19}")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*")  # a text that needs no quotes, unless YAML takes it for something else
# rclpy's exception keeps nothing but its text
_RCLPY = re.compile(r"Trying to set parameter '(.+?)' to '(.*)' of type '(\w+)', expecting type '(\w+)'", re.DOTALL)


def mismatch(wanted: Parameter.Type, given: Parameter) -> str:
    """Says which type was expected of a parameter, what came and how to write it; empty where the type fits.

    An empty list has no type and fits every list.
    """
    if given.type_ == wanted or (given.type_ == Type.NOT_SET and wanted in _ITEMS):
        return ""
    meant = _meant(wanted, given.value)
    if wanted == Type.STRING and given.type_ == Type.BOOL:
        words = '"on", "yes" or "true"' if given.value else '"off", "no" or "false"'
        example = words.partition(",")[0]
        way_out = f"write the word that was meant in quotes, {words}, on a command line -p '{given.name}:={example}'"
    elif meant is None:
        example = _WORDS[_ITEMS.get(wanted, wanted)][2]
        way_out = f"write one such as {f'[{example}]' if wanted in _ITEMS else example}"
    else:
        way_out = f"write {_written(meant)}{_hint(wanted, given, meant)}"
    return printable(f"{given.name}: expected {_name(wanted)}, got {_name(given.type_)}{_shown(given)}; {way_out}")


def mismatch_of(error: InvalidParameterTypeException) -> str:
    """As `mismatch`, for a parameter that rclpy itself declares, such as use_sim_time."""
    found = _RCLPY.match(str(error))
    if not found:
        return str(error)
    name, text, came, wanted = found.groups()
    try:
        value = text if came == Type.STRING.name else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return str(error)
    return mismatch(Type.__members__[wanted], Parameter(name, Type.__members__[came], value))


def _name(type_: Parameter.Type) -> str:
    if type_ in _ITEMS:
        return f"a list of {_WORDS[_ITEMS[type_]][1]}"
    if type_ not in _WORDS:
        return "nothing" if type_ == Type.NOT_SET else "bytes"
    one = _WORDS[type_][0]
    return f"{'an' if one[0] in 'aeiou' else 'a'} {one}"


def _shown(given: Parameter) -> str:
    if given.type_ not in _WORDS and given.type_ not in _ITEMS:
        return ""
    text = _written(list(given.value) if given.type_ in _ITEMS else given.value)
    return f", {text if len(text) <= LONGEST_QUOTE else f'{text[:LONGEST_QUOTE]}...'}"


def _hint(wanted: Parameter.Type, given: Parameter, meant: Any) -> str:
    """What is easily overlooked in how to write it."""
    if given.type_ == Type.STRING and (wanted != Type.STRING_ARRAY or _list_in(given.value)):
        return " without quotes"
    if wanted == Type.STRING:
        return f" with its quotes, on a command line -p '{given.name}:={_written(meant)}'"
    return ""


def _meant(wanted: Parameter.Type, value: Any) -> Any:
    """The value of that type that somebody meant who wrote this one; None where nobody can tell."""
    if isinstance(value, str):
        items = (wanted in _ITEMS and _list_in(value)) or [value]
    else:
        items = list(value) if hasattr(value, "__len__") else [value]
    found = [_one(_ITEMS.get(wanted, wanted), item) for item in items]
    if not found or None in found:
        return None
    if wanted in _ITEMS:
        return found
    return found[0] if len(found) == 1 else None


def _list_in(text: str) -> list[Any] | None:
    """The list in a text such as "[1.0, 2.0]" or "1.0, 2.0"; None if there is none."""
    try:
        found = bounded_yaml.load(text if text.startswith("[") else f"[{text}]" if "," in text else "")
    except (yaml.YAMLError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _one(wanted: Parameter.Type, value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        return None
    text = value if isinstance(value, str) else _written(value)
    if wanted == Type.STRING:
        return text
    if wanted == Type.BOOL:
        return _TRUTH.get(text.lower())
    try:
        number = int(text) if wanted == Type.INTEGER and _INTEGER.fullmatch(text) else float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if wanted == Type.DOUBLE:
        return number
    return int(number) if number == int(number) and -MAX_INTEGER <= number < MAX_INTEGER else None


def _written(value: Any) -> str:
    """As YAML has it; texts inside lists have quotes only where they need them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_item, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _item(value: Any) -> str:
    needs_none = isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value
    return str(value) if needs_none else _written(value)
