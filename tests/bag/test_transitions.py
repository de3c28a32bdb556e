"""Transitions from small recordings, each expectation written down by hand: a tick every 100 ms, 8x8 pictures."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_bags
import tiny_bag
from tiny_bag import START_NS, boolean, float64, image, joints, make
from tiny_policy import SPEC, write_policy

from sac_ae_ros.bag.beside import Summary
from sac_ae_ros.bag.evaluate import evaluate
from sac_ae_ros.bag.fill import fill, render, to_dict
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.transitions import Moment, Sources, transitions
from sac_ae_ros.core.command import to_physical
from sac_ae_ros.core.errors import BagError, ConfigError
from sac_ae_ros.core.image import View
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.sim_loop import SimLoop
from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.robot import RobotSim
from sim_training.replay import Replay, ReplayConfig

MS = 1_000_000
LATE = 4  # ms from a frame's stamp to its record
NAMES = ["linear", "angular"]  # -0.2..0.6 m/s and -1.5..1.5 rad/s


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def frame(ms: float, grey: int | None = None) -> tuple:
    """A picture as grey as its number, every 10 ms one level brighter."""
    return at(ms + LATE), "/image", image(at(ms), round(ms / 10) % 256 if grey is None else grey)


def sent(ms: float, linear: float = 0.2, angular: float = 0.0, delay: float = 9) -> tuple:
    """What policy_node sent for the frame of that time."""
    return at(ms + delay), "/policy_node/executed", joints(at(ms), NAMES, [linear, angular])


def reward(ms: float, value: float) -> tuple:
    return at(ms), "/reward", float64(value)


def end(ms: float, terminated: bool) -> tuple:
    return at(ms), "/episode_end", boolean(terminated)


def drive(count: int, start: int = 0) -> list:
    """`count` ticks with commands, and for each a reward of its number just before the next picture."""
    ticks = range(start, start + count)
    parts = [(frame(100 * i), sent(100 * i), reward(100 * i + 100 + LATE - 2, i + 1)) for i in ticks]
    return [message for part in parts for message in part]


def read(path: Path, messages: list, spec=SPEC, **sources) -> tuple[list[Moment], Summary]:
    summary = Summary()
    with Bag.open(tiny_bag.write(path / "bag", messages)) as bag:
        return list(transitions(bag, spec, Sources(**sources), summary)), summary


def shown(moments: list[Moment]) -> list[tuple]:
    """Grey level of each frame, whether the stack begins anew, and the reward of the transition that led to it."""
    return [(int(m.frame.mean()), m.first, None if m.action is None else m.reward) for m in moments]


def test_a_transition_is_what_was_seen_done_and_rewarded_until_the_next_tick(tmp_path):
    messages = [frame(0), sent(0, 0.6, -1.5), frame(50), reward(102, 7.0), frame(100), sent(100, 0.0, 0.75)]
    messages += [frame(150), reward(202, -2.5), frame(200), sent(200)]
    moments, summary = read(tmp_path, messages)
    assert shown(moments) == [(0, True, None), (10, False, 7.0), (20, False, -2.5)]
    assert moments[0].frame.shape == (3, 8, 8)
    assert [moment.log_ns for moment in moments] == [at(ms + LATE) for ms in (0, 100, 200)]
    np.testing.assert_allclose([moment.action for moment in moments[1:]], [[1, -1], [-0.5, 0.5]], atol=1e-7)
    assert moments[1].action.dtype == np.float32
    assert not any(moment.terminated for moment in moments)
    counts = summary.images, summary.executed, summary.paired, summary.rewards, summary.transitions
    assert counts == (5, 3, 3, 2, 2)
    assert (summary.returns, summary.no_picture, summary.no_reward, summary.unused_rewards) == ([4.5], 1, 0, 0)
    assert (summary.clipped, summary.refused, summary.empty_episodes) == (0, 0, 0)


def test_doubtful_frames_are_used_and_counted(tmp_path):
    messages = [m for i in range(3) for m in (frame(100 * i), sent(100 * i), reward(100 * i, 1.0))]
    _, summary = read(tmp_path, messages)
    assert (summary.transitions, summary.doubtful) == (2, 3)
    assert summary.doubt.startswith("image: grey (mono8), where the policy was trained on colours")
    assert "3 frames are doubtful: image: grey (mono8)" in render(to_dict([tmp_path], [summary]))


def test_rewards_and_ends_of_another_robot_are_left_alone(tmp_path):
    theirs = [frame(1000), sent(1000, 0.6), reward(1003, 50.0), end(203, True)]
    both = [(log_ns, f"/r1{name}", message) for log_ns, name, message in drive(4)]
    both += [(log_ns, f"/r2{name}", message) for log_ns, name, message in theirs]
    moments, summary = read(tmp_path, both, image_topic="/r1/image")
    assert [moment.reward for moment in moments[1:]] == [1, 2, 3]
    assert (summary.executed, summary.terminated, summary.rewards) == (4, 0, 4)


@pytest.mark.parametrize("shift", [-1, 1, 30])
def test_a_reward_may_be_recorded_a_little_before_or_after_its_picture(tmp_path, shift):
    messages = [m for i in range(4) for m in (frame(100 * i), sent(100 * i), reward(100 * i + LATE + shift, 10 + i))]
    moments, summary = read(tmp_path, messages)
    assert shown(moments) == [(0, True, None), (10, False, 11), (20, False, 12), (30, False, 13)]
    assert summary.unused_rewards == 1  # what led to the first frame was not recorded


def test_several_rewards_of_a_tick_are_added_up_and_flips_do_no_harm(tmp_path):
    """Four control steps for each tick; the last of each four is recorded 2 ms after the picture that follows it."""
    messages = [m for i in range(4) for m in (frame(100 * i), sent(100 * i))]
    messages += [reward(25 * k + (LATE + 2 if k % 4 == 0 else 0), 2.0**k) for k in range(1, 13)]
    moments, _ = read(tmp_path, messages)
    assert [m.reward for m in moments[1:]] == [2 + 4 + 8 + 16, 32 + 64 + 128 + 256, 512 + 1024 + 2048 + 4096]


def test_rewards_that_are_rarer_than_ticks_are_zero_between(tmp_path):
    messages = [m for i in range(10) for m in (frame(100 * i), sent(100 * i))] + [reward(310, 5), reward(899, 1)]
    moments, summary = read(tmp_path, messages)
    assert [m.reward for m in moments[1:]] == [0, 0, 5, 0, 0, 0, 0, 0, 1]
    assert summary.no_reward == 0


def test_where_rewards_come_with_every_tick_a_missing_one_is_no_zero(tmp_path):
    messages = [m for m in drive(7) if m[0] != at(400 + LATE - 2)]  # of the step to the frame at 400 ms
    messages[-1] = reward(700, float("nan"))
    moments, summary = read(tmp_path, [*messages, frame(700)])
    assert shown(moments) == [
        (0, True, None), (10, False, 1), (20, False, 2), (30, False, 3), (40, False, None), (50, False, 5),
        (60, False, 6),
    ]  # fmt: skip
    assert (summary.no_reward, summary.transitions, summary.returns) == (2, 5, [6.0, 11.0])


def test_a_tick_without_a_command_ends_the_episode_and_stacks_go_on(tmp_path):
    messages = [m for m in drive(6) if m[0] != at(209)]  # stopped at 200 ms
    moments, summary = read(tmp_path, messages)
    assert shown(moments) == [
        (0, True, None), (10, False, 1), (20, False, 2), (30, False, None), (40, False, 4), (50, False, 5),
    ]  # fmt: skip
    assert summary.returns == [3.0, 9.0]


def test_only_as_many_frames_without_commands_are_kept_as_stacks_reach(tmp_path):
    idle = [frame(100 * i, grey=200 + i) for i in range(3, 20)]
    moments, _ = read(tmp_path, drive(3) + idle + drive(3, start=20))
    assert shown(moments) == [
        (0, True, None), (10, False, 1), (20, False, 2), (203, False, 3),
        (219, True, None), (200, False, None), (210, False, 21), (220, False, 22),
    ]  # fmt: skip
    deeper, _ = read(tmp_path / "deeper", drive(3) + idle + drive(3, start=20), replace(SPEC, frame_stack=4))
    assert shown(deeper)[4:8] == [(217, True, None), (218, False, None), (219, False, None), (200, False, None)]


def test_a_gap_ends_the_episode(tmp_path):
    moments, summary = read(tmp_path, drive(3) + drive(2, start=6))
    assert shown(moments) == [(0, True, None), (10, False, 1), (20, False, 2), (60, True, None), (70, False, 7)]
    assert (summary.no_picture, summary.returns, summary.unused_rewards) == (2, [3.0, 7.0], 2)


@pytest.mark.parametrize("terminated", [True, False])
def test_an_end_without_a_picture_of_it(tmp_path, terminated):
    """As the simulated robot does it: last reward, end, and then the next episode's first picture, a second later by
    its stamp but at once by the recorder's clock."""
    first = [*drive(3), end(303, terminated)]
    second = [(log_ns - 900 * MS, topic, message) for log_ns, topic, message in drive(3, start=12)]
    moments, summary = read(tmp_path, first + second)
    tail = [(120, True, None), (130, False, 13), (140, False, 14)]
    last = [(20, False, 3)] if terminated else []
    assert shown(moments) == [(0, True, None), (10, False, 1), (20, False, 2), *last, *tail]
    assert [m.terminated for m in moments] == [False] * 3 + [True] * terminated + [False] * 3
    assert summary.returns == [6.0 if terminated else 3.0, 27.0]
    assert (summary.terminated, summary.no_picture) == ((1, 1) if terminated else (0, 2))


