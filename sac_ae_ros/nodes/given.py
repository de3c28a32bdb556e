"""Refuses parameters and parameter files that reach no parameter of the node: ROS drops them without a word."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node

from sac_ae_ros.core.errors import ConfigError

PARAMETERS = "ros__parameters"
_BUILT_IN = "qos_overrides."  # declared by publishers and subscriptions, later
_FILE, _VALUE = ("--params-file",), ("-p", "--param")
_WILDCARDS = {"**": r"(/\w+)*", "*": r"/\w+"}


def check(node: Node, names: Collection[str], arguments: Sequence[str]) -> None:
    """Refuses parameters that a node with the parameters `names` does not have, and files that have none for it.

    `arguments`: the command line of its process.

    Raises:
        ConfigError: names all of them, and the nearest right names.
    """
    known = {*names, *node.list_parameters([], 0).names}
    wrong = [_nearest(name, known) for name in node._parameter_overrides if not _has(name, known)]
    full_name = node.get_fully_qualified_name()
    elsewhere = [*_other_files(full_name, arguments), *_other_values(full_name, arguments)]
    told = [f"parameters: expected names that {node.get_name()} has, got {', '.join(wrong)}"] if wrong else []
    if told or elsewhere:
        raise ConfigError("; ".join([*told, *elsewhere]) + "; docs/ros.md lists the parameters")


def _has(name: str, known: Collection[str]) -> bool:
    return name in known or name.startswith(_BUILT_IN)


def _nearest(name: str, known: Collection[str]) -> str:
    by_last = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
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


def _read(file: str) -> Any:
    """The tree of a parameter file; tags count for nothing, as to rcl: launch_ros writes lists as `!!python/tuple`."""
    try:
        return yaml.load(Path(file).read_text(), Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: expected parameters as YAML, got {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: expected parameters as YAML, got more levels than any node has") from None


def _sections(tree: Any, prefix: str = "") -> Iterator[str]:
    """The names of nodes in a parameter file, with namespaces and wildcards."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == PARAMETERS:
            yield prefix
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _matches(section: str, full_name: str) -> bool:
    """As rcl has it: `*` is one name, `**` any number of them."""
    tokens = section.strip("/").split("/")
    return (
        re.fullmatch("".join(_WILDCARDS.get(token, "/" + re.escape(token)) for token in tokens), full_name) is not None
    )
