"""Which recorded command counts for which frame: clocks, joints' names, types without definitions, namespaces."""

import contextlib
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import tiny_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tiny_bag import START_NS, boolean, float64, image, joints, make, twist
from tiny_policy import SPEC, expected_values, write_policy

from sac_ae_ros.bag import overview
from sac_ae_ros.bag.evaluate import Options, evaluate
from sac_ae_ros.bag.gates import Gates, judge
from sac_ae_ros.bag.many import Scored
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.records import Topic, are_parallel
from sac_ae_ros.bag.report import summary
from sac_ae_ros.bag.score import Job, render, to_dict
from sac_ae_ros.core.errors import BagError
from sac_ae_ros.core.policy import OnnxPolicy

PERIOD_NS = 100_000_000
SECOND_NS = 1_000_000_000
UPTIME_NS = START_NS - 500 * SECOND_NS  # what a clock that counts from power-on is behind
LATE_NS = 4_000_000  # from a frame's stamp to its record
COUNT = 60
NAMES = [action.name for action in SPEC.actions]
DRIVE, WHEEL = "float64 speed\nmy_msgs/Wheel[2] wheels\nstd_msgs/Header header\n", "float32 angle\nstring name\n"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return OnnxPolicy.load(write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx"))


def stamps() -> list[int]:
    return [START_NS + i * PERIOD_NS for i in range(COUNT)]


def greys(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, COUNT)


def frames(topic: str = "/image", behind_ns: int = 0) -> list:
    """Images whose stamps are so much behind the clock of the log times."""
    return [(at + LATE_NS, topic, image(at - behind_ns, int(grey))) for at, grey in zip(stamps(), greys(), strict=True)]


def answers() -> list[np.ndarray]:
    """What the policy says to each frame; its stack is of two."""
    pixels = greys().astype(float)
    return [expected_values((pixels[max(i - 1, 0)] + pixels[i]) / 2) for i in range(COUNT)]


def twist_stamped(stamp_ns: int, values: np.ndarray):
    return make("geometry_msgs/msg/TwistStamped", tiny_bag.header(stamp_ns), twist(*values))


def own(behind_ns: int = 0, topic: str = "/cmd_vel") -> list:
    """The policy's own commands, stamped when they are sent, 5 ms after their frames."""
    sent_ns = [at + LATE_NS + 5_000_000 for at in stamps()]
    return [(at, topic, twist_stamped(at - behind_ns, each)) for at, each in zip(sent_ns, answers(), strict=True)]


def trajectory(stamp_ns: int, names: list[str], positions: list[float]):
    duration = make("builtin_interfaces/msg/Duration", 0, 0)
    none = np.zeros(0)
    points = [make("trajectory_msgs/msg/JointTrajectoryPoint", np.array(positions), none, none, none, duration)]
    return make("trajectory_msgs/msg/JointTrajectory", tiny_bag.header(stamp_ns), names, points if positions else [])


def run(path, messages, policy, options=None):
    with Bag.open(tiny_bag.write(path, messages)) as bag:
        return evaluate(bag, policy, options)


@pytest.mark.parametrize(
    ("images_behind_ns", "commands_behind_ns", "says"),
    [
        (UPTIME_NS, 0, f"{UPTIME_NS / 1e9:.6g} s behind"),
        (0, UPTIME_NS, f"{UPTIME_NS / 1e9:.6g} s ahead of"),
        (30 * SECOND_NS, 0, " s behind"),
        (0, -SECOND_NS, " s behind"),
        (0, SECOND_NS, " s ahead of"),
    ],
    ids=["camera of uptime", "commands of uptime", "30 s apart", "commands 1 s ahead", "commands 1 s behind"],
)
def test_stamps_of_two_clocks_are_told_and_log_times_are_used(
    tmp_path, policy, images_behind_ns, commands_behind_ns, says
):
    result = run(tmp_path / "bag", frames(behind_ns=images_behind_ns) + own(commands_behind_ns), policy)
    assert (result.paired_by, result.two_clocks) == ("log", True)
    assert result.paired_why.startswith("two clocks: stamps on /image are ")
    assert result.paired_why.endswith(f"{says} those on /cmd_vel")
    for errors in result.actions.values():
        assert errors.pairs == COUNT - 1
        assert errors.best_shift_s == pytest.approx(-0.01)  # recorded 5 ms after their frame
        assert errors.mae_at_shift == pytest.approx(0, abs=1e-6)
    facts = {**to_dict(result), "bag": "b"}
    assert facts["clocks"]["/image"]["median_s"] == pytest.approx((LATE_NS + images_behind_ns) / 1e9)
    assert f"clocks    {result.paired_why}; frames and commands meet by when they were recorded" in render(facts)


def test_one_clock_is_paired_by_its_stamps_whatever_the_recorder_s(tmp_path, policy):
    result = run(tmp_path / "bag", frames(behind_ns=UPTIME_NS) + own(UPTIME_NS), policy)
    assert (result.paired_by, result.paired_why, result.two_clocks) == ("header", "", False)
    assert result.actions["linear"].mae_at_shift == pytest.approx(0, abs=1e-6)


def test_executed_commands_of_a_slow_inference_are_of_their_frames_clock(tmp_path, policy):
    sent = [
        (at + 900_000_000, "/executed", joints(at, NAMES, each)) for at, each in zip(stamps(), answers(), strict=True)
    ]
    result = run(tmp_path / "bag", frames() + sent, policy)
    assert (result.paired_by, result.actions["linear"].max) == ("header", pytest.approx(0, abs=1e-6))


def test_queues_that_delay_some_messages_are_no_second_clock(tmp_path, policy):
    late = [(log_ns + (i % 5 > 0) * SECOND_NS, *rest) for i, (log_ns, *rest) in enumerate(frames())]
    result = run(tmp_path / "bag", late + own(), policy)
    assert result.paired_by == "header"


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ([(START_NS + (COUNT + 9) * PERIOD_NS, "/cmd_vel", twist(0, 0))], "every frame is before the first command"),
        ([(START_NS - SECOND_NS, "/cmd_vel", twist(0, 0))], "every frame is after the last command on /cmd_vel"),
        ([(START_NS, "/cmd_vel", twist(np.nan, np.nan))], "no message on /cmd_vel has finite numbers"),
        ([(START_NS, "/other", float64(0))], "no commands were recorded; name a topic"),
    ],
    ids=["later", "earlier", "nan", "none"],
)
def test_no_pairs_have_a_reason_that_the_gate_tells(tmp_path, policy, commands, why):
    facts = to_dict(run(tmp_path / "bag", frames() + commands, policy))
    (line,) = judge(facts, Gates(max_mae={"": 1.0})).unknown
    assert f"there are 0 pairs: {why}" in line


