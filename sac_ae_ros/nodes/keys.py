"""The space bar of the terminal that a program was started from."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

LOOK_EVERY_S = 0.2


class Keys:
    """While this context lasts, the space bar calls something, from a thread of its own; Ctrl-C stays what it is."""

    def __init__(self, on_space: Callable[[], object] | None) -> None:
        """`on_space` None, no terminal, or one that belongs to another program at the moment: nothing is done."""
        self._on_space = on_space
        self._before: list | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._on_space is not None and _is_ours():
            self._before = termios.tcgetattr(0)
            tty.setcbreak(0, termios.TCSANOW)
            self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            termios.tcsetattr(0, termios.TCSANOW, self._before or [])

    def _read(self) -> None:
        while not self._ended.is_set():
            if not select.select([0], [], [], LOOK_EVERY_S)[0]:
                continue
            key = os.read(0, 1)
            if not key:  # the terminal went away
                return
            if key == b" " and self._on_space is not None:
                self._on_space()


def _is_ours() -> bool:
    try:
        return sys.stdin is not None and os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
