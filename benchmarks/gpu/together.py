"""How many trainings at once make the most agent steps a second together: `python -m gpu.together`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpu import store
from gpu.child import Pool

START_S = 16.0
ENOUGH = 1.05  # more processes must gain at least this much, as each of them gets slower


def most_useful(rates: dict[int, float]) -> int:
    """The smallest number of runs beyond which no larger one gains more than five per cent."""
    best = max(rates.values())
    return min(count for count, rate in rates.items() if rate * ENOUGH >= best)


def main() -> None:
    """Measures and stores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="speed.json")
    parser.add_argument("--counts", type=int, nargs="+", default=[6, 3, 1, 12, 9], help="the most telling first")
    parser.add_argument("--seconds", type=float, default=1.2, help="for each count (default: 1.2)")
    args, worker = parser.parse_known_args()
    rates: dict[int, float] = {}
    with Pool("gpu.train_worker", 0, worker, sys.stderr) as pool:
        ready = 0
        for count in args.counts:
            if count > ready:  # the first counts do not wait for the last workers, nor beside their start
                pool.grow(count)
                pool.answers(count, START_S, ready)
                ready = count
            answers = pool.work(count, args.seconds)
            rates[count] = sum(answer["count"] / answer["seconds"] for answer in answers)
            known = {str(each): rates[each] for each in sorted(rates)}
            store.put(args.out, together={"agent_steps_per_s": known, "default": most_useful(rates)})


if __name__ == "__main__":
    main()
