"""From a config to its environment. Worker processes import this: it leaves torch out."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from sim_training.config import EnvConfig
from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.state_env import StateEnv
from sim_training.envs.task_env import TaskEnv


def make_env(config: EnvConfig) -> TaskEnv:
    """The environment of a config: StateEnv for `obs: state`, else PixelEnv.

    Raises:
        SimError: unknown task or renderer, or no rendering on this machine.
    """
    if config.obs == "state":
        return StateEnv(config.task, action_repeat=config.action_repeat)
    return PixelEnv(
        config.task,
        height=config.height,
        width=config.width,
        frame_stack=config.frame_stack,
        action_repeat=config.action_repeat,
        supersample=config.supersample,
        renderer=config.renderer,
    )


def make_vector_env(config: EnvConfig, count: int) -> AsyncVectorEnv:
    """`count` environments in processes of their own; observations come through shared memory, as copies.

    Each is reset when told to, by `reset(seed=[...], options={"reset_mask": ...})`. The processes never see SIGINT and
    SIGTERM, of which a terminal or a service manager sends one to each process of a group: what those mean is for this
    process to say. They end when it does.

    Raises:
        SimError: as in make_env.
    """
    with _without_signals():
        return AsyncVectorEnv(
            [functools.partial(make_env, config)] * count, context="spawn", autoreset_mode=AutoresetMode.DISABLED
        )


@contextmanager
def _without_signals() -> Iterator[None]:
    """Puts SIGINT and SIGTERM off in this thread; processes started meanwhile have them blocked for good."""
    resource_tracker.ensure_running()  # its start, otherwise with the first process, would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
