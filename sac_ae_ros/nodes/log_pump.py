"""Keeps a log that nobody reads from holding up the robot.

rclpy's logger writes while it holds the interpreter's lock. Once a pipe's reader is stopped (a suspended terminal, a
hung `ros2 launch`), the next line would hold every thread, the watchdog's too. So the process writes into pipes of its
own that never block; a thread passes on what is in them, and what does not fit is lost.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import sys
import termios
import threading
import time
from contextlib import suppress

SIZE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
FLUSH_S = 0.5


class LogPump:
    """Stands between one of this process's outputs and whoever reads it."""

    def __init__(self, number: int) -> None:
        """Takes the file descriptor 1 or 2 over."""
        self._real = os.dup(number)
        self._read, write = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # an unprivileged user may have less
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, SIZE_BYTES)
        os.set_blocking(write, False)
        os.dup2(write, number)
        os.close(write)
        self._busy = False
        threading.Thread(target=self._pump, name=f"log pump {number}", daemon=True).start()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Waits, but not for long, until everything is passed on."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s and (self._busy or self._waiting_bytes()):
            time.sleep(0.005)

    def _waiting_bytes(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._read, termios.FIONREAD, count)
        return count[0]

    def _pump(self) -> None:
        while True:
            select.select([self._read], [], [])
            self._busy = True  # before anything is taken, so that flush always sees it in one place or the other
            data = os.read(self._read, CHUNK_BYTES)
            with suppress(OSError):  # the reader is gone: there is nobody to tell
                while data:
                    data = data[os.write(self._real, data) :]
            self._busy = False


def start() -> list[LogPump]:
    """Takes both outputs over; before rclpy is initialised, which asks whether they are terminals."""
    if os.isatty(2):
        os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "1")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return [LogPump(1), LogPump(2)]
