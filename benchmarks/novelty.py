#!/usr/bin/env python3
"""What the novelty guard detects on the shipped rover, how soon, and how often it is wrong.

Drives the rover in simulation through the robot's own ImageToCommand, undisturbed for hours, and with something wrong
from the middle of each episode on; keeps every frame's readings in --out, where an interrupted measurement goes on; and
judges them. The policy file's statistics, the undisturbed drives and the disturbed ones are of seeds that never meet.

Examples:
  python benchmarks/novelty.py --json
  python benchmarks/novelty.py --hours 10 --episodes 40 --keep     # writes docs/novelty.md and its pictures anew
  python benchmarks/novelty.py --page                              # the page alone, from the numbers kept
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import novelty_judge as judge
import novelty_page
import novelty_pictures as pictures
import numpy as np
from novelty_disturbances import NOTHING
from novelty_judge import Persistence, Scored
from novelty_record import CHUNK, ONSET, Records, onset_of, record
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SacAeError
from sac_ae_ros.core.novelty import NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import NoveltyStats
from sim_training import machine

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "novelty"
IMAGES = ROOT / "docs" / "images"

# The node's defaults, config/policy.yaml, but for `stop`: the node never stops unless told to, and here it is told.
EVERY = 2
LIMITS = NoveltyLimits(warn=1.2, stop=1.5, m=3, n=5)

HOW = Persistence(EVERY, LIMITS.m, LIMITS.n)
OTHERS = [  # thresholds and persistences beside the defaults
    *((threshold, HOW) for threshold in (1.0, 1.1, 1.2, 1.5, 2.0, 3.0)),
    *((LIMITS.warn, Persistence(every, m, n)) for every, m, n in ((5, 3, 5), (1, 3, 5), (2, 1, 1), (1, 1, 1))),
]
Judged = tuple[Scored, Mapping[tuple[str, str], Scored]]  # undisturbed and disturbed
COVER_LEVELS = range(0, 256, 15)  # of each colour
BEFORE, AFTER = 20, 40  # ticks of the plot
DRAWN = [  # on it
    (NOTHING.group, NOTHING.name),
    ("cover", "black"),
    ("light", "lamps ×0.5"),
    ("camera", "another robot's"),
    ("ball", "blue"),
    ("camera", "60° instead of 75°"),
    ("blur", "σ = 4 of 128 px"),
    ("camera", "mirrored"),
]


def results(policy: OnnxPolicy, records: Records) -> dict[str, Any]:
    """Everything that the page says, as JSON values."""
    stats, period_s = policy.spec.novelty, policy.spec.control_period_s
    both = _score(stats, records)
    unchanged, disturbed = both
    calm = disturbed[NOTHING.group, NOTHING.name]
    alone = {"error": replace(stats, variance_quantiles={}), "variance": replace(stats, quantiles={})}
    others = [("both", both, *choice) for choice in OTHERS]
    others += [(name, _score(part, records), LIMITS.warn, HOW) for name, part in alone.items()]
    return {
        "policy": {"name": policy.spec.name, "version": policy.spec.version, "sha256": policy.sha256},
        "period_s": period_s,
        "limits": {"every": EVERY, **vars(LIMITS)},
        "unchanged": judge.unchanged_facts(unchanged, LIMITS, EVERY, period_s),
        "disturbances": [
            {"group": group, "name": name, **judge.disturbance_row(scored, calm, LIMITS, EVERY, period_s)}
            for (group, name), scored in disturbed.items()
        ],
        "others": [_other(*other, period_s) for other in others],
        "best_cover": best_cover(policy),
        "series": {novelty_page.title(group, name): _series(disturbed[group, name]) for group, name in DRAWN},
        "cost_ms": cost_ms(policy),
        "statistics": {"frames": stats.frames, "error": stats.quantiles, "variance": stats.variance_quantiles},
        "machine": machine.facts(),
    }


def _score(stats: NoveltyStats, records: Records) -> Judged:
    return judge.score(stats, records.unchanged), {
        key: judge.score(stats, rows) for key, rows in records.disturbed.items()
    }


def _other(judged_by: str, judged: Judged, threshold: float, how: Persistence, period_s: float) -> dict[str, Any]:
    """The same readings judged otherwise: false alarms, and detections over all disturbances."""
    unchanged, disturbed = judged
    kinds = [scored for (group, _), scored in disturbed.items() if group != NOTHING.group]
    found = [delay for scored in kinds for delay in judge.delays(scored, threshold, how, period_s)]
    delays = [delay for delay in found if delay is not None]
    return {
        "judged_by": judged_by,
        "threshold": threshold,
        **vars(how),
        "false": judge.false_alarms(unchanged, threshold, how, period_s),
        "share": len(delays) / len(found),
        "median_s": statistics.median(delays),
    }


def _series(scored: Scored) -> list[float]:
    """Median scores of the ticks around the onset."""
    aligned = [row[onset_of(i) - BEFORE : onset_of(i) + AFTER] for i, row in enumerate(scored.scores)]
    return [float(f"{value:.4g}") for value in np.median(aligned, axis=0)]


def best_cover(policy: OnnxPolicy) -> dict[str, Any]:
    """The one-coloured cover of the lens that is reconstructed best: its colour, its error and that error's score."""
    camera, stats = policy.spec.camera, policy.spec.novelty
    shape = (policy.spec.frame_stack, 3, camera.height, camera.width)
    errors = {}
    for color in product(COVER_LEVELS, repeat=3):
        stack = np.broadcast_to(np.array(color, np.uint8)[:, None, None], shape).reshape(-1, *shape[2:])
        errors[color] = policy.act(stack, want_novelty=True).novelty or 0.0
    best = min(errors, key=lambda color: errors[color])
    guard = NoveltyGuard(replace(stats, variance_quantiles={}), LIMITS)
    return {"color": best, "error": errors[best], "score": guard.judge_measured(errors[best], 0.0).score}


