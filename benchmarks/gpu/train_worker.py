"""Acts, simulates, draws, stores and learns, one update a step, when told to: `python -m gpu.train_worker`."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from gpu import costs, sizes
from gpu.child import serve
from sim_training.agent import make_agent
from sim_training.collect import newest_frame
from sim_training.envs.make import make_env
from sim_training.evaluate import to_physical
from sim_training.learner import Learner, make_replay, prepare_process

WARM_UP = 24


class Loop:
    """A training in small: what `Trainer.run` does between two evaluations."""

    def __init__(self, config: sizes.TrainConfig, folder: Path) -> None:
        torch.manual_seed(0)
        prepare_process(1, config.run.device)
        self._config = config
        self._env = make_env(config.env)
        self._agent = make_agent(config, self._env)
        self._replay = make_replay(config, self._env, folder)
        self._learner = Learner(config, self._agent, self._replay, np.random.default_rng(0), folder)
        self._over, self._steps = True, 0
        for _ in range(config.learn.batch_size):
            self.step(learn=False)
        for _ in range(WARM_UP):
            self.step()

    def step(self, *, learn: bool = True) -> int:
        """One agent step."""
        if self._over:
            self._obs, _ = self._env.reset(seed=1)
            self._replay.start(newest_frame(self._obs))
        if learn:
            self._learner.update()
        action = self._agent.act(self._obs, sample=True)
        self._obs, reward, terminated, truncated, _ = self._env.step(to_physical(self._env, action))
        self._replay.add(action, reward, terminated, newest_frame(self._obs))
        self._over = terminated or truncated
        self._steps += 1
        if self._steps % 100 == 0:
            self._learner.check()
        return 1


def main() -> None:
    """Serves; see gpu.child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    config = sizes.run_config(
        "cheetah_run", "best", 1, bfloat16=args.bfloat16, env_steps=20_000, device=args.device, tiny=args.tiny
    )
    with TemporaryDirectory() as folder:
        loop = Loop(config, Path(folder))
        costs.synchronize(args.device)
        serve({}, loop.step)


if __name__ == "__main__":
    main()
