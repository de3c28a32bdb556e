"""The table of a sweep: reads OUT/<config>-<row>/{row.json,seed<k>/}, sums up over seeds, prints and writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from sac_ae_ros.core.errors import RunError
from sim_training import metrics, statistics
from sim_training.config import PROFILES, write_text
from sim_training.statistics import Score, Summary

ROW_FILE = "row.json"


@dataclass(frozen=True)
class Row:
    """One row's runs as they lie in their folder.

    Args:
        config: name of the training config, the same for all rows that are compared.
        row: the profile or variant.
        env_steps: budget of the runs.
        scores: of the complete runs, by seed.
        unfinished: seeds of the runs that have not spent their budget.
        folder: where the runs are.
    """

    config: str
    row: str
    env_steps: int
    scores: dict[int, Score]
    unfinished: tuple[int, ...]
    folder: Path


def read(out: Path) -> list[Row]:
    """All rows of a sweep, sorted: by config, then plain, best and the variants.

    Raises:
        RunError: no sweep lies there.
    """
    rows = [read_row(path.parent) for path in sorted(out.glob(f"*/{ROW_FILE}"))]
    if not rows:
        raise RunError(f"sweep: expected a folder with <config>-<row>/{ROW_FILE} in it, {out} has none")
    order = {name: index for index, name in enumerate(reversed(PROFILES))}
    return sorted(rows, key=lambda row: (row.config, order.get(row.row, len(order)), row.row))


def read_row(folder: Path) -> Row:
    """One row; runs that have not begun are left out."""
    facts = json.loads((folder / ROW_FILE).read_text())
    runs = {seed_of(path): path for path in folder.glob("seed*") if (path / "config.yaml").is_file()}
    budgets = {seed: budget(path) for seed, path in runs.items()}
    found = {seed: statistics.score(metrics.read(runs[seed] / "eval.csv"), budgets[seed]) for seed in sorted(runs)}
    return Row(
        config=facts["config"],
        row=facts["row"],
        env_steps=max(budgets.values(), default=0),
        scores={seed: score for seed, score in found.items() if score is not None},
        unfinished=tuple(seed for seed, score in found.items() if score is None),
        folder=folder,
    )


def seed_of(run_dir: Path) -> int:
    """The seed in the name of a run's folder."""
    return int(run_dir.name.removeprefix("seed"))


def budget(run_dir: Path) -> int:
    """A run's env steps; read without the typed config, so that runs of earlier versions stay readable."""
    try:
        return int(yaml.safe_load((run_dir / "config.yaml").read_text())["run"]["env_steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise RunError(f"sweep: expected a training config with run.env_steps, got {run_dir / 'config.yaml'}") from None


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """A line for each row, and, of several configs, one over all of them for each row that every config has."""
    lines = [statistics.summarise(row.config, row.row, row.env_steps, [row.scores]) for row in rows]
    configs = {row.config for row in rows}
    for name in dict.fromkeys(row.row for row in rows):
        tasks = [row for row in rows if row.row == name and row.scores]
        if len(configs) > 1 and len(tasks) == len(configs):
            budgets = {row.env_steps for row in tasks}
            env_steps = budgets.pop() if len(budgets) == 1 else None
            lines.append(statistics.summarise(f"all {len(tasks)}", name, env_steps, [row.scores for row in tasks]))
    return lines


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """The table as JSON values, with the runs that are not in it."""
    unfinished = [f"{row.folder.name}/seed{seed}" for row in rows for seed in row.unfinished]
    return {"rows": [asdict(line) for line in summaries(rows)], "unfinished": unfinished}


def write(out: Path, table: dict[str, Any]) -> None:
    """Writes OUT/table.json and OUT/table.csv."""
    write_text(out / "table.json", json.dumps(table, indent=1, allow_nan=False) + "\n")
    names = [field.name for field in fields(Summary)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for row in table["rows"]:
        writer.writerow({**row, "seeds": " ".join(map(str, row["seeds"]))})
    write_text(out / "table.csv", text.getvalue())


def render(table: dict[str, Any]) -> str:
    """The table for a terminal."""
    head = ["config", "row", "env steps", "seeds", "mean", "sd", "IQM", "95 % interval", "best checkpoint", "hours"]
    lines = [head, *(cells(row) for row in table["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    text.append("Mean returns of the last evaluation over seeds; best checkpoint: of each run's best evaluation.")
    if table["unfinished"]:
        text.append(f"Not counted, as unfinished: {', '.join(table['unfinished'])}")
    return "\n".join(text)


def cells(row: dict[str, Any]) -> list[str]:
    """A line's numbers as text: config, row, env steps, seeds, mean, sd, IQM, its interval, best, hours."""
    text = statistics.text
    interval = "–" if row["iqm_low"] is None else f"{text(row['iqm_low'])} to {text(row['iqm_high'])}"
    env_steps = "mixed" if row["env_steps"] is None else f"{row['env_steps']:,}"
    numbers = [text(row[name]) for name in ("mean", "sd", "iqm")]
    return [
        row["config"],
        row["row"],
        env_steps,
        str(len(row["seeds"])),
        *numbers,
        interval,
        text(row["best_mean"]),
        text(row["hours"], 2),
    ]
