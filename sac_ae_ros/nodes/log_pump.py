"""Keeps a log that nobody reads from holding up the robot.

rclpy's logger writes while it holds the interpreter's lock. Once a pipe's reader is stopped (a suspended terminal, a
hung `ros2 launch`), the next line would hold every thread, the watchdog's too. So the process writes into pipes of its
own that never block; `cat` passes on what is in them, and what does not fit is lost. `cat` outlives the process: what
a crash has to say arrives.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress

SIZE_BYTES = 1 << 20
FLUSH_S = 0.5


class LogPump:
    """Stands between one of this process's outputs and whoever reads it."""

    def __init__(self, number: int) -> None:
        """Takes the file descriptor 1 or 2 over.

        Raises:
            OSError: no more processes or descriptors.
        """
        self._number, self._real = number, os.dup(number)
        read, write = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # an unprivileged user may have less
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, SIZE_BYTES)
        os.set_blocking(write, False)
        command = ["cat"]
        self._cat = subprocess.Popen(command, stdin=read, stdout=self._real, stderr=self._real, preexec_fn=_stay)
        os.dup2(write, number)
        os.close(read)
        os.close(write)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Gives the output back, and waits, but not for long, until everything is passed on.

        Returns whether it was, or still may be: the output can be written to, as far as is known.
        """
        os.dup2(self._real, self._number)
        with suppress(subprocess.TimeoutExpired):
            self._cat.wait(timeout_s)
        return not self._cat.poll()


def _stay() -> None:
    """What ends this process is not for `cat`: it ends when nobody can write into its pipe any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


def start() -> list[LogPump]:
    """Takes both outputs over; before rclpy is initialised, which asks whether they are terminals."""
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: a file opened later must not take its place
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    if os.isatty(2):
        os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "1")
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    return [LogPump(1), LogPump(2)]
