"""Rivals: other nodes that command the same robot, answer to the same `~/arm`, or publish a second /clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rclpy.node import Node

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.nodes.graph_watch import KILLED_S, Endpoint, full_name


class Rivals:
    """Looks for whoever else could move the robot that this node commands."""

    def __init__(self, node: Node, topic: str, allowed: Collection[str]) -> None:
        """Looks at nothing yet.

        Args:
            node: the one that commands, as the only one of its name.
            topic: of its commands, in full; it has one publisher there.
            allowed: full names of nodes that may publish there as well.

        Raises:
            ConfigError: one of `allowed` is no full name.
        """
        relative = [name for name in allowed if not name.startswith("/")]
        if relative:
            raise ConfigError(
                f"command.allow_publishers: expected full names of nodes, such as /teleop, got {', '.join(relative)}"
            )
        self._node, self._topic, self._allowed = node, topic, frozenset(allowed)
        self._me = node.get_fully_qualified_name()
        self._arm = node.resolve_service_name("~/arm")

    def look(self, publishers: Sequence[Endpoint]) -> str:
        """Names those among the publishers of the topic, and says what to do; empty if there are none."""
        names = [each.node for each in publishers]
        killed = f"a process that was killed counts for up to {KILLED_S:.0f} s"
        if names.count(self._me) > 1 or self._node.count_services(self._arm) > 1:
            return (
                f"expected one node that offers {self._arm}, got another process that does: both would drive the"
                f" robot; end one, or give it a name of its own ({killed})"
            )
        mine = {self._me, *self._allowed}
        others = sorted({f"{each.node} ({each.type})" for each in publishers if each.node not in mine})
        if not others:
            return ""
        return (
            f"expected no other node that publishes {self._topic}, got {', '.join(others)}: the robot would get the"
            f" commands of all; end it, remap one, or list it in command.allow_publishers ({killed})"
        )


def rival_clocks(node: Node) -> str:
    """Names who publishes /clock, and says what to do, where `node` goes by it and there are several; else empty."""
    if not node.get_clock().ros_time_is_active:  # type: ignore[attr-defined]
        return ""
    names = sorted(full_name(info) for info in node.get_publishers_info_by_topic("/clock"))
    if len(names) < 2:
        return ""
    return (
        f"expected one publisher of /clock, got {len(names)}: {', '.join(names)}: time would go back and forth; end all"
        f" but one (a process that was killed counts for up to {KILLED_S:.0f} s)"
    )
