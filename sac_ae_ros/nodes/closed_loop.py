"""Drives a simulated robot with a policy over real ROS 2 and scores the episodes.

Three processes: sim_robot_node, policy_node and this one, which starts them in a domain and a namespace of
their own and always ends them: python -m sac_ae_ros.nodes.closed_loop --policy FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ConfigError, RunError, SacAeError
from sac_ae_ros.core.share import share_file
from sac_ae_ros.core.spec import PolicySpec
from sac_ae_ros.nodes.child import Child
from sac_ae_ros.nodes.scorer import Episode, Scorer, episodes_after, save

NAMESPACE = "/closed_loop"
DOMAINS = range(100, 231)
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 15.0
SILENCE_S = 30.0
STRAGGLERS_S = 0.5
# A busy machine that stumbles harms no simulated robot, but a latched stop would end the run.
WATCHDOG_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Request:
    """What to run: `episodes` of `task`, with seeds from `seed` on."""

    policy: Path
    task: str
    episodes: int
    seed: int
    real_time_factor: float
    record: Path | None
    domain_id: int


class ClosedLoop:
    """Asks the two nodes to do things and waits for them."""

    def __init__(self, children: Sequence[Child], *, images: bool) -> None:
        """Joins the network; rclpy must be initialised."""
        self._children = children
        self._node = Node("closed_loop", namespace=NAMESPACE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._scorer = Scorer(self._node, images=images)

    def start(self) -> None:
        """Configures, activates and arms the policy node once both nodes are there."""
        self._call(ChangeState, "policy_node/change_state", _transition(Transition.TRANSITION_CONFIGURE))
        self._wait_for_service(Trigger, "sim_robot_node/reset")
        self._call(ChangeState, "policy_node/change_state", _transition(Transition.TRANSITION_ACTIVATE))
        self._call(Trigger, "policy_node/arm", Trigger.Request())
        commands = self._scorer.recording.commands
        self._wait(lambda: bool(commands), START_TIMEOUT_S, "the first command of policy_node")

    def run(self, request: Request, on_episode: Callable[[int, Episode], None]) -> list[Episode]:
        """Resets the robot to the first seed and returns the episodes from there on."""
        border_ns = self._reset(request.seed)
        told = 0
        while told < request.episodes:
            self._wait_for_progress()
            found = episodes_after(self._scorer.recording, border_ns)[: request.episodes]
            for number in range(told, len(found)):
                on_episode(number, found[number])
            told = len(found)
            if told > 1:
                self._scorer.stop_images()  # only the first episode is recorded
        self._spin(STRAGGLERS_S)
        episodes = episodes_after(self._scorer.recording, border_ns)[: request.episodes]
        if request.record is not None:
            save(request.record, self._scorer.recording, episodes[0])
        return episodes

    def close(self) -> None:
        """Leaves the network."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _reset(self, seed: int) -> int:
        """Starts the episode of `seed`; returns when its first border was published."""
        parameter = Parameter("episode_seed", Parameter.Type.INTEGER, seed).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        self._call(SetParameters, "sim_robot_node/set_parameters", request)
        before_ns = time.time_ns()
        self._call(Trigger, "sim_robot_node/reset", Trigger.Request())
        after_ns = time.time_ns()
        ends = self._scorer.recording.ends

        def borders() -> list[int]:
            return [end.published_ns for end in ends if before_ns <= end.published_ns <= after_ns]

        self._wait(lambda: bool(borders()), CALL_TIMEOUT_S, "the border of the first episode")
        self._spin(STRAGGLERS_S / 5)  # another episode may have ended by itself just before
        return max(borders())

    def _wait_for_progress(self) -> None:
        recording = self._scorer.recording
        rewards, commands = len(recording.rewards), len(recording.commands)
        self._wait(lambda: len(recording.rewards) > rewards, SILENCE_S, "a reward of sim_robot_node")
        self._wait(lambda: len(recording.commands) > commands, SILENCE_S, "a command of policy_node")

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        client = self._wait_for_service(kind, name)
        future = client.call_async(request)
        self._wait(future.done, CALL_TIMEOUT_S, f"an answer of {name}")
        response = future.result()
        results = getattr(response, "results", None)
        for result in [response] if results is None else results:
            if not (result.success if hasattr(result, "success") else result.successful):
                said = getattr(result, "message", "") or getattr(result, "reason", "")
                raise RunError(f"{name}: refused; {said or 'see its messages above'}")
        return response

    def _wait_for_service(self, kind: Any, name: str) -> Any:
        client = self._node.create_client(kind, name)
        self._wait(client.service_is_ready, START_TIMEOUT_S, f"the service {name}")
        return client

    def _wait(self, holds: Callable[[], bool], timeout_s: float, what: str) -> None:
        end_s = time.monotonic() + timeout_s
        while not holds():
            self._spin(0.0)
            if time.monotonic() > end_s:
                raise RunError(f"closed loop: expected {what} within {timeout_s:g} s, got nothing")

    def _spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while True:
            self._executor.spin_once(timeout_sec=0.1)
            for child in self._children:
                child.check()
            if time.monotonic() >= end_s:
                return


