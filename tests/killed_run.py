"""A tiny run that kills itself: `python -m killed_run RUN PLACE COUNT [resume] [disk]`.

PLACE is where it dies, at the COUNT-th time it gets there: `step` (the simulation has moved on, nothing is stored),
`update` (between the critic's step and the actor's), `sync` (data handed to the file system, not yet made durable),
`write` (half of an array written), `rename` (a folder about to get its final name). `nowhere` runs to the end.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_config import TINY
from tiny_runs import train, with_budget

from sim_training.agent import SacAeAgent
from sim_training.collect import Lockstep

STEPS = 230


def config(replay: str = "ram", env_steps: int = STEPS):
    return with_budget(replace(TINY, learn=replace(TINY.learn, replay_capacity=120)), env_steps, replay=replay)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable, count: int, *, after: bool, last_words: Callable = lambda *args: None) -> Callable:
    """`function`, which ends the process at its `count`-th call."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count and not after:
            last_words(*args)
            die()
        result = function(*args, **kwargs)
        if calls == count:
            die()
        return result

    return call


def main() -> None:
    run_dir, place, count, *rest = sys.argv[1:]
    times = int(count)
    if place == "step":
        Lockstep.finish = dying(Lockstep.finish, times, after=True)
    elif place == "update":
        SacAeAgent.update_actor_and_alpha = dying(SacAeAgent.update_actor_and_alpha, times, after=False)
    elif place == "sync":
        os.fsync = dying(os.fsync, times, after=False)
    elif place == "write":
        np.savez = dying(
            np.savez, times, after=False, last_words=lambda file, **_: (file.write(b"PK half"), file.flush())
        )
    elif place == "rename":
        Path.rename = dying(Path.rename, times, after=False)
    trainer = train(config("disk" if "disk" in rest else "ram"), Path(run_dir), resume="resume" in rest)
    assert trainer.env_step == STEPS


if __name__ == "__main__":
    main()