def test_joints_are_found_by_their_names_in_any_order(tmp_path, policy):
    turned = [
        (at + LATE_NS, "/arm/trajectory", trajectory(at, [*NAMES[::-1], "gripper"], [*values[::-1], 9.0]))
        for at, values in zip(stamps(), answers(), strict=True)
    ]
    result = run(tmp_path / "bag", frames() + turned, policy)
    assert result.command_topic == "/arm/trajectory"
    assert max(errors.max for errors in result.actions.values()) < 1e-6


@pytest.mark.parametrize(("names", "positions"), [(["left", "right"], [0.1, 0.2]), ([], [0.1, 0.2]), (NAMES, [])])
def test_joints_of_other_names_are_not_guessed(tmp_path, policy, names, positions):
    strange = [(START_NS, "/arm/trajectory", trajectory(START_NS, names, positions))]
    with pytest.raises(BagError, match=r"joints called like the actions, linear, angular, got .*--command-field"):
        run(tmp_path / "bag", frames() + strange, policy)
    if not positions:
        return
    fields = ("points[0].positions[1]", "points[0].positions[0]")
    found = run(tmp_path / "named", frames() + strange, policy, Options(command_fields=fields))
    np.testing.assert_allclose(found.ticks[0].recorded, [0.2, 0.1])


