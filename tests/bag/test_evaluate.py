"""Recorded images through the robot's own pipeline, against commands that are known by hand."""

import numpy as np
import pytest
import tiny_bag
from tiny_bag import START_NS, boolean, image, joints, png, twist
from tiny_policy import SPEC, expected_values, write_policy

from sac_ae_ros.bag.commands import reader
from sac_ae_ros.bag.evaluate import Options, evaluate, peek_stamp_ns
from sac_ae_ros.bag.reader import Bag, Record
from sac_ae_ros.bag.report import summary
from sac_ae_ros.bag.score import render, to_dict
from sac_ae_ros.core.command import SafetyGate
from sac_ae_ros.core.errors import BagError, ConfigError
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.pipeline import ImageToCommand
from sac_ae_ros.core.policy import OnnxPolicy

PERIOD_NS = 100_000_000
CAMERA_NS = 25_000_000  # four frames for each tick
NAMES = [action.name for action in SPEC.actions]
LATE_NS = 4_000_000  # from a frame's stamp to its record


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return OnnxPolicy.load(write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx"))


def greys(count: int) -> list[int]:
    return np.random.default_rng(0).integers(60, 200, count).tolist()


def camera(count: int, make=image, every_ns: int = CAMERA_NS) -> list:
    stamps = [START_NS + i * every_ns for i in range(count)]
    return [(stamp + LATE_NS, "/image", make(stamp, grey)) for stamp, grey in zip(stamps, greys(count), strict=True)]


def run(path, messages, policy, options=None, on_tick=None):
    with Bag.open(tiny_bag.write(path, messages)) as bag:
        return evaluate(bag, policy, options, *([on_tick] if on_tick else []))


def through_the_pipeline(policy, frames: list) -> list:
    """What the robot makes of the same frames."""
    gate = SafetyGate(policy.spec.actions, policy.spec.control_period_s)
    gate.arm()
    pipeline = ImageToCommand(policy, gate, lambda values: None)
    steps = []
    for log_ns, _, message in frames:
        grey = Image(8, 8, "mono8", 8, False, message.data)
        steps.append(pipeline.process(grey, log_ns - LATE_NS))
    return [step for step in steps if step is not None]


def test_it_is_what_the_robot_would_do_and_only_due_frames_are_read(tmp_path, policy, monkeypatch):
    frames = camera(41)
    read = []
    really = Bag.message
    monkeypatch.setattr(
        Bag, "message", lambda bag, record, types=(): read.append(record.stamp_ns) or really(bag, record)
    )
    seen = []
    result = run(tmp_path / "bag", frames, policy, on_tick=lambda tick, frame: seen.append((tick, frame.copy())))
    steps = through_the_pipeline(policy, frames)
    assert (result.frames, len(result.ticks)) == (41, len(steps)) == (41, 11)
    assert [tick.stamp_ns for tick in result.ticks] == [step.stamp_ns for step in steps]
    assert all((tick.values == step.values).all() for tick, step in zip(result.ticks, steps, strict=True))
    assert read == [tick.log_ns for tick in result.ticks]
    assert [int(frame.mean()) for _, frame in seen] == greys(41)[::4]
    assert seen[0][1].shape == (8, 8, 3)
    assert [tick.restarted for tick in result.ticks] == [True] + [False] * 10
    assert result.actions == {}


def test_executed_commands_are_matched_to_their_frames_exactly(tmp_path, policy):
    frames = camera(41)
    sent = [
        (step.stamp_ns + 9_000_000, "/policy_node/executed", joints(step.stamp_ns, NAMES[::-1], step.values[::-1]))
        for step in through_the_pipeline(policy, frames)
    ]
    noise = [(START_NS + i, "/cmd_vel", twist(0.3, 0.3)) for i in range(5)]
    other = [(START_NS, "/arm/executed", joints(START_NS, ["elbow"], [1.0]))]
    result = run(tmp_path / "bag", frames + sent + noise + other, policy)
    assert result.command_topic == "/policy_node/executed"
    for errors in result.actions.values():
        assert (errors.pairs, errors.max, errors.best_shift_s) == (11, 0.0, 0.0)
        assert (errors.r2, errors.sign_agreement) == (1.0, 1.0)
    assert all((tick.recorded == tick.values).all() for tick in result.ticks)


def test_commands_without_stamps_are_matched_by_when_they_were_recorded(tmp_path, policy):
    frames = camera(81)
    steps = through_the_pipeline(policy, frames)
    sent = [(step.stamp_ns + LATE_NS + 20_000_000, "/cmd_vel", twist(*step.values)) for step in steps]
    result = run(tmp_path / "bag", frames + sent, policy)
    for errors in result.actions.values():
        assert errors.best_shift_s == pytest.approx(-0.02)  # the policy acts at the frame, its record came later
        assert errors.rmse_at_shift == pytest.approx(0, abs=1e-12)
        assert errors.mae > 0.01
        assert errors.pairs == len(steps) - 1
    assert result.ticks[0].recorded is None
    np.testing.assert_allclose(result.ticks[1].recorded, steps[0].values)


def test_compressed_images_and_a_known_action(tmp_path, policy):
    frames = [(START_NS + i * PERIOD_NS, "/camera/compressed", png(START_NS + i * PERIOD_NS, 150)) for i in range(3)]
    result = run(tmp_path / "bag", frames, policy)
    assert result.image_topic == "/camera/compressed"
    for tick in result.ticks:
        np.testing.assert_allclose(tick.values, expected_values(150), atol=1e-5)
        assert tick.novelty == 0.25
        assert tick.score == pytest.approx(1.0)
    assert (result.novelty_p99, result.error_p99) == (1.0, 0.25)


@pytest.mark.parametrize(
    ("suffix", "order", "text"),
    [
        (".png", (2, 1, 0), "rgb8; png compressed bgr8"),
        (".jpg", (2, 1, 0), "rgb8; jpeg compressed bgr8"),
        (".png", (0, 1, 2), "rgb8; png compressed rgb8"),  # OpenCV took red for blue
        (".jpg", (0, 1, 2), "rgb8; jpeg compressed rgb8"),
    ],
)
def test_compressed_images_give_the_commands_of_the_raw_ones(tmp_path, suffix, order, text):
    red = OnnxPolicy.load(write_policy(tmp_path / "red.onnx", channel=0))
    stamps = [START_NS + i * PERIOD_NS for i in range(4)]
    pictures = [np.full((8, 8, 3), rgb, np.uint8) for rgb in ((135, 0, 90), (90, 0, 135), (120, 50, 160), (150, 9, 90))]
    raw = [(at, "/image", tiny_bag.rgb_image(at, rgb)) for at, rgb in zip(stamps, pictures, strict=True)]
    coded = [
        (at, "/image/compressed", tiny_bag.coded_image(at, np.ascontiguousarray(rgb[..., order]), suffix, text))
        for at, rgb in zip(stamps, pictures, strict=True)
    ]
    expected, result = run(tmp_path / "raw", raw, red), run(tmp_path / "coded", coded, red)
    assert (len(result.ticks), result.refused, result.doubtful) == (4, [], {})
    for tick, raw_tick in zip(result.ticks, expected.ticks, strict=True):
        np.testing.assert_allclose(tick.values, raw_tick.values, atol=0.1 if suffix == ".jpg" else 0)


def test_doubtful_images_are_scored_and_told(tmp_path, policy):
    frames = camera(5, every_ns=PERIOD_NS)
    grey = run(tmp_path / "grey", frames, policy)
    assert {text[:19]: ticks for text, ticks in grey.doubtful.items()} == {"image: grey (mono8)": 5}
    facts = {**to_dict(grey), "bag": "grey"}
    assert facts["doubtful"] == dict(grey.doubtful)
    assert "doubtful  5 ticks: image: grey (mono8), where" in render(facts)
    assert summary(facts)["doubtful images"].startswith("5 ticks: image: grey (mono8)")


def test_zero_stamps_give_way_to_the_log_time(tmp_path, policy):
    frames = [(START_NS + i * CAMERA_NS, "/image", image(0, 100)) for i in range(9)]
    by_header = run(tmp_path / "a", frames, policy)
    assert [tick.stamp_ns - START_NS for tick in by_header.ticks] == [0, PERIOD_NS, 2 * PERIOD_NS]
    late = [(log_ns, topic, image(START_NS, 100)) for log_ns, topic, _ in frames]  # a driver with one stamp for all
    assert len(run(tmp_path / "b", late, policy).ticks) == 1
    assert len(run(tmp_path / "c", late, policy, Options(stamp_source="log")).ticks) == 3


def test_an_image_that_cannot_be_used_is_told_and_the_next_takes_its_place(tmp_path, policy):
    frames = camera(9)
    frames[4][2].encoding = "what"
    result = run(tmp_path / "bag", frames, policy)
    assert [stamp_ns - START_NS for stamp_ns, _ in result.refused] == [4 * CAMERA_NS]
    assert "what" in result.refused[0][1]
    assert [(tick.stamp_ns - START_NS) // CAMERA_NS for tick in result.ticks] == [0, 5, 8]


def test_late_missing_and_absent_frames_are_told_with_their_times(tmp_path, policy):
    frames = [frame for i, frame in enumerate(camera(61)) if not 20 <= i < 40 and i != 50]
    log_ns, topic, message = frames[2]
    frames[2] = (log_ns + 300_000_000, topic, message)  # recorded 0.304 s after its stamp, out of order
    result = run(tmp_path / "bag", frames, policy)
    assert [stamp_ns - START_NS for stamp_ns in result.stale] == [2 * CAMERA_NS]
    assert result.age_max_s == pytest.approx(0.304)
    assert result.gaps == [(START_NS + 19 * CAMERA_NS, pytest.approx(21 * CAMERA_NS * 1e-9))]
    assert result.dropped == [(START_NS + 19 * CAMERA_NS, 20), (START_NS + 49 * CAMERA_NS, 1)]
    assert sum(tick.restarted for tick in result.ticks) == 2


def test_stamps_of_another_clock_have_no_age(tmp_path, policy):
    frames = [(START_NS + i * CAMERA_NS, "/image", image(10**9 + i * CAMERA_NS, 90)) for i in range(5)]
    result = run(tmp_path / "bag", frames, policy)
    assert (result.age_max_s, result.age_p99_s, result.stale) == (None, None, [])
    assert len(result.ticks) == 2


def test_an_episodes_end_starts_the_stack_anew_as_it_does_in_the_node(tmp_path, policy):
    end = [(START_NS + 5 * CAMERA_NS, "/episode_end", boolean(True))]
    result = run(tmp_path / "bag", camera(17) + end, policy)
    assert [tick.restarted for tick in result.ticks] == [True, False, True, False, False]


def test_actions_that_are_no_numbers_are_no_pairs(tmp_path):
    policy = OnnxPolicy.load(write_policy(tmp_path / "nan.onnx", nan=True))
    frames = [
        (START_NS + i * PERIOD_NS, "/image", image(START_NS + i * PERIOD_NS, 64 if i < 2 else 100)) for i in range(6)
    ]
    sent = [(log_ns, "/cmd_vel", twist(0.0, 0.0)) for log_ns, _, _ in frames]
    result = run(tmp_path / "bag", frames + sent, policy)
    assert [tick.values is None for tick in result.ticks] == [True, True, False, False, False, False]
    assert result.actions["linear"].pairs == 4
    np.testing.assert_allclose(result.ticks[-1].values, expected_values(100), atol=1e-5)


def test_what_cannot_be_found_is_told(tmp_path, policy):
    with pytest.raises(BagError, match="images"):
        run(tmp_path / "a", [(START_NS, "/cmd_vel", twist(0, 0))], policy)
    with pytest.raises(BagError, match="/cmd_vel"):
        run(
            tmp_path / "b", [*camera(2), (START_NS, "/cmd_vel", twist(0, 0))], policy, Options(command_topic="/nothing")
        )
    several = [*camera(2), (START_NS, "/cmd_vel", twist(0, 0)), (START_NS, "/joy_vel", twist(0, 0))]
    with pytest.raises(BagError, match="several"):
        run(tmp_path / "c", several, policy)
    with pytest.raises(BagError, match=r"none can be read.*linear\.q"):
        run(
            tmp_path / "d", several, policy, Options(command_topic="/cmd_vel", command_fields=("linear.q", "angular.z"))
        )


def test_fields_must_fit_the_policy():
    with pytest.raises(ConfigError, match="--command-field: expected one for each action"):
        reader("geometry_msgs/msg/Twist", (), ["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"my_msgs/msg/Drive, got none"):
        reader("my_msgs/msg/Drive", (), ["a"])
    read = reader("geometry_msgs/msg/Twist", ("angular.z", "linear.x"), ["turn", "speed"])
    assert read(twist(1.0, 2.0)) == [2.0, 1.0]


def test_stamps_are_read_without_the_message():
    raw = bytes(tiny_bag.STORE.serialize_cdr(image(START_NS + 5, 1), "sensor_msgs/msg/Image"))
    assert peek_stamp_ns(Record("/image", "", 0, raw, False)) == START_NS + 5
    big = bytes(tiny_bag.STORE.serialize_cdr(image(START_NS + 5, 1), "sensor_msgs/msg/Image", little_endian=False))
    assert peek_stamp_ns(Record("/image", "", 0, big, False)) == START_NS + 5
    assert peek_stamp_ns(Record("/image", "", 0, b"\0\0\0\0" + (7).to_bytes(4, "little") + bytes(4), True)) == 7 * 10**9
    assert peek_stamp_ns(Record("/image", "", 0, raw[:10], False)) is None


@pytest.mark.parametrize("jump_s", [5.0, -3.0])
def test_a_jump_at_an_episodes_reset_is_no_gap_and_no_dropped_frame(jump_s, tmp_path, policy):
    frames = camera(60)
    jump_ns = round(jump_s * 1e9)
    moved = [
        (log_ns + 10 * CAMERA_NS, topic, image(log_ns - LATE_NS + jump_ns, 90)) for log_ns, topic, _ in frames[30:]
    ]
    reset = (frames[29][0] + 1, "/episode_end", tiny_bag.boolean(True))
    result = run(tmp_path / "reset", [*frames[:30], reset, *moved], policy)
    assert (result.gaps, result.dropped) == ([], [])
    within = run(tmp_path / "lost", [*frames[:10], *frames[20:30], reset, *moved], policy)
    assert within.dropped == [(START_NS + 9 * CAMERA_NS, 10)]
    assert [at_ns for at_ns, _ in within.gaps] == [START_NS + 9 * CAMERA_NS]


def test_a_camera_whose_clock_is_set_loses_no_frames_by_it(tmp_path, policy):
    frames = camera(60)
    early = [(log_ns, topic, image(5 * 10**9 + i * CAMERA_NS, 90)) for i, (log_ns, topic, _) in enumerate(frames[:20])]
    result = run(tmp_path / "set", early + frames[20:], policy)
    assert (result.gaps, result.dropped) == ([], [])


LEAPS_S = [1_690_000_000, 300 * 86400, 7200]


@pytest.mark.parametrize("leap_s", LEAPS_S)
@pytest.mark.parametrize("early", [10, 40])
def test_a_leap_of_log_times_and_stamps_together_leaves_ages_as_they_are(leap_s, early, tmp_path, policy):
    plain = camera(60)
    frames = [
        (log_ns - leap_s * 10**9, topic, image(log_ns - leap_s * 10**9 - LATE_NS, 90)) if i < early else frame
        for i, frame in enumerate(plain)
        for log_ns, topic, _ in [frame]
    ]
    late = [(log_ns + 10**6, "/executed", joints(log_ns - LATE_NS, NAMES, [0.1, 0.0])) for log_ns, *_ in frames]
    result = run(tmp_path / "leap", [*frames, *late], policy)
    assert (result.age_max_s, result.stale) == (pytest.approx(LATE_NS * 1e-9, abs=1e-6), [])
    assert (result.gaps, result.dropped, result.two_clocks, result.paired_by) == ([], [], False, "header")
    assert all(clock.least_s == pytest.approx(0.0045, abs=0.001) for clock in result.clocks.values())
    (told,) = result.remarks
    assert told.startswith("stamps on /image leap by ")
    assert told.endswith(f" after {early} messages")


@pytest.mark.parametrize("leap_s", [-1_690_000_000, -7200, 10_000_000])
def test_stamps_that_leap_alone_have_no_age_and_are_told(leap_s, tmp_path, policy):
    frames = camera(60)
    log_ns, topic, _ = frames[20]
    frames[20] = log_ns, topic, image(log_ns - LATE_NS + leap_s * 10**9, 90)
    result = run(tmp_path / "alone", frames, policy)
    assert (result.age_max_s, result.stale) == (pytest.approx(LATE_NS * 1e-9, abs=1e-6), [])
    assert (result.gaps, result.dropped) == ([], [])
    (told,) = result.remarks
    assert told.startswith("stamps on /image leap 2 times, first by ")
    assert told.endswith(" after 20 messages")


def test_stamps_that_go_back_by_seconds_are_told(tmp_path, policy):
    frames = [
        (log_ns, topic, image(log_ns - LATE_NS - (2 * 10**9 if i >= 30 else 0), 90))
        for i, (log_ns, topic, _) in enumerate(camera(60))
    ]
    assert run(tmp_path / "back", frames, policy).remarks == ["stamps on /image go back by up to 2.0 s"]
    assert run(tmp_path / "on", camera(60), policy).remarks == []
