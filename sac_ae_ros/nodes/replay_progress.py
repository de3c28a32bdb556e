"""How far a replay is: a bar for people at a terminal, a line now and then for logs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SAY_EVERY_S = 10.0
DRAW_EVERY_S = 0.2


class ReplayProgress:
    """Told each position, it shows some of them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` gets a line every ten seconds."""
        self._say: Callable[[str], None] | None = say
        self._bar: Any = None
        self._start_ns = self._end_ns = 0
        self._rounds = 0
        self._next_s = time.monotonic() + SAY_EVERY_S

    @classmethod
    def bar(cls) -> ReplayProgress:
        """Draws on stderr, which must be a terminal, or a pipe to one."""
        from tqdm import tqdm

        progress = cls(lambda text: None)
        columns = shutil.get_terminal_size().columns
        form = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s"
        progress._bar = tqdm(desc="replay", total=0, file=sys.stderr, leave=False, ncols=columns, bar_format=form)
        progress._next_s = 0.0
        return progress

    def begin(self, start_ns: int, end_ns: int) -> None:
        """A round begins, between these log times."""
        self._start_ns, self._end_ns = start_ns, end_ns
        self._rounds += 1

    def at(self, log_ns: int) -> None:
        """It has come to that log time."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        at_s, total_s = (log_ns - self._start_ns) * 1e-9, (self._end_ns - self._start_ns) * 1e-9
        if self._bar is None:
            self._next_s = now_s + SAY_EVERY_S
            if self._say is not None:
                self._say(f"at {at_s:.0f} of {total_s:.0f} s{self._round()}")
            return
        self._next_s = now_s + DRAW_EVERY_S
        self._bar.total, self._bar.n = total_s, min(max(at_s, 0.0), total_s)
        self._bar.desc = f"replay{self._round()}"
        with suppress(BlockingIOError):  # a terminal that is stopped holds nothing up
            self._bar.refresh()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            with suppress(BlockingIOError):
                self._bar.close()

    def _round(self) -> str:
        return f", round {self._rounds}" if self._rounds > 1 else ""
