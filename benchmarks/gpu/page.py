"""The section of docs/results.md about GPUs: what was measured, day by day, or that nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu import store, table
from sac_ae_ros.core.errors import RunError

NOTHING = """**Not measured yet.** No GPU was at hand so far. `benchmarks/gpu_day.py` measures all of this with one
command ([how](gpu.md)); it was rehearsed on a CPU, at small sizes, only. So nothing is known yet of

- the speed on a GPU: CUDA graphs, frames kept on the GPU, bfloat16, and rendering there are written and have never run;
  the goals are 5 times the published schedule and 300 updates/s at batch 128;
- the scores of the six published tasks at 100,000 env steps: the goals are a mean of 688 (DrQ) for `best`, and for
  `plain` SAC+AE's row within its interval. Below, one of the six stands, as far as a CPU went."""


def days(stored: Path) -> list[Path]:
    """Folders that gpu_day.py filled on a GPU, oldest first; rehearsals are no results."""
    folders = [path.parent for path in sorted(stored.glob("gpu/*/day.json"))]
    return [folder for folder in folders if is_result(store.read(folder / "day.json"))]


def left_out(stored: Path) -> list[str]:
    """Names of the folders that hold a rehearsal."""
    kept = days(stored)
    return [path.parent.name for path in sorted(stored.glob("gpu/*/day.json")) if path.parent not in kept]


def is_result(day: dict[str, Any]) -> bool:
    """Whether it ran on a GPU at the published sizes."""
    return str(day.get("device", "")).startswith("cuda") and not day.get("tiny", True)


def section(stored: Path) -> str:
    """Markdown, from `## GPU` on.

    Raises:
        RunError: a folder holds other files.
    """
    parts = [_checked(folder) for folder in days(stored)]
    return "\n\n".join(["## GPU", *(parts or [NOTHING])])


def _checked(folder: Path) -> str:
    try:
        return _day(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"gpu: expected the files of benchmarks/gpu_day.py in {folder}, got others"
            f" ({type(error).__name__}: {error}); copy them again or remove the folder"
        ) from error


def _day(folder: Path) -> str:
    day, speed = store.read(folder / "day.json"), store.read(folder / "speed.json")
    scores, tests = store.read(folder / "scores.json"), store.read(folder / "tests.json")
    versions = ", ".join(f"{name} {version}" for name, version in day["versions"].items())
    cut = [f"{name} ({row['state']})" for name, row in day["stages"].items() if not row["state"].startswith("done")]
    parts = [
        f"### {day['gpu']}, {day['date']}",
        f"Driver {day.get('driver') or 'unknown'}, {day['cpu']}, {day['cores']} cores; {versions}; source revision"
        f" `{day['revision']}`; {day['budget_s']:.0f} s for everything."
        + (f" Not finished: {', '.join(cut)}." if cut else " Every stage was finished."),
        _missing(speed, scores),
    ]
    tables = [
        table.updates(speed),
        table.renderers(speed),
        table.together(speed),
        table.scores(scores.get("runs", [])),
        table.tests(tests),
    ]
    parts += [table.markdown(rows) for rows in tables if len(rows) > 1]
    for name, text in (
        ("curves.png", "Learning curves of the six tasks"),
        ("reconstructions.png", "One strip a task: camera above reconstruction"),
    ):
        if (folder / name).exists():
            parts.append(f"![{text}](../benchmarks/results/gpu/{folder.name}/{name})")
    return "\n\n".join(part for part in parts if part)


def _missing(speed: dict[str, Any], scores: dict[str, Any]) -> str:
    lacks = [name for name in ("updates", "envs", "together") if name not in speed]
    judged = {(row["task"], row["profile"]) for row in scores.get("runs", []) if row["state"] == "complete"}
    text = f"Not measured: {', '.join(lacks)}. " if lacks else ""
    precision = "convolutions in bfloat16" if scores.get("bfloat16") else "float32"
    return (
        f"{text}{len(judged)} of the 12 rows (six tasks, `best` and `plain`) have a run that spent its 100,000 env"
        f" steps; a smaller number of env steps says where the time was up. Learned with {precision},"
        f" {scores.get('at_once', '–')} runs at once; each evaluation has 10 episodes."
    )
