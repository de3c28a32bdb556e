"""Paths to the fields of messages, such as points[0].positions[2], for messages of whatever library made them."""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

from sac_ae_ros.core.errors import ConfigError

Steps = tuple[str | int, ...]

_PART = re.compile(r"([a-z]\w*)(?:\[(\d{1,4})\])?")


def parse_parts(text: str, title: str = "field") -> list[tuple[str, int | None]]:
    """The parts between the dots: each field's name, and the index behind it or None.

    Raises:
        ConfigError: not a path.
    """
    matches = [_PART.fullmatch(part) for part in text.split(".")]
    parts = [(match[1], None if match[2] is None else int(match[2])) for match in matches if match]
    if len(parts) < len(matches):
        raise ConfigError(f"{title}: expected a field path like twist.linear.x or data[0], got {text!r}")
    return parts


def parse(text: str, title: str = "field") -> Steps:
    """The steps of a path: names and, in lists, indices.

    Raises:
        ConfigError: not a path.
    """
    parts = parse_parts(text, title)
    return tuple(step for name, index in parts for step in (name, index) if step is not None)


def path(steps: Steps) -> str:
    """The steps as text, points[0].positions."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def walk(message: Any, steps: Steps) -> Any:
    """What the steps lead to."""
    return reduce(lambda value, step: getattr(value, step) if isinstance(step, str) else value[step], steps, message)


def get(message: Any, steps: Steps) -> float:
    """The number that the steps lead to.

    Raises:
        ConfigError: the message has no such field, its list is too short, or there is no number.
    """
    try:
        return float(walk(message, steps))
    except (AttributeError, IndexError, TypeError, ValueError):
        kind = type(message).__name__.strip("_").replace("__", "/")
        raise ConfigError(f"field '{path(steps)}': expected a number there in the message, {kind} has none") from None
