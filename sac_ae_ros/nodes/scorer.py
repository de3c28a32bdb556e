"""Scorer: listens to a simulated robot and says what each episode was worth.

Reward and episode_end are two topics without stamps, so that nothing orders them on arrival. Their source
timestamps do: one process publishes both.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64

from sac_ae_ros.core.image import decode
from sac_ae_ros.nodes.convert import to_image, to_ns

DEEP = QoSProfile(depth=1000)
FEW = QoSProfile(depth=30)


@dataclass(frozen=True)
class Heard:
    """One message: when it was published by the sender's clock, its number there, and what it said."""

    published_ns: int
    number: int
    content: Any


@dataclass
class Recording:
    """Everything heard, in order of arrival."""

    rewards: list[Heard] = field(default_factory=list)
    ends: list[Heard] = field(default_factory=list)
    images: list[Heard] = field(default_factory=list)
    commands: list[Heard] = field(default_factory=list)


@dataclass(frozen=True)
class Episode:
    """One complete episode between two borders, published_ns; `lost` counts rewards that never arrived."""

    begin_ns: int
    end_ns: int
    rewards: tuple[float, ...]
    lost: int

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(sum(self.rewards))


def episodes_after(recording: Recording, border_ns: int) -> list[Episode]:
    """The complete episodes that begin at `border_ns`, the publishing time of an episode_end, or later."""
    borders = sorted(end.published_ns for end in recording.ends if end.published_ns >= border_ns)
    rewards = sorted(recording.rewards, key=lambda reward: reward.published_ns)
    times = [reward.published_ns for reward in rewards]
    found = []
    for begin_ns, end_ns in itertools.pairwise(borders):
        first, last = bisect.bisect_left(times, begin_ns), bisect.bisect_right(times, end_ns)
        own = rewards[first:last]
        before = rewards[first - 1].number if first else own[0].number - 1 if own else 0
        lost = max(0, own[-1].number - before - len(own)) if own else 0
        found.append(Episode(begin_ns, end_ns, tuple(reward.content for reward in own), lost))
    return found


class Scorer:
    """Subscribes to everything a simulated robot and its policy node publish."""

    def __init__(self, node: Node, *, images: bool) -> None:
        """Listens on `reward`, `episode_end` and `policy_node/executed`, and on `image` if wanted."""
        self.recording = Recording()
        self._node = node
        topics: list[tuple[type, str, list[Heard], QoSProfile, Callable[[Any], Any]]] = [
            (Float64, "reward", self.recording.rewards, DEEP, lambda message: message.data),
            (Bool, "episode_end", self.recording.ends, DEEP, lambda message: message.data),
            (JointState, "policy_node/executed", self.recording.commands, DEEP, _command),
        ]
        for kind, topic, into, qos, content in topics:
            node.create_subscription(kind, topic, _listener(into, content), qos)
        self._images: Any = None
        if images:
            self._images = node.create_subscription(Image, "image", _listener(self.recording.images, _picture), FEW)

    def stop_images(self) -> None:
        """Listens no more on `image`."""
        if self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None


def _listener(into: list[Heard], content: Callable[[Any], Any]) -> Any:
    def listen(message: Any, info: dict) -> None:
        number = info["publication_sequence_number"]
        into.append(Heard(info["source_timestamp"], number, content(message)))

    return listen


def _command(message: JointState) -> tuple[int, Sequence[float], Sequence[str]]:
    return to_ns(message.header.stamp), tuple(message.position), tuple(message.name)


def _picture(message: Image) -> tuple[int, NDArray[np.uint8]]:
    return to_ns(message.header.stamp), decode(to_image(message)).copy()


def save(path: Path, recording: Recording, episode: Episode) -> None:
    """Writes one episode as NPZ; stamps are those of the frames, simulated nanoseconds.

    images: uint8 [T, H, W, 3], image_stamps_ns [T]. commands: float64 [C, A], command_stamps_ns [C] of the
    frame that each was computed from. rewards: float64 [R], reward_stamps_ns [R]. action_names [A].
    """
    images, rewards = (
        [heard for heard in heards if episode.begin_ns < heard.published_ns <= episode.end_ns]
        for heards in (recording.images, recording.rewards)
    )
    stamps = [heard.content[0] for heard in images]
    commands = [heard.content for heard in recording.commands if heard.content[0] in set(stamps)]
    seen_ns = [heard.published_ns for heard in images]
    # a reward is published just before the picture of the same moment
    places = [min(bisect.bisect_left(seen_ns, heard.published_ns), len(stamps) - 1) for heard in rewards]
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(
        partial,
        images=np.array([heard.content[1] for heard in images], np.uint8),
        image_stamps_ns=np.array(stamps, np.int64),
        commands=np.array([command[1] for command in commands], np.float64),
        command_stamps_ns=np.array([command[0] for command in commands], np.int64),
        rewards=np.array([heard.content for heard in rewards], np.float64),
        reward_stamps_ns=np.array([stamps[place] for place in places], np.int64),
        action_names=np.array(commands[0][2] if commands else [], np.str_),
    )
    partial.replace(path)
