"""policy_node as a process: how it starts, refuses and ends, and command types other than Twist."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from ros_network import ACTIVATE, CONFIGURE, OWN, ROOT, Camera, domain_id
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, Int16, String
from tiny_policy import SLOW_PIXEL, expected_values, write_policy

from sac_ae_ros.nodes import loaded_policy, policy_node
from sac_ae_ros.nodes.arming import LATCHED
from sac_ae_ros.nodes.convert import from_ns
from sac_ae_ros.nodes.drive import Drive
from sac_ae_ros.nodes.policy_node import MANAGED_WITHIN_S
from sac_ae_ros.nodes.process import EndRequest


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "tiny.onnx", slow=90)


def errors(log: str) -> list[str]:
    return [line for line in log.splitlines() if "ERROR" in line]


@pytest.mark.parametrize("module", ["policy_node", "record_node", "replay_node"])
@pytest.mark.parametrize("where", [{"HOME": "/proc/1"}, {"ROS_LOG_DIR": "/proc"}, {"ROS_LOG_DIR": "/dev/null/logs"}])
def test_a_home_that_cannot_be_written_to_is_one_line_that_names_ros_log_dir(module, where):
    """/proc refuses even root."""
    env = {key: value for key, value in os.environ.items() if key not in ("ROS_LOG_DIR", "ROS_HOME")}
    command = [sys.executable, "-m", f"sac_ae_ros.nodes.{module}"]
    ended = subprocess.run(command, cwd=ROOT, env={**env, **where}, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("expected a folder for logs that can be written to: set ROS_LOG_DIR to one")


def test_importing_the_node_loads_neither_torch_nor_mujoco():
    code = (
        "import sys, sac_ae_ros.nodes.policy_node;"
        " print([name for name in ('torch', 'mujoco', 'dm_control', 'sim_training') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_bad_policy_fails_configure_in_one_line_and_can_be_replaced(network, policy):
    good = policy.read_bytes()
    process = network.start("policy_node", {"policy": str(policy)})
    for bad, says in ((good[: len(good) // 2], "is it cut"), (b"", "empty"), (b"no model", "ONNX")):
        policy.write_bytes(bad)
        before = len(errors(process.log))
        assert not network.change(CONFIGURE)
        assert network.state() == "unconfigured"
        new = errors(process.log)[before:]
        assert len(new) == 1
        assert says in new[0]
        assert "Traceback" not in process.log
    policy.write_bytes(good)
    assert network.change(CONFIGURE, ACTIVATE)


def test_a_node_can_start_by_itself_and_is_not_armed(network, policy):
    process = network.start("policy_node", {"policy": str(policy), "autostart": True})
    network.until(lambda: "active and not armed" in process.log, 20, "activation")
    assert network.state() == "active"
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_a_node_that_cannot_start_by_itself_ends(network, tmp_path):
    process = network.start("policy_node", {"policy": str(tmp_path / "none.onnx"), "autostart": True})
    assert process.wait(20) == 2
    assert "none.onnx" in errors(process.log)[0]


def test_a_node_that_waits_for_its_lifecycle_says_so(network):
    process = network.start("policy_node", {})
    network.until(lambda: "unconfigured: configure and activate it" in process.log, 20, "a hint")


def test_a_node_that_is_configured_in_time_does_not_ask_for_it(network, policy):
    process = network.start("policy_node", {"policy": str(policy)})
    assert network.change(CONFIGURE)
    time.sleep(MANAGED_WITHIN_S + 1)
    assert "unconfigured" not in process.log


def test_an_unarmed_node_logs_what_bars_arming_and_again_when_that_changes(network, policy):
    process = network.start("policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0})
    states = network.hear(String, "policy_node/state", qos=LATCHED)
    assert network.change(CONFIGURE, ACTIVATE)
    barred = "not armed, and cannot be: "
    network.until(lambda: barred in process.log, 20, "the reason")
    assert "nobody publishes /tested/image" in process.log
    time.sleep(1.0)
    assert process.log.count(barred) == 1, "only its numbers have changed"
    assert "nobody publishes /tested/image" in json.loads(states[-1][1].data)["barred"]
    camera = Camera(network)
    with camera.running():
        network.node.create_publisher(Int16, "e_stop", 1)
        network.until(lambda: process.log.count(barred) == 2, 20, "another reason")
    assert "expected only publishers of std_msgs/msg/Bool on e_stop" in process.log


def test_arming_warns_where_nobody_takes_the_commands(network, policy):
    process = network.start("policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0})
    states = network.hear(String, "policy_node/state", qos=LATCHED)
    stamped = network.node.create_subscription(TwistStamped, "cmd_vel", lambda _: None, 1)
    assert network.change(CONFIGURE, ACTIVATE)
    with Camera(network).running():
        answer = network.until(lambda: (a := network.trigger("policy_node/arm")).success and a, 10, "arming")
        warning = "/tested/cmd_vel: /tested/test takes geometry_msgs/msg/TwistStamped, this node publishes"
        assert answer.message.startswith(f"armed; {warning}")
        network.until(lambda: json.loads(states[-1][1].data)["armed"], 10, "~/state")
        assert json.loads(states[-1][1].data)["unheard"].startswith(warning)
        assert warning in process.log
        network.node.destroy_subscription(stamped)
        network.until(lambda: network.trigger("policy_node/arm").message == "armed", 10, "an answer without warning")
        network.until(lambda: not json.loads(states[-1][1].data)["unheard"], 10, "~/state without warning")


def test_a_press_of_enable_is_named_where_it_arms(network, policy):
    process = network.start("policy_node", {"policy": str(policy), "enable_required": True})
    assert network.change(CONFIGURE, ACTIVATE)
    line = r"active and not armed: call ~/arm, or release and press enable(, in \d\.\d s)?\n"
    network.until(lambda: re.search(line, process.log), 10, "that line")


def test_a_missing_policy_is_explained(network):
    process = network.start("policy_node", {})
    assert not network.change(CONFIGURE)
    assert "policy:=FILE" in errors(process.log)[0]


def test_a_transition_that_the_state_does_not_allow_is_refused_and_kills_nothing(network, policy):
    process = network.start("policy_node", {"policy": str(policy)})
    assert not network.change(ACTIVATE)
    assert "transition 3 refused: from unconfigured expected one of" in process.log
    forged = ChangeState.Request(transition=Transition(label="\x1b[31mx\n[FATAL] forged"))
    assert not network.call(ChangeState, "policy_node/change_state", forged).success
    network.until(lambda: r"transition '\x1b[31mx\n[FATAL] forged' refused" in process.log, 10, "the refusal")
    assert "\x1b[31mx" not in process.log
    assert not network.change(99)
    assert network.change(CONFIGURE, ACTIVATE)
    assert network.state() == "active"


def test_inference_slower_than_the_policy_period_is_said_when_configured(network, tmp_path):
    policy = write_policy(tmp_path / "tiny.onnx", slow_always=1, spec={"control_period_s": 0.001})
    process = network.start("policy_node", {"policy": str(policy)})
    assert network.change(CONFIGURE)
    warnings = [line for line in process.log.splitlines() if "WARN" in line]
    assert len(warnings) == 1
    assert "too slow" in warnings[0]


def test_a_parameter_of_the_wrong_type_ends_the_process_in_one_line(network):
    process = network.start("policy_node", {"max_age_s": "soon"})
    assert process.wait() == 2
    lines = [line for line in process.log.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "max_age_s" in lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_armed_sends_stops_and_ends_cleanly(network, policy, number):
    process = network.start(
        "policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0, "arm_on_activate": True}
    )
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    with Camera(network).running():
        network.until(lambda: len(commands) > 3, 10, "commands")
        signal_s = time.monotonic()
        process.popen.send_signal(number)
        assert process.wait() == 0
    time.sleep(0.2)
    after = [(at_s, twist) for at_s, twist in commands if at_s >= signal_s]
    stops = [at_s for at_s, twist in after if twist == Twist()]
    assert 4 <= len(stops) <= 8
    assert after[-1][1] == Twist(), "the last word is a stop"
    assert "Traceback" not in process.log


def test_a_signal_is_taken_while_inference_hangs(network, policy):
    process = network.start(
        "policy_node", {"policy": str(policy), "image.freeze_timeout_s": 0.0, "arm_on_activate": True}
    )
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    camera = Camera(network)
    with camera.running():
        network.until(lambda: len(commands) > 1, 10, "commands")
        camera.pixel = SLOW_PIXEL
        time.sleep(0.15)
        signal_s = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        process.popen.send_signal(signal.SIGTERM)
        network.until(lambda: [t for t in commands.since(signal_s) if t == Twist()], 3, "a stop")
        time.sleep(0.3)
        assert process.popen.poll() is None, "signals within moments are one request"
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait(5) in (0, 1), "inference came back in time, or it did not"


def test_a_paused_clock_cannot_silence_the_watchdog(network, policy):
    clock = network.node.create_publisher(Clock, "/clock", 1)
    params = {"policy": str(policy), "image.freeze_timeout_s": 0.0, "arm_on_activate": True, "use_sim_time": True}
    process = network.start("policy_node", params)
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(clock.get_subscription_count, 10, "the node on /clock")
    camera = Camera(network, rate_hz=10)
    simulated_ns = [5_000_000_000]

    def stamp(image) -> None:
        image.header.stamp = from_ns(simulated_ns[0])

    camera.change = stamp
    with camera.running():

        def moving() -> bool:
            simulated_ns[0] += 20_000_000
            clock.publish(Clock(clock=from_ns(simulated_ns[0])))
            time.sleep(0.02)
            return len(commands) > 5

        network.until(moving, 10, "commands")
        paused_s = time.monotonic()
        network.until(lambda: len([t for t in commands.since(paused_s) if t == Twist()]) > 2, 3, "stops")
    assert "call ~/arm" in process.log
    assert "press enable" not in process.log, "this node has no deadman"


def test_stamps_that_are_not_of_clock_point_to_its_publisher_and_leave_the_age_check_on(network, policy):
    clock = network.node.create_publisher(Clock, "/clock", 1)
    process = network.start("policy_node", {"policy": str(policy), "use_sim_time": True})
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(clock.get_subscription_count, 10, "the node on /clock")
    camera = Camera(network)

    def stamp(image) -> None:
        clock.publish(Clock(clock=from_ns(1_000_000_000_000 + time.monotonic_ns())))
        image.header.stamp = from_ns(1_000_000_000_000 + time.monotonic_ns() - 10_000_000_000)

    camera.change = stamp
    with camera.running():
        network.until(lambda: "the stamps are not of this /clock: see who publishes it" in process.log, 10, "advice")
    assert "stamp_source" not in process.log


def test_twist_stamped(network, policy):
    commands = network.hear(TwistStamped, "wheels/command")
    command = {
        "type": "geometry_msgs/msg/TwistStamped",
        "fields": ["twist.linear.x", "twist.angular.z"],
        "frame_id": "wheels",
    }
    params = {"policy": str(policy), "image.freeze_timeout_s": 0.0, "arm_on_activate": True, "command": command}
    network.start("policy_node", params, remaps=("cmd_vel:=wheels/command", "image:=front/image"))
    assert network.change(CONFIGURE, ACTIVATE)
    with Camera(network, topic="front/image").running():
        message = network.until(lambda: commands, 10, "a command")[-1][1]
    assert message.header.frame_id == "wheels"
    assert message.header.stamp.sec > 0
    assert np.allclose([message.twist.linear.x, message.twist.angular.z], expected_values(140), atol=1e-5)
    stop = network.until(lambda: [m for _, m in commands if m.twist == Twist()], 3, "a stop")[0]
    assert stop.header.frame_id == "wheels"


def test_a_misspelt_type_is_told_before_its_stop_is_asked_for(network, policy):
    params = {"policy": str(policy), "command": {"type": "geometry_msgs/msg/TwistStampd"}}
    process = network.start("policy_node", params)
    assert not network.change(CONFIGURE)
    assert "command.type: expected an installed message type" in process.log
    assert "did you mean geometry_msgs/msg/TwistStamped?" in process.log
    assert "command.stop" not in process.log


@pytest.mark.parametrize(
    ("taken", "published", "kind"),
    [("raw", "compressed", CompressedImage), ("compressed", "raw", Image), ("raw", "compressedDepth", CompressedImage)],
)
def test_images_of_another_transport_are_named_where_arming_is_refused(network, policy, taken, published, kind):
    topic = "image" if published == "raw" else f"image/{published}"
    network.node.create_publisher(kind, topic, 1)
    diagnostics = network.hear(DiagnosticArray, "/diagnostics")
    network.start("policy_node", {"policy": str(policy), "image": {"transport": taken}})
    assert network.change(CONFIGURE, ACTIVATE)
    type_ = f"sensor_msgs/msg/{kind.__name__}"
    told = f"/tested/test publishes {type_} on /tested/{topic}; set image.transport: {published}"
    network.until(lambda: told in network.trigger("policy_node/arm").message, 10, "the refusal")
    network.until(lambda: any(told in each.message for _, one in diagnostics for each in one.status), 10, "its words")


def test_float64_multi_array_must_say_what_a_stop_is(network, policy):
    commands = network.hear(Float64MultiArray, "cmd_vel")
    command = {"type": "std_msgs/msg/Float64MultiArray", "fields": ["data[1]", "data[0]"]}
    params = {"policy": str(policy), "image.freeze_timeout_s": 0.0, "arm_on_activate": True, "command": command}
    process = network.start("policy_node", params)
    assert not network.change(CONFIGURE)
    assert "command.stop: expected zero, custom or hold_measured" in process.log
    assert not network.set("policy_node", command__stop="hold_measured")
    assert not network.change(CONFIGURE)
    assert "command.joints: expected 2 different joints" in process.log
    assert not network.set("policy_node", command__stop="custom", command__stop_values=[0.25, -0.5])
    executed = network.hear(JointState, "policy_node/executed")
    assert network.change(CONFIGURE, ACTIVATE)
    with Camera(network).running():
        message = network.until(lambda: executed and commands, 10, "a command")[-1][1]
    assert np.allclose(message.data, expected_values(140)[::-1], atol=1e-5)
    network.until(lambda: [m for _, m in commands if list(m.data) == [-0.5, 0.25]], 3, "a custom stop")
    assert all(np.allclose(m.position, expected_values(140), atol=1e-5) for _, m in executed), "stops are not executed"


@pytest.fixture
def end() -> Iterator[EndRequest]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield EndRequest()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def armed_node(monkeypatch, policy) -> Iterator[policy_node.PolicyNode]:
    """A real node in this process, active and armed, on a domain of its own."""
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    arguments = ["--ros-args", "-p", f"policy:={policy}", "-p", "arm_on_activate:=true"]
    arguments += ["-p", "image.freeze_timeout_s:=0.0"]
    rclpy.init(args=arguments, domain_id=domain_id(), signal_handler_options=SignalHandlerOptions.NO)
    node = policy_node.PolicyNode()
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    yield node
    node.destroy_node()
    rclpy.shutdown()


def defect() -> None:
    raise RuntimeError("a defect")


@pytest.mark.parametrize(("crashes", "code"), [(True, 1), (False, 0)])
def test_a_defect_while_spinning_gives_an_exit_code_however_slowly_it_is_reported(
    monkeypatch, end, armed_node, crashes, code
):
    monkeypatch.setattr(threading, "excepthook", lambda _: time.sleep(0.5))
    drive = armed_node._drive
    if crashes:
        armed_node.create_timer(0.1, defect)
    else:
        threading.Timer(0.3, signal.raise_signal, [signal.SIGTERM]).start()
    assert policy_node._use(armed_node, end) == code
    assert not drive.state.armed


def test_stops_are_sent_even_if_the_main_loop_has_a_defect(monkeypatch, end, armed_node):
    drive = armed_node._drive
    monkeypatch.setattr(armed_node, "tell", defect)
    with pytest.raises(RuntimeError, match="a defect"):
        policy_node._use(armed_node, end)
    assert armed_node._drive is None
    assert not drive.state.armed
    assert "spin" not in [thread.name for thread in threading.enumerate()], "else it trips over the context's end"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_node_that_ends_cannot_be_activated(monkeypatch, policy, when):
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    arguments = ["--ros-args", "-p", f"policy:={policy}", "-p", "arm_on_activate:=true"]
    arguments += ["-p", "image.freeze_timeout_s:=0.0"]
    rclpy.init(args=arguments, domain_id=domain_id(), signal_handler_options=SignalHandlerOptions.NO)
    node, drives = policy_node.PolicyNode(), []
    try:
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        if when == "before":
            node.end_for_good()
        else:

            def drive_made_late(*args: object) -> Drive:
                node.end_for_good()
                drives.append(Drive(*args))
                return drives[-1]

            monkeypatch.setattr(loaded_policy, "Drive", drive_made_late)
        assert node.trigger_activate() is TransitionCallbackReturn.FAILURE
        assert node._drive is None
        assert not any(drive.state.armed for drive in drives)
    finally:
        node.destroy_node()
        rclpy.shutdown()
