"""SIGINT and SIGTERM: the first asks a long run to stop in good order, the second stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A context in which `requested` turns true at the first signal; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python lets no one handle signals, it is never requested.
    """

    def __init__(self, say: str) -> None:
        """`say`: what the first signal prints to stderr."""
        self.requested = False
        self._say = say
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, f"\n{self._say}\n".encode())  # print() may have been interrupted itself
