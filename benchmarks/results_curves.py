"""Learning curves of stored results: a panel for each config, a line for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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


def draw(rows: Sequence[Row], tasks: Mapping[str, str], out: Path) -> None:
    """Writes a PNG: means over seeds with 95 % bootstrap intervals, and published scores of the same task.

    Args:
        rows: what to draw.
        tasks: the task of each config.
        out: the file.
    """
    configs = list(tasks)
    columns = min(3, len(configs))
    lines = -(-len(configs) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.2 * columns + 0.6, 3.4 * lines), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(row.row for row in rows))
    for axes, config in zip(grid.flat, configs, strict=False):
        for row in (row for row in rows if row.config == config):
            _draw_row(axes, row, f"C{names.index(row.row)}")
        _draw_published(axes, tasks[config])
        axes.set(title=config, xlabel="env steps", ylabel="return")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in grid.flat[len(configs) :]:
        axes.set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_row(axes: Axes, row: Row, color: str) -> None:
    runs = [metrics.read(row.folder / f"seed{seed}" / "eval.csv") for seed in row.scores]
    steps = np.array([evaluation["env_step"] for evaluation in min(runs, key=len)])
    returns = np.array(
        [np.interp(steps, [each["env_step"] for each in run], [each["mean_return"] for each in run]) for run in runs]
    )  # [seeds, evaluations]
    if len(runs) > 1:
        low, high = statistics.interval(returns, lambda scores: scores.mean(axis=0), BAND_REPS)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(steps, returns.mean(axis=0), color=color, label=f"{row.row} ({len(runs)})", marker=".", markersize=3)


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
