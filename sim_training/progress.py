"""How far a run is and how fast: a bar for people, numbers for the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tqdm import tqdm


class Progress:
    """Counts env steps and updates of this process; a context, in which its bar is shown."""

    def __init__(self, name: str, total_env_steps: int, env_step: int, seconds: float) -> None:
        """`env_step` and `seconds`: what earlier processes of this run have done and taken."""
        self._before_s, self._started = seconds, time.monotonic()
        self._interactive = sys.stderr.isatty()
        self._updates_per_s = 0.0
        self._forget()
        self._bar = tqdm(
            total=total_env_steps,
            initial=env_step,
            unit=" env steps",
            desc=f"train {name}",
            mininterval=0.5 if self._interactive else 15,  # a log file wants a line now and then
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Seconds spent in this run, those of earlier processes included."""
        return self._before_s + time.monotonic() - self._started

    def stepped(self, env_steps: int) -> None:
        """The simulation went on."""
        self._env_steps += env_steps
        self._bar.update(env_steps)

    def updated(self) -> None:
        """The learner made an update."""
        self._updates += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The learner waits for the simulation."""
        started = time.monotonic()
        yield
        self._waited_s += time.monotonic() - started

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done here, an evaluation or a checkpoint, does not count as slow learning."""
        started = time.monotonic()
        yield
        self._since += time.monotonic() - started

    def tell(self, text: str, best: float) -> None:
        """Shows a few words behind the bar."""
        known = f"{best:.1f}" if np.isfinite(best) else "none yet"
        words = f"{self._updates_per_s:.1f} updates/s, {text}, best eval {known}"
        self._bar.set_postfix_str(words, refresh=self._interactive)

    def speeds(self) -> dict[str, float]:
        """Rates since the last call, per second, and the share of that time in which the learner waited."""
        spent_s = time.monotonic() - self._since
        self._updates_per_s = self._updates / spent_s
        rates = {
            "updates_per_s": self._updates_per_s,
            "env_steps_per_s": self._env_steps / spent_s,
            "wait_share": min(1.0, self._waited_s / spent_s),
        }
        self._forget()
        return rates

    def _forget(self) -> None:
        self._since = time.monotonic()
        self._env_steps = self._updates = 0
        self._waited_s = 0.0
