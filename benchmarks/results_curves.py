"""Learning curves of stored results: a line for each row, a panel or two for each config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from published import published

from sim_training import metrics, statistics
from sim_training.table import Row

BAND_REPS = 500
MAIN_ROWS = ("plain", "best", "state")
MANY_VARIANTS = 3


def draw(rows: Sequence[Row], tasks: Mapping[str, str], out: Path) -> None:
    """Writes a PNG: means over seeds with 95 % bootstrap intervals, and published scores of the same task.

    Args:
        rows: what to draw.
        tasks: the task of each config.
        out: the file.
    """
    panels = [panel for config in tasks for panel in _panels(config, [row for row in rows if row.config == config])]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.2 * columns + 0.6, 3.4 * lines), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(row.row for row in rows))
    for axes, panel in zip(grid.flat, panels, strict=False):
        for row in panel.rows:
            _draw_row(axes, row, f"C{names.index(row.row)}", band=panel.bands, bold=row.row == "best")
        if panel.bands:
            _draw_published(axes, tasks[panel.config])
        axes.set(title=panel.title, xlabel="env steps", ylabel="return")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)


class _Panel(NamedTuple):
    config: str
    title: str
    rows: list[Row]
    bands: bool


def _panels(config: str, rows: list[Row]) -> list[_Panel]:
    """One panel, or two where many variants would hide each other's bands: theirs then has means alone."""
    variants = [row for row in rows if row.row not in MAIN_ROWS]
    if len(variants) < MANY_VARIANTS:
        return [_Panel(config, config, rows, True)]
    main = [row for row in rows if row.row in MAIN_ROWS]
    best = [row for row in rows if row.row == "best"]
    return [_Panel(config, config, main, True), _Panel(config, f"{config}: variants of best", best + variants, False)]


def _draw_row(axes: Axes, row: Row, color: str, *, band: bool, bold: bool) -> None:
    runs = [metrics.read(row.folder / f"seed{seed}" / "eval.csv") for seed in row.scores]
    steps = np.array([evaluation["env_step"] for evaluation in min(runs, key=len)])
    returns = np.array(
        [np.interp(steps, [each["env_step"] for each in run], [each["mean_return"] for each in run]) for run in runs]
    )  # [seeds, evaluations]
    if band and len(runs) > 1:
        low, high = statistics.interval(returns, lambda scores: scores.mean(axis=0), BAND_REPS)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    label, width = f"{row.row} ({len(runs)})", 2.5 if bold else 1.3
    axes.plot(steps, returns.mean(axis=0), color=color, label=label, linewidth=width, marker=".", markersize=3)


def _draw_published(axes: Axes, task: str) -> None:
    last = axes.dataLim.x1
    for row in published({task}):
        if row.env_steps <= last * 1.01:
            marker = {"SAC+AE": "s", "DrQ": "^"}[row.method]
            label = f"{row.method}, published" if row.env_steps == 100_000 else None
            axes.errorbar(
                row.env_steps,
                row.mean,
                row.sd,
                fmt=marker,
                color="0.4",
                mfc="none",
                capsize=3,
                markersize=5,
                label=label,
            )