def run(request: Request) -> list[Episode]:
    """Starts everything, runs the episodes, and ends everything.

    Raises:
        SacAeError: the policy is refused, or a node failed.
    """
    spec = policy_file.vet(policy_file.read_bytes(request.policy), str(request.policy))
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
    profile = share_file("config/dds/fastdds_shm.xml")
    if profile is not None and not any(name in os.environ for name in PROFILE_VARIABLES):
        os.environ[PROFILE_VARIABLES[0]] = str(profile)


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
    """The nodes' parameters: the camera as in training, the command type that the units suggest."""
    command: dict[str, Any] = {}
    if [action.unit for action in spec.actions] != ["m/s", "rad/s"]:
        fields = [f"data[{i}]" for i in range(len(spec.actions))]
        command = {"command": {"type": "std_msgs/msg/Float64MultiArray", "fields": fields, "stop": "zero"}}
    sim = {
        "task": request.task,
        "image_height": spec.camera.source_height,
        "image_width": spec.camera.source_width,
        "camera_rate_hz": 2 / spec.control_period_s,
        "real_time_factor": request.real_time_factor,
        "episode_seed": request.seed,
    }
    policy = {
        "policy": str(request.policy.resolve()),
        "use_sim_time": True,
        "watchdog_timeout_s": max(WATCHDOG_TIMEOUT_S, 5 * spec.control_period_s / request.real_time_factor),
    }
    nodes = {"sim_robot_node": {**sim, **command}, "policy_node": {**policy, **command}}
    return {f"{NAMESPACE}/{name}": {"ros__parameters": values} for name, values in nodes.items()}


def _transition(number: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=number))


def _tell(request: Request, index: int, episode: Episode) -> None:
    _say(
        f"episode {index + 1}/{request.episodes} (seed {request.seed + index}): return {episode.total:.1f}"
        + (f"; {episode.lost} rewards were lost on the way" if episode.lost else "")
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _request(argv: Sequence[str] | None) -> tuple[Request, bool]:
    parser = argparse.ArgumentParser(prog="closed_loop", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policy", type=Path, required=True, help="policy file (.onnx)")
    parser.add_argument("--task", default="rover/chase_ball", help="what to simulate, domain/task")
    parser.add_argument("--episodes", type=int, default=10, help="how many")
    parser.add_argument("--seed", type=int, default=1000, help="of the first episode; the next ones add 1 each")
    parser.add_argument("--real-time-factor", type=float, default=2.0, help="simulated seconds per second")
    parser.add_argument("--record", type=Path, help="write the first episode's pictures and commands here (.npz)")
    parser.add_argument("--domain-id", type=int, help="ROS_DOMAIN_ID; a random one of 100..230 by default")
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
