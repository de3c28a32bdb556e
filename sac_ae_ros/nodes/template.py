"""The message that every command starts as: its lists at their length, its constants set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import yaml

from sac_ae_ros import bounded_yaml
from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.fields import Field, Steps, converted, find, initial, message_class, path

_MOVES = re.compile(r"velocit|effort|twist|linear|angular|speed|torque|force|wrench")
_STAYS = re.compile(r"position|orientation|accelerat|jerk|angle|covariance")
_TWIST = re.compile(r"Twist(WithCovariance)?(Stamped)?")
Constants = Sequence[tuple[Field, Any]]


def parse_constants(kind: Any, texts: Sequence[str], title: str = "command.constants") -> list[tuple[Field, Any]]:
    """The field and the value of each text field=value; `title` is the parameter that has them.

    Raises:
        ConfigError: no such field in the class `kind`, or a value that does not fit it.
    """
    constants = []
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"{title}: expected field=value, got {text!r}")
        field = find(kind, name, title)
        try:
            parsed = bounded_yaml.load(value)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"{title} '{name}': expected a value in YAML, got {value[:80]!r}") from None
        constants.append((field, converted(field.type, parsed, f"{title} '{name}'")))
    return constants


def constants_of_stop(
    kind: Any, fields: Sequence[Field], constants: Constants, texts: Sequence[str]
) -> list[tuple[Field, Any]]:
    """The constants as they are in a stop: velocities and efforts are zero, or what `texts` (field=value) say.

    A Twist's stop is zeros, so nothing may be said for it. Accelerations and jerks, which limit braking, stay as they
    are, and so does all else. A number beside those of the actions whose field does not tell what it is, such as
    `data[2]`, must be zero or be among `texts`.

    Raises:
        ConfigError: a text does not fit or is for a Twist, or a number's part in a stop is unclear.
    """
    if texts and _TWIST.fullmatch(kind.__name__):
        raise ConfigError(f"command.stop_constants: expected none for a {kind.__name__}, whose stop is zeros")
    given = {field.steps: value for field, value in parse_constants(kind, texts, "command.stop_constants")}
    moving = {field.steps for field, _ in constants if _MOVES.search(path(field.steps))}
    unclear = {field.steps for field, value in constants if _is_unclear(field, value, fields)} - moving
    if not given.keys() <= moving | unclear:
        wrong = ", ".join(sorted(path(steps) for steps in given.keys() - moving - unclear))
        raise ConfigError(
            f"command.stop_constants: expected fields of command.constants that are velocities or efforts, got {wrong}"
        )
    if unclear - given.keys():
        wrong = ", ".join(sorted(path(steps) for steps in unclear - given.keys()))
        raise ConfigError(
            f"command.stop_constants: expected a value for {wrong} in a stop, as the field's name does not tell whether"
            " it moves the robot, got none; add one, such as 'data[2]=0'"
        )
    moving |= unclear
    return [
        (field, given.get(field.steps, _zero(value)) if field.steps in moving else value) for field, value in constants
    ]


def _is_unclear(field: Field, value: Any, actions: Sequence[Field]) -> bool:
    """Whether a number other than zero stands beside one of the actions' and its name does not tell what it is."""
    beside = any(field.steps[:-1] == action.steps[:-1] for action in actions)
    number = isinstance(value, float | int) and not isinstance(value, bool) and value != 0
    return beside and number and not _STAYS.search(path(field.steps))


def _zero(value: Any) -> Any:
    if isinstance(value, list):
        return [_zero(item) for item in value]
    return type(value)() if isinstance(value, int | float) else value


def takes_stamp(kind: Any, constants: Constants) -> bool:
    """Whether a command of this class is stamped with the time at which it is sent.

    A trajectory is not. Its stamp stays zero, which means that it starts when it arrives: a controller throws a
    trajectory away that ended before the time of its own clock, and a short one soon has.
    """
    free = not _touched(("header", "stamp"), constants)
    return _has_header(kind) and free and not _is_trajectory(kind)