def test_an_end_and_its_reward_may_change_places(tmp_path):
    messages = [*drive(3)[:-1], end(301, True), reward(303, 3.0)]
    moments, summary = read(tmp_path, messages)
    assert shown(moments)[-1] == (20, False, 3)
    assert moments[-1].terminated
    assert summary.unused_rewards == 0


def test_an_end_that_is_recorded_after_the_next_episodes_first_picture_claims_nothing(tmp_path):
    second = [(log_ns - 900 * MS, topic, message) for log_ns, topic, message in drive(3, start=12)]
    moments, summary = read(tmp_path, [*drive(3), *second, end(305, True)])
    assert shown(moments) == [(0, True, None), (10, False, 1), (20, False, 2), (130, True, None), (140, False, 14)]
    assert (summary.terminated, summary.no_picture, summary.empty_episodes) == (0, 3, 1)


@pytest.mark.parametrize("terminated", [True, False])
def test_an_end_with_a_picture_of_it(tmp_path, terminated):
    """As a robot does it: somebody saw in the picture at 200 ms that it was over; the policy acted on it, too."""
    messages = [*drive(3), end(230, terminated), *drive(3, start=3)]
    moments, summary = read(tmp_path, messages)
    assert shown(moments) == [
        (0, True, None), (10, False, 1), (20, False, 2), (30, True, None), (40, False, 4), (50, False, 5),
    ]  # fmt: skip
    assert [m.terminated for m in moments] == [False, False, terminated, False, False, False]
    assert (summary.terminated, summary.unused_rewards) == (terminated, 2)  # what came after the end, and at the last


