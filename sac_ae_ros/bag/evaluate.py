"""Recorded images through the very ImageToCommand that the robot runs, against recorded commands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag import metrics
from sac_ae_ros.bag.clocks import Clock, describe_leaps, lateness, leaps
from sac_ae_ros.bag.commands import RecordedCommands, find_commands
from sac_ae_ros.bag.footage import Footage, Picture
from sac_ae_ros.bag.messages import BOOL, EPISODE_END, OTHER_CLOCK_S, PICTURE_TYPES, peek_stamp_ns
from sac_ae_ros.bag.metrics import ActionErrors
from sac_ae_ros.bag.records import are_apart, are_parallel
from sac_ae_ros.core.command import SafetyGate
from sac_ae_ros.core.errors import BagError, ConfigError, SacAeError
from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.image import FULL_VIEW, View
from sac_ae_ros.core.novelty import NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.pipeline import ImageToCommand, Watching
from sac_ae_ros.core.policy import OnnxPolicy, PolicyOutput
from sac_ae_ros.core.spec import PolicySpec

if TYPE_CHECKING:
    from sac_ae_ros.bag.reader import Bag, Record, Salvage

STAMP_SOURCES = ("header", "log")
LEAST_ENDS, SHORT_EPISODE_TICKS = 3, 5  # as many ends, of episodes as short, are no episodes' ends
SCORED = NoveltyLimits(warn=1.0, stop=0.0, m=1, n=1)

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """How a bag is scored; docs/bags.md.

    image_topic, command_topic: "" finds them by type. command_fields: as policy_node's command.fields. view,
    freeze_timeout_s, novelty_every: as Watching has them. stamp_source: header, or log for when it was recorded.
    msg_path: a folder with .msg files, "" for none. start_s, duration_s: as Bag.limit has them.
    """

    image_topic: str = ""
    command_topic: str = ""
    command_fields: tuple[str, ...] = ()
    view: View = FULL_VIEW
    freeze_timeout_s: float = 0.0
    novelty_every: int = 1
    stamp_source: str = "header"
    msg_path: str = ""
    start_s: float = 0.0
    duration_s: float = 0.0


@dataclass
class Tick:
    """One tick of the policy.

    stamp_ns: the frame's. log_ns: when it was recorded. values: float64 [A] in physical units, None when not finite.
    recorded: the command that held then, [A], None without one; known only when the bag was read to its end.
    novelty: mean squared reconstruction error, None where not measured. score: NoveltyGuard's, above 1 beyond the
    held-out frames; None also for a policy without statistics. latency_s: from the bag's bytes to the command. at_s:
    when page and videos show it, since the first tick; as `metrics.shown_times` has it, at the end.
    """

    stamp_ns: int
    log_ns: int
    values: NDArray[np.float64] | None
    recorded: NDArray[np.float64] | None
    novelty: float | None
    score: float | None
    latency_s: float
    restarted: bool
    at_s: float = 0.0


@dataclass
class Evaluation:
    """What came of a bag and a policy. Times are nanoseconds of the frames' stamps.

    frames: images on the topic. stale: stamps of frames recorded more than 2.5 periods after them. refused: stamps and
    reasons of frames that could not be used. doubtful: what is doubtful about images, and on how many ticks. gaps:
    stamps and lengths, seconds. dropped: stamps and how many frames are missing after them. commands: recorded ones
    that could be read; refused_commands could not. no_pairs: why no command met a tick, "" where one did. clocks: by
    topic, of images and commands, if these have stamps. paired_by: "header" or "log", what commands and frames met by;
    None without commands. paired_why: why it is log. two_clocks: because their stamps cannot be compared. ages_s:
    greatest and 99th percentile of the frames' ages when recorded, of those that can be, None where stamps are of
    another clock. leaps: how many of stamps page and videos leave out. remarks: what else there is to say.
    """

    spec: PolicySpec
    sha256: str
    image_topic: str
    command_topic: str | None
    ticks: list[Tick] = field(default_factory=list)
    frames: int = 0
    stale: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    doubtful: Counter[str] = field(default_factory=Counter)
    gaps: list[tuple[int, float]] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    commands: int = 0
    refused_commands: list[tuple[int, str]] = field(default_factory=list)
    actions: dict[str, ActionErrors] = field(default_factory=dict)
    no_pairs: str = ""
    clocks: dict[str, Clock] = field(default_factory=dict)
    paired_by: str | None = None
    paired_why: str = ""
    two_clocks: bool = False
    novelty_p99: float | None = None
    error_p99: float | None = None
    age_max_s: float | None = None
    age_p99_s: float | None = None
    recorded_s: float = 0.0
    wall_s: float = 0.0
    salvage: Salvage | None = None
    leaps: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def times_real_time(self) -> float:
        """How much faster than it was recorded."""
        return self.recorded_s / self.wall_s if self.wall_s else 0.0


def evaluate(
    bag: Bag,
    policy: OnnxPolicy,
    options: Options | None = None,
    on_tick: Callable[[Tick, Frame], None] = lambda tick, frame: None,
) -> Evaluation:
    """Scores one policy on one bag, in one pass over it.

    `on_tick` gets each tick with what the policy saw, uint8 RGB [H, W, 3]; a tick's `recorded` comes only at the end.

    Raises:
        BagError: no images, or none that can be used; no such topic, or several that it could be.
        ConfigError: the command's fields don't fit.
    """
    options = options or Options()
    if options.stamp_source not in STAMP_SOURCES:
        raise ConfigError(f"stamp source: expected {' or '.join(STAMP_SOURCES)}, got {options.stamp_source!r}")
    bag.limit(options.start_s, options.duration_s)
    image = bag.topic(options.image_topic, PICTURE_TYPES, "images", flag="--image-topic")
    actions = [action.name for action in policy.spec.actions]
    source = find_commands(bag, options.command_topic, options.command_fields, actions, image.name)
    result = Evaluation(policy.spec, policy.sha256, image.name, source.topic if source else None)
    frames, commands = _Frames(policy, options, result, on_tick), RecordedCommands(bag, source, result)
    ends = find_episode_ends(bag, image.name)
    found = dict.fromkeys(ends, "ends of episodes")
    found |= {source.topic: "commands"} if source and not options.command_topic else {}
    result.remarks += remark_on_namespaces(image.name, found)
    started_s = time.perf_counter()
    wanted = {image.name, *ends, *([source.topic] if source else [])}
    for record, picture in Footage(bag, image).follow(bag.records(wanted)):
        if record.topic == image.name:
            frames.take(record, picture)
        elif record.topic in ends:
            frames.end_episode()
        else:
            commands.take(record)
    result.wall_s, result.salvage = time.perf_counter() - started_s, bag.salvage
    if not result.frames:
        raise BagError(
            f"bag: expected images on {image.name}, got none; name another topic, or another part of the bag"
        )
    if not result.ticks:
        count, (_, reason) = len(result.refused), result.refused[0]
        raise BagError(
            f"{bag.path}: {image.name}: expected images that can be used, all {count} that were due are refused, so"
            f" nothing is scored and no page is made; the first: {reason}"
        )
    frames.finish()
    commands.finish(options.stamp_source == "header", frames.stamps_ns, frames.late_s)
    return result


def find_episode_ends(bag: Bag, image: str) -> set[str]:
    """The topics of episodes' ends, but for those of another robot than the one with these images."""
    topics = bag.topics.values()
    ends = {topic.name for topic in topics if topic.type == BOOL and topic.last_part == EPISODE_END}
    near = {name for name in ends if not are_parallel(topics, image, name)}
    return {name for name in near if not are_apart(image, name)} or near


