"""Scores that others published, and their table; sources are named on the page, benchmarks/results/page.md."""

from __future__ import annotations

from dataclasses import dataclass

from sim_training.statistics import text


@dataclass(frozen=True)
class Published:
    """A published score: mean and sd of the return after so many env steps."""

    method: str
    env_steps: int
    mean: float
    sd: float | None
    seeds: str


SEEDS = {"SAC+AE": "10", "DrQ": "–"}
COLUMNS = (("SAC+AE", 100_000), ("SAC+AE", 500_000), ("DrQ", 100_000), ("DrQ", 500_000))
SCORES: dict[str, tuple[tuple[float, float | None], ...]] = {
    "finger/spin": ((740, 64), (884, 128), (901, 104), (938, 103)),
    "cartpole/swingup": ((311, 11), (735, 63), (759, 92), (868, 10)),
    "reacher/easy": ((274, 14), (627, 58), (601, 213), (942, 71)),
    "cheetah/run": ((267, 24), (550, 34), (344, 67), (660, 96)),
    "walker/walk": ((394, 22), (847, 48), (612, 164), (921, 45)),
    "ball_in_cup/catch": ((391, 82), (794, 58), (913, 53), (963, 9)),
}
MEAN = ((396, None), (740, None), (688, None), (882, None))


def published(tasks: set[str]) -> list[Published]:
    """Published scores of one task, or the means over exactly the six tasks that have them."""
    scores = MEAN if tasks == set(SCORES) else SCORES.get(next(iter(tasks)), ()) if len(tasks) == 1 else ()
    return [
        Published(method, env_steps, mean, sd, SEEDS[method])
        for (method, env_steps), (mean, sd) in zip(COLUMNS, scores, strict=False)
    ]


def published_table() -> str:
    """All published scores as a Markdown table."""
    lines = ["| task | " + " | ".join(f"{method} {steps // 1000}k" for method, steps in COLUMNS) + " |"]
    lines.append("|---" * 5 + "|")
    for task, scores in [*SCORES.items(), ("mean", MEAN)]:
        lines.append(f"| {task} | " + " | ".join(spread(mean, sd, 0) for mean, sd in scores) + " |")
    return "\n".join(lines)


def spread(mean: float | None, sd: float | None, digits: int = 1) -> str:
    """`mean ± sd`, or the mean alone."""
    return text(mean, digits) if sd is None else f"{text(mean, digits)} ± {text(sd, digits)}"
