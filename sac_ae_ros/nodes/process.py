"""How a node's process starts, takes signals and ends: with rclpy's own handlers it could not send stops."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.logging import LoggingSeverity, get_logger, get_logger_level, set_logger_level
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from sac_ae_ros.core.errors import ConfigError, SacAeError, printable, quote
from sac_ae_ros.nodes import given, log_pump, rclpy_guard
from sac_ae_ros.nodes.parameter_types import mismatch_of

# Set by this package's launch files to the process id of `ros2 launch`. Nodes started in any other way don't have it.
LAUNCH_PID = "SAC_AE_ROS_LAUNCH_PID"
# A terminal and a supervisor may each pass the same Ctrl-C on; the last stops go out meanwhile.
SAME_REQUEST_S = 1.0
COULD_NOT_START = 2  # exit code
MAX_DOMAIN_ID = 232  # its ports end at 65535
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# rcl's words where a read-only home keeps it from ~/.ros/log
_NO_LOG = re.compile(r"initialize logging|log directory|\.log for writing")
_SOURCE = re.compile(r",? at /\S+:\d+|^failed to initialize rcl: ")  # where in rcl's sources it was
_MIXED = "Sequence should be of same type"
ONE_TYPE = "; expected a list with items of one type, such as [1.0, 2.5] instead of [1, 2.5]"
NO_LOG = "; expected a folder for logs that can be written to: set ROS_LOG_DIR to one"

SomeNode = TypeVar("SomeNode", bound=Node)


class EndRequest:
    """SIGINT, SIGTERM, SIGHUP: the first asks for an orderly end, one after SAME_REQUEST_S ends the process at once.

    The end of the launch that started this process asks for an orderly end too: launch that is killed, also by SIGTERM,
    tells its processes nothing. One that is interrupted may pass SIGINT on which this process has got from the terminal
    already, and rather late on a busy machine: from launch a second SIGINT is the same request.
    """

    def __init__(self, stdout: log_pump.LogPump | None = None) -> None:
        """Takes the signals; call it in the main thread. Under nohup SIGHUP stays ignored."""
        self.code = 0
        self._stdout = stdout
        # a pipe, not an Event: a handler that sets one while its own thread is about to wait for it waits for ever
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._first_s: float | None = None
        self._outcome: int | None = None
        self._launch = int(os.environ.get(LAUNCH_PID, "0"))
        self._repeats = 1 if self._launch else 0
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)

    def wait(self, timeout_s: float) -> bool:
        """Waits for a signal; returns whether there was one, or whether the launch has ended."""
        if self._launch and not _descends_from(self._launch):
            self._launch = 0
            get_logger("sac_ae_ros").warning("the launch that started this node has ended: ending as at SIGTERM")
            self._ask()
        return bool(select.select([self._read], [], [], timeout_s)[0])

    def finish(self, code: int) -> None:
        """Notes that the node's work is done: another signal may hurry the process's end, but its code is this one."""
        self._outcome = code

    def delivered(self) -> bool:
        """Ends the pump of stdout; returns whether all that was written has left it, as far as is known by now."""
        return self._stdout is None or self._stdout.flush()

    def give(self, code: int) -> None:
        """Asks for an end from within, with that exit code."""
        self.code = code
        self._ask()

    def _take(self, number: int, _: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            self._ask()
        elif number == signal.SIGINT and self._repeats:
            self._repeats -= 1
        elif now_s - self._first_s > SAME_REQUEST_S:
            os._exit(128 + number if self._outcome is None else self._outcome)

    def _ask(self) -> None:
        with suppress(BlockingIOError):  # full: asked often enough
            os.write(self._write, b"!")


def _descends_from(ancestor: int) -> bool:
    """Whether that process still runs and started this one, be it through a launch-prefix such as xterm or gdb."""
    pid = os.getppid()
    while pid not in (ancestor, 0, 1):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has just ended, and this process gets another parent
            return True
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == ancestor


def run(
    make: Callable[[Sequence[str]], SomeNode],
    use: Callable[[SomeNode, EndRequest], int],
    args: Sequence[str] | None,
) -> int:
    """Initialises rclpy, makes a node and uses it; returns the exit code of that.

    `make` gets the arguments: `args`, or the command line's where that is None. A node that cannot start gets one
    line on stderr that says why, and exit code 2.
    """
    pumps = log_pump.start()  # first: it sees to it that no pipe takes the place of a closed output
    try:
        return _run(EndRequest(pumps[0]), make, use, sys.argv if args is None else args)
    except Exception:  # told while the outputs are still read
        traceback.print_exc()
        return 1
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        for pump in pumps:
            pump.flush()
        for number in SIGNALS:  # Python's own end would leave them to kill the process
            signal.signal(number, signal.SIG_IGN)


def _run(
    end: EndRequest,
    make: Callable[[Sequence[str]], SomeNode],
    use: Callable[[SomeNode, EndRequest], int],
    args: Sequence[str],
) -> int:
    try:
        _check_domain()
        given.check_files(args)
        set_logger_level("rcl", LoggingSeverity.FATAL)  # it says in a line of its own that init failed
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
        if get_logger_level("rcl") == LoggingSeverity.FATAL:  # --log-level has not set it
            set_logger_level("rcl", LoggingSeverity.UNSET)
    except ConfigError as error:
        return _refuse(error)
    except RuntimeError as error:  # the base of what rclpy raises for ROS arguments that it cannot read
        hint = NO_LOG if _NO_LOG.search(str(error)) else ONE_TYPE if _MIXED in str(error) else ""
        return _refuse(RuntimeError(f"{_SOURCE.sub('', str(error))}{hint}"))
    try:
        node = make(args)
    except InvalidParameterTypeException as error:  # of a parameter that rclpy declares
        return _refuse(ConfigError(mismatch_of(error)))
    except (SacAeError, ParameterException) as error:
        return _refuse(error)
    rclpy_guard.guard(node)
    code = use(node, end)
    end.finish(code)
    node.destroy_node()
    rclpy.shutdown()
    return code


def spin(executor: Executor) -> str:
    """Spins until the executor or its context is shut down; returns the traceback of a defect that ended it, or ""."""
    try:
        executor.spin()
    except ExternalShutdownException:  # rclpy's, where the context is shut down first: somebody's wish, no defect
        return ""
    except Exception:
        return traceback.format_exc()
    return ""


def _check_domain() -> None:
    """Raises ConfigError for a ROS_DOMAIN_ID that Fast DDS refuses in raw lines, or that rcl takes for the default."""
    text = os.environ.get("ROS_DOMAIN_ID", "")
    try:
        number = int(text, 0)  # with prefixes, as rcl reads it
    except ValueError:
        return
    if not 0 <= number <= MAX_DOMAIN_ID:
        raise ConfigError(f"ROS_DOMAIN_ID: expected 0 to {MAX_DOMAIN_ID}, got {quote(text)}")


def _refuse(error: Exception) -> int:
    print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    rclpy.try_shutdown()
    return COULD_NOT_START
