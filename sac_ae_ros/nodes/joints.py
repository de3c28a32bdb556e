"""HeldJoints: where the joints of an arm are, as measured, and whether two publishers tell of the same one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from sac_ae_ros.core.errors import quote

CONTRADICTED_S = 2.0  # after two publishers told of the same joint, for so long neither is believed
WAITED_INTERVALS = 3.0  # a joint's message that skips numbers counts unless the first publisher comes within so many


@dataclass
class _Joint:
    """What is known of one joint; times are of the steady clock.

    position: the newest that counts, nan before one came. number, advance: the last message's, and by how much it had
    gone up. interval_s: between messages. settles_s: from then on positions count. contradicted: a second publisher
    told of it, or a message twice, and no position has counted since.
    """

    position: float = np.nan
    heard_s: float = -np.inf
    number: int = 0
    advance: int = 1
    interval_s: float = 0.0
    settles_s: float = -np.inf
    contradicted: bool = False

    def follow(self, number: int, now_s: float, timeout_s: float) -> None:
        """Takes a message's number; one that skips others may be a second publisher's, so the first is waited for."""
        advance, interval_s = number - self.number, now_s - self.heard_s
        if interval_s > timeout_s:  # whoever speaks after a silence is the first
            advance = 1
        elif now_s >= self.settles_s:
            if advance > self.advance:
                self.settles_s = now_s + WAITED_INTERVALS * self.interval_s
            else:
                self.interval_s = max(interval_s, 0.9 * self.interval_s)
        self.number, self.advance = number, advance

    def take(self, position: float, now_s: float) -> None:
        """Takes a measured position, unless it is to be doubted."""
        self.heard_s = now_s
        if now_s >= self.settles_s:
            self.position, self.contradicted = position, False


class HeldJoints:
    """The newest measured positions of some joints, from sensor_msgs/JointState; any thread may call.

    Several publishers may tell of them, each joint by one. A publisher numbers its messages, so a number that does not
    go up for a joint is a second publisher's, or one's that was restarted: from the last message before it until none
    has come for CONTRADICTED_S, the positions stay as they were. So they do after a message that has a joint twice.
    """

    def __init__(self, joints: Sequence[str], timeout_s: float) -> None:
        """`joints`: their names, in the actions' order; late when one was silent for `timeout_s`."""
        self._joints = {joint: _Joint() for joint in joints}
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._doubt = ""  # what was expected, and what came, when joints were contradicted last

    def heard(self, message: JointState, number: int | None = None) -> None:
        """Takes the finite positions of the joints that count; the message may have others, or only some.

        `number`: the publisher's own of this message (publication_sequence_number); None: the middleware gives none.
        """
        now_s = time.monotonic()
        known = [(name, at) for name, at in zip(message.name, message.position, strict=False) if name in self._joints]
        counts = Counter(name for name, _ in known)
        twice = [name for name, count in counts.items() if count > 1]
        told = {name: at for name, at in known if np.isfinite(at)}
        with self._lock:
            if number is not None:
                self._compare(told, number, now_s)
            if twice:
                self._contradict(
                    counts, f"every joint once in a message, got {quote(twice[0])} twice; mend its publisher", now_s
                )
            for name, position in told.items():
                self._joints[name].take(position, now_s)

    @property
    def positions(self) -> NDArray[np.float64] | None:
        """The newest position of each joint, float64 [A]; None before all were heard."""
        with self._lock:
            positions = np.array([joint.position for joint in self._joints.values()])
        return None if np.isnan(positions).any() else positions

    def late(self, now_s: float) -> bool:
        """Whether a joint was never heard, or not within the timeout; `now_s` as of time.monotonic."""
        with self._lock:
            return any(self._is_silent(joint, now_s) for joint in self._joints.values())

    def contradiction(self, now_s: float) -> str:
        """That two publishers, or one message twice, tell of the same joint; empty if none do, or they are silent."""
        with self._lock:
            lasts = any(each.contradicted and not self._is_silent(each, now_s) for each in self._joints.values())
            if not lasts:
                return ""
            return f"joint_states: expected {self._doubt}"

    def _compare(self, told: Iterable[str], number: int, now_s: float) -> None:
        """Compares a message's number with those before, for each of the joints that it tells of."""
        joints = {name: self._joints[name] for name in told}
        for name, joint in joints.items():
            if number <= joint.number and not self._is_silent(joint, now_s):
                doubt = f"one publisher of joint {quote(name)}, got two that take turns, or one that was restarted"
                self._contradict(joints, f"{doubt}; end one, or give it other joints", now_s)
                break
        for joint in joints.values():
            joint.follow(number, now_s, self._timeout_s)

    def _contradict(self, names: Iterable[str], doubt: str, now_s: float) -> None:
        """Believes no position of these joints for a while."""
        self._doubt = doubt
        for name in names:
            joint = self._joints[name]
            joint.settles_s, joint.contradicted = now_s + CONTRADICTED_S, True

    def _is_silent(self, joint: _Joint, now_s: float) -> bool:
        return now_s - joint.heard_s > self._timeout_s
