"""The verbs of `sac-ae` that arm and disarm policy nodes, and tell their state."""

from __future__ import annotations

import argparse

from sac_ae_ros.cli_parts import Verb, seconds


def _node_arguments(parser: argparse.ArgumentParser, default: str | None = "policy_node") -> None:
    parser.add_argument("node", nargs="?", default=default, metavar="NODE", help="its full name (default: policy_node)")
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="S", help="how long to look and wait (default: 5)"
    )


def _arm(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.nodes import arming

    return arming.arm(args.node, args.timeout)


def _disarm_arguments(parser: argparse.ArgumentParser) -> None:
    _node_arguments(parser, default=None)
    parser.add_argument("--all", action="store_true", help="disarm every policy node of this ROS domain")


def _disarm(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.nodes import arming

    if args.all:  # beside a NODE, too: nobody is to be kept from a stop
        return arming.disarm_all(args.timeout)
    return arming.disarm("policy_node" if args.node is None else args.node, args.timeout)


def _state_arguments(parser: argparse.ArgumentParser) -> None:
    _node_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print ~/state as one JSON object and nothing else")


def _state(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.nodes import arming

    return arming.state(args.node, args.timeout, as_json=args.json)


VERBS = {
    "arm": Verb(
        _arm,
        _node_arguments,
        "Arm a policy node: from then on it commands the robot. Exit code 1 if it refuses, with its reason.",
        "  sac-ae arm\n  sac-ae arm /robot1/policy_node --timeout 10",
    ),
    "disarm": Verb(
        _disarm,
        _disarm_arguments,
        "Disarm a policy node: it stops the robot, then falls silent. This is not an emergency stop.",
        "  sac-ae disarm\n  sac-ae disarm /robot1/policy_node\n  sac-ae disarm --all",
    ),
    "state": Verb(
        _state,
        _state_arguments,
        "Say what a policy node does, why it stopped, and what it waits for.",
        "  sac-ae state\n  sac-ae state /robot1/policy_node --json",
    ),
}