def make_template(
    kind: Any, fields: Sequence[Field], constants: Constants, params: CommandParams, period_s: float
) -> Any:
    """A message of class `kind` with room for the fields of the actions; `period_s` is the policy period.

    The i-th of a trajectory's `points` is reached i * `params.time_from_start_s`, or i periods, after its start.

    Raises:
        ConfigError: a field is written twice, a list has gaps, or `time_from_start_s` has no meaning.
    """
    written = [*fields, *(field for field, _ in constants)]
    _check_apart(written)
    template = kind()
    if _has_header(kind):
        template.header.frame_id = params.frame_id
    for steps, (item, length) in _lists(written).items():
        Field(steps, "", {}).put(template, [initial(item) for _ in range(length)])
    for field, value in constants:
        field.put(template, value)
    if not _is_trajectory(kind):
        if params.time_from_start_s:
            raise ConfigError(f"command.time_from_start_s: expected 0 for {params.type}, which is no trajectory")
        return template
    for i, point in enumerate(template.points):
        if not _touched(("points", i, "time_from_start"), constants):
            seconds = (i + 1) * (params.time_from_start_s or period_s)
            point.time_from_start = converted("builtin_interfaces/Duration", seconds, "command.time_from_start_s")
    return template


def joint_names(template: Any) -> tuple[str, list[str]] | None:
    """The field with the joints' names and these, or None where a message has no such field.

    Raises:
        ConfigError: no names, not distinct ones, or not as many as a list of values beside them has.
    """
    types = template.get_fields_and_field_types()
    field = next((name for name in ("joint_names", "name") if types.get(name) == "sequence<string>"), None)
    if field is None:
        return None
    names = list(getattr(template, field))
    if not names or "" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"command.constants: expected the joints' names, each once, got {names}; add '{field}=[shoulder, elbow]'"
        )
    points = template.points if _is_trajectory(type(template)) else ()
    for title, part in [("", template), *((f"points[{i}].", point) for i, point in enumerate(points))]:
        for name, type_ in part.get_fields_and_field_types().items():
            length = len(getattr(part, name)) if type_.startswith("sequence<") and name != "points" else 0
            if length not in (0, len(names)):
                raise ConfigError(
                    f"command.fields: expected {title}{name} to have a value for each of {field} {names}, got {length}"
                )
    return field, names


def _check_apart(fields: Sequence[Field]) -> None:
    """No field may be written twice."""
    for one, other in itertools.combinations(fields, 2):
        if one.overlaps(other):
            raise ConfigError(
                f"command.fields, command.constants: expected every field once,"
                f" got '{path(one.steps)}' and '{path(other.steps)}'"
            )


def _lists(fields: Sequence[Field]) -> dict[Steps, tuple[str, int]]:
    """The item's type and the length of each list that must be made for these fields, outer lists first."""
    items: dict[Steps, str] = {}
    places: dict[Steps, set[int]] = {}
    for field in fields:
        for steps, item in field.lists.items():
            items[steps] = item
            places.setdefault(steps, set()).add(int(field.steps[len(steps)]))
    for steps, indices in places.items():
        if max(indices) >= len(indices):
            raise ConfigError(
                f"command.fields: expected {path(steps)}[0] onwards without gaps, got {sorted(indices)};"
                " command.constants can fill a place"
            )
    return {steps: (items[steps], len(places[steps])) for steps in sorted(places, key=len)}


def _touched(steps: Steps, constants: Constants) -> bool:
    return any(field.steps[: len(steps)] == steps for field, _ in constants)


def _has_header(kind: Any) -> bool:
    return bool(kind.get_fields_and_field_types().get("header") == "std_msgs/Header")


def _is_trajectory(kind: Any) -> bool:
    points = re.fullmatch(r"sequence<(\w+/\w+)>", kind.get_fields_and_field_types().get("points", ""))
    fields = message_class(points[1]).get_fields_and_field_types() if points else {}
    return bool(fields.get("time_from_start") == "builtin_interfaces/Duration")
