"""What was recorded beside the images: executed actions and rewards, all of a recording at once."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.commands import JOINT_STATE, Read
from sac_ae_ros.bag.messages import header_stamp_ns
from sac_ae_ros.bag.reader import Bag, Salvage
from sac_ae_ros.core.command import from_physical
from sac_ae_ros.core.errors import BagError, SacAeError
from sac_ae_ros.core.spec import PolicySpec

FLOATS = "std_msgs/msg/Float64", "std_msgs/msg/Float32"  # the types of rewards
SAME_PERIOD = 0.7, 1.5  # by the median, which jitter and lost frames do not move so far


@dataclass
class Summary:
    """What became of a recording; complete when all of its moments were taken.

    images: on the topic. executed: commands. paired: those whose frame is there and was used. clipped: of these, the
    ones outside of the policy's limits. rewards, unused_rewards: all of them, and those that no transition got.
    refused: messages of any kind that could not be used. returns: of each episode, a stretch of transitions.
    terminated: how many of them ended by themselves. empty_episodes: stretches of commands without a transition.
    no_picture, no_reward: commands that made no transition, as no picture shows what came of them, or no reward came
    where one was due. problem: why the first message was refused. doubtful: frames that were used although something
    about them is doubtful. doubt: what it was of the first. remarks: what else there is to say about the recording.
    """

    images: int = 0
    executed: int = 0
    refused: int = 0
    paired: int = 0
    clipped: int = 0
    rewards: int = 0
    unused_rewards: int = 0
    transitions: int = 0
    returns: list[float] = field(default_factory=list)
    terminated: int = 0
    empty_episodes: int = 0
    no_picture: int = 0
    no_reward: int = 0
    problem: str = ""
    doubtful: int = 0
    doubt: str = ""
    salvage: Salvage | None = None
    remarks: list[str] = field(default_factory=list)

    def refuse(self, error: SacAeError) -> None:
        """Takes note of a message that could not be used."""
        self.refused += 1
        self.problem = self.problem or str(error)

    def doubt_frame(self, complaints: Sequence[str]) -> None:
        """Takes note of what is doubtful about a frame that is used, if anything is."""
        self.doubtful += bool(complaints)
        self.doubt = self.doubt or "; ".join(complaints)


class Executed:
    """The actions that were really taken, by the stamps of their frames."""

    def __init__(self, stamps_ns: NDArray[np.int64], actions: NDArray[np.float32], logs_ns: NDArray, period_ns: int):
        order = np.argsort(stamps_ns, kind="stable")
        self._stamps_ns, self._actions = stamps_ns[order], actions[order]
        self._period_ns = period_ns
        self.pace_ns = _interval_ns(logs_ns) or period_ns  # by the recorder's clock, which a simulation may outrun

    def at(self, stamp_ns: int | None) -> NDArray[np.float32] | None:
        """The action [A] that was taken on the frame of this stamp."""
        if stamp_ns is None:
            return None
        place = int(np.searchsorted(self._stamps_ns, stamp_ns, "right")) - 1
        return self._actions[place] if place >= 0 and self._stamps_ns[place] == stamp_ns else None

    def soon(self, stamp_ns: int | None) -> bool:
        """Whether the robot acted on a frame less than half a period after this one."""
        if stamp_ns is None:
            return False
        place = int(np.searchsorted(self._stamps_ns, stamp_ns, "right"))
        return place < len(self._stamps_ns) and 2 * (self._stamps_ns[place] - stamp_ns) < self._period_ns


class Rewards:
    """Rewards by when they were recorded."""

    def __init__(self, logs_ns: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        order = np.argsort(logs_ns, kind="stable")
        self._logs_ns, self._values = logs_ns[order], values[order]
        self.interval_ns = _interval_ns(logs_ns)
        self.unused = len(values)

    def between(self, after_ns: int, until_ns: int) -> NDArray[np.float64]:
        """Those recorded in (after, until], which are used up."""
        first, last = np.searchsorted(self._logs_ns, (after_ns, max(after_ns, until_ns)), "right")
        self.unused -= int(last - first)
        return self._values[first:last]


def read_beside(
    bag: Bag, spec: PolicySpec, executed_topic: str, reward_topic: str, read: Read, summary: Summary
) -> tuple[Executed, Rewards]:
    """All commands and rewards, some bytes for each tick; `read` gives a command's numbers in the policy's order.

    Raises:
        BagError: there is not one command, or not one reward, that can be used; or the robot acted at another period.
    """
    stamps_ns, executed_ns, values = array("q"), array("q"), array("d")
    rewarded_ns, rewards = array("q"), array("d")
    for record in bag.records({executed_topic, reward_topic}):
        try:
            message = bag.message(record, FLOATS if record.topic == reward_topic else (JOINT_STATE,))
            if record.topic == reward_topic:
                rewards.append(float(message.data))
                rewarded_ns.append(record.stamp_ns)
                continue
            sent, stamp_ns = read(message), header_stamp_ns(message)
            if stamp_ns is None or not all(map(math.isfinite, sent)):
                raise BagError(f"{record.topic}: expected a stamp and finite numbers, got {stamp_ns or 0} and {sent}")
        except SacAeError as error:
            summary.refuse(error)
            continue
        stamps_ns.append(stamp_ns)
        executed_ns.append(record.stamp_ns)
        values.extend(sent)
    summary.executed, summary.rewards = len(stamps_ns), len(rewards)
    for topic, count in ((executed_topic, len(stamps_ns)), (reward_topic, len(rewards))):
        if not count:
            why = summary.problem or "it has no messages"
            raise BagError(f"{bag.path}: {topic}: nothing on it can be used: {why}; name another topic")
    period_s, acted_ns = spec.control_period_s, _interval_ns(_int64(stamps_ns))
    if acted_ns is not None and not SAME_PERIOD[0] <= acted_ns * 1e-9 / period_s <= SAME_PERIOD[1]:
        raise BagError(
            f"{bag.path}: {executed_topic}: expected commands every {period_s:g} s as the policy gives them, got one"
            f" every {acted_ns * 1e-9:.3g} s; fill a buffer for policies of that period with one of them"
        )
    low, high = (np.array([getattr(action, end) for action in spec.actions]) for end in ("low", "high"))
    actions = from_physical(np.array(values, np.float64).reshape(-1, len(low)), low, high)
    executed = Executed(_int64(stamps_ns), actions, _int64(executed_ns), spec.control_period_ns)
    return executed, Rewards(_int64(rewarded_ns), np.array(rewards, np.float64))


def _interval_ns(logs_ns: NDArray[np.int64]) -> int | None:
    """The median interval; None where there is none."""
    return int(np.median(np.diff(np.sort(logs_ns)))) or None if len(logs_ns) > 1 else None


def _int64(numbers: array[int]) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)
