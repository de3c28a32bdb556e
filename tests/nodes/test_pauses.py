"""A policy_node that is paused (SIGSTOP) longer than its watchdog allows stops the robot, wherever the pause falls."""

import random
import signal
import time
from pathlib import Path

import pytest
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, Camera, Network
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from tiny_policy import SLOW_PIXEL, write_policy

from sac_ae_ros.nodes.policy_state import LISTENS

PAUSE_S = 0.35  # the watchdog's timeout is 0.25 s
PERIOD_S = 0.1


@pytest.mark.parametrize("pauses", [8, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_every_pause_latches_a_stop_and_no_command_follows_it(network: Network, tmp_path: Path, pauses: int):
    policy = write_policy(tmp_path / "tiny.onnx")
    settings = {"policy": str(policy), "image": {"freeze_timeout_s": 0.0}}
    process = network.start("policy_node", settings)
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    with Camera(network).running():
        for _ in range(pauses):
            network.arm()
            armed_s = time.monotonic()
            network.until(lambda since_s=armed_s: len(commands.since(since_s)) > 2, 10, "commands")
            time.sleep(moments.uniform(0, 2 * PERIOD_S))
            process.popen.send_signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            goes_on_s = time.monotonic()
            process.popen.send_signal(signal.SIGCONT)
            first = lambda since_s=goes_on_s: next(  # noqa: E731
                (at_s for at_s, each in list(commands) if at_s > since_s and each == Twist()), None
            )
            stopped_s = network.until(first, 2, "a stop")
            time.sleep(3 * PERIOD_S)
            moves = [each for each in commands.since(stopped_s) if each != Twist()]
            assert not moves, "it is latched"
            # a command that was being written when the pause began may still come, and the stop right after it
            late = [each for each in commands.since(goes_on_s) if each != Twist()]
            assert len(late) <= 1


def test_disarming_after_arming_wins_wherever_the_process_was_meanwhile(network: Network, tmp_path: Path):
    """Both are asked for, in this order, while an inference takes long, or while the process is paused."""
    policy = write_policy(tmp_path / "tiny.onnx", slow_always=3)  # 60 ms
    settings = {"policy": str(policy), "image": {"freeze_timeout_s": 0.0}}
    process = network.start("policy_node", settings)
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE, ACTIVATE)
    network.trigger("policy_node/disarm")
    clients = [network.node.create_client(Trigger, f"policy_node/{name}") for name in ("arm", "disarm")]
    network.until(lambda: all(client.service_is_ready() for client in clients), 10, "the services")
    with Camera(network).running():
        network.arm()
        for paused in [False, True] * 6:
            network.trigger("policy_node/disarm")
            time.sleep(0.6)  # for its stops, and long enough for another arming
            if paused:
                process.popen.send_signal(signal.SIGSTOP)
            futures = [client.call_async(Trigger.Request()) for client in clients]
            if paused:
                time.sleep(0.08)
                process.popen.send_signal(signal.SIGCONT)
            network.until(lambda asked=futures: all(future.done() for future in asked), 10, "both answers")
            done_s = time.monotonic()
            time.sleep(0.4)
            assert not [each for each in commands.since(done_s + 0.05) if each != Twist()]


def test_after_a_pause_nothing_arms_until_what_was_said_meanwhile_is_known(network: Network, tmp_path: Path):
    policy = write_policy(tmp_path / "tiny.onnx")
    process = network.start("policy_node", {"policy": str(policy), "image": {"freeze_timeout_s": 0.0}})
    commands = network.hear(Twist, "cmd_vel")
    e_stop = network.node.create_publisher(Bool, "e_stop", 1)
    assert network.change(CONFIGURE, ACTIVATE)
    with Camera(network).running():
        network.arm()
        network.trigger("policy_node/disarm")
        time.sleep(0.6)
        process.popen.send_signal(signal.SIGSTOP)
        e_stop.publish(Bool(data=True))
        time.sleep(2.5)
        process.popen.send_signal(signal.SIGCONT)
        goes_on_s = time.monotonic()
        answer = network.trigger("policy_node/arm")
        assert LISTENS in answer.message or "the emergency stop is pressed" in answer.message
        answer = network.ask_to_arm()
        assert "the emergency stop is pressed" in answer.message
        assert not [each for each in commands.since(goes_on_s) if each != Twist()]
        e_stop.publish(Bool(data=False))
        network.arm()


@pytest.mark.parametrize("before", ["inactive", "active"])
def test_what_was_disarmed_does_not_arm_by_itself(network: Network, tmp_path: Path, before: str):
    policy = write_policy(tmp_path / "tiny.onnx")
    settings = {"policy": str(policy), "image": {"freeze_timeout_s": 0.0}, "arm_on_activate": True}
    network.start("policy_node", settings)
    commands = network.hear(Twist, "cmd_vel")
    assert network.change(CONFIGURE)
    if before == "inactive":
        network.trigger("policy_node/disarm")
    assert network.change(ACTIVATE)
    if before == "active":
        network.trigger("policy_node/disarm")
    with Camera(network).running():
        time.sleep(1.0)
        assert not commands
        network.arm()
        network.until(lambda: commands, 10, "commands")


def test_disarming_is_answered_while_an_inference_hangs(network: Network, tmp_path: Path):
    policy = write_policy(tmp_path / "tiny.onnx", slow=90)
    network.start("policy_node", {"policy": str(policy), "image": {"freeze_timeout_s": 0.0}})
    commands, camera = network.hear(Twist, "cmd_vel"), Camera(network)
    assert network.change(CONFIGURE, ACTIVATE)
    network.trigger("policy_node/disarm")  # the client is known from here on
    with camera.running():
        network.arm()
        network.until(lambda: commands, 10, "commands")
        camera.pixel = SLOW_PIXEL
        stopped_s = time.monotonic()
        network.until(lambda: [each for each in commands.since(stopped_s) if each == Twist()], 5, "the hung one's stop")
        asked_s = time.monotonic()
        assert network.trigger("policy_node/disarm").message == "disarmed"
        answered_s = time.monotonic()
        camera.pixel = 140
        network.until(lambda: network.trigger("policy_node/arm").success, 20, "arming")
        assert answered_s - asked_s < (time.monotonic() - stopped_s) / 2, "long before the inference came back"
