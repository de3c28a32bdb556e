"""One training that is judged at its end or when its time is up: `python -m gpu.train`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from gpu import sizes, store
from sim_training.agent import SacAeAgent
from sim_training.evaluate import EVAL_SEED, to_physical
from sim_training.trainer import Trainer

RESULT, POLICY = "result.json", "policy.pt"
PROBE_STEPS = 20
MARGIN, MARGIN_S = 1.5, 2.0  # on what an evaluation is expected to take


class JudgedTrainer(Trainer):
    """A trainer whose only checkpoint is its policy: a gigabyte of frames on disk would cost more than it tells."""

    def _checkpoint(self) -> None:
        self.learner.check_parameters()
        save_policy(self.agent, self.run_dir / POLICY)

    def evaluation_s(self) -> float:
        """Seconds that an evaluation will take, with a margin; measured on a few steps of one."""
        self.env.reset(seed=EVAL_SEED)
        obs, *_ = self.env.step(self.env.action_space.sample())
        self.agent.act(obs, sample=False)  # the first one loads libraries
        started = time.monotonic()
        for _ in range(PROBE_STEPS):
            obs, *_ = self.env.step(to_physical(self.env, self.agent.act(obs, sample=False)))
        step_s = (time.monotonic() - started) / PROBE_STEPS
        steps = self.config.run.eval_episodes * self.env.task.episode_steps / self.config.env.action_repeat
        return MARGIN * steps * step_s + MARGIN_S


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
    trainer = JudgedTrainer(config, args.out)
    try:
        returns = trainer.run(stop_at_s=args.until - trainer.evaluation_s())
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
