"""A run's numbers as curves over env steps: on matplotlib axes, and as SVG that takes a page's font and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from sac_ae_ros.page import COLORS, QUIET, STYLE, svg, thin

Rows = Sequence[Mapping[str, float]]

LINES = ("-", "--", ":")  # a curve stays in sight where another lies on it
MOST_DOTS = 800


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
        return svg(figure, "returns over env steps")


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
        return svg(figure, f"{panel.title} over env steps")


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
