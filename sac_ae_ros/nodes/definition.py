"""What a message type looks like, as text that stands in a recording, from its class; so any installed type will do."""

from __future__ import annotations

import re
from typing import Any

from sac_ae_ros.nodes.fields import LIST, message_class, type_name

LINE = "=" * 80
NAMES = {"boolean": "bool", "octet": "byte", "float": "float32", "double": "float64"}
NOTHING = "structure_needs_at_least_one_member"  # what rosidl puts into a message without fields
_BOUNDED = re.compile(r"(w?string)<(\d+)>")


def definition(kind: Any) -> str:
    """The class's fields in the language of .msg files, then, behind lines of =, those of the messages inside.

    Constants, defaults and comments are not in the class; nobody needs them to read messages.
    """
    parts: dict[str, str] = {}
    _describe(kind, parts)
    first, *others = parts.items()
    return first[1] + "".join(f"{LINE}\nMSG: {name}\n{text}" for name, text in others)


def _describe(kind: Any, parts: dict[str, str]) -> None:
    name = type_name(kind).replace("/msg/", "/")
    if name in parts:
        return
    fields = kind.get_fields_and_field_types()
    parts[name] = "".join(f"{_spelled(text)} {field}\n" for field, text in fields.items() if field != NOTHING)
    for field, text in fields.items():
        item = _item(text)
        if "/" in item:
            _describe(message_class(item.replace("/", "/msg/"), field), parts)


def _item(text: str) -> str:
    match = LIST.fullmatch(text)
    return (match["item"] or match["fixed_item"]) if match else text


def _spelled(text: str) -> str:
    match, item = LIST.fullmatch(text), _item(text)
    item = _BOUNDED.sub(r"\1<=\2", NAMES.get(item, item))
    if match is None:
        return item
    return f"{item}[{match['size'] or (match['most'] and '<=' + match['most']) or ''}]"