def write_humble(path, messages: list) -> None:
    """A recording without any definition, as Humble's sqlite3 storage writes it; my_msgs/Drive on /drive."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for text, kind in ((WHEEL, "my_msgs/msg/Wheel"), (DRIVE, "my_msgs/msg/Drive")):
        store.register(get_types_from_msg(text, kind))
    wheel, drive = store.types["my_msgs/msg/Wheel"], store.types["my_msgs/msg/Drive"]
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        images = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        drives = writer.add_connection("/drive", "my_msgs/msg/Drive", typestore=store)
        for log_ns, _, message in messages:
            writer.write(images, log_ns, tiny_bag.STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))
        for at, (linear, angular) in zip(stamps(), answers(), strict=True):
            command = drive(linear, [wheel(angular, "front"), wheel(0.0, "rear")], tiny_bag.header(at))
            writer.write(drives, at + LATE_NS, store.serialize_cdr(command, "my_msgs/msg/Drive"))
    (file,) = path.glob("*.db3")
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE message_definitions")
    connection.execute("DROP TABLE schema")
    connection.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    connection.commit()
    connection.close()


def test_a_type_without_a_definition_is_named_and_read_from_msg_files(tmp_path, policy):
    write_humble(tmp_path / "bag", frames())
    options = Options(command_topic="/drive", command_fields=("speed", "wheels[0].angle"))
    says = r"/drive: the recording has no definition of my_msgs/msg/Drive, as sqlite3 .* --msg-path"
    with Bag.open(tmp_path / "bag") as bag, pytest.raises(BagError, match=says):
        evaluate(bag, policy, options)
    folder = tmp_path / "src/robot/my_msgs/msg"
    folder.mkdir(parents=True)
    (folder / "Drive.msg").write_text(DRIVE)
    with (
        Bag.open(tmp_path / "bag", msg_path=tmp_path / "src") as bag,
        pytest.raises(BagError, match="needs my_msgs/msg/Wheel"),
    ):
        evaluate(bag, policy, options)
    (folder / "Wheel.msg").write_text(WHEEL)
    with Bag.open(tmp_path / "bag", msg_path=tmp_path / "src") as bag:
        result = evaluate(bag, policy, options)
    assert result.paired_by == "header"
    assert max(errors.max for errors in result.actions.values()) < 1e-6


def test_msg_files_are_found_for_a_type_whose_name_has_no_msg(tmp_path, policy):
    write_humble(tmp_path / "bag", frames())
    (file,) = (tmp_path / "bag").glob("*.db3")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE topics SET type = replace(type, '/msg/', '/')")
        connection.commit()
    folder = tmp_path / "src/my_msgs/msg"
    folder.mkdir(parents=True)
    for name, text in (("Drive", DRIVE), ("Wheel", WHEEL)):
        (folder / f"{name}.msg").write_text(text)
    options = Options(command_topic="/drive", command_fields=("speed", "wheels[0].angle"))
    with Bag.open(tmp_path / "bag", msg_path=tmp_path / "src") as bag:
        result = evaluate(bag, policy, options)
    assert max(errors.max for errors in result.actions.values()) < 1e-6


def test_two_clocks_of_two_recordings_are_told(tmp_path, policy):
    camera = tiny_bag.write(tmp_path / "camera", frames(behind_ns=UPTIME_NS))
    robot = tiny_bag.write(tmp_path / "robot", own(0))
    with Bag.open(camera, robot) as bag:
        result = evaluate(bag, policy)
    assert (result.paired_by, result.two_clocks) == ("log", True)
    assert {errors.pairs for errors in result.actions.values()} == {COUNT - 1}


def test_folders_of_definitions_that_are_none_are_refused(tmp_path, policy):
    write_humble(tmp_path / "bag", frames())
    for folder in (tmp_path / "nothing", tmp_path / "bag"):
        with pytest.raises(BagError, match=r"--msg-path: expected .*\.msg files"):
            Bag.open(tmp_path / "bag", msg_path=folder)
    for text, says in (("float64 speed\n?", "expected a message definition"), ("float64 other\n", "different")):
        for name, content in (("a", text), ("b", DRIVE if says == "different" else text)):
            path = tmp_path / f"ws/{name}/my_msgs/msg/Drive.msg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        options = Options(command_topic="/drive", command_fields=("speed", "speed"))
        with Bag.open(tmp_path / "bag", msg_path=tmp_path / "ws") as bag, pytest.raises(BagError, match=says):
            evaluate(bag, policy, options)


def test_a_pipe_among_files_of_definitions_is_no_file(tmp_path, policy):
    (tmp_path / "ws/my_msgs/msg").mkdir(parents=True)
    os.mkfifo(tmp_path / "ws/my_msgs/msg/Drive.msg")
    write_humble(tmp_path / "bag", frames())
    with pytest.raises(BagError, match=r"--msg-path: expected .*\.msg files below .*there are none"):
        Bag.open(tmp_path / "bag", msg_path=tmp_path / "ws")


def test_two_robots_in_one_recording_are_not_mixed(tmp_path, policy):
    theirs = [(at + LATE_NS, "/r2/cmd_vel", twist(0.0, 0.0)) for at in stamps()]
    end = [(START_NS + 5 * PERIOD_NS, "/r2/episode_end", boolean(True))]
    executed = [(at, "/r1/policy_node/executed", joints(at, NAMES, (0.0, 0.0))) for at in stamps()]
    both = frames("/r1/camera/image") + frames("/r2/camera/image") + own(topic="/r1/cmd_vel") + theirs + end
    for robot, count in (("/r1", 1), ("/r2", 2)):
        result = run(tmp_path / robot[1:], both, policy, Options(image_topic=f"{robot}/camera/image"))
        assert (result.command_topic, sum(tick.restarted for tick in result.ticks)) == (f"{robot}/cmd_vel", count)
    mixed = frames("/r2/camera/image") + executed
    assert run(tmp_path / "other", mixed, policy).command_topic is None
    only = [each for each in both if each[1] != "/r1/cmd_vel"]
    with pytest.raises(BagError, match=r"commands \(/r2/cmd_vel\) are in another namespace than /r1/camera/image"):
        run(tmp_path / "only", only, policy, Options(image_topic="/r1/camera/image"))
    named = Options(image_topic="/r1/camera/image", command_topic="/r2/cmd_vel")
    assert run(tmp_path / "named", only, policy, named).command_topic == "/r2/cmd_vel"


def test_several_executed_topics_of_one_robot_must_be_named(tmp_path, policy):
    sent = [(at, f"/{node}/executed", joints(at, NAMES, (0.0, 0.0))) for at in stamps() for node in ("a", "b")]
    with pytest.raises(BagError, match="several topics may be executed commands: /a/executed, /b/executed"):
        run(tmp_path / "bag", frames() + sent, policy)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("/robot2/cmd_vel", True),  # a number apart
        ("/bob/cmd_vel", True),  # both have odometry
        ("/cmd_vel", False),  # in the namespace that holds the other
        ("/robot1/base/cmd_vel", False),  # both have parameters, as every node
        ("/robot1/camera/cmd", False),
        ("/controller/cmd_vel", False),
        ("/mapper/reward", True),  # has images of its own
    ],
)
def test_parallel_namespaces(other, expected):
    there = [("/robot1/odom", "nav_msgs/msg/Odometry"), ("/bob/odom", "nav_msgs/msg/Odometry")]
    there += [(f"/robot1/{node}/transition_event", "lifecycle_msgs/msg/TransitionEvent") for node in ("camera", "base")]
    there += [("/mapper/map", "sensor_msgs/msg/Image")]
    topics = [Topic(name, kind, 1) for name, kind in there]
    assert are_parallel(topics, "/robot1/camera/image", other) == expected


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "by log time"])
def test_commands_that_cannot_be_read_are_told_and_no_older_one_is_held_over_them(tmp_path, policy, stamped):
    """Every second message is of another type than the first."""
    topic = "/executed" if stamped else "/cmd_vel"
    sent = [joints(at, NAMES, (0.1, 0.2)) if stamped else twist(0.1, 0.2) for at in stamps()]
    sent[1::2] = [make("std_msgs/msg/String", "what?")] * (COUNT // 2)
    late_ns = LATE_NS if stamped else 0
    messages = [(at + late_ns, topic, message) for at, message in zip(stamps(), sent, strict=True)]
    with Bag.open(tiny_bag.write(tmp_path / "bag", [*frames(), *messages])) as bag:
        result, remarks = evaluate(bag, policy), bag.remarks
    assert [tick.recorded is not None for tick in result.ticks] == [True, False] * (COUNT // 2)
    facts = {**to_dict(result), "bag": "b"}
    assert (facts["commands"], facts["commands_refused"]["messages"]) == (COUNT // 2, COUNT // 2)
    assert f"; {COUNT // 2} pairs of {COUNT} ticks" in render(facts)
    assert f"refused   {COUNT // 2} of {COUNT} commands, over which no older one is held" in render(facts)
    assert summary(facts)["refused commands"].endswith("got a std_msgs/msg/String")
    assert any(f"several types, of which the first counts: {topic} (" in remark for remark in remarks)
    scored = Scored(Job(Path("b"), Path("p")), facts)
    assert "b with p: refused" in overview.render([scored, scored])


@pytest.mark.parametrize("other", ["/bob/executed", "/bob/policy_node/executed", "/bob/arm/executed"])
def test_a_robots_own_commands_come_before_what_another_executed(tmp_path, policy, other):
    """They share no topic's name."""
    theirs = [(at, other, joints(at, NAMES, (0.0, 0.0))) for at in stamps()]
    theirs.append((START_NS + 5 * PERIOD_NS, "/bob/episode_end", boolean(True)))
    result = run(tmp_path / "bag", frames("/alice/image") + own(topic="/alice/cmd_vel") + theirs, policy)
    assert (result.command_topic, sum(tick.restarted for tick in result.ticks)) == ("/alice/cmd_vel", 1)
    assert result.remarks == []