def remark_on_ends(ends: int, ticks: int) -> list[str]:
    """Return a remark if episodes average fewer than SHORT_EPISODE_TICKS ticks, as if published on every tick."""
    if ends < LEAST_ENDS or ticks >= SHORT_EPISODE_TICKS * ends:
        return []
    return [
        f"{ends} ends of episodes for {ticks} ticks: every message on episode_end is one, whether true (terminated) or"
        " false, and the frame stack begins anew each time; publish it at an end only"
    ]


def remark_on_namespaces(image: str, found: Mapping[str, str]) -> list[str]:
    """Return a remark for each topic that was found by type or name in another namespace than the images'.

    Args:
        image: the topic of the images.
        found: of each such topic what it is taken for, "commands".
    """
    return [
        f"{what} are taken from {name}, which is in another namespace than {image}: are both of one robot?"
        for name, what in sorted(found.items())
        if are_apart(image, name)
    ]


class _Watched:
    """A policy that remembers the newest frame it saw."""

    def __init__(self, policy: OnnxPolicy) -> None:
        self.spec, self._policy = policy.spec, policy
        self.stack: NDArray[np.uint8] = np.zeros((3, 1, 1), np.uint8)

    def act(self, frames: NDArray[np.uint8], want_novelty: bool = False) -> PolicyOutput:
        self.stack = frames
        return self._policy.act(frames, want_novelty)


