"""Child: a node in a process of its own that never outlives the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from sac_ae_ros.core.errors import RunError
from sac_ae_ros.core.share import ROOT

GRACE_S = 5.0
PR_SET_PDEATHSIG = 1


class Child:
    """One `python -m MODULE`; what it prints goes to stderr."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Starts it. Call this before any thread is started, as a fork demands."""
        self.name = module.rpartition(".")[2]
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        parent = os.getpid()
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, "PYTHONPATH": python_path},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            preexec_fn=die_with_parent,
            process_group=0,  # Ctrl-C reaches the parent alone, which then ends it in order
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises RunError if it has ended."""
        if self._process.poll() is not None:
            raise RunError(
                f"{self.name}: expected it to run, but it ended with code {self._process.returncode};"
                " see its messages above"
            )

    def interrupt(self) -> None:
        """Asks it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Waits for its end after `interrupt`, and kills it if that takes too long."""
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
