"""A policy_node that is paused (SIGSTOP) longer than its watchdog allows stops the robot, wherever the pause falls."""

import random
import signal
import time
from pathlib import Path

import pytest
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, Camera, Network
from tiny_policy import SLOW_PIXEL, write_policy

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