class _Frames:
    """Feeds recorded images to ImageToCommand; only those that it will look at are decoded."""

    def __init__(
        self, policy: OnnxPolicy, options: Options, result: Evaluation, on_tick: Callable[[Tick, Frame], None]
    ) -> None:
        self._options, self._result, self._on_tick = options, result, on_tick
        self._watched = _Watched(policy)
        guard = NoveltyGuard(policy.spec.novelty, SCORED)
        self._blind = guard.blind
        gate = SafetyGate(policy.spec.actions, policy.spec.control_period_s)
        gate.arm()
        watching = Watching(options.view, options.freeze_timeout_s, options.novelty_every, guard)
        self.pipeline = ImageToCommand(cast(OnnxPolicy, self._watched), gate, lambda values: None, watching)
        self._stamps_ns: list[int] = []
        self._logs_ns: list[int] = []
        self._shifts_ns: list[int] = []
        self._ends: list[int] = []  # how many frames came before each episode's end

    def end_episode(self) -> None:
        """Begins the stack anew; what lies between the frames before and after it is no gap."""
        self._ends.append(len(self._stamps_ns))
        self.pipeline.reset()

    def take(self, record: Record, picture: Picture) -> None:
        """Takes every record of the image topic, in the order in which pictures are shown."""
        self._result.frames += 1
        stamp_ns = stamp_of(record, self._options)
        self._stamps_ns.append(stamp_ns)
        self._logs_ns.append(record.stamp_ns)
        self._shifts_ns.append(record.shift_ns)
        started_s = time.perf_counter()
        try:
            step = self.pipeline.process(picture, stamp_ns)
        except SacAeError as error:
            self._result.refused.append((stamp_ns, str(error)))
            return
        if step is None:
            return
        self._result.doubtful.update(step.complaints)
        latency_s = time.perf_counter() - started_s
        score = None if step.reading is None or self._blind else step.reading.score
        times = stamp_ns, record.stamp_ns
        tick = Tick(*times, step.values, None, step.novelty, score, latency_s, step.restarted)
        self._result.ticks.append(tick)
        self._on_tick(tick, self._watched.stack[-3:].transpose(1, 2, 0))

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps of all images, int64 [N]."""
        return np.array(self._stamps_ns, np.int64)

    @property
    def late_s(self) -> NDArray[np.float64]:
        """How much later than its stamp each image was recorded, float64 [N]."""
        logs_ns, shifts_ns = np.array(self._logs_ns, np.int64), np.array(self._shifts_ns, np.int64)
        return lateness(logs_ns, shifts_ns, self.stamps_ns)

    def finish(self) -> None:
        """Sums up, when the bag is at its end."""
        result, period_s = self._result, self._watched.spec.control_period_s
        stamps_ns, logs_ns, ages_s = self.stamps_ns, self._logs_ns, self.late_s
        origin_ns = int(stamps_ns.min())
        cuts = sorted({*self._ends, *leaps(stamps_ns).tolist()})
        since_s = np.asarray((stamps_ns - origin_ns) * 1e-9, np.float64)
        episodes_s = [np.sort(each) for each in np.split(since_s, cuts)]  # sorted: a frame that came late is no gap
        pace_s = metrics.pace(episodes_s)
        for stamps_s in episodes_s:
            result.gaps += [(origin_ns + round(at * 1e9), length) for at, length in metrics.gaps(stamps_s, period_s)]
            result.dropped += [(origin_ns + round(at * 1e9), count) for at, count in metrics.dropped(stamps_s, pace_s)]
        result.recorded_s = (max(logs_ns) - min(logs_ns)) * 1e-9
        result.remarks += describe_leaps(result.image_topic, stamps_ns)
        if self._options.stamp_source == "header" and abs(np.median(ages_s)) < OTHER_CLOCK_S:
            can_be = np.abs(ages_s) < OTHER_CLOCK_S  # other stamps are of another clock, or of before it was set
            result.age_max_s, result.age_p99_s = float(ages_s[can_be].max()), float(np.percentile(ages_s[can_be], 99))
            result.stale = stamps_ns[can_be & (ages_s > GAP_PERIODS * period_s)].tolist()
        self._show_times()
        result.remarks += remark_on_ends(len(self._ends), len(result.ticks))
        result.novelty_p99 = _p99([tick.score for tick in result.ticks])
        result.error_p99 = _p99([tick.novelty for tick in result.ticks])

    def _show_times(self) -> None:
        result = self._result
        stamps_ns, logs_ns = (np.array([getattr(t, name) for t in result.ticks]) for name in ("stamp_ns", "log_ns"))
        shown_s, places = metrics.shown_times(stamps_ns, logs_ns)
        for tick, at_s in zip(result.ticks, shown_s.tolist(), strict=True):
            tick.at_s = at_s
        result.leaps = len(places)


def stamp_of(record: Record, options: Options) -> int:
    """The time that counts for a frame: its header's where it has one and the options want it, else when recorded."""
    return (options.stamp_source == "header" and peek_stamp_ns(record)) or record.stamp_ns


def _p99(values: list[float | None]) -> float | None:
    """The 99th percentile, of values that are there: the smallest that 99 % do not exceed."""
    found = [value for value in values if value is not None]
    return float(np.percentile(found, 99, method="inverted_cdf")) if found else None
