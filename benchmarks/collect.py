#!/usr/bin/env python3
"""Env steps per second of training in lockstep and with environments in processes of their own, alternating.

Each round trains anew for a few hundred agent steps and reads the speed from the run's own log, after the catch-up
updates. "wait_share" is the part of the time in which the learner waited for the simulation, "ratio" async / lockstep.

Examples:
  python benchmarks/collect.py --json
  python benchmarks/collect.py --config config/train/cheetah_run.yaml --envs 4 --agent-steps 200 --run.device=cuda
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from sim_training import config as configs
from sim_training import machine, metrics
from sim_training.trainer import Trainer

RANDOM_STEPS = 100
LEAST_STEPS = 100  # two rows of the log, of which the first has the catch-up updates in it


def speed(config: Path, overrides: Sequence[str], agent_steps: int, folder: Path) -> dict[str, float]:
    """Trains once; env steps per second and the learner's waiting after the random phase."""
    repeat = configs.parse(overrides, path=config).env.action_repeat
    env_steps = (RANDOM_STEPS + agent_steps) * repeat
    limits = [f"--run.env_steps={env_steps}", f"--learn.random_steps={RANDOM_STEPS}", "--run.eval_episodes=1"]
    limits += [f"--run.checkpoint_every={env_steps}", f"--run.eval_every={env_steps}", "--run.log_every=50"]
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        trainer = Trainer(configs.parse([*overrides, *limits], path=config), folder)
        try:
            trainer.run()
        finally:
            trainer.close()
    rows = [row for row in metrics.read(folder / "train.csv") if "env_steps_per_s" in row][1:]
    return {name: statistics.fmean(row[name] for row in rows) for name in ("env_steps_per_s", "wait_share")}


def agent_steps(text: str) -> int:
    """Checks --agent-steps."""
    if not text.isdecimal() or int(text) < LEAST_STEPS:
        raise argparse.ArgumentTypeError(f"expected at least {LEAST_STEPS}, as the log has a row in 50, got {text}")
    return int(text)


def device(config: Path, overrides: Sequence[str]) -> str:
    """Where the learner runs, such as `cuda`."""
    return configs.parse(overrides, path=config).run.device


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/train/rover_chase_ball.yaml"))
    parser.add_argument("--envs", type=int, default=2, help="processes of async collection (default: 2)")
    parser.add_argument("--agent-steps", type=agent_steps, default=300, help="measured steps in a round (default: 300)")
    parser.add_argument("--rounds", type=int, default=2, help="alternations (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args, overrides = parser.parse_known_args()
    kinds = {
        "lockstep": ["--run.collect=lockstep"],
        "async": ["--run.collect=async", f"--run.envs={args.envs}"],
    }
    rounds: list[dict[str, dict[str, float]]] = []
    with TemporaryDirectory() as folder:
        for number in tqdm(range(args.rounds), desc="rounds", disable=args.json):
            runs = {
                name: speed(args.config, [*overrides, *kind], args.agent_steps, Path(folder, f"{name}{number}"))
                for name, kind in kinds.items()
            }
            rounds.append(runs)
    rows = {
        name: {key: statistics.median(row[name][key] for row in rounds) for key in ("env_steps_per_s", "wait_share")}
        for name in kinds
    }
    ratio = statistics.median(row["async"]["env_steps_per_s"] / row["lockstep"]["env_steps_per_s"] for row in rounds)
    if args.json:
        result = {"ratio": ratio, "rows": rows, "envs": args.envs, "config": os.fspath(args.config)}
        print(json.dumps({**result, **machine.facts(device(args.config, overrides))}))
        return
    print(f"{'':<10}{'env steps/s':>13}{'learner waits':>15}")
    for name, row in rows.items():
        print(f"{name:<10}{row['env_steps_per_s']:>13.1f}{row['wait_share']:>15.1%}")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
