#!/usr/bin/env python3
"""Writes docs/results.md and its learning curves from the evaluations stored under benchmarks/results.

Examples:
  python benchmarks/results.py
  python benchmarks/results.py --collect runs/rover --name rover
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml
from gpu import page as gpu_page
from published import Published, published, published_table, spread
from results_curves import draw

from sac_ae_ros.core.errors import ConfigError, RunError, SacAeError
from sim_training import config as configs
from sim_training import table
from sim_training.statistics import Summary, text
from sim_training.sweep_plan import NAME
from sim_training.table import Row

ROOT = Path(__file__).resolve().parents[1]
NOT_OF_A_ROW = ("seed", "threads")  # keys of run: in which a row's runs may differ


# From a sweep's folder to what is kept.


def collect(out: Path, target: Path, revision: str) -> list[str]:
    """Copies a sweep's complete runs; returns the names of those that are not complete.

    Raises:
        RunError: no sweep lies there, or one of its files cannot be read, or a row's complete runs differ in their
            budgets, or a row of the same name but another config is stored already.
    """
    rows = table.read(out)
    mixed = [str(row.folder) for row in rows if row.env_steps is None]
    if mixed:
        raise RunError(f"results: expected runs of the same run.env_steps in {', '.join(mixed)}; {table.SAME_BUDGET}")
    for row in rows:
        for seed in row.scores:
            _copy_run(row.folder, target / row.folder.name, seed, revision)
    return [f"{row.folder.name}/seed{seed}" for row in rows for seed in row.unfinished]


def _copy_run(source: Path, target: Path, seed: int, revision: str) -> None:
    run, kept = source / f"seed{seed}", target / f"seed{seed}"
    facts = table.read_facts(source)
    facts |= {"file": _in_repository(facts["file"]), "arguments": _arguments(facts, run)}
    _check_same_row(target, facts, run)
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "eval.csv"):
        shutil.copyfile(run / name, kept / name)
    note = run.with_suffix(".machine.json")
    starts = json.loads(note.read_text()) if note.exists() else []
    for start in starts:
        if start["revision"] == "unknown":
            start["revision"] = revision
    _write_json(kept / "machine.json", starts)
    _write_json(target / table.ROW_FILE, facts)


def _arguments(facts: dict[str, Any], run: Path) -> list[str]:
    """The row's arguments, with the run's budget where it was finished by hand at another than the sweep's."""
    arguments, env_steps = list(facts["arguments"]), table.budget(run)
    try:
        planned = configs.parse(arguments, path=facts["file"]).run.env_steps
    except ConfigError:  # the file has moved since
        planned = env_steps
    return arguments if planned == env_steps else [*arguments, f"--run.env_steps={env_steps}"]


def _in_repository(file: str) -> str | None:
    """The config's path from the repository's root; None if it lies elsewhere."""
    path = (ROOT / file).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) and path.is_file() else None


def _check_same_row(target: Path, facts: dict[str, Any], run: Path) -> None:
    old = json.loads((target / table.ROW_FILE).read_text()) if (target / table.ROW_FILE).exists() else facts
    kept = next(target.glob("seed*/config.yaml"), run / "config.yaml")
    if old != facts or _row_config(kept) != _row_config(run / "config.yaml"):
        raise RunError(
            f"results: {target} holds runs of another config than {run}; remove it, or choose another --name"
        )


def _row_config(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text())
    return {**config, "run": {key: value for key, value in config["run"].items() if key not in NOT_OF_A_ROW}}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


# From what is kept to the page.


@dataclass(frozen=True)
class Section:
    """The rows of one name, and the task of each config."""

    folder: Path
    rows: list[Row]
    tasks: dict[str, str]


def sections(stored: Path) -> list[Section]:
    """What is stored, by name."""
    found = []
    for folder in sorted({path.parent.parent for path in stored.glob(f"*/*/{table.ROW_FILE}")}):
        rows = table.read(folder)
        tasks = {row.config: _first_config(row)["env"]["task"] for row in rows}
        found.append(Section(folder, rows, tasks))
    return found


def _first_config(row: Row) -> dict[str, Any]:
    return _row_config(row.folder / f"seed{min(row.scores)}" / "config.yaml")


def page(stored: Path) -> str:
    """The page's text; the same files give the same text."""
    template = Template((stored / "page.md").read_text())
    body = "\n\n".join(section_text(section) for section in sections(stored))
    note = "<!-- Written by benchmarks/results.py; edit benchmarks/results/page.md instead. -->\n"
    return note + template.substitute(
        gpu=gpu_page.section(stored), results=body or "No runs are stored yet.", published=published_table()
    )


def section_text(section: Section) -> str:
    """Heading, table, curves, where it was run, and the commands."""
    name, intro = section.folder.name, section.folder / "intro.md"
    head = intro.read_text().strip() if intro.exists() else f"## {name}"
    curves = f"![Learning curves: mean return and 95 % bootstrap interval over seeds](images/results_{name}.png)"
    commands = "\n".join(command(row) for row in section.rows)
    return "\n\n".join(
        [
            head,
            results_table(section),
            curves,
            ran_on(section),
            f"To run a row again, `--run.seed` from 1 on:\n\n```\n{commands}\n```",
        ]
    )


