"""What `~/state` of a policy node says, checked: any node can publish on that topic."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from sac_ae_ros.core.errors import RunError, quote
from sac_ae_ros.core.spec import parse_json

# how a refusal of ~/arm goes on that is over by itself; then comes the number of seconds
LISTENS = "listens for other publishers and the emergency stop for"
MAX_STATE_CHARS = 100_000  # a policy node's has about 1,000


def parse_state(name: str, text: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """Reads `~/state` of the node `name`.

    Args:
        name: of the node, in full.
        text: the message's.
        keys: which must be there, as a policy node writes them; all where none are named.

    Raises:
        RunError: it is not what a policy node publishes.
    """
    try:
        facts = _load(text)
        for key in keys or _VALUES:
            expected, is_right = _VALUES[key]
            if key not in facts:
                raise ValueError(f"an object without {key!r}")
            if not is_right(facts[key]):
                raise ValueError(f"{quote(json.dumps(facts[key]))} for {key!r}, which is {expected}")
    except (ValueError, RecursionError) as error:
        raise RunError(f"{name}/state: expected a policy node's JSON, got {error}") from error
    return facts


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_STATE_CHARS:
        raise ValueError(f"{len(text)} characters")
    try:
        facts = parse_json(text)
    except json.JSONDecodeError as error:  # before ValueError, its base
        raise ValueError(f"{quote(text)}, which is no JSON") from error
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{quote(json.dumps(facts))}, which is no object")
    return facts


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _optional(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def _object(**fields: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(key in value and is_right(value[key]) for key, is_right in fields.items())
    )


# as reporter.py writes them
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lifecycle": ("a text", _is_text),
    "output": ("a text or null", _optional(_is_text)),
    "armed": ("true or false", _is_bool),
    "disarms": ("an integer", _is_integer),
    "stop": ("a text or null", _optional(_is_text)),
    "detail": ("a text", _is_text),
    "latched": ("a list of texts", _are_texts),
    "causes": ("a list of texts", _are_texts),
    "lasting": ("a text", _is_text),
    "barred": ("a text", _is_text),
    "unheard": ("a text", _is_text),
    "needs_arm": ("a list of texts", _are_texts),
    "novelty": ("a text", _is_text),
    "policy": (
        "an object with name, version and sha256, or null",
        _optional(_object(name=_is_text, version=_is_text, sha256=_is_text)),
    ),
    "stored_version": ("an integer or null", _optional(_is_integer)),
    "newer": ("an integer or null", _optional(_is_integer)),
    "reload": (
        "an object with ok, version and text, or null",
        _optional(_object(ok=_is_bool, version=_optional(_is_integer), text=_is_text)),
    ),
}
