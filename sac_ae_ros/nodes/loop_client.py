"""ClosedLoop: asks a simulated robot and a policy node to run episodes, and waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from sac_ae_ros.core.errors import RunError
from sac_ae_ros.nodes.child import Child
from sac_ae_ros.nodes.scorer import Episode, Scorer, episodes_after, save

NAMESPACE = "/closed_loop"
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 15.0
SILENCE_S = 30.0
STRAGGLERS_S = 0.5


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
        """Configures and activates the policy node, which arms by itself, once both nodes are there."""
        self._call(ChangeState, "policy_node/change_state", _transition(Transition.TRANSITION_CONFIGURE))
        self._wait_for_service(Trigger, "sim_robot_node/reset")
        self._call(ChangeState, "policy_node/change_state", _transition(Transition.TRANSITION_ACTIVATE))
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


def _transition(number: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=number))
