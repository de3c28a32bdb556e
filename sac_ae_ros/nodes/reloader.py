"""Reloader: `~/reload`, `~/rollback` and `policy/latest`: newer versions, checked beside the running policy."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from std_msgs.msg import String

from sac_ae_ros.core.errors import ModelError, SacAeError, StoreError
from sac_ae_ros.core.hot_swap import HotSwap, Outcome
from sac_ae_ros.core.model_store import Announcement, ModelStore, from_json
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.drive import make_guard
from sac_ae_ros.nodes.loaded_policy import LoadedPolicy

# A new version may take this share of the policy period for one inference.
LATENCY_SHARE = 0.5
# Copying, hashing and loading so much keep one core busy for some tenths of a second, beside the robot's frames.
MOST_BYTES = 64 * 1024 * 1024
LOG_EVERY_S = 2.0
# Newest announcement only, and none from before this node's start: a respawned node keeps to the launched policy.
ANNOUNCED = QoSProfile(depth=1)


class Reloader:
    """One for each configured node that has a `policy_dir`."""

    def __init__(self, node: Node, loaded: LoadedPolicy, swap_now: Callable[[], None]) -> None:
        """Says whether the folder holds another version than the launched one.

        `swap_now` is called, in a thread of its own, when a version may take over and no frame may come to do it.
        """
        self._node, self._loaded, self._swap_now = node, loaded, swap_now
        params, spec = loaded.params, loaded.policy.spec
        assert loaded.probes is not None, "made for a policy_dir"
        self._store = ModelStore(params.policy_dir)
        self.swap = HotSwap(
            loaded.policy,
            self._load,
            loaded.probes,
            max_action_shift=params.reload.max_action_shift,
            max_latency_s=LATENCY_SHARE * spec.control_period_s,
        )
        self.newer: int | None = None
        self._next: Announcement | None = None
        self._next_lock = threading.RLock()
        self._asked: Future | None = None
        self._say_newer()
        self._subscription = node.create_subscription(String, "policy/latest", self._on_announcement, ANNOUNCED)

    @property
    def at_next_frame(self) -> bool:
        """Whether what waits to take over does so at once, or at an episode's end."""
        return self._loaded.params.reload.swap == "next_frame" or self.swap.going_back

    def close(self) -> None:
        """Hears no announcements any more, and gives up what is under way."""
        self._next = None
        self.swap.close()
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(Outcome(False, None, "reload given up: the node was cleaned up meanwhile"))
        self._node.destroy_subscription(self._subscription)

    async def reload(self) -> Outcome:
        """Loads the newest version; the node goes on with its frames meanwhile."""
        future: Future = Future()
        if not self._start(None, future.set_result):
            return Outcome(False, None, "reload refused: another version is being checked; try again")
        self._asked = future
        return await future  # type: ignore[no-any-return]

    def rollback(self) -> Outcome:
        """Has the version before take over again."""
        try:
            self.swap.rollback()
        except SacAeError as error:
            return Outcome(False, None, str(error))
        outcome = self.swap.outcome
        assert outcome is not None
        self._node.get_logger().info(outcome.text)
        self._swap_now()
        return outcome

    def _load(self, data: bytes, title: str) -> OnnxPolicy:
        if len(data) > MOST_BYTES:
            raise ModelError(
                f"{title}: expected at most {MOST_BYTES >> 20} MiB while the robot moves, got {len(data) >> 20} MiB;"
                " launch the node with it"
            )
        params = self._loaded.params
        policy = OnnxPolicy(
            data,
            title,
            provider=params.provider,
            threads=params.threads,
            background=True,
            given_up=lambda: self.swap.given_up,
        )
        make_guard(policy, params)  # says now what its novelty statistics lack
        return policy

    def _start(self, wanted: Announcement | None, tell: Callable[[Outcome], None]) -> bool:
        return self.swap.start(self._store, wanted, functools.partial(self._done, tell))

    def _done(self, tell: Callable[[Outcome], None], outcome: Outcome) -> None:
        try:
            if outcome.ok:
                self.newer = None
                self._node.get_logger().info(outcome.text)
                self._swap_now()
            else:
                self._node.get_logger().error(outcome.text)
        finally:
            tell(outcome)
            if self._node.executor is not None:
                self._node.executor.wake()  # so that the service answers though no image comes
        with self._next_lock:
            following, self._next = self._next, None
            if following is not None:
                self._start(following, lambda _: None)

    def _on_announcement(self, message: String) -> None:
        log = self._node.get_logger()
        try:
            announced = from_json(message.data)
        except StoreError as error:
            log.error(f"policy/latest: {error}", throttle_duration_sec=LOG_EVERY_S)
            return
        with self._next_lock:
            # at once, or when the one that is being checked is done with
            self._next = None if self._start(announced, lambda _: None) else announced

    def _say_newer(self) -> None:
        try:
            latest = self._store.latest()
        except StoreError as error:
            self._node.get_logger().warning(f"policy_dir: {error}")
            return
        if latest is not None and latest.sha256 != self._loaded.policy.sha256:
            self.newer = latest.number
            self._node.get_logger().warning(
                f"policy_dir holds version {latest.number} ({latest.sha256[:12]}), but the launched policy"
                f" ({self._loaded.policy.sha256[:12]}) is in use; call ~/reload to load it"
            )


def answer(response: Any, outcome: Outcome) -> Any:
    """Fills a Trigger response."""
    response.success, response.message = outcome.ok, outcome.text
    return response