def results_table(section: Section) -> str:
    """One line for each row, the published ones below those of the same task and budget."""
    ours = table.summaries(section.rows)
    head = (
        "config",
        "row",
        "env steps",
        "runs",
        "mean ± sd",
        "− best",
        "IQM",
        "95 % interval",
        "best checkpoint",
        "hours",
    )
    lines = ["| " + " | ".join(head) + " |", "|---|---" + "|---:" * (len(head) - 2) + "|"]
    best = {each.config: each.mean for each in ours if each.row == "best"}
    for config in dict.fromkeys(each.config for each in ours):
        same = [each for each in ours if each.config == config]
        lines += [_line(each, best.get(config)) for each in same]
        tasks = {section.tasks[config]} if config in section.tasks else set(section.tasks.values())
        budgets = {each.env_steps for each in same}
        lines += [_published_line(config, row) for row in published(tasks) if row.env_steps in budgets]
    return "\n".join(lines)


def _line(line: Summary, best: float | None) -> str:
    difference = None if best is None or line.mean is None or line.row == "best" else line.mean - best
    signed = "" if difference is None else f"{difference:+.1f}".replace("-", "−")
    interval = "–" if line.iqm_low is None else f"{text(line.iqm_low)} to {text(line.iqm_high)}"
    env_steps = "mixed" if line.env_steps is None else f"{line.env_steps:,}"
    numbers = [spread(line.mean, line.sd), signed, text(line.iqm), interval, text(line.best_mean), text(line.hours, 2)]
    return f"| {' | '.join([line.config, line.row, env_steps, str(len(line.seeds)), *numbers])} |"


def _published_line(config: str, row: Published) -> str:
    cells = [config, f"*{row.method}, published*", f"{row.env_steps:,}", row.seeds, spread(row.mean, row.sd, 0)]
    return f"| {' | '.join([*cells, '', '', '', '', ''])} |"


def ran_on(section: Section) -> str:
    """Machines, versions, revisions and dates, and how many episodes an evaluation has."""
    runs = [(row, _starts(row, seed)) for row in section.rows for seed in row.scores]
    starts = [start for _, each in runs for start in each]
    episodes = sorted({_first_config(row)["run"]["eval_episodes"] for row in section.rows})
    lines = [f"Each evaluation has {' or '.join(map(str, episodes))} episodes."]
    where: dict[str, dict[str, None]] = {}
    for row, each in runs:
        for start in each:
            where.setdefault(_place(start), {})[row.folder.name] = None
    if len(where) == 1:
        lines.append(f"Run {next(iter(where))}.")
    elif where:
        lines += ["", *(f"- Run {place}: {', '.join(names)}." for place, names in where.items()), ""]
    if starts:
        dates = sorted({start["date"] for start in starts})
        revisions = ", ".join(dict.fromkeys(f"`{start['revision']}`" for start in starts))
        lines.append(f"Source revision {revisions}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}.")
    resumed = sum(len(each) > 1 for _, each in runs)
    if resumed:
        lines.append(f"Interrupted and resumed: {resumed} of the {len(runs)} runs.")
    return "\n".join(lines)


def _starts(row: Row, seed: int) -> list[dict[str, Any]]:
    path = row.folder / f"seed{seed}" / "machine.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _place(start: dict[str, Any]) -> str:
    gpu = f", {start['gpu']}" if start["gpu"] else ", no GPU used"
    versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
    runs = "one run at a time" if start["side_by_side"] == 1 else f"{start['side_by_side']} runs side by side"
    return f"on {start['cpu']}, {start['cores']} cores{gpu}, {runs}, with {versions}"


def command(row: Row) -> str:
    """Runs a row's first seed again."""
    facts = table.read_facts(row.folder)
    seed = min(row.scores)
    kept = Path("benchmarks/results", row.folder.parent.name, row.folder.name, f"seed{seed}", "config.yaml")
    file, arguments = (facts["file"], facts["arguments"]) if facts["file"] else (str(kept), [])
    return shlex.join(["sac-ae", "train", "--config", file, *arguments, f"--run.seed={seed}"])


def main() -> int:
    """Collects, if asked to, then writes the page and its pictures anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="OUT", help="first keep the complete runs of this sweep")
    parser.add_argument("--name", help="the section that --collect adds to")
    parser.add_argument("--revision", default="unknown", help="of the source, where a run could not ask git for it")
    args = parser.parse_args()
    stored = ROOT / "benchmarks" / "results"
    try:
        if args.collect:
            if not NAME.fullmatch(args.name or ""):
                raise ConfigError(
                    f"results: expected --name with letters, digits and _.+- beside --collect, got {args.name}"
                )
            for name in collect(args.collect, stored / args.name, args.revision):
                print(f"left out, as it is not complete: {name}", file=sys.stderr)
        for section in sections(stored):
            draw(section.rows, section.tasks, ROOT / "docs" / "images" / f"results_{section.folder.name}.png")
        (ROOT / "docs" / "results.md").write_text(page(stored))
        for name in gpu_page.left_out(stored):
            print(f"left out, as it is a rehearsal: {name}", file=sys.stderr)
    except SacAeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
