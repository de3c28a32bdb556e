"""Drives a simulated robot with a policy over real ROS 2 and scores the episodes.

Three processes: sim_robot_node, policy_node and this one, which starts them in a domain and a namespace of
their own and always ends them: python -m sac_ae_ros.nodes.closed_loop --policy FILE.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.signals import SignalHandlerOptions

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ConfigError, SacAeError, printable
from sac_ae_ros.core.share import WAYS_OUT, ensure_dds_profile
from sac_ae_ros.core.spec import PolicySpec
from sac_ae_ros.nodes.child import Child
from sac_ae_ros.nodes.loop_client import NAMESPACE, ClosedLoop, Request
from sac_ae_ros.nodes.scorer import Episode
from sac_ae_ros.nodes.sim_loop import CARRIED_BACK_NS

# none whose UDP ports (7400 + 250 * id on) lie among Linux's ephemeral ones, nor that of sim.launch.py
DOMAINS = (*range(60, 87), *range(88, 102), *range(215, 231))
PICTURE_WIDTH_PX = 320
# A busy machine that stumbles harms no simulated robot, but a latched stop would end the run.
WATCHDOG_TIMEOUT_S = 10.0


def run(request: Request) -> list[Episode]:
    """Starts everything, runs the episodes, and ends everything.

    Raises:
        SacAeError: the policy is refused, or a node failed.
    """
    spec = policy_file.vet(policy_file.read_bytes(request.policy), str(request.policy)).spec
    _isolate(request.domain_id)
    with _children(request, spec) as children:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        loop = ClosedLoop(children, images=request.record is not None)
        try:
            _say("starting sim_robot_node and policy_node")
            loop.start()
            return loop.run(request, lambda i, episode: _tell(request, i, episode))
        finally:
            loop.close()
            rclpy.shutdown()


def _isolate(domain_id: int) -> None:
    """No robot can hear this, whatever the environment says."""
    os.environ["ROS_DOMAIN_ID"] = str(domain_id)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    for name in WAYS_OUT:
        os.environ.pop(name, None)
    ensure_dds_profile()


@contextmanager
def _children(request: Request, spec: PolicySpec) -> Iterator[list[Child]]:
    children: list[Child] = []
    with tempfile.TemporaryDirectory(prefix="sac_ae_ros_") as folder:
        params = Path(folder) / "params.yaml"
        params.write_text(yaml.safe_dump(_parameters(request, spec)))
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}", "--params-file", str(params)]
        arguments += ["--log-level", "warn"]
        try:
            names = ("sim_robot_node", "policy_node")
            children.extend(Child(f"sac_ae_ros.nodes.{name}", arguments) for name in names)
            yield children
        finally:
            for child in children:
                child.interrupt()
            for child in children:
                child.end()


def _parameters(request: Request, spec: PolicySpec) -> dict[str, Any]:
    """The nodes' parameters: the camera's ratio as in training, the command type that the units suggest."""
    enlarged = math.ceil(PICTURE_WIDTH_PX / spec.camera.source_width)  # so that a person can watch the recording
    heard: dict[str, Any] = {}
    sent: dict[str, Any] = {}
    if [action.unit for action in spec.actions] != ["m/s", "rad/s"]:
        fields = [f"data[{i}]" for i in range(len(spec.actions))]
        message = {"type": "std_msgs/msg/Float64MultiArray", "fields": fields}
        heard, sent = {"command": message}, {"command": {**message, "stop": "zero"}}
    sim = {
        "task": request.task,
        "image_height": spec.camera.source_height * enlarged,
        "image_width": spec.camera.source_width * enlarged,
        "camera_rate_hz": 2 / spec.control_period_s,
        "real_time_factor": request.real_time_factor,
        "episode_seed": request.seed,
    }
    policy: dict[str, Any] = {
        "policy": str(request.policy.resolve()),
        "use_sim_time": True,
        "arm_on_activate": True,
        "image": {"freeze_timeout_s": 0.0},  # a simulated camera has no noise: where nothing moves, no pixel changes
        "max_future_s": 2 * CARRIED_BACK_NS * 1e-9,  # at an episode's end an image may come before /clock
        "watchdog_timeout_s": max(WATCHDOG_TIMEOUT_S, 5 * spec.control_period_s / request.real_time_factor),
    }
    nodes = {"sim_robot_node": {**sim, **heard}, "policy_node": {**policy, **sent}}
    return {f"{NAMESPACE}/{name}": {"ros__parameters": values} for name, values in nodes.items()}


def _tell(request: Request, index: int, episode: Episode) -> None:
    _say(
        f"episode {index + 1}/{request.episodes} (seed {request.seed + index}): return {episode.total:.1f}"
        + (f"; {episode.lost} rewards were lost on the way" if episode.lost else "")
    )


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _request(argv: Sequence[str] | None) -> tuple[Request, bool]:
    parser = argparse.ArgumentParser(prog="closed_loop", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policy", type=Path, required=True, help="policy file (.onnx)")
    parser.add_argument("--task", default="rover/chase_ball", help="what to simulate, domain/task")
    parser.add_argument("--episodes", type=int, default=10, help="how many")
    parser.add_argument("--seed", type=int, default=1000, help="of the first episode; the next ones add 1 each")
    parser.add_argument("--real-time-factor", type=float, default=2.0, help="simulated seconds per second")
    parser.add_argument("--record", type=Path, help="write the first episode's pictures and commands here (.npz)")
    parser.add_argument("--domain-id", type=int, help="ROS_DOMAIN_ID; a random one of 60..230 by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse_args(argv)
    if args.episodes < 1 or args.seed < 0 or not 0.01 <= args.real_time_factor <= 100:
        raise ConfigError("expected --episodes >= 1, --seed >= 0 and --real-time-factor of 0.01..100")
    if args.record is not None and not args.record.resolve().parent.is_dir():
        raise ConfigError(f"--record: expected an existing folder, got {args.record}")
    domain_id = random.SystemRandom().choice(DOMAINS) if args.domain_id is None else args.domain_id
    if not 0 <= domain_id <= 232:
        raise ConfigError(f"--domain-id: expected 0..232, got {domain_id}")
    fields = (args.policy, args.task, args.episodes, args.seed, args.real_time_factor, args.record, domain_id)
    return Request(*fields), args.json


def _end_in_order(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the episodes; returns 0, or 2 after one line that says what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_in_order)
    try:
        request, as_json = _request(argv)
        episodes = run(request)
    except SacAeError as error:
        _say(f"error: {error}")
        return 2
    returns = [episode.total for episode in episodes]
    sd = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    result = {"mean_return": float(np.mean(returns)), "sd": sd, "returns": returns}
    if as_json:
        print(json.dumps(result))
    else:
        print(f"mean return {result['mean_return']:.1f}, sd {sd:.1f}, over {len(returns)} episodes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