def test_a_command_beyond_the_limits_is_clipped_and_counted(tmp_path):
    messages = [frame(0), sent(0, 0.8, 0), frame(100), sent(100, 0.6000000001, -1.5), frame(200), reward(1, 1)]
    moments, summary = read(tmp_path, messages)
    np.testing.assert_allclose([m.action for m in moments[1:]], [[1, 0], [1, -1]], atol=1e-7)
    assert np.abs([m.action for m in moments[1:]]).max() == 1.0
    assert summary.clipped == 1


def test_commands_that_are_none_are_counted(tmp_path):
    messages = [*drive(3), (at(20), "/policy_node/executed", joints(at(100), ["elbow"], [1.0]))]
    messages.append((at(21), "/policy_node/executed", joints(at(200), NAMES, [np.nan, 0.0])))
    _, summary = read(tmp_path, messages)
    assert (summary.refused, summary.executed, summary.transitions) == (2, 3, 2)
    assert "elbow" in summary.problem


@pytest.mark.parametrize("topic", ["/image", "/policy_node/executed", "/reward", "/episode_end"])
def test_a_message_of_another_type_than_its_topics_is_refused_alone(tmp_path, topic):
    messages = [*drive(4), end(105, False), (at(110), topic, make("std_msgs/msg/String", "what?"))]
    moments, summary = read(tmp_path, messages)
    assert summary.refused == (topic != "/image")  # no tick fell on that one
    assert "got a std_msgs/msg/String" in summary.problem or topic == "/image"
    assert (summary.images, summary.executed, summary.rewards) == (4 + (topic == "/image"), 4, 4)
    assert len(moments) > 2


