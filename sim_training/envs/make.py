"""From a config to its environment. Worker processes import this: it leaves torch out."""

from __future__ import annotations

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
