"""The numbers of a day as rows, for the terminal and for docs/results.md."""

from __future__ import annotations

from typing import Any

from published import MEAN, SCORES, spread

from gpu import sizes
from gpu.artefacts import task_of
from gpu.scores import PROFILES
from sim_training.statistics import text

Rows = list[list[str]]


def updates(speed: dict[str, Any]) -> Rows:
    """One line for each variant of the learner."""
    head = ["learner", "batch", "graphs", "bfloat16", "updates/s", "× published", "share of", ""]
    lines = [head]
    for row in speed.get("updates", []):
        share = max(row["matrix_share"], row["copy_share"])
        cells = [row["schedule"], str(row["batch"]), _yes(row["cuda_graphs"]), _yes(row["bfloat16"])]
        cells += [text(row["updates_per_s"]), text(row["ratio"], 2), row["nearer"], f"{share:.0%}"]
        lines.append(cells)
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def renderers(speed: dict[str, Any]) -> Rows:
    """Env steps a second of each renderer."""
    envs = speed.get("envs", {})
    count = envs.get("processes", 16)
    lines = [["env steps/s of cheetah/run", "renderer", "1 process", f"{count} processes", ""]]
    for kind, row in envs.get("renderers", {}).items():
        if "missing" in row:
            lines.append([kind.upper(), "none works here, see speed.json", "–", "–", ""])
            continue
        rates = row["env_steps_per_s"]
        used = "used for the scores" if kind == envs["default"] else ""
        lines.append([kind.upper(), row["renderer"], text(rates["1"], 0), text(rates[str(count)], 0), used])
    return lines


def together(speed: dict[str, Any]) -> Rows:
    """Agent steps a second of so many trainings at once."""
    found = speed.get("together", {})
    lines = [["trainings at once", "agent steps/s together", ""]]
    for count, rate in found.get("agent_steps_per_s", {}).items():
        lines.append([count, text(rate), "used for the scores" if int(count) == found["default"] else ""])
    return lines


def scores(runs: list[dict[str, Any]]) -> Rows:
    """One line for each task: ours at the last evaluation, and published scores at 100k env steps."""
    head = ["task"]
    for profile in PROFILES:
        head += [profile, "env steps", "seeds"]
    lines = [[*head, "SAC+AE, 100k", "DrQ, 100k"]]
    means: dict[str, list[float]] = {profile: [] for profile in PROFILES}
    for task in sizes.TASKS:
        cells = [task_of(task)]
        for profile in PROFILES:
            judged = [row for row in runs if (row["task"], row["profile"]) == (task, profile) and "mean" in row]
            whole = [row for row in judged if row["judged_at"] >= sizes.ENV_STEPS] or judged[:1]
            if not whole:
                cells += ["–", "–", "0"]
                continue
            mean, steps = sum(row["mean"] for row in whole) / len(whole), min(row["judged_at"] for row in whole)
            if steps >= sizes.ENV_STEPS:
                means[profile].append(mean)
            cells += [text(mean), f"{steps:,}", str(len(whole))]
        published = SCORES[task_of(task)]
        lines.append([*cells, spread(*published[0], 0), spread(*published[2], 0)])
    cells = ["mean of six"]
    for profile in PROFILES:
        mean_of_six = sum(means[profile]) / 6 if len(means[profile]) == 6 else None
        cells += [text(mean_of_six), "", ""]
    return [*lines, [*cells, text(MEAN[0][0], 0), text(MEAN[2][0], 0)]]


def tests(found: dict[str, Any]) -> Rows:
    """One line for each test."""
    lines = [["test on the GPU", "outcome"]]
    for name, row in found.get("results", {}).items():
        reason = f": {row['reason']}" if row.get("reason") else ""
        lines.append([name.rpartition(".")[2], f"{row['outcome']}{reason}"[:70]])
    return lines


def plain(rows: Rows) -> str:
    """For a terminal; the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(w) if i and _number(rows, i) else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _number(rows: Rows, column: int) -> bool:
    return any(row[column][:1].isdigit() for row in rows[1:])


def markdown(rows: Rows) -> str:
    """As a Markdown table."""
    head, *body = rows
    ruler = ["---:" if i and _number(rows, i) else "---" for i in range(len(head))]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [head, ruler, *body]]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