@pytest.mark.parametrize(("every", "remarked"), [(1, True), (5, False)])
def test_ends_that_come_with_every_tick_are_remarked_on(tmp_path, every, remarked):
    messages = drive(20) + [end(100 * i + 50, False) for i in range(20) if i % every == every - 1]
    _, summary = read(tmp_path, messages)
    if remarked:
        with pytest.raises(BagError, match=r"not one transition came of .*; 20 ends of episodes for 20 ticks"):
            to_dict(["bag"], [summary])
    with Bag.open(tmp_path / "bag") as bag:
        result = evaluate(bag, OnnxPolicy.load(write_policy(tmp_path / "tiny.onnx")))
    assert sum(tick.restarted for tick in result.ticks) == 20 // every  # the last end is the recording's, too
    for remarks in (summary.remarks, result.remarks):
        assert [each.startswith("20 ends of episodes for 20 ticks: every message") for each in remarks] == [
            True
        ] * remarked


def test_the_view_is_the_robots(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0:4, 0:4] = 240
    message = image(at(0), 0)
    message.data = pixels.ravel()
    messages = [(at(0), "/image", message), sent(0), frame(100), reward(99, 1)]
    turned, _ = read(tmp_path / "a", messages, view=View.of((), 90))
    assert turned[0].frame[:, :4, 4:].min() == 240
    assert turned[0].frame[:, 4:].max() == 0
    cut, _ = read(tmp_path / "b", messages, view=View.of((0, 0, 4, 4)))
    assert cut[0].frame.shape == (3, 8, 8)
    assert cut[0].frame.min() == 240


@pytest.mark.parametrize("first", [330, 360])
def test_a_robot_that_was_switched_on_later_keeps_its_own_ticks(tmp_path, first):
    """A camera of 30 ms, recorded from 0 on, where the ticks would be at 0, 90, 210, 300 ms; then the robot acts."""
    camera = [frame(30 * i) for i in range(30)]
    acted = [first, first + 90, first + 210, first + 300]
    messages = camera + [sent(ms) for ms in acted] + [reward(ms + 2, ms) for ms in (*acted[1:], first + 390)]
    moments, summary = read(tmp_path, messages)
    taken = [m for m in moments if m.action is not None]
    assert [10 * int(m.frame.mean()) for m in taken[:3]] == acted[1:]
    assert [m.reward for m in taken] == [*acted[1:], first + 390]
    assert summary.paired == 4


def test_after_a_stall_ticks_and_rewards_come_thick_and_fast(tmp_path):
    recorded = [0, 100, 200, 420, 450, 480, 600, 700]
    messages = [(at(log), "/image", image(at(100 * i), 10 * i)) for i, log in enumerate(recorded)]
    messages += [sent(100 * i, delay=log - 100 * i + 1) for i, log in enumerate(recorded)]
    messages += [reward(log - 2, i) for i, log in enumerate(recorded)]
    moments, _ = read(tmp_path, messages)
    assert [m.reward for m in moments[1:]] == [1, 2, 3, 4, 5, 6, 7]
    until = [m for m in messages if m[0] < at(440)] + [reward(448, 9), end(449, True)]  # a step after the stall
    after = [(at(460), "/image", image(at(9000), 0)), sent(9000, delay=-8500)]
    ended, summary = read(tmp_path / "ended", until + after)
    assert [(m.reward, m.terminated) for m in ended[2:]] == [(2, False), (3, False), (9, True)]
    assert summary.transitions == 4


def test_a_camera_that_stamps_all_frames_alike_pairs_none_twice(tmp_path):
    messages = [(at(100 * i + LATE), "/image", image(at(0), i)) for i in range(5)]
    messages += [*[sent(0, delay=100 * i + 9) for i in range(5)], reward(102, 1), reward(202, 1)]
    _, summary = read(tmp_path, messages, stamp_source="log")
    assert (summary.executed, summary.paired, summary.transitions) == (5, 1, 1)


def test_a_picture_that_cannot_be_used_gives_way_to_the_next(tmp_path):
    messages = [frame(0), sent(0), frame(100), frame(125), frame(200), reward(128, 3)]
    messages[2][2].encoding = "what"
    moments, summary = read(tmp_path, messages)
    assert shown(moments)[:2] == [(0, True, None), (12, False, 3)]
    assert (summary.refused, "what" in summary.problem) == (1, True)


def test_a_frame_that_only_the_recorder_got_is_no_tick(tmp_path):
    camera = [frame(20 * i) for i in range(24)]
    messages = camera + [sent(ms) for ms in (0, 120, 200, 300)]  # the node lost the one at 100 ms, and took the next
    messages += [reward(ms, 1) for ms in (124, 204, 304, 404)]
    moments, _ = read(tmp_path, messages)
    assert shown(moments) == [(0, True, None), (12, False, 1), (20, False, 1), (30, False, 1), (40, False, 1)]


