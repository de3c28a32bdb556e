"""A policy_node that drives, everything around it that can break, and what it says."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fault_publishers import Lens, SimClock, Switch
from geometry_msgs.msg import Twist
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_network import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Network
from std_msgs.msg import String
from tiny_policy import write_policy

from sac_ae_ros.core.model_store import ModelStore
from sac_ae_ros.core.spec import NoveltyStats

PERIOD_S = 0.1
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LEVELS = {
    DiagnosticStatus.OK: "OK",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
    DiagnosticStatus.STALE: "STALE",
}
# One frame: what a test does to a picture is judged at the next tick. Contrast is what the novelty guard judges by.
SPEC = {"frame_stack": 1, "novelty": NoveltyStats(1, {"0.5": 0.25}, {"0.001": 0.02, "0.999": 0.03})}
DEFAULTS: dict[str, Any] = {
    "use_sim_time": False,
    "image__freeze_timeout_s": 2.0,
    "camera_info__check": "warn",
    "stamp_source": "header",
    "enable_required": False,
    "e_stop_required": False,
    "novelty__every": 5,
    "novelty__stop": 0.0,
    "watchdog_timeout_s": 0.0,
    "command__other_publishers": "report",
}


class Rig:
    """The node under test in a process of its own, its surroundings, and what it says."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        nimble: bool = False,
        stop: Any = None,
        prefix: tuple[str, ...] = (),
        **params: Any,
    ) -> None:
        """Starts the node.

        `nimble`: with a policy that neither fails nor hangs. `stop`: what one is, unless it is a zero Twist. `prefix`:
        what starts the node.
        """
        self.network, self.folder = network, folder
        traps: dict[str, Any] = {} if nimble else {"nan": True, "slow": 60}
        self.policy = write_policy(folder / "tiny.onnx", spec=SPEC, **traps)
        self._policy_bytes = self.policy.read_bytes()
        self.store = ModelStore(folder / "versions")
        self.store.folder.mkdir()
        self.stop = stop or Twist()
        self.commands = network.hear(type(self.stop), "cmd_vel")
        self.states = network.hear(String, "policy_node/state", qos=LATCHED)
        self.diagnostics = network.hear(DiagnosticArray, "/diagnostics")
        files = {"policy": str(self.policy), "policy_dir": str(self.store.folder)}
        self.process = network.start("policy_node", {**files, **params}, prefix=prefix)
        self._open = contextlib.ExitStack()
        self.lens = self.opened(Lens(network.node))
        self._logged = 0

    # What a case brings with it; `restore` takes it away.

    def opened(self, thing: Any) -> Any:
        self._open.callback(thing.close)
        return thing

    def switch(self, topic: str, on: bool) -> Switch:
        switch = self.opened(Switch(self.network.node, topic, on))
        switch.start()
        return switch

    def clock(self) -> SimClock:
        """A simulator's, which dates the pictures as well."""
        clock = self.opened(SimClock(self.network.node))
        self.lens.set(now=clock.now)
        clock.start()
        return clock

    def lose_disk(self) -> None:
        """The launched policy's file and the versions are gone."""
        shutil.rmtree(self.store.folder)
        self.policy.unlink()

    def restore(self) -> None:
        """Unconfigured, with a camera, a disk and a clock as at first."""
        self._open.close()
        self.lens = self.opened(Lens(self.network.node))
        transitions = {"active": (DEACTIVATE, CLEANUP), "inactive": (CLEANUP,), "unconfigured": ()}
        assert self.network.change(*transitions[self.network.state()])
        self.policy.write_bytes(self._policy_bytes)
        shutil.rmtree(self.store.folder, ignore_errors=True)
        self.store.folder.mkdir()

    def close(self) -> None:
        self._open.close()

    # What a case does with the node.

    def activate(self, **params: Any) -> None:
        refusal = self.network.set("policy_node", **{**DEFAULTS, **params})
        assert not refusal, refusal
        assert self.network.change(CONFIGURE, ACTIVATE)

    def drive(self, **params: Any) -> None:
        """Active, armed, and moving."""
        self.activate(**params)
        self.lens.start()
        self.rearm()

    def arm(self) -> str:
        """Empty, or why not."""
        answer = self.network.ask_to_arm()
        return "" if answer.success else answer.message

    def rearm(self) -> None:
        """Arms as soon as that is possible, and waits for commands.

        A busy machine may keep a camera waiting so long that the robot stops once more: it is armed again then.
        """
        armed_s = float("inf")

        def drives() -> bool:
            nonlocal armed_s
            if armed_s == float("inf") or self.stops(armed_s):
                armed_s = float("inf") if self.arm() else time.monotonic()
            return len(self.moves(armed_s)) > 2

        self.network.until(drives, 10, "commands")

    def moving(self, start_s: float | None = None) -> None:
        """Waits for three commands from now on."""
        start_s = time.monotonic() if start_s is None else start_s
        self.network.until(lambda: len(self.moves(start_s)) > 2, 10, "commands")

    def new_log(self) -> str:
        """What the node has printed since the last call."""
        log = self.process.log
        new, self._logged = log[self._logged :], len(log)
        return new

    # What the node says.

    def moves(self, start_s: float, end_s: float = float("inf")) -> list[float]:
        """When moving commands came."""
        return [at_s for at_s, command in list(self.commands) if start_s < at_s < end_s and command != self.stop]

    def stops(self, start_s: float, end_s: float = float("inf")) -> list[float]:
        """When stops came."""
        return [at_s for at_s, command in list(self.commands) if start_s < at_s < end_s and command == self.stop]

    def first_stop(self, since_s: float, timeout_s: float = 10.0) -> float:
        return self.network.until(lambda: self.stops(since_s), timeout_s, "a stop")[0]

    def state(self, since_s: float, holds: Callable[[dict], Any]) -> dict[str, Any]:
        """The first ~/state since then for which it holds."""
        found = lambda: [s for s in map(json.loads, self._state_texts(since_s)) if holds(s)]  # noqa: E731
        return self.network.until(found, 10, "~/state")[0]

    def diagnosis(self, since_s: float, part: str, words: str, timeout_s: float = 10.0) -> tuple[float, str]:
        """When /diagnostics first said all these words, parted by " … ", in that status, and the whole message."""
        found = self.network.until(
            lambda: [
                each for each in self._statuses(since_s, part) if all(some in each[1] for some in words.split(" … "))
            ],
            timeout_s,
            f"'{words}' of {part} in /diagnostics",
        )
        return found[0]

    def _state_texts(self, since_s: float) -> list[str]:
        return [message.data for message in self.states.since(since_s)]

    def _statuses(self, since_s: float, part: str) -> Iterator[tuple[float, str]]:
        for at_s, message in list(self.diagnostics):
            for status in message.status if at_s > since_s else ():
                if status.name.endswith(f": {part}"):
                    yield at_s, f"{part} {LEVELS[status.level]}: {status.message}"
