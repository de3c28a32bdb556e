"""Refuses arguments that a launch file does not declare: launch itself takes any name and says nothing."""

import difflib
import os
import sys
from collections.abc import Sequence

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction

PACKAGE = "sac_ae_ros"
# read by launch itself, of any launch file
LAUNCH_OWN = {"launch-prefix", "launch-prefix-filter", "emulate_tty", "sigterm_timeout", "sigkill_timeout"}


def declared_only(file: str, entities: Sequence[LaunchDescriptionEntity]) -> LaunchDescription:
    """Describe these entities; before any of them is visited, names that nothing of them declares end the launch.

    Only where the command line names this `file`: a launch file that includes it has arguments of its own there.
    """
    description = LaunchDescription(entities)

    def refuse(context: LaunchContext) -> None:
        if not _is_launched(file):
            return
        declared = sorted(argument.name for argument in description.get_launch_arguments())
        given = dict.fromkeys(argument.partition(":=")[0] for argument in context.argv)
        unknown = [name for name in given if name not in declared and name not in LAUNCH_OWN]
        if unknown:
            name = os.path.basename(file)
            raise RuntimeError(
                f"arguments: expected names that {name} declares,"
                f" got {', '.join(_nearest(each, declared) for each in unknown)};"
                f" ros2 launch {PACKAGE} {name} --show-args lists them"
            )

    return LaunchDescription([OpaqueFunction(function=refuse), *entities])


def _is_launched(file: str) -> bool:
    """Whether the command line names the file: after its package, with options between them or not, or as a path."""
    words = iter(sys.argv)
    after_package = os.path.basename(file) in words if PACKAGE in words else False
    return after_package or any(os.path.isfile(word) and os.path.samefile(word, file) for word in sys.argv)


def _nearest(name: str, declared: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, declared, 1)
    return f"'{name}'" + (f" (did you mean '{found[0]}'?)" if found else "")
