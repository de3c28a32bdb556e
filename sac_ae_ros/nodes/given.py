"""Refuses parameters and parameter files that reach no parameter of the node, or one twice: ROS says nothing."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter
from yaml.composer import ComposerError

from sac_ae_ros.core.errors import ConfigError, printable, quote
from sac_ae_ros.nodes.parameter_types import mismatch

PARAMETERS = "ros__parameters"
_BUILT_IN = "qos_overrides."  # declared by publishers and subscriptions, later
_FILE, _VALUE = ("--params-file",), ("-p", "--param")
_TOPICS = {
    "image": "image_topic",
    "camera_info": "camera_info_topic",
    "cmd_vel": "command_topic",
    "enable": "enable_topic",
    "e_stop": "e_stop_topic",
    "joint_states": "joint_states_topic",
}
# launch arguments and topics, with what is written instead of -p
_NO_PARAMETERS = {
    name: f"a topic: with launch {argument}:=TOPIC, else -r {topic}:=TOPIC"
    for topic, argument in _TOPICS.items()
    for name in (topic, argument)
} | {
    "params_file": "a launch argument: without launch --params-file FILE",
    "namespace": "a launch argument: without launch -r __ns:=/NAMESPACE",
    "log_level": "a launch argument: without launch --log-level LEVEL",
    "use_respawn": "a launch argument",
}
_INTEGER, _FLOAT = re.compile(r"[-+]?\d+"), re.compile(r"[-+]?\d+\.\d*")
_SECTION = re.compile(r"/?(\*\*?|\w+)(/(\*\*?|\w+))*/?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WILDCARDS = {"**": r"(/\w+)*", "*": r"/\w+"}


def restore_off(node: Node, names: Collection[str]) -> None:
    """Takes false for "off" where it is given for these parameters, which are texts: YAML reads it so unquoted."""
    overrides = node._parameter_overrides
    for name in names:
        if name in overrides and overrides[name].value is False:
            overrides[name] = Parameter(name, Parameter.Type.STRING, "off")


def check_files(arguments: Sequence[str]) -> None:
    """Refuses parameter files that rcl cannot read, in words that say where and what to write.

    Raises:
        ConfigError: one is no YAML, has values outside of `ros__parameters`, or has integers beside floats in a list.
    """
    for file in _values(arguments, _FILE):
        _check_levels(file, _read(file))


def check(node: Node, types: Mapping[str, Parameter.Type], arguments: Sequence[str]) -> None:
    """Refuses parameters that a node does not have or that have another type, and files that have none for it.

    `types`: those of the node's parameters. `arguments`: the command line of its process.

    Raises:
        ConfigError: names all of them, with the nearest right names and with what to write instead.
    """
    known = {*types, *node.list_parameters([], 0).names}
    overrides = node._parameter_overrides
    wrong = [_nearest(name, known) for name in overrides if not _has(name, known)]
    full_name = node.get_fully_qualified_name()
    elsewhere = [*_other_files(full_name, arguments), *_other_values(full_name, arguments)]
    told = [f"parameters: expected names that {node.get_name()} has, got {', '.join(wrong)}"] if wrong else []
    if told or elsewhere:
        raise ConfigError("; ".join([*told, *elsewhere]) + "; docs/ros.md lists the parameters")
    mismatches = [mismatch(type_, overrides[name]) for name, type_ in types.items() if name in overrides]
    if any(mismatches):
        raise ConfigError("; ".join(filter(None, mismatches)))


def _has(name: str, known: Collection[str]) -> bool:
    return name in known or name.startswith(_BUILT_IN)


def _nearest(name: str, known: Collection[str]) -> str:
    by_last = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
    if name in _NO_PARAMETERS:
        return f"'{name}' ({_NO_PARAMETERS[name]})"
    found = difflib.get_close_matches(name, sorted(known), 1) or sorted(by_last)[:1]
    return f"'{name}'" + (f" (did you mean '{found[0]}'?)" if found else "")


def _other_files(full_name: str, arguments: Sequence[str]) -> Iterator[str]:
    """What is wrong with each parameter file that says nothing to that node."""
    for file in _values(arguments, _FILE):
        sections = list(_sections(_read(file)))
        if not any(_matches(section, full_name) for section in sections):
            there = ", ".join(f"'{section}'" for section in sections) or "no node"
            yield f"{file}: expected parameters of {full_name}, got those of {there}; the key '/**' fits every node"


def _other_values(full_name: str, arguments: Sequence[str]) -> Iterator[str]:
    """What is wrong with each `-p NODE:NAME:=VALUE` that is not for that node."""
    for rule in _values(arguments, _VALUE):
        target, colon, _ = rule.partition(":=")[0].rpartition(":")
        if colon and not _matches(f"/{target}", full_name):
            yield f"-p {rule}: expected a parameter of {full_name}, got one of '/{target}'; leave '{target}:' out"


def _values(arguments: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """What follows one of these flags among the arguments that are for ROS."""
    for_ros = False
    for argument, value in itertools.pairwise([*arguments, ""]):
        if argument in ("--ros-args", "--"):
            for_ros = argument == "--ros-args"
        elif for_ros and argument in flags:
            yield value


class _Loader(yaml.BaseLoader):
    """Refuses aliases, as rcl does: a tree with them may have billions of leaves."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"the alias *{event.anchor} stands, which ROS does not take; write out what it stands for"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def _read(file: str) -> yaml.Node | None:
    """The tree of a parameter file; tags count for nothing, as to rcl: launch_ros writes lists as `!!python/tuple`."""
    lines: list[str] = []
    path = Path(file)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{file}: expected a file, got a folder, a pipe or a device; ROS reads it more than once")
    try:
        text = path.read_text()
        lines = text.splitlines()
        tree = yaml.compose(text, Loader=_Loader)
        _check_once(file, tree)
        return tree
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.line if error.problem_mark else 0
        tabbed = any("\t" in line for line in lines[at : at + 1])
        way_out = "; indent with spaces, not with tabs" if tabbed else ""
        raise ConfigError(
            f"{file}, line {at + 1}: expected parameters as YAML, got one where {error.problem}{way_out}"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: expected parameters as YAML, got {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: expected parameters as YAML, got more levels than any node has") from None


def _check_levels(file: str, tree: yaml.Node | None, *, inside: bool = False) -> None:
    """Raises ConfigError for what rcl refuses in words of its own: names, no values, values of several types."""
    for key, value in _entries(tree):
        line = f"{file}, line {key.start_mark.line + 1}"
        if not inside and key.value != PARAMETERS and not _SECTION.fullmatch(key.value):
            raise ConfigError(
                f"{line}: expected a node's name, of which * or ** may stand for whole parts, got {quote(key.value)};"
                " '/**' fits every node"
            )
        for item in (key, value, *(value.value if isinstance(value, yaml.SequenceNode) else ())):
            if isinstance(item, yaml.ScalarNode):
                _check_text(f"{line}: {printable(key.value)}", item)
        if isinstance(value, yaml.MappingNode):
            _check_levels(file, value, inside=inside or key.value == PARAMETERS)
        elif not inside and value.value:
            raise ConfigError(
                f"{line}: expected the key {PARAMETERS} between a node's name and its parameters, got '{key.value}';"
                f" write /**: {{{PARAMETERS}: {{{key.value}: ...}}}}, each on a line of its own"
            )
        elif isinstance(value, yaml.SequenceNode):
            plain = [item.value for item in value.value if isinstance(item, yaml.ScalarNode) and item.style is None]
            integers = [text for text in plain if _INTEGER.fullmatch(text)]
            if integers and any(_FLOAT.fullmatch(text) for text in plain):
                raise ConfigError(
                    f"{line}: {key.value}: expected items of one type, got integers beside floats;"
                    f" write {integers[0]}.0 for {integers[0]}"
                )


def _check_text(title: str, node: yaml.ScalarNode) -> None:
    if not node.value and node.style is None:
        raise ConfigError(f"{title}: expected a value, got none; write one, or leave the key out")
    if _SURROGATE.search(node.value):
        raise ConfigError(f"{title}: expected text, got the half of a character, {quote(node.value)}; write it whole")


def _check_once(file: str, tree: yaml.Node | None) -> None:
    """Raises ConfigError where a parameter or a key stands twice: rcl would take the last of its values."""
    first: dict[object, yaml.Node] = {}
    twice = {}
    for name, key in _names(tree):
        before = first.setdefault(name, key)
        if before is not key:
            lines = (before.start_mark.line + 1, key.start_mark.line + 1)
            twice[id(key)] = f"'{key.value}' in line {lines[0]} and again in line {lines[1]}"
    if twice:
        raise ConfigError(f"{file}: expected every key once, got {', '.join(twice.values())}; keep one of them")


def _names(tree: yaml.Node | None, prefix: str = "", joint: str = "/") -> Iterator[tuple[object, yaml.Node]]:
    """Each key with its place in its mapping, and once more with its full name where it has a value.

    The full name tells that `limits.low: 1` and `limits: {low: 1}` are the same.
    """
    for key, value in _entries(tree):
        yield (id(tree), key.value), key
        name = f"{prefix}{joint}{key.value.strip('/')}"
        if isinstance(value, yaml.MappingNode):
            yield from _names(value, name, "." if key.value == PARAMETERS else joint)
        else:
            yield name, key


def _sections(tree: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    """The names of nodes in a parameter file, with namespaces and wildcards."""
    for key, value in _entries(tree):
        if key.value == PARAMETERS:
            yield prefix
        else:
            yield from _sections(value, f"{prefix}/{key.value.strip('/')}")


def _entries(tree: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """The keys that are texts and their values, of a mapping; none for anything else."""
    pairs = tree.value if isinstance(tree, yaml.MappingNode) else ()
    return [(key, value) for key, value in pairs if isinstance(key, yaml.ScalarNode)]


def _matches(section: str, full_name: str) -> bool:
    """As rcl has it: `*` is one name, `**` any number of them."""
    tokens = section.strip("/").split("/")
    return (
        re.fullmatch("".join(_WILDCARDS.get(token, "/" + re.escape(token)) for token in tokens), full_name) is not None
    )
