"""What messages say is escaped in the node's log, its answers and ~/state, and 10 MB of it hold nothing up."""

import json

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, Camera
from std_msgs.msg import String
from tiny_policy import write_policy

FORGED = "\x1b[31mbgr8\n[FATAL] [1.0] [policy_node]: forged\r\u2028\u202e"


def plain(text: str) -> None:
    strange = {c for c in text if not (c.isprintable() or c == "\n")}
    assert not strange, text[-3000:]
    assert not any(line.startswith("[FATAL]") for line in text.splitlines()), text[-3000:]


@pytest.mark.real_time
def test_what_messages_say_is_logged_escaped(network, tmp_path):
    (tmp_path / "versions").mkdir()
    params = {"policy": str(write_policy(tmp_path / "it.onnx")), "policy_dir": str(tmp_path / "versions")}
    process = network.start("policy_node", {**params, "image": {"freeze_timeout_s": 0.0}, "arm_on_activate": True})
    commands = network.hear(Twist, "cmd_vel")
    states = network.hear(String, "policy_node/state")
    diagnostics = network.hear(DiagnosticArray, "/diagnostics")
    announcements = network.node.create_publisher(String, "policy/latest", 1)
    camera = Camera(network)
    assert network.change(CONFIGURE, ACTIVATE)
    with camera.running():
        network.until(lambda: len(commands) > 3, 10, "commands")
        for text in (FORGED, FORGED + "x" * 10**7):
            camera.change = lambda image, text=text: setattr(image, "encoding", text)
            camera.publish()
            announcements.publish(String(data=text))
        camera.change = lambda image: setattr(image, "encoding", FORGED)
        network.until(lambda: "policy/latest" in process.log and "frame not used" in process.log, 10, "refusals")
        network.until(lambda: json.loads(states[-1][1].data)["stop"], 10, "a stop")
        camera.change = lambda image: None
        network.until(lambda: not network.trigger("policy_node/arm").message.startswith("expected"), 10, "an answer")
    assert process.popen.poll() is None
    plain(process.log)
    for _, state in states:
        plain(state.data)
    for _, array in list(diagnostics):
        for status in array.status:
            plain(status.message)
    assert "\\x1b[31mbgr8" in process.log
