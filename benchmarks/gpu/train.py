"""One training that is judged at its end or when its time is up: `python -m gpu.train`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from gpu import sizes, store
from gpu.store import POLICY, RESULT
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.evaluate import EVAL_SEED, Returns
from sim_training.trainer import Trainer

PROBE_STEPS = 20
MARGIN, MARGIN_S = 1.5, 2.0  # on what an evaluation is expected to take


class JudgedTrainer(Trainer):
    """A trainer that leaves itself time for its last evaluation, and whose only checkpoint is its policy.

    How long an evaluation will take is measured again at every row of the log, as others share the GPU, and is
    taken from the last evaluation once there was one. A whole checkpoint would be a gigabyte of frames.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, until_s: float) -> None:
        """`until_s`: reading of time.monotonic by which all must be done."""
        super().__init__(config, run_dir)
        self._until_s = until_s
        self.stop_at_s = until_s
        self._env_step_s = self._probe_env_s()
        self._reserve(self._expected_s())

    def train(self) -> Returns:
        """Trains and judges; see Trainer.run."""
        return self.run(stop_at_s=self.stop_at_s)

    def _probe_env_s(self) -> float:
        """Seconds of one agent step of the simulation."""
        self.env.reset(seed=EVAL_SEED)
        self.env.step(self.env.action_space.sample())
        started = time.monotonic()
        for _ in range(PROBE_STEPS):
            self._seen, *_ = self.env.step(self.env.action_space.sample())
        return (time.monotonic() - started) / PROBE_STEPS

    def _expected_s(self) -> float:
        """Seconds of an evaluation, by the policy's speed at this moment."""
        self.agent.act(self._seen, sample=False)  # waits for updates under way, and loads libraries at first
        started = time.monotonic()
        for _ in range(PROBE_STEPS):
            self.agent.act(self._seen, sample=False)
        act_s = (time.monotonic() - started) / PROBE_STEPS
        steps = self.config.run.eval_episodes * self.env.task.episode_steps / self.config.env.action_repeat
        return steps * (act_s + self._env_step_s)

    def _reserve(self, seconds: float) -> None:
        self.stop_at_s = self._until_s - MARGIN * seconds - MARGIN_S

    def _log(self) -> None:
        super()._log()
        if not self._evaluated:
            self._reserve(self._expected_s())

    def _evaluate(self) -> Returns | None:
        started = time.monotonic()
        result = super()._evaluate()
        self._reserve(time.monotonic() - started)
        return result

    def _checkpoint(self) -> None:
        self.learner.check_parameters()
        save_policy(self.agent, self.run_dir / POLICY)


def save_policy(agent: SacAeAgent, path: Path) -> None:
    """Encoder and actor as float16: what acts, and nothing else."""
    own = {name: tensor for name, tensor in agent.state_dict().items() if name.startswith(("encoder", "actor"))}
    state = {name: tensor.half().cpu() for name, tensor in own.items()}
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def main() -> None:
    """Trains, judges, and leaves RESULT and POLICY beside the run's own files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--task", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--until", type=float, required=True, help="reading of time.monotonic to be done by")
    parser.add_argument("--env-steps", type=int, default=sizes.ENV_STEPS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    config = sizes.run_config(
        args.task,
        args.profile,
        args.seed,
        bfloat16=args.bfloat16,
        env_steps=args.env_steps,
        device=args.device,
        tiny=args.tiny,
    )
    trainer = JudgedTrainer(config, args.out, args.until)
    try:
        returns = trainer.train()
        store.put(
            args.out / RESULT,
            env_steps=trainer.env_step,
            update_steps=trainer.agent.update_step,
            budget=config.run.env_steps,
            mean=returns.mean,
            sd=returns.sd,
            episodes=len(returns.returns),
        )
    finally:
        trainer.close()


if __name__ == "__main__":
    main()
