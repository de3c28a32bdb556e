"""The pictures of docs/novelty.md: what the policy and its decoder see, and scores over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from novelty_page import number, title
from novelty_record import Shot

COLUMNS = 6


def sheet(shots: Mapping[tuple[str, str], Shot], scores: Mapping[tuple[str, str], float], out: Path) -> None:
    """Writes a PNG: for each disturbance the frame, its reconstruction beneath, and the score."""
    lines = -(-len(shots) // COLUMNS)
    figure, grid = plt.subplots(2 * lines, COLUMNS, figsize=(2.1 * COLUMNS, 2.9 * lines), layout="constrained")
    for panel in grid.flat:
        panel.axis("off")
    for index, ((group, name), shot) in enumerate(shots.items()):
        line, column = divmod(index, COLUMNS)
        above, below = grid[2 * line, column], grid[2 * line + 1, column]
        above.set_title(f"{title(group, name)}\nscore {number(scores[group, name])}", fontsize=8)
        above.imshow(shot.frame, interpolation="nearest")
        below.imshow(shot.reconstruction, interpolation="nearest")
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)


def over_time(series: Mapping[str, Sequence[float]], facts: Mapping[str, Any], out: Path) -> None:
    """Writes a PNG of median scores over seconds since the onset.

    Args:
        series: by name, the undisturbed first: one score for each policy period, from `facts["before_s"]` before the
            onset on.
        facts: `before_s`, `period_s`, `warn` and `stop`.
        out: the file.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for index, (name, scores) in enumerate(series.items()):
        seconds = np.arange(len(scores)) * facts["period_s"] - facts["before_s"]
        axes.plot(seconds, scores, label=name, color=f"C{index - 1}" if index else "black", zorder=2 if index else 3)
    for level, style in (("warn", "--"), ("stop", ":")):
        axes.axhline(facts[level], color="0.4", linestyle=style, label=f"{level} at {facts[level]:g}")
    axes.axvline(0, color="0.8", zorder=0)
    axes.set(yscale="log", xlabel="seconds since the disturbance began", ylabel="score (median of the episodes)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.savefig(out, dpi=120, metadata={"Software": None})
    plt.close(figure)
