"""policy_node over real ROS 2: images in, commands out, and every stop. One process serves all tests here."""

import array
import itertools
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from rcl_interfaces.srv import DescribeParameters
from rclpy.duration import Duration
from ros_network import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Camera, Network, Process
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64
from tiny_policy import NAN_PIXEL, SLOW_PIXEL, expected_values, write_policy

from sac_ae_ros.nodes.convert import from_ns, to_ns

PERIOD_S = 0.1
MAX_AGE_S = 2.5 * PERIOD_S
SLACK_S = 0.3  # what two busy cores may add to any time
DEFAULTS = {
    "watchdog_timeout_s": 0.0,
    "max_age_s": 0.0,
    "command__type": "geometry_msgs/msg/Twist",
    "command__fields": ["linear.x", "angular.z"],
    "command__stop": "",
    "image__transport": "raw",
    "image__freeze_timeout_s": 0.0,  # the camera of these tests has no noise
    "stamp_source": "header",
    "arm_on_activate": False,
}


class Robot:
    """The node under test, its camera, and what it publishes."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network, self.process = network, process
        self.camera = Camera(network)
        self.commands = network.hear(Twist, "cmd_vel")
        self.executed = network.hear(JointState, "policy_node/executed")
        self._log_from = 0

    def new_log(self) -> str:
        """What the node has printed since the last call."""
        log = self.process.log
        new, self._log_from = log[self._log_from :], len(log)
        return new

    def activate(self, **params: object) -> None:
        assert not self.network.set("policy_node", **{**DEFAULTS, **params})
        assert self.network.change(CONFIGURE, ACTIVATE)

    def to_unconfigured(self) -> None:
        self.camera.change = lambda image: None
        self.camera.pixel = 140
        self.camera.stop()
        transitions = {"active": (DEACTIVATE, CLEANUP), "inactive": (CLEANUP,), "unconfigured": ()}
        assert self.network.change(*transitions[self.network.state()])

    def drive(self) -> None:
        """Active, armed, and moving."""
        self.activate()
        self.camera.start()
        start_s = time.monotonic()

        def moves() -> list[Twist]:
            self.network.trigger("policy_node/arm")  # again where a busy machine has stopped it meanwhile
            return self.moves_since(start_s)

        self.network.until(moves, 15, "commands")

    def moves_since(self, start_s: float) -> list[Twist]:
        return [twist for twist in self.commands.since(start_s) if not is_stop(twist)]

    def stops_since(self, start_s: float) -> list[Twist]:
        return [twist for twist in self.commands.since(start_s) if is_stop(twist)]


def is_stop(twist: Twist) -> bool:
    return twist == Twist()


@pytest.fixture(scope="module")
def node(shared_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Robot:
    policy = write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx", nan=True, slow=60, channel=0)  # sees red
    robot = Robot(shared_network, shared_network.start("policy_node", {"policy": str(policy)}))
    robot.activate()
    robot.network.listened(robot.process)
    robot.to_unconfigured()
    return robot


@pytest.fixture
def robot(node: Robot) -> Iterator[Robot]:
    node.new_log()
    yield node
    node.to_unconfigured()


def test_active_is_not_armed_and_armed_commands_fit_the_images(robot):
    assert "inactive" not in robot.network.trigger("policy_node/arm").message
    refused = robot.network.trigger("policy_node/arm")
    assert not refused.success
    assert "activate" in refused.message
    robot.activate()
    start_s = time.monotonic()
    with robot.camera.running():
        time.sleep(0.6)
        assert not robot.commands.since(start_s), "not armed, so silent"
        assert robot.network.ask_to_arm().success
        robot.network.until(lambda: len(robot.executed.since(start_s)) > 4)
    twist = robot.commands.since(start_s)[-1]
    assert np.allclose([twist.linear.x, twist.angular.z], expected_values(140), atol=1e-5)
    executed = robot.executed.since(start_s)[-1]
    assert list(executed.name) == ["linear", "angular"]
    assert np.allclose(executed.position, expected_values(140), atol=1e-5)
    assert executed.header.frame_id == "lens"
    assert executed.header.stamp.sec > 0


def test_a_camera_of_30_hz_gives_commands_at_the_policy_period(robot):
    robot.drive()
    start_s = time.monotonic()
    time.sleep(2.0)
    assert abs(len(robot.moves_since(start_s)) - 20) <= 3
    assert not robot.stops_since(start_s)


def test_stale_stops_repeat_until_armed_again(robot):
    robot.drive()
    stopped_s = robot.camera.stop()
    robot.network.until(lambda: robot.stops_since(stopped_s), 3, "a stop")
    first_s = next(at_s for at_s, twist in robot.commands if at_s > stopped_s and is_stop(twist))
    assert first_s - stopped_s < MAX_AGE_S + SLACK_S
    time.sleep(1.0)
    assert 8 <= len(robot.stops_since(first_s)) <= 13, "one stop each period"
    refused = robot.network.trigger("policy_node/arm")
    assert not refused.success
    assert "stale" in refused.message
    with robot.camera.running():
        fresh_s = time.monotonic()
        time.sleep(0.6)
        assert not robot.moves_since(fresh_s), "fresh frames alone do not resume"
        assert robot.stops_since(fresh_s)
        armed_s = time.monotonic()
        assert robot.network.ask_to_arm().success
        robot.network.until(lambda: robot.moves_since(armed_s), 10, "commands after arming")
    assert robot.new_log().count("stopped: stale") >= 1


def test_what_arms_by_itself_does_so_at_the_first_frame(robot):
    robot.activate(arm_on_activate=True)
    start_s = time.monotonic()
    time.sleep(0.8)
    assert not robot.commands.since(start_s)
    with robot.camera.running():
        robot.network.until(lambda: robot.moves_since(start_s), 10, "commands without another arming")


def test_disarming_before_the_first_frame_keeps_it_from_arming_by_itself(robot):
    robot.activate(arm_on_activate=True)
    assert robot.network.trigger("policy_node/disarm").success
    start_s = time.monotonic()
    with robot.camera.running():
        time.sleep(1.0)
        assert not robot.commands.since(start_s)
        robot.network.arm()


def unstamped(image):
    image.header.stamp.sec = image.header.stamp.nanosec = 0


def of_1970(image):
    image.header.stamp.sec = 1000


def spelled_otherwise(image):
    image.encoding = "RGB8"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (None, "no image has come yet on /tested/image"),
        (unstamped, "got a stamp of 0; the camera driver sets none: set stamp_source: arrival"),
        (of_1970, "start the node with use_sim_time:=true"),
        (spelled_otherwise, "'RGB8'"),
    ],
)
def test_nothing_arms_before_a_frame_was_used_and_a_camera_that_wakes_moves_nothing(robot, harm, says):
    robot.activate()
    start_s = time.monotonic()
    if harm is not None:
        robot.camera.change = harm
        robot.camera.start()
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    robot.network.barred_as_diagnosed(diagnostics, says)
    assert "stale" in robot.network.trigger("policy_node/arm").message
    robot.camera.change = lambda image: None
    robot.camera.stop()
    with robot.camera.running():
        time.sleep(1.0)
        assert not robot.commands.since(start_s), "it was refused, and nobody asked again"
        assert robot.network.ask_to_arm().success


def test_a_camera_slower_than_the_policy_is_told_and_not_armed(robot):
    slow = Camera(robot.network, rate_hz=5.0)
    robot.activate()
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    with slow.running():
        why = "got 5"
        robot.network.barred_as_diagnosed(diagnostics, why)

        def warned() -> bool:  # two cameras on one topic come first
            statuses = [status for _, array in list(diagnostics) for status in array.status]
            return any(why in pair.value for status in statuses for pair in status.values)

        robot.network.until(warned, 10, "a warning")
    slow.close()


def images_told(diagnostics) -> list[tuple[bytes, str]]:
    statuses = [status for _, array in list(diagnostics) for status in array.status if status.name.endswith(": images")]
    return [(status.level, status.message) for status in statuses]


def test_images_are_never_ok_while_none_comes(robot):
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    robot.activate(watchdog_timeout_s=2.0)
    robot.network.until(lambda: DiagnosticStatus.STALE in dict(images_told(diagnostics)), 10, "STALE")
    told = images_told(diagnostics)
    assert [level for level, _ in told] == sorted(level for level, _ in told), "WARN first, then STALE"
    assert {level for level, _ in told} == {DiagnosticStatus.WARN, DiagnosticStatus.STALE}
    assert all(text.startswith("no image has come yet") for _, text in told)


def test_a_camera_that_becomes_too_slow_for_the_stack_is_named_as_the_cause(robot):
    robot.drive()
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    robot.camera._period_s = 1 / 3.7
    robot.network.until(lambda: "stopped: stale" in robot.process.log[robot._log_from :], 5, "a stop")
    time.sleep(1.5)
    count = len(images_told(diagnostics))
    robot.network.until(lambda: len(images_told(diagnostics)) > count + 3, 10, "diagnostics")
    robot.camera._period_s = 1 / 30
    told = images_told(diagnostics)[count:]
    assert DiagnosticStatus.OK not in dict(told)
    assert any("frames come too slowly for the policy's stack" in text for _, text in told)
    (line,) = [line for line in robot.new_log().splitlines() if "stopped: stale" in line]
    assert "paused" not in line
    assert "images came too slowly" in line or "no image for" in line


def test_stamps_that_go_back_are_named_as_the_cause(robot):
    newest_ns = []

    def walk_back(image):
        newest_ns.append(newest_ns[-1] - 80_000_000 if newest_ns else to_ns(image.header.stamp))
        image.header.stamp = from_ns(newest_ns[-1])

    robot.activate(max_age_s=30.0)
    with robot.camera.running():
        robot.network.arm()
        robot.camera.change = walk_back
        robot.network.until(lambda: "stopped: stale" in robot.process.log[robot._log_from :], 5, "a stop")
    log = robot.new_log()
    assert "stopped: stale: image stamps went back by 0.08 s, none was used for 0." in log
    assert "paused" not in log


def test_what_is_not_active_says_that_it_cannot_be_armed(robot):
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    robot.network.until(lambda: diagnostics, 10, "diagnostics")
    (safety,) = diagnostics[-1][1].status
    refused = robot.network.trigger("policy_node/arm").message
    assert safety.level == DiagnosticStatus.OK
    values = {pair.key: pair.value for pair in safety.values}
    assert refused == f"arm refused: {values['why it cannot be armed']}"


def test_nan_stops_at_once_and_needs_arming(robot):
    robot.drive()
    robot.camera.pixel = NAN_PIXEL
    nan_s = time.monotonic()
    robot.network.until(lambda: robot.stops_since(nan_s), 3, "a stop")
    assert robot.network.until(lambda: "stopped: nan" in robot.process.log)
    refused = robot.network.trigger("policy_node/arm")
    assert not refused.success
    assert "nan" in refused.message
    robot.camera.pixel = 150
    good_s = time.monotonic()
    time.sleep(0.5)
    assert not robot.moves_since(good_s)
    assert robot.network.ask_to_arm().success
    robot.network.until(lambda: robot.moves_since(good_s), 10, "commands after arming")


@pytest.mark.parametrize("how", ["disarm", "deactivate"])
def test_stops_are_sent_for_half_a_second_and_then_silence(robot, how):
    robot.drive()
    start_s = time.monotonic()
    if how == "disarm":
        assert robot.network.trigger("policy_node/disarm").success
    else:
        assert robot.network.change(DEACTIVATE)
    time.sleep(1.5)
    stops_s = [at_s for at_s, twist in robot.commands if at_s > start_s and is_stop(twist)]
    assert 4 <= len(stops_s) <= 8
    assert stops_s[-1] - stops_s[0] <= 0.5 + SLACK_S
    assert not [at_s for at_s, twist in robot.commands if at_s > stops_s[0] and not is_stop(twist)]


def test_disarming_what_is_not_armed_publishes_nothing(robot):
    robot.activate()
    start_s = time.monotonic()
    assert robot.network.trigger("policy_node/disarm").success
    assert robot.network.change(DEACTIVATE)
    time.sleep(0.3)
    assert not robot.commands.since(start_s)


def test_hung_inference_cannot_silence_the_watchdog(robot):
    robot.drive()
    robot.camera.pixel = SLOW_PIXEL
    hung_s = time.monotonic()
    robot.network.until(lambda: len(robot.stops_since(hung_s)) >= 3, 3, "three stops")
    times_s = [at_s for at_s, twist in robot.commands if at_s > hung_s and is_stop(twist)]
    assert times_s[0] - hung_s < PERIOD_S + MAX_AGE_S + SLACK_S
    assert robot.network.until(lambda: "stopped: hung: inference has not come back" in robot.process.log)


def cut(image):
    image.data = array.array("B", [0] * 100)


def unknown(image):
    image.encoding = "ultraviolet"


def no_width(image):
    image.width = 0


def absurd(image):
    image.height, image.width, image.step = 4_000_000_000, 4_000_000_000, 1


def short_step(image):
    image.step = 1


def test_undecodable_images_are_named_count_as_no_frame_and_kill_nothing(robot):
    robot.drive()
    harms = itertools.cycle([cut, unknown, no_width, absurd, short_step])
    robot.camera.change = lambda image: next(harms)(image)
    bad_s = time.monotonic()
    robot.network.until(lambda: robot.stops_since(bad_s), 3, "a stop")
    lines = robot.network.until(lambda: [line for line in robot.process.log.splitlines() if "not used: image" in line])
    assert "expected" in lines[-1]
    assert len(lines) <= 2, "throttled"
    robot.camera.change = lambda image: None
    robot.network.arm()
    good_s = time.monotonic()
    robot.network.until(lambda: robot.moves_since(good_s), 10, "commands")


def test_old_stamps_are_refused_unless_arrival_counts(robot):
    def age(image):
        image.header.stamp.sec -= 10

    robot.camera.change = age
    robot.activate(arm_on_activate=True)
    start_s = time.monotonic()
    with robot.camera.running():
        robot.network.until(lambda: "set stamp_source: arrival" in robot.process.log, 10, "a hint")
        assert not robot.commands.since(start_s)
        assert robot.network.change(DEACTIVATE, CLEANUP)
        robot.activate(arm_on_activate=True, stamp_source="arrival")
        robot.network.until(lambda: robot.moves_since(start_s), 10, "commands")


@pytest.mark.parametrize(
    ("late_s", "says", "never"),
    [
        (1.0, "frames come late (transport, or a busy machine): lighten the load, or raise max_age_s", "stamp_source"),
        (10.0, "a simulation or a recording start the node with use_sim_time:=true; else synchronise", "come late"),
        (-10.0, "synchronise the camera host's clock (chrony, PTP) or set stamp_source: arrival", "use_sim_time"),
    ],
)
def test_the_advice_follows_from_how_far_a_stamp_is_off(robot, late_s, says, never):
    def move(image):
        image.header.stamp = from_ns(to_ns(image.header.stamp) - round(late_s * 1e9))

    robot.activate()
    robot.camera.change = move
    robot.new_log()
    with robot.camera.running():
        robot.network.until(lambda: "frame not used" in robot.process.log[robot._log_from :], 10, "a hint")
    log = robot.new_log()
    assert says in log
    assert never not in log


def test_where_arrival_counts_no_reason_is_about_stamps(robot):
    robot.camera.change = unstamped
    robot.activate(stamp_source="arrival")
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    with robot.camera.running():
        robot.network.arm()
        time.sleep(1.5)
    robot.network.until(lambda: "stopped: stale: no image for" in robot.new_log(), 5, "a stop with its reason")
    texts = [status.message for _, array in diagnostics for status in array.status]
    assert texts
    assert not [text for text in texts if "stamp" in text]


def test_the_stack_restarts_at_an_episodes_end(robot):
    ends = robot.network.node.create_publisher(Bool, "episode_end", 10)
    robot.activate(arm_on_activate=True, max_age_s=60.0, watchdog_timeout_s=60.0)  # however long the test takes
    robot.network.meet("policy_node")
    robot.network.until(lambda: ends.get_subscription_count(), 10, "the subscription")
    first_ns = time.time_ns() - 10**9

    def see(pixel: int, count: int) -> list[float]:
        """Shows a frame, again if it was lost; returns what came of it."""
        stamp = from_ns(first_ns + round(count * PERIOD_S * 1e9))
        robot.camera.pixel, robot.camera.change = pixel, lambda image: setattr(image.header, "stamp", stamp)
        with robot.camera.running():
            return robot.network.until(
                lambda: [each.position for _, each in list(robot.executed) if each.header.stamp == stamp],
                10,
                "a command",
            )[0]

    assert np.allclose(see(100, 0), expected_values(100), atol=1e-5)
    assert np.allclose(see(150, 1), expected_values(125), atol=1e-5)
    ends.publish(Bool(data=True))
    assert ends.wait_for_all_acked(Duration(seconds=10))
    assert np.allclose(see(110, 2), expected_values(110), atol=1e-5)
    robot.network.node.destroy_publisher(ends)


def test_a_mapping_that_does_not_fit_the_message_fails_configure_in_one_line(robot):
    robot.network.set("policy_node", **{**DEFAULTS, "command__fields": ["linear.x", "angular.w"]})
    assert not robot.network.change(CONFIGURE)
    errors = [line for line in robot.new_log().splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "angular.w" in errors[0]
    assert "x, y, z" in errors[0]


def action_for(robot: Robot, message: Image | CompressedImage, topic: str, **params: object) -> np.ndarray:
    """What the node executes for that image."""
    publisher = robot.network.node.create_publisher(type(message), topic, 1)
    robot.activate(**params)
    robot.network.meet("policy_node")
    robot.network.until(lambda: publisher.get_subscription_count(), 10, "the subscription")
    start_s = time.monotonic()

    def executed() -> list[JointState]:
        message.header.stamp = robot.network.node.get_clock().now().to_msg()
        publisher.publish(message)
        robot.network.trigger("policy_node/arm")
        return robot.executed.since(start_s)

    position = robot.network.until(executed, 10, "a command")[0].position
    robot.network.node.destroy_publisher(publisher)
    robot.to_unconfigured()
    return np.array(position)


RED, BLUE = 135, 90
RGB = np.full((8, 8, 3), (RED, 0, BLUE), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "coded", "text"),
    [
        (".png", RGB[..., ::-1], "png"),
        (".jpg", RGB[..., ::-1], "rgb8; jpeg compressed bgr8"),
        (".jpg", RGB, "rgb8; jpeg compressed rgb8"),  # OpenCV took red for blue
        (".jpg", RGB, "bgr8; jpeg compressed rgb8"),
    ],
)
def test_a_compressed_image_gives_the_action_of_the_raw_one(robot, suffix, coded, text):
    raw = Image(height=8, width=8, encoding="rgb8", step=24, data=array.array("B", RGB.tobytes()))
    expected = action_for(robot, raw, "image")
    np.testing.assert_allclose(expected, expected_values(RED), atol=1e-5)
    data = cv2.imencode(suffix, np.ascontiguousarray(coded), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    message = CompressedImage(format=text, data=array.array("B", data))
    action = action_for(robot, message, "image/compressed", image__transport="compressed")
    np.testing.assert_allclose(action, expected, atol=0.1 if suffix == ".jpg" else 1e-9)


def test_a_jpeg_of_3000_scans_is_refused_and_the_next_image_used(robot):
    flat = np.full((4000, 4000), 90, np.uint8)  # OpenCV would take some ten seconds
    data = cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    bomb = data[:end] + data[start : start + 10] * 3000 + data[end:]
    publisher = robot.network.node.create_publisher(CompressedImage, "image/compressed", 1)
    novelty = robot.network.hear(Float64, "policy_node/novelty")
    robot.activate(image__transport="compressed")
    robot.network.meet("policy_node")
    robot.network.until(lambda: publisher.get_subscription_count(), 10, "the subscription")

    def publish(data: bytes) -> None:
        message = CompressedImage(format="jpeg", data=array.array("B", data))
        message.header.stamp = robot.network.node.get_clock().now().to_msg()
        publisher.publish(message)

    publish(bomb)
    robot.network.until(
        lambda: "expected at most 16 scans in a JPEG of 4000x4000" in robot.process.log, 10, "a refusal"
    )
    assert not novelty
    publish(cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes())
    robot.network.until(lambda: novelty, 5, "inference on the next image")
    robot.network.node.destroy_publisher(publisher)


def test_compressed_depth_gives_the_action_of_the_raw_depth(robot):
    depth = np.full((8, 8), 1500, "<u2")
    params: dict[str, object] = {"image__value_range": [1000.0, 2000.0]}
    raw = Image(height=8, width=8, encoding="16UC1", step=16, data=array.array("B", depth.tobytes()))
    expected = action_for(robot, raw, "image", **params)
    np.testing.assert_allclose(expected, expected_values(128), atol=1e-5)
    data = bytes(12) + cv2.imencode(".png", depth)[1].tobytes()
    message = CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", data))
    action = action_for(robot, message, "image/compressedDepth", image__transport="compressedDepth", **params)
    np.testing.assert_array_equal(action, expected)


def test_doubtful_images_are_used_and_said_once_in_the_log_and_in_diagnostics(robot):
    diagnostics = robot.network.hear(DiagnosticArray, "/diagnostics")
    robot.activate(arm_on_activate=True)

    def to_grey(image: Image) -> None:
        image.encoding, image.step, image.data = "mono8", 8, image.data[:64]

    robot.camera.change = to_grey
    start_s = time.monotonic()
    with robot.camera.running():
        robot.network.until(lambda: len(robot.executed.since(start_s)) > 5, 10, "frames that are used")
        says = lambda: [  # noqa: E731
            status
            for array in diagnostics.since(start_s)
            for status in array.status
            if "grey (mono8), where the policy was trained on colours" in status.message
        ]
        found = robot.network.until(says, 10, "a diagnostic")[0]
    assert (found.name, found.level) == ("tested/policy_node: images", DiagnosticStatus.WARN)
    assert robot.new_log().count("image: grey (mono8)") == 1


def test_parameters_are_described_checked_and_locked_while_configured(robot):
    names = ["max_age_s", "provider", "policy", "command.fields", "limits.low"]
    request = DescribeParameters.Request(names=names)
    found = robot.network.call(DescribeParameters, "policy_node/describe_parameters", request).descriptors
    age, provider, policy, fields, low = found
    assert all(descriptor.description for descriptor in found)
    assert age.floating_point_range[0].to_value == 3600.0
    assert "'cuda'" in provider.additional_constraints
    assert policy.read_only
    assert (fields.type, low.type) == (9, 8)  # arrays of strings and of doubles
    assert "expected one of 'cpu', 'cuda'" in robot.network.set("policy_node", provider="abacus")
    assert "range" in robot.network.set("policy_node", max_age_s=-1.0)
    assert robot.network.set("policy_node", policy="other.onnx")
    robot.activate()
    assert "clean it up first" in robot.network.set("policy_node", max_age_s=1.0)
    assert "restart it with use_sim_time:=true" in robot.network.set("policy_node", use_sim_time=True)
    assert robot.network.change(DEACTIVATE)
    assert "restart it with use_sim_time:=true" in robot.network.set("policy_node", use_sim_time=True)
    assert robot.network.change(CLEANUP)
    assert not robot.network.set("policy_node", max_age_s=0.0)
    assert not robot.network.set("policy_node", use_sim_time=True)
    assert not robot.network.set("policy_node", use_sim_time=False)


def test_the_robots_own_limits_hold(robot):
    robot.activate(arm_on_activate=True, limits__high=[0.1, 0.2])
    robot.camera.pixel = 230
    start_s = time.monotonic()
    with robot.camera.running():
        executed = robot.network.until(lambda: robot.executed.since(start_s), 10, "a command")[0]
    assert np.allclose(executed.position, [0.1, -1.5], atol=1e-2)