def test_ticks_by_log_time_and_commands_by_header(tmp_path):
    """A camera whose clock is set while it runs: by its stamps there is a gap."""
    stamps = [0, 100, 10200, 10300]
    messages = [reward(100 * i + 2, i) for i in range(4)]
    messages += [(at(100 * i + 4), "/image", image(at(ms), 10 * i)) for i, ms in enumerate(stamps)]
    messages += [sent(ms, delay=100 * i + 9 - ms) for i, ms in enumerate(stamps)]
    by_header, _ = read(tmp_path / "a", messages)
    by_log, _ = read(tmp_path / "b", messages, stamp_source="log")
    assert shown(by_header) == [(0, True, None), (10, False, 1), (20, True, None), (30, False, 3)]
    assert shown(by_log) == [(0, True, None), (10, False, 1), (20, False, 2), (30, False, 3)]
    with pytest.raises(ConfigError, match="stamp source"):
        read(tmp_path / "c", drive(2), stamp_source="clock")


def test_a_cut_recording_gives_what_is_left_of_it(tmp_path):
    folder = tiny_bag.write(tmp_path / "bag", drive(300))
    (file,) = folder.glob("*.mcap")
    small_bags.cut(file, 0.5)
    summary = Summary()
    with Bag.open(folder) as bag:
        moments = list(transitions(bag, SPEC, Sources(), summary))
    assert 100 < summary.transitions < 200
    assert [m.reward for m in moments[1:]] == list(range(1, summary.transitions + 1))
    assert summary.salvage is not None
    assert summary.salvage.messages == summary.images + summary.executed + summary.rewards


def test_frames_are_those_that_the_policy_saw(tmp_path):
    """What ImageToCommand saw at each tick, stacks included, through jitter, gaps, an end and a broken picture."""
    random = np.random.default_rng(3)
    stamps = [25 * i + random.uniform(-4, 4) for i in range(120) if not 40 <= i < 60 and i != 81]
    frames = [frame(ms, int(random.integers(256))) for ms in stamps]
    frames[32][2].encoding = "what"
    rest = [end(1760, False)] + [reward(ms + 1, 1) for ms in stamps]
    policy = OnnxPolicy.load(write_policy(tmp_path / "tiny.onnx"))
    seen = []
    with Bag.open(tiny_bag.write(tmp_path / "seen", frames + rest)) as bag:
        found = evaluate(bag, policy, on_tick=lambda tick, rgb: seen.append((rgb.copy(), tick.restarted)))
    commands = [
        (tick.log_ns + 9 * MS, "/policy_node/executed", joints(tick.stamp_ns, NAMES, tick.values))
        for tick in found.ticks
    ]
    moments, summary = read(tmp_path, frames + rest + commands)
    assert [(m.frame.tobytes(), m.first) for m in moments] == [
        (rgb.transpose(2, 0, 1).tobytes(), restarted) for rgb, restarted in seen
    ]
    assert sum(restarted for _, restarted in seen) == 3
    assert len(found.refused) == 1
    assert (summary.paired, summary.transitions) == (len(seen), len(seen) - 3)


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("/image", r"expected images .*there is /policy_node/executed"),
        ("/policy_node/executed", r"expected executed commands \(positions of linear, angular\), which policy_node"),
        ("/reward", r"expected rewards, which sim_robot_node .*`reward` of std_msgs/msg/Float64 .*there is /image"),
    ],
)
def test_what_is_missing_is_told(tmp_path, without, says):
    with pytest.raises(BagError, match=says) as caught:
        read(tmp_path, [m for m in drive(3) if m[1] != without])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("every_ms", [50, 200])
def test_a_robot_that_acted_at_another_period_is_refused(tmp_path, every_ms):
    messages = [m for i in range(6) for m in (frame(every_ms * i), sent(every_ms * i), reward(every_ms * i, 1))]
    with pytest.raises(BagError, match=rf"expected commands every 0\.1 s .*got one every {every_ms / 1000:g} s"):
        read(tmp_path, messages)