def cost_ms(policy: OnnxPolicy, rounds: int = 300) -> dict[str, float]:
    """Median milliseconds of a tick without and with a measurement, alternating in one process."""
    camera, rng = policy.spec.camera, np.random.default_rng(0)
    shape = (3 * policy.spec.frame_stack, camera.height, camera.width)
    stack: NDArray[np.uint8] = rng.integers(0, 256, shape, np.uint8)
    frame, guard = np.ascontiguousarray(stack[-3:].transpose(1, 2, 0)), NoveltyGuard(policy.spec.novelty, LIMITS)
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for wanted, times in spent.items():
            started = time.perf_counter()
            output = policy.act(stack, wanted)
            if output.novelty is not None:
                guard.judge(output.novelty, frame)
            times.append(1e3 * (time.perf_counter() - started))
    without, measured = (statistics.median(spent[wanted]) for wanted in (False, True))
    return {"without": without, "with": measured}


def keep(result: Mapping[str, Any], records: Records, policy: OnnxPolicy) -> None:
    """Stores the numbers and draws the pictures."""
    STORED.mkdir(parents=True, exist_ok=True)
    (STORED / "novelty.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    guard = NoveltyGuard(policy.spec.novelty, LIMITS)
    scores = {key: guard.judge(shot.error, shot.frame).score for key, shot in records.shots.items()}
    pictures.sheet(records.shots, scores, IMAGES / "novelty_frames.png")
    facts = {**result["limits"], "before_s": BEFORE * result["period_s"], "period_s": result["period_s"]}
    pictures.over_time(result["series"], facts, IMAGES / "novelty_scores.png")


def write_page() -> None:
    """Writes docs/novelty.md from what is stored."""
    (ROOT / "docs" / "novelty.md").write_text(novelty_page.page(STORED))


def main() -> int:
    """Prints the tables, or one JSON object; or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=ROOT / "models" / "rover_chase_ball.onnx")
    parser.add_argument("--out", type=Path, default=Path("runs/novelty"), help="the readings (default: runs/novelty)")
    parser.add_argument("--hours", type=float, default=5.0, help="undisturbed, of simulated time (default: 5)")
    parser.add_argument("--episodes", type=int, default=20, help="of each disturbance (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--keep", action="store_true", help="store the numbers, draw the pictures, write the page")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the numbers stored")
    args = parser.parse_args()
    if args.page:
        write_page()
        return 0
    try:
        policy = OnnxPolicy.load(args.policy)
        seconds = 2 * ONSET * policy.spec.control_period_s * CHUNK
        chunks = max(1, round(args.hours * 3600 / seconds))
        records = record(policy, args.out / policy.sha256[:12], chunks, args.episodes, args.json)
    except SacAeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = results(policy, records)
    if args.keep:
        keep(result, records, policy)
        write_page()
    print(json.dumps(result) if args.json else novelty_page.tables(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
