"""Recorded images, executed commands, rewards and episode ends -> the transitions that a replay buffer holds."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.beside import FLOATS, Rewards, Summary, read_beside
from sac_ae_ros.bag.commands import EXECUTED, JOINT_STATE, Read, find_executed, reader
from sac_ae_ros.bag.evaluate import STAMP_SOURCES, find_episode_ends, remark_on_ends, remark_on_namespaces
from sac_ae_ros.bag.footage import Footage
from sac_ae_ros.bag.messages import BOOL, PICTURE_TYPES
from sac_ae_ros.bag.reader import Bag, Record
from sac_ae_ros.bag.ticks import Tick, Ticks
from sac_ae_ros.core.errors import BagError, ConfigError
from sac_ae_ros.core.image import FULL_VIEW, View
from sac_ae_ros.core.spec import PolicySpec

REWARD = "reward"
EVERY_TICK = 1.5  # rewards that come at most so many ticks apart are meant to come with every tick


@dataclass(frozen=True)
class Sources:
    """Where a recording has what is needed; "" finds a topic by type and the last part of its name.

    view: what of the image counts. stamp_source: picks the ticks by the frames' header stamps, or by when they were
    recorded ("log"); commands meet frames by header stamps always. start_s, duration_s: as Bag.limit has them.
    """

    image_topic: str = ""
    executed_topic: str = ""
    reward_topic: str = ""
    episode_end_topic: str = ""
    view: View = FULL_VIEW
    stamp_source: str = "header"
    start_s: float = 0.0
    duration_s: float = 0.0


@dataclass(frozen=True)
class Moment:
    """A frame that the policy saw, and the transition from the moment before that led to it.

    frame: uint8 RGB [3, H, W]. log_ns: when it was recorded. first: the frame stack begins anew with it. action:
    float32 [A] in [-1, 1]; None where no transition leads here: such a frame serves the stacks of later ones. reward,
    terminated: of the transition; where no picture of the final state was taken, the last frame comes once more.
    """

    frame: NDArray[np.uint8]
    log_ns: int
    first: bool
    action: NDArray[np.float32] | None = None
    reward: float = 0.0
    terminated: bool = False


def transitions(bag: Bag, spec: PolicySpec, sources: Sources, summary: Summary) -> Iterator[Moment]:
    """The recording as the policy of `spec` would have seen it, moment after moment; memory stays flat.

    It is read twice: first commands and rewards, then images and episode ends, of which only frames that are due are
    decoded. docs/bags.md says what is paired with what.

    Raises:
        BagError: images, executed commands or rewards are not there; names what is.
        ConfigError: no such stamp source.
    """
    if sources.stamp_source not in STAMP_SOURCES:
        raise ConfigError(f"stamp source: expected {' or '.join(STAMP_SOURCES)}, got {sources.stamp_source!r}")
    bag.limit(sources.start_s, sources.duration_s)
    topics = _find(bag, spec, sources)
    summary.remarks += topics.remarks
    executed, rewards = read_beside(bag, spec, topics.executed, topics.reward, topics.read, summary)
    ticks = Ticks(spec, sources.view, sources.stamp_source == "header", executed, summary)
    episodes = _Episodes(spec.frame_stack, rewards, executed.pace_ns, summary)
    footage = Footage(bag, bag.topics[topics.image])
    ends, seen = 0, 0
    for record, picture in footage.follow(bag.records({topics.image, *topics.ends})):
        if record.topic == topics.image:
            tick = ticks.take(record, picture)
            if tick is not None:
                seen += 1
                yield from episodes.tick(tick)
            continue
        ends += 1
        ticks.restart()
        episodes.end(record.stamp_ns, _is_true(bag, record, summary))
    yield from episodes.finish()
    summary.remarks += remark_on_ends(ends, seen)
    summary.unused_rewards = rewards.unused
    summary.salvage = bag.salvage


@dataclass(frozen=True)
class _Topics:
    image: str
    executed: str
    reward: str
    ends: frozenset[str]
    read: Read
    remarks: list[str]


def _find(bag: Bag, spec: PolicySpec, sources: Sources) -> _Topics:
    actions = [action.name for action in spec.actions]
    image = bag.topic(sources.image_topic, PICTURE_TYPES, "images", flag="--image-topic")
    flag = "--executed-topic"
    executed = None if sources.executed_topic else find_executed(bag, actions, image.name, flag)
    if executed is None:
        named = f"executed commands (positions of {', '.join(actions)})"
        what = f"{named}, which policy_node publishes while armed and `sac-ae record` keeps,"
        executed = bag.topic(sources.executed_topic, (JOINT_STATE,), what, EXECUTED, flag=flag, beside=image.name)
    what = "rewards, which sim_robot_node or a node of yours publishes and `sac-ae record` keeps,"
    reward = bag.topic(sources.reward_topic, FLOATS, what, REWARD, flag="--reward-topic", beside=image.name)
    if sources.episode_end_topic:
        ends = {bag.topic(sources.episode_end_topic, (BOOL,), "episode ends", flag="--episode-end-topic").name}
    else:
        ends = find_episode_ends(bag, image.name)
    found = {} if sources.episode_end_topic else dict.fromkeys(ends, "ends of episodes")
    found |= {} if sources.executed_topic else {executed.name: "commands"}
    found |= {} if sources.reward_topic else {reward.name: "rewards"}
    remarks, read = remark_on_namespaces(image.name, found), reader(JOINT_STATE, (), actions)
    return _Topics(image.name, executed.name, reward.name, frozenset(ends), read, remarks)


@dataclass
class _Newest:
    """The newest tick; only the next one tells which rewards belong to the arrival here, and whether an end does.

    came_by: the action that led here, None without a transition; alone: no transition led to where it was taken.
    since_ns: what was recorded later may belong to the arrival here. ended: when and how the episode ended after it.
    """

    tick: Tick
    came_by: NDArray[np.float32] | None
    alone: bool
    since_ns: int
    ended: tuple[int, bool] | None = None


class _Episodes:
    """Strings ticks together: an action, the rewards up to the next tick, and whether the episode ended with it.

    What is recorded belongs to the next tick, but to the one before within half a tick, or half of a reward's interval
    where several rewards come with a tick.
    """

    def __init__(self, depth: int, rewards: Rewards, pace_ns: int, summary: Summary) -> None:
        self._depth, self._rewards, self._summary = depth, rewards, summary
        interval_ns = rewards.interval_ns
        self._slack_ns = min(pace_ns, interval_ns or pace_ns) // 2
        self._every_tick = interval_ns is not None and interval_ns <= EVERY_TICK * pace_ns
        self._newest: _Newest | None = None
        self._held: list[Moment] = []  # moments that no transition has needed yet

    def tick(self, tick: Tick) -> Iterator[Moment]:
        """Takes the next frame that the policy saw."""
        last, newest = self._newest, _Newest(tick, None, True, tick.log_ns)
        if last is not None:
            newest.since_ns, reached = yield from self._close(last, tick)
            if not tick.restarted:
                newest.came_by, newest.alone = last.tick.action, not reached
        self._newest = newest

    def end(self, log_ns: int, terminated: bool) -> None:
        """Takes an episode's end."""
        if self._newest is not None and self._newest.ended is None:
            self._newest.ended = log_ns, terminated

    def finish(self) -> Iterator[Moment]:
        """Ends with the recording."""
        if self._newest is not None:
            yield from self._close(self._newest, None)

    def _close(self, last: _Newest, after: Tick | None) -> Generator[Moment, None, tuple[int, bool]]:
        """Gives the last tick's moment; returns up to when records belong to it, and whether a transition led there."""
        tick, slack_ns = last.tick, self._slack_ns
        if after is not None:
            slack_ns = min(slack_ns, max(0, after.log_ns - tick.log_ns) // 2)
        until_ns = tick.log_ns + slack_ns
        bare = Moment(tick.frame, tick.log_ns, tick.restarted)
        moment = self._arrive(bare, last.came_by, last.since_ns, until_ns, last.alone)
        reached = moment.action is not None
        ended_ns, terminated = last.ended or (0, False)
        final = None
        if reached and 0 < ended_ns <= until_ns:  # its frame shows the end
            moment = replace(moment, terminated=terminated)
        elif tick.action is not None and (after is None or after.restarted):
            if terminated and ended_ns > until_ns:
                final_ns = ended_ns + self._slack_ns
                if after is not None:
                    final_ns = min(final_ns, max(ended_ns, after.log_ns))
                final = replace(bare, first=False, terminated=True)
                final = self._arrive(final, tick.action, until_ns, final_ns, not reached)
            else:
                self._summary.no_picture += 1
                self._summary.empty_episodes += not reached
        yield from self._give(moment)
        if final is not None and final.action is not None:
            yield from self._give(final)
        return until_ns, reached

    def _arrive(
        self, moment: Moment, action: NDArray[np.float32] | None, since_ns: int, until_ns: int, alone: bool
    ) -> Moment:
        """The moment with the transition that led to it; without, if no reward is there that should be."""
        if action is None:
            return moment
        rewards = self._rewards.between(since_ns, until_ns)
        reward = float(rewards.sum())
        if (self._every_tick and not len(rewards)) or not math.isfinite(reward):
            self._summary.no_reward += 1
            self._summary.empty_episodes += alone
            return moment
        return replace(moment, action=action, reward=reward)

    def _give(self, moment: Moment) -> Iterator[Moment]:
        """Holds moments back until a transition needs them, and lets go of those that no stack reaches any more."""
        summary, held = self._summary, self._held
        if moment.first:
            held.clear()
        if moment.action is None:
            held.append(moment)
            if len(held) > self._depth:
                held[:2] = [replace(held[1], first=True)]
            return
        if held:
            summary.returns.append(0.0)
            yield from held
            held.clear()
        summary.returns[-1] += moment.reward
        summary.transitions += 1
        summary.terminated += moment.terminated
        yield moment


def _is_true(bag: Bag, record: Record, summary: Summary) -> bool:
    """What an episode's end says; one that cannot be read claims no termination."""
    try:
        return bool(bag.message(record, (BOOL,)).data)
    except BagError as error:
        summary.refuse(error)
        return False