@pytest.mark.parametrize(
    ("image_topic", "command_topic", "remarked"),
    [
        ("/alice/image", "/bob/cmd_vel", True),
        ("/fleet/alice/image", "/fleet/bob/cmd_vel", True),
        ("/camera/image", "/base/cmd_vel", True),
        ("/camera/image", "/cmd_vel", False),
        ("/image", "/base/cmd_vel", False),
        ("/robot/camera/image", "/robot/cmd_vel", False),
    ],
)
def test_commands_of_another_namespace_are_not_taken_without_a_word(
    tmp_path, policy, image_topic, command_topic, remarked
):
    bag = tmp_path / "bag"
    found = run(bag, frames(image_topic) + own(topic=command_topic), policy)
    assert found.command_topic == command_topic
    text = f"commands are taken from {command_topic}, which is in another namespace than {image_topic}"
    assert [each.startswith(text) for each in found.remarks] == [True] * remarked
    named = run(tmp_path / "named", frames(image_topic) + own(topic=command_topic), policy, Options("", command_topic))
    assert named.remarks == []


def test_two_sides_are_two_robots(tmp_path, policy):
    messages = frames("/robot_left/camera/image") + own(topic="/robot_right/cmd_vel")
    with pytest.raises(BagError, match="are in another namespace than /robot_left/camera/image"):
        run(tmp_path / "bag", messages, policy)


def test_a_message_that_names_a_joint_twice_is_refused(tmp_path, policy):
    """Which of the two was meant, nobody can tell."""
    sent = [joints(at, NAMES, (0.1, 0.2)) for at in stamps()]
    sent[3] = joints(stamps()[3], [*NAMES, NAMES[0]], (0.1, 0.2, 99.0))
    messages = [(at + LATE_NS, "/executed", message) for at, message in zip(stamps(), sent, strict=True)]
    result = run(tmp_path / "bag", frames() + messages, policy)
    assert (result.commands, result.ticks[3].recorded) == (COUNT - 1, None)
    assert [reason for _, reason in result.refused_commands] == [
        f"recorded JointState: expected each joint once, got {NAMES[0]} several times"
    ]
