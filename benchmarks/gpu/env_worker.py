"""Steps one simulated robot and draws it when told to: `python -m gpu.env_worker`; see gpu.child.serve."""

from __future__ import annotations

import argparse

from gpu.child import serve
from sim_training.config import EnvConfig
from sim_training.envs.make import make_env

ENV = EnvConfig("cheetah/run", action_repeat=4)


def main() -> None:
    """Random actions; counts env steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=84)
    size = parser.parse_args().size
    env = make_env(EnvConfig(ENV.task, height=size, width=size, action_repeat=ENV.action_repeat))
    env.reset(seed=1)
    from OpenGL import GL  # once a context is current

    def step() -> int:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        return int(info["env_steps"])

    step()
    serve({"renderer": GL.glGetString(GL.GL_RENDERER).decode()}, step)


if __name__ == "__main__":
    main()
