"""A run's numbers as curves over env steps: on matplotlib axes, and as SVG that takes a page's font and colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

Rows = Sequence[Mapping[str, float]]

LINES = ("-", "--", ":")  # a curve stays in sight where another lies on it
COLORS = ("#3b82f6", "#e07b39", "#2fa36b")  # readable on white and on black
QUIET = "#8b919a"
INK = "#010203"  # stands for the page's own colour, which matplotlib cannot name
MOST_POINTS = 300
MOST_DOTS = 800
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and in the page's font
    "font.size": 9,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": INK,
}


@dataclass(frozen=True)
class Panel:
    """One picture: columns of train.csv and what their curves are called; `log` where that shows more; `zero` based."""

    title: str
    curves: Mapping[str, str]
    log: bool = False
    zero: bool = False


PANELS = (
    Panel("critic loss", {"critic_loss": ""}, log=True),
    Panel("autoencoder loss", {"autoencoder_loss": ""}, log=True),
    Panel("actor loss", {"actor_loss": ""}),
    Panel("loss of α", {"alpha_loss": ""}),
    Panel("Q of the batch, mean", {"q": ""}),
    Panel("temperature α", {"alpha": ""}, log=True),
    Panel("entropy of the policy, nats", {"entropy": ""}),
    Panel("throughput, 1/s", {"updates_per_s": "updates", "env_steps_per_s": "env steps"}, zero=True),
    Panel("share of time the learner waits", {"wait_share": ""}, zero=True),
)


def column(rows: Rows, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Env steps and values [N] of the rows where `name` is a finite number."""
    found = [(row["env_step"], row[name]) for row in rows if "env_step" in row and np.isfinite(row.get(name, np.nan))]
    pairs = np.array(found, np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def draw_returns(axes: Axes, train: Rows, evals: Rows) -> None:
    """Episodes as dots; evaluations as a line of means with one standard deviation shaded."""
    steps, returns = column(train, "episode_return")
    every = -(-len(steps) // MOST_DOTS) or 1
    label = "episodes" if every == 1 else f"episodes, 1 of {every}"
    axes.plot(steps[::every], returns[::every], ".", color=QUIET, alpha=0.6, markeredgewidth=0, label=label)
    steps, mean = column(evals, "mean_return")
    sd = np.array([row.get("sd_return", 0.0) for row in evals if np.isfinite(row.get("mean_return", np.nan))])
    axes.fill_between(steps, mean - sd, mean + sd, alpha=0.2, color=COLORS[0], linewidth=0)
    axes.plot(steps, mean, "o-", color=COLORS[0], label="evaluation, mean and sd")
    axes.set(xlabel="env steps", ylabel="episode return")
    axes.set_ylim(bottom=min(0.0, float(mean.min(initial=0.0)), float(returns.min(initial=0.0))))


def returns_svg(train: Rows, evals: Rows) -> str:
    """The learning curve as an SVG element; empty before the first episode's end."""
    if not any("episode_return" in row for row in train) and not evals:
        return ""
    with plt.rc_context({**STYLE, "svg.hashsalt": "returns", "lines.markersize": 4}):
        figure, axes = _figure(5.0, 3.3)
        draw_returns(axes, train, evals)
        axes.legend(loc="best")
        return _svg(figure, "returns over env steps")


def panel_svg(panel: Panel, rows: Rows) -> str:
    """A panel as an SVG element; empty where nothing of it was measured."""
    measured = {name: column(rows, name) for name in panel.curves}
    if not any(len(steps) for steps, _ in measured.values()):
        return ""
    with plt.rc_context({**STYLE, "svg.hashsalt": panel.title}):
        figure, axes = _figure(4.0, 2.3)
        for color, line, (name, (steps, values)) in zip(COLORS, LINES, measured.items(), strict=False):
            if len(steps):
                _draw_curve(axes, steps, values, color, line, panel.curves[name])
        values = np.concatenate([values for _, values in measured.values()])
        if panel.log and values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        if panel.zero:
            axes.set_ylim(bottom=0)
        axes.set(title=panel.title, xlabel="env steps")
        if any(panel.curves.values()):
            axes.legend(loc="best")
        return _svg(figure, f"{panel.title} over env steps")


def thin(steps: NDArray[np.float64], values: NDArray[np.float64], most: int = MOST_POINTS) -> list[NDArray[np.float64]]:
    """Steps, means, minima and maxima of at most `most` groups of neighbours, each float64 [<= most]."""
    size = -(-len(steps) // most)
    starts = np.arange(0, len(steps), size)
    counts = np.diff([*starts, len(steps)])
    return [
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    ]


def _draw_curve(
    axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], color: str, line: str, label: str
) -> None:
    """A line; where there are too many points for it, the mean of neighbours with their range shaded."""
    x, mean, low, high = thin(steps, values)
    if len(x) < len(steps):
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(x, mean, line if len(x) > 1 else "o", color=color, linewidth=1.4, label=label)


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width_in, height_in), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure, axes


def _svg(figure: Figure, label: str) -> str:
    """The figure as an element of a page: scales with it, in its colour and font, and styles nothing outside."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)  # both would hold for the whole page
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every figure has a figure_1
    text = re.sub(r"font-family: [^;\"]*;", "", text)
    text = text.replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
