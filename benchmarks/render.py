#!/usr/bin/env python3
"""Frames per second of the fast renderer beside dm_control's own, alternating in one process.

Example: python benchmarks/render.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from sim_training import machine
from sim_training.envs import tasks
from sim_training.envs.rendering import Renderer, make_renderer


def frames_per_s(renderer: Renderer, task: tasks.Task, frames: int) -> float:
    """Draws after each physics step, so that no picture can be reused; the steps are not counted."""
    spent_s = 0.0
    for _ in range(frames):
        task.env.physics.step()
        started = time.perf_counter()
        renderer.render()
        spent_s += time.perf_counter() - started
    return frames / spent_s


def compare(name: str, size: int, rounds: int, frames: int) -> dict[str, float]:
    """Median frames per second of both, and the median of the rounds' ratios."""
    fast_task, stock_task = tasks.load(name), tasks.load(name)
    fast = make_renderer("fast", fast_task.env.physics, fast_task.camera, size, size)
    stock = make_renderer("stock", stock_task.env.physics, stock_task.camera, size, size)
    try:
        for renderer, task in ((fast, fast_task), (stock, stock_task)):
            task.env.reset()
            renderer.render()  # contexts are made at the first picture
        pairs = [
            (frames_per_s(fast, fast_task, frames), frames_per_s(stock, stock_task, max(5, frames // 10)))
            for _ in range(rounds)
        ]
    finally:
        fast.close()
        stock.close()
    return {
        "fast_fps": statistics.median(pair[0] for pair in pairs),
        "stock_fps": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def main() -> None:
    """Prints a table, or one JSON object whose "ratio" is the smallest of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["rover/chase_ball", "cheetah/run", "cartpole/swingup"])
    parser.add_argument("--size", type=int, default=84, help="height and width, pixels (default: 84)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations (default: 3)")
    parser.add_argument("--frames", type=int, default=200, help="fast frames in a round (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    rows = {name: compare(name, args.size, args.rounds, args.frames) for name in args.tasks}
    if args.json:
        ratio = min(row["ratio"] for row in rows.values())
        print(json.dumps({"ratio": ratio, "size": args.size, "tasks": rows, **machine.facts()}))
        return
    print(f"{'task':<20}{'fast fps':>10}{'stock fps':>11}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:<20}{row['fast_fps']:>10.0f}{row['stock_fps']:>11.1f}{row['ratio']:>8.1f}")


if __name__ == "__main__":
    main()
