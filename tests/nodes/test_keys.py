"""The space bar of a real terminal, a pseudo one."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, time
from sac_ae_ros.nodes.keys import Keys
with Keys(lambda: print("toggled", flush=True)):
    print("ready", flush=True)
    time.sleep(2)
print("ended", flush=True)
"""


def read_until(terminal: int, text: bytes) -> bytes:
    found = b""
    while text not in found:
        found += os.read(terminal, 1000)
    return found


def test_space_calls_and_the_terminal_is_as_before():
    terminal, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{CODE}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    read_until(terminal, b"ready")
    os.write(terminal, b"x ")
    read_until(terminal, b"toggled")
    assert b"toggled" not in read_until(terminal, b"ended")
    assert process.wait(10) == 0
    assert termios.tcgetattr(theirs) == before
    os.close(terminal)
    os.close(theirs)


def test_without_a_terminal_nothing_is_done():
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("sleep(2)", "sleep(0)")],
        cwd=ROOT, input=" ", capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["ready", "ended"]
