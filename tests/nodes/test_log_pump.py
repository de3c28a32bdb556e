"""A log that nobody reads holds up neither commands nor stops, and nothing of it is lost where somebody reads."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import yaml
from geometry_msgs.msg import Twist
from ros_network import ACTIVATE, CONFIGURE, NAMESPACE, ROOT, Camera
from tiny_policy import write_policy


def fill(descriptor: int) -> None:
    """Leaves no room for a byte in a pipe."""
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"x" * size)


def test_a_reader_that_has_stopped_silences_no_stop(network, tmp_path):
    params = {"policy": str(write_policy(tmp_path / "tiny.onnx")), "image": {"freeze_timeout_s": 0.0}}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({f"{NAMESPACE}/policy_node": {"ros__parameters": params}}))
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}", "--params-file", str(file)]
    command = [sys.executable, "-m", "sac_ae_ros.nodes.policy_node", *arguments]
    process = subprocess.Popen(command, env=network.env, cwd=ROOT, stdout=write, stderr=write)
    try:
        sent, camera = network.hear(Twist, "cmd_vel"), Camera(network)
        assert network.change(CONFIGURE, ACTIVATE)
        with camera.running():
            network.arm()
            network.until(lambda: sent, 10, "commands")
            os.set_blocking(write, False)
            fill(write)
            full_s = time.monotonic()
            assert not network.change(CONFIGURE), "a refusal, which is logged"
            time.sleep(0.5)
            assert len(sent.since(full_s)) >= 3, "it drives on"
        silent_s = time.monotonic()
        network.until(lambda: [twist for twist in sent.since(silent_s) if twist == Twist()], 3, "a stop")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)


def test_whatever_is_printed_before_the_end_arrives():
    code = (
        "import os, sys; from sac_ae_ros.nodes import log_pump; pumps = log_pump.start();"
        "[os.write(2, b'line %d\\n' % i) for i in range(5000)]; print('out', flush=True);"
        "[pump.flush() for pump in pumps]; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"line {i}" for i in range(5000)]
    assert done.stdout == "out\n"


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("os.write(2, b'terminate called\\n') and os.abort()", -signal.SIGABRT, "terminate called"),
        ("faulthandler._sigsegv()", -signal.SIGSEGV, "Segmentation fault"),
    ],
)
def test_a_crash_is_told(network, ending, code, says):
    program = (
        "import faulthandler, os; from sac_ae_ros.nodes import process; faulthandler.enable();"
        f"raise SystemExit(process.run(lambda _: {ending}, None, []))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=network.env, capture_output=True, text=True)
    assert done.returncode == code
    assert says in done.stderr


def test_a_closed_output_does_not_keep_a_node_from_starting(network, tmp_path):
    policy = write_policy(tmp_path / "tiny.onnx")
    node = f"exec {sys.executable} -m sac_ae_ros.nodes.policy_node --ros-args -r __ns:={NAMESPACE} -p policy:={policy}"
    process = subprocess.Popen(["sh", "-c", f"{node} >&- 2>&-"], env=network.env, cwd=ROOT)
    try:
        assert network.change(CONFIGURE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
