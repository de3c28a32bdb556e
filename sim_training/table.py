"""The table of a sweep: reads OUT/<config>-<row>/{row.json,seed<k>/}, sums up over seeds, prints and writes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from sac_ae_ros.core.errors import RunError
from sim_training import metrics, statistics
from sim_training.config import PROFILES, read_yaml, write_text
from sim_training.statistics import Score, Summary

ROW_FILE = "row.json"
ROW_FACTS = ("config", "row", "file", "arguments")
JUDGED_BY = ("env_step", "mean_return", "sd_return", "seconds")
SAME_BUDGET = "bring the shorter ones to the others' with `sac-ae train --resume RUN --run.env_steps=N`"


@dataclass(frozen=True)
class Row:
    """One row's runs as they lie in their folder.

    Args:
        config: name of the training config, the same for all rows that are compared.
        row: the profile or variant.
        env_steps: budget of the complete runs (of all, if none is complete); None if they differ.
        scores: of the complete runs, by seed.
        unfinished: seeds of the runs that have not spent their budget.
        folder: where the runs are.
    """

    config: str
    row: str
    env_steps: int | None
    scores: dict[int, Score]
    unfinished: tuple[int, ...]
    folder: Path


def read(out: Path) -> list[Row]:
    """All rows of a sweep, sorted: by config, then plain, best and the variants.

    Raises:
        RunError: no sweep lies there, or a file of it cannot be read.
    """
    rows = [read_row(path.parent) for path in sorted(out.glob(f"*/{ROW_FILE}"))]
    if not rows:
        raise RunError(f"sweep: expected a folder with <config>-<row>/{ROW_FILE} in it, {out} has none")
    order = {name: index for index, name in enumerate(reversed(PROFILES))}
    return sorted(rows, key=lambda row: (row.config, order.get(row.row, len(order)), row.row))


def read_row(folder: Path) -> Row:
    """One row; runs that have not begun are left out.

    Raises:
        RunError: a file of it cannot be read, or a folder's name has no seed.
    """
    facts = read_facts(folder)
    runs = {seed_of(path): path for path in folder.glob("seed*") if (path / "config.yaml").is_file()}
    budgets = {seed: budget(path) for seed, path in runs.items()}
    found = {seed: statistics.score(evaluations(runs[seed]), budgets[seed]) for seed in sorted(runs)}
    spent = {budgets[seed] for seed, score in found.items() if score is not None} or {max(budgets.values(), default=0)}
    return Row(
        config=facts["config"],
        row=facts["row"],
        env_steps=spent.pop() if len(spent) == 1 else None,
        scores={seed: score for seed, score in found.items() if score is not None},
        unfinished=tuple(seed for seed, score in found.items() if score is None),
        folder=folder,
    )


def seed_of(run_dir: Path) -> int:
    """The seed in the name of a run's folder; raises RunError if there is none."""
    match = re.fullmatch(r"seed(0|[1-9][0-9]*)", run_dir.name)
    if match is None:
        raise RunError(f"sweep: expected run folders named seed1, seed2 and so on, got {run_dir}; rename or move it")
    return int(match[1])


def read_facts(folder: Path) -> dict[str, Any]:
    """What `sweep` notes of a row: its config and row by name, the config's file and the arguments.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / ROW_FILE
    try:
        facts = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        facts = {}
    if not set(ROW_FACTS) <= set(facts):
        raise RunError(
            f"sweep: expected JSON with {', '.join(ROW_FACTS)} in {path}, got something else;"
            " the sweep's command, given again, writes it anew"
        )
    return facts


def evaluations(run_dir: Path) -> list[dict[str, float]]:
    """The rows of a run's eval.csv; a last one that was cut short lacks cells.

    Raises:
        RunError: it holds something else than numbers.
    """
    path = run_dir / "eval.csv"
    try:
        rows = metrics.read(path)
    except (csv.Error, ValueError, TypeError) as error:
        raise RunError(f"sweep: expected rows of numbers in {path}, got something else ({error})") from None
    for row in rows:
        if "sd_return" in row and not all(math.isfinite(row.get(name, math.nan)) for name in JUDGED_BY):
            raise RunError(f"sweep: expected finite {', '.join(JUDGED_BY)} in each row of {path}, got {row}")
    return rows


def budget(run_dir: Path) -> int:
    """A run's env steps; read without the typed config, so that runs of earlier versions stay readable."""
    try:
        return int(read_yaml(run_dir / "config.yaml")["run"]["env_steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, OverflowError):
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
    mixed = [row.folder.name for row in rows if row.env_steps is None]
    return {"rows": [asdict(line) for line in summaries(rows)], "unfinished": unfinished, "mixed": mixed}


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
    if table["mixed"]:
        text.append(f"Over runs of different env steps: {', '.join(table['mixed'])}; {SAME_BUDGET}")
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
