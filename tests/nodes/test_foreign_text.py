"""What messages say is escaped in the node's log, its answers and ~/state, and 10 MB of it hold nothing up."""

import json

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.serialization import serialize_message
from ros_network import ACTIVATE, CONFIGURE, Camera, Network
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tiny_policy import write_policy

FORGED = "\x1b[31mbgr8\n[FATAL] [1.0] [policy_node]: forged\r\u2028\u202e"


class ForeignCamera(Camera):
    """A camera whose `frame_id` is these bytes."""

    def __init__(self, network: Network, frame_id: bytes) -> None:
        super().__init__(network)
        self._frame_id = frame_id

    def publish(self) -> Image:
        image, room = self.message(), "@" * len(self._frame_id)
        image.header.frame_id = room
        self._publisher.publish(serialize_message(image).replace(room.encode(), self._frame_id))
        return image


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


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("frame_id", "expected"),
    [
        (FORGED.encode(), FORGED.encode("unicode_escape").decode()),
        (b"x" * 10**6, "x" * 256 + "..."),
        (b"lens\xff\xfe", "lens\ufffd\ufffd"),
    ],
    ids=["control characters", "1 MB", "not UTF-8"],
)
def test_a_foreign_frame_id_goes_on_short_and_escaped(network, tmp_path, frame_id, expected):
    params = {"policy": str(write_policy(tmp_path / "it.onnx")), "image": {"freeze_timeout_s": 0.0}}
    process = network.start("policy_node", {**params, "max_age_s": 1.0, "watchdog_timeout_s": 2.0})
    executed = network.hear(JointState, "policy_node/executed")
    camera = ForeignCamera(network, frame_id)
    assert network.change(CONFIGURE, ACTIVATE)
    with camera.running():
        network.arm()
        network.until(lambda: executed, 10, "commands")
    assert process.popen.poll() is None, process.log
    assert {message.header.frame_id for _, message in list(executed)} == {expected}
    assert all(message.header.stamp.sec > 0 for _, message in list(executed))