def test_other_topics_can_be_named(tmp_path):
    names = {"/reward": "/score", "/policy_node/executed": "/done", "/image": "/eye"}
    messages = [(log_ns, names[topic], message) for log_ns, topic, message in drive(4)]
    with pytest.raises(BagError, match="executed"):
        read(tmp_path / "a", messages)
    moments, _ = read(tmp_path / "b", messages, reward_topic="/score", executed_topic="/done", image_topic="/eye")
    assert len(moments) == 4
    with pytest.raises(BagError, match=r"/score: expected std_msgs/msg/Bool"):
        read(tmp_path / "c", messages, reward_topic="/score", executed_topic="/done", episode_end_topic="/score")
    arm = [(at(5), "/done", joints(at(0), ["elbow"], [0.0])), *[m for m in messages if m[1] != "/done"]]
    with pytest.raises(BagError, match=r"/done: nothing on it can be used.*elbow"):
        read(tmp_path / "d", arm, reward_topic="/score", executed_topic="/done")


class Recorder:
    """Records a simulated robot that acts on every second picture: stamps are simulated, and wall time runs twice as
    fast; what happens at one moment is recorded within 3 ms, in any order."""

    def __init__(self, actions: Iterator[np.ndarray]) -> None:
        self.messages: list[tuple] = []
        self.loop: SimLoop
        self._actions, self._random = actions, np.random.default_rng(1)
        self._pictures = 0

    def _log(self, topic: str, message: object, delay_ms: float = 0.0) -> None:
        late_ns = round((self._random.uniform(0, 3) + delay_ms) * MS)
        self.messages.append((START_NS + self.loop.time_ns // 2 + late_ns, topic, message))

    def on_image(self, rgb: np.ndarray, stamp_ns: int) -> None:
        height, width, _ = rgb.shape
        header = tiny_bag.header(stamp_ns)
        picture = tiny_bag.make(
            "sensor_msgs/msg/Image", header, height, width, "rgb8", 0, 3 * width, rgb.ravel().copy()
        )
        self._log("/image", picture)
        self._pictures += 1
        if self._pictures % 2:
            values = next(self._actions)
            self.loop.command(values)
            self._log("/policy_node/executed", joints(stamp_ns, NAMES, values), 5)

    def on_reward(self, reward: float) -> None:
        self._log("/reward", float64(reward))

    def on_episode_end(self, terminated: bool) -> None:
        self._pictures = 0
        self._log("/episode_end", boolean(terminated))

    def on_command_timeout(self) -> None: ...


def test_a_recorded_simulation_gives_the_transitions_of_its_environment(tmp_path):
    """Frames, stacks and rewards to the last bit; of a time limit's last step no picture is taken."""
    size, steps, seeds = (24, 32), 100, (5, 6)
    low, high = (np.array([getattr(action, end) for action in SPEC.actions]) for end in ("low", "high"))
    wanted = np.random.default_rng(0).uniform(-1, 1, (len(seeds), steps, 2)).astype(np.float32)
    physical = to_physical(wanted, low, high)
    recorder = Recorder(iter([*physical.reshape(-1, 2), *np.zeros((9, 2))]))
    sim = RobotSim("rover/chase_ball", height=size[0], width=size[1])
    settings = {"camera_rate_hz": 20, "command_timeout_s": 0.5, "auto_reset": True, "seed": seeds[0]}
    recorder.loop = SimLoop(sim, recorder, **settings)
    while recorder.loop.episodes <= len(seeds):
        recorder.loop.tick()
    sim.close()

    camera = replace(SPEC.camera, height=size[0], width=size[1])
    spec = replace(SPEC, cameras=(camera,), frame_stack=3)
    replay = Replay(ReplayConfig(1000, (3, *size), 2, frame_stack=3))
    summary = fill(replay, tiny_bag.write(tmp_path / "bag", recorder.messages), spec, Sources())
    assert (summary.transitions, summary.no_picture, summary.no_reward) == (2 * 99, 2, 0)
    env = PixelEnv("rover/chase_ball", height=size[0], width=size[1], frame_stack=3)
    index = 0
    for seed, episode, actions in zip(seeds, wanted, physical, strict=True):
        obs, _ = env.reset(seed=seed)
        for number in range(steps - 1):
            next_obs, reward, *_ = env.step(actions[number])
            batch = replay.batch(np.array([[0], [index]]))
            assert (batch.obs[0].numpy() == obs).all()
            assert (batch.next_obs[0].numpy() == next_obs).all()
            assert batch.reward.item() == np.float32(reward)
            np.testing.assert_allclose(batch.action[0].numpy(), episode[number], atol=2e-7)
            assert not batch.terminated.item()
            obs, index = next_obs, index + 1
        index += 1
    env.close()
