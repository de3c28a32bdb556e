"""A score as one HTML page that needs nothing else: numbers, plots, moments, and a video that the plots follow."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sac_ae_ros import page
from sac_ae_ros.bag.metrics import BASELINES
from sac_ae_ros.core.novelty import HIGH, LOW

if TYPE_CHECKING:
    from sac_ae_ros.bag.evaluate import Evaluation
    from sac_ae_ros.bag.look import Look

TEMPLATE, SCRIPT = "report.html.jinja", "report.js"
LEFT, RIGHT = 0.065, 0.985  # of a plot's width: where its axes begin and end
ROW_IN = 1.45
MOST_TICKS = 3000  # that the page knows the numbers of
MOST_DRAWN = 1e100  # larger numbers are drawn there: an axis from the least to the largest float64 has no length
MOMENT_WIDTH = 320  # pixels
POLICY, RECORDED, NOVELTY = page.COLORS[0], page.COLORS[1], page.COLORS[2]


@dataclass(frozen=True)
class Moment:
    """A tick to look at: JPEG of the camera, PNG of what the policy got; at_s counts from the first tick."""

    at_s: float
    camera: bytes
    seen: bytes
    lines: list[str]


@dataclass(frozen=True)
class Clip:
    """A video of the recording, MP4 whose time counts from the first tick, and a JPEG of it."""

    data: bytes
    poster: bytes


def write(
    out: Path, result: Evaluation, facts: dict[str, Any], moments: dict[str, list[Moment]], clip: Clip | str
) -> None:
    """Writes the page whole or not at all.

    Args:
        out: the file.
        result: what `evaluate` gave; at least one tick.
        facts: the same as `score.to_dict` tells it.
        moments: by their heading.
        clip: or, in its place, why there is none.
    """
    script = (Path(__file__).parent / SCRIPT).read_text()
    text = page.template(Path(__file__).parent, TEMPLATE).render(
        facts=facts,
        summary=summary(facts),
        actions=facts["actions"],
        baselines=list(BASELINES.values()) if any(each["baselines"] for each in facts["actions"].values()) else [],
        no_pairs=facts["no_pairs"] if facts["actions"] else None,
        units={action.name: action.unit for action in result.spec.actions},
        plots=Markup(plots(result)),
        axes={"left": LEFT, "right": RIGHT},
        ticks=ticks(result),
        moments=moments,
        clip=None if isinstance(clip, str) else clip,
        no_clip=clip,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=time.strftime("%Y-%m-%d %H:%M"),
    )
    page.write(out, text)


def moment(result: Evaluation, look: Look) -> Moment:
    """What the page shows of a tick."""
    tick, height, width = look.tick, *look.camera.shape[:2]
    size = min(width, MOMENT_WIDTH), max(1, round(height * min(1, MOMENT_WIDTH / width)))
    camera = cv2.resize(cv2.cvtColor(look.camera, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
    seen = cv2.cvtColor(look.seen, cv2.COLOR_RGB2BGR)
    lines = []
    for i, action in enumerate(result.spec.actions):
        policy, recorded = (_number(values, i, action.unit) for values in (tick.values, tick.recorded))
        lines.append(f"{action.name}: policy {policy}, recorded {recorded}")
    if tick.score is not None:
        lines.append(f"novelty {tick.score:.3g}")
    return Moment(
        tick.at_s,
        bytes(cv2.imencode(".jpg", camera, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]),
        bytes(cv2.imencode(".png", seen)[1]),
        lines,
    )


def summary(facts: dict[str, Any]) -> dict[str, str]:
    """The table at the top of the page, label to text."""
    rows = {
        "recorded": page.duration(facts["recorded_s"]),
        "frames": page.count(facts["frames"]),
        "ticks of the policy": f"{page.count(facts['ticks'])}, one every {facts['control_period_s']:g} s",
        "novelty": _novelty(facts),
        "gaps": _counted(facts["gaps"]["gaps"], "of no frame for over 2.5 periods"),
        "dropped frames": page.count(facts["dropped"]["frames"]),
        "stale frames": page.count(facts["stale"]["frames"]),
        "refused frames": page.count(facts["refused"]["frames"]),
        "stack began anew": "once" if facts["restarts"] == 1 else f"{page.count(facts['restarts'])} times",
        "latency": "-"
        if facts["latency_p50_s"] is None
        else (f"{1e3 * facts['latency_p50_s']:.1f} ms (median), {1e3 * facts['latency_p99_s']:.1f} ms (99 %)"),
        "scored at": f"{facts['times_real_time']:.1f} × real time",
    }
    refused, total = facts["commands_refused"], facts["commands"] + facts["commands_refused"]["messages"]
    if refused["messages"]:
        first = refused["moments"][0]["reason"]
        rows["refused commands"] = f"{page.count(refused['messages'])} of {page.count(total)}; the first: {first}"
    if facts["age_p99_s"] is not None:
        rows["age when recorded"] = (
            f"{1e3 * facts['age_p99_s']:.0f} ms (99 %), {1e3 * facts['age_max_s']:.0f} ms at most"
        )
    if facts["doubtful"]:
        found = [f"{page.count(ticks)} ticks: {text}" for text, ticks in facts["doubtful"].items()]
        rows["doubtful images"] = "; ".join(found[:5])
    if facts["ticks_not_finite"]:
        rows["not a number"] = (
            f"{page.count(facts['ticks_not_finite'])} of {page.count(facts['ticks'])} ticks: a robot would stop there"
        )
    return rows


def ticks(result: Evaluation) -> dict[str, Any]:
    """Times and numbers of the ticks, at most 3000 of them, for the readout at the cursor."""
    every = -(-len(result.ticks) // MOST_TICKS)
    chosen = result.ticks[::every]
    series = [
        {
            "name": action.name,
            "unit": action.unit,
            "policy": [_short(tick.values, i) for tick in chosen],
            "recorded": [_short(tick.recorded, i) for tick in chosen],
        }
        for i, action in enumerate(result.spec.actions)
    ]
    return {
        "at_s": [round(tick.at_s, 3) for tick in chosen],
        "end_s": _end_s(result),
        "actions": series,
        "novelty": [
            None if tick.score is None or not math.isfinite(tick.score) else round(tick.score, 3) for tick in chosen
        ],
    }


def plots(result: Evaluation) -> str:
    """All plots over one time axis, as one SVG element."""
    at_s = np.array([tick.at_s for tick in result.ticks])
    rows, gaps = list(_rows(result)), list(_gaps(result, at_s))
    height_in = ROW_IN * len(rows) + 0.5
    with plt.rc_context({**page.STYLE, "svg.hashsalt": "bag"}):
        figure, all_axes = plt.subplots(len(rows), sharex=True, figsize=(11.0, height_in), squeeze=False)
        figure.subplots_adjust(left=LEFT, right=RIGHT, top=1 - 0.3 / height_in, bottom=0.42 / height_in, hspace=0.42)
        figure.patch.set_alpha(0)
        for axes, row in zip(all_axes[:, 0], rows, strict=True):
            axes.patch.set_alpha(0)
            row(axes, at_s)
            for span in gaps:
                axes.axvspan(*span, color=page.QUIET, alpha=0.25, linewidth=0)
            axes.set_xlim(0, _end_s(result))
        notes = ["seconds since the first tick", *(["grey: no frames"] if gaps else [])]
        notes += [f"{result.leaps} leaps of stamps left out"] if result.leaps else []
        all_axes[-1, 0].set_xlabel("; ".join(notes))
        return page.svg(figure, "commands and novelty over time")


def _gaps(result: Evaluation, at_s: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Where the plots show that no frames came: begin and end, s."""
    stamps_ns = np.array([tick.stamp_ns for tick in result.ticks])
    for start_ns, length_s in result.gaps:
        end_ns = start_ns + round(length_s * 1e9)
        around = np.flatnonzero((stamps_ns[:-1] <= start_ns) & (end_ns <= stamps_ns[1:] + 1000))
        for i in around[:1]:  # before the gap, and the next one after it
            start_s = at_s[i] + (start_ns - stamps_ns[i]) * 1e-9
            end_s = at_s[i + 1] - (stamps_ns[i + 1] - end_ns) * 1e-9
            if end_s > start_s:  # else it was a leap
                yield start_s, end_s


def _rows(result: Evaluation) -> Iterator[Callable[[Axes, NDArray], None]]:
    for i, action in enumerate(result.spec.actions):

        def commands(axes: Axes, at_s: NDArray, i: int = i, title: str = action.name) -> None:
            for color, label, values in (
                (RECORDED, "recorded", [tick.recorded for tick in result.ticks]),
                (POLICY, "policy", [tick.values for tick in result.ticks]),
            ):
                column = np.array([np.nan if each is None else each[i] for each in values])
                if np.isfinite(column).any():
                    _draw(axes, at_s, column, color, label)
            axes.set_title(page.literal(f"{title}, {result.spec.actions[i].unit}"), loc="left")
            _legend(axes)

        yield commands
    if any(tick.score is not None for tick in result.ticks):
        yield lambda axes, at_s: _novelty_row(axes, result, at_s)
    if any(tick.novelty is not None for tick in result.ticks):
        yield lambda axes, at_s: _error_row(axes, result, at_s)
    yield lambda axes, at_s: _latency_row(axes, result, at_s)


def _novelty_row(axes: Axes, result: Evaluation, at_s: NDArray) -> None:
    scores = _finite([tick.score for tick in result.ticks])
    _draw(axes, at_s, scores, NOVELTY, "")
    axes.axhline(1.0, color=RECORDED, linewidth=1, linestyle="--", label="farthest of the held-out frames")
    if np.nanmax(scores, initial=0.0) > 20:
        axes.set_yscale("log")
    axes.set_title("novelty score", loc="left")
    _legend(axes)


def _error_row(axes: Axes, result: Evaluation, at_s: NDArray) -> None:
    errors = _finite([tick.novelty for tick in result.ticks])
    _draw(axes, at_s, errors, NOVELTY, "")
    for edge, line in ((LOW, ":"), ("0.5", "-."), (HIGH, "--")):
        if edge in result.spec.novelty.quantiles:
            level, label = result.spec.novelty.quantiles[edge], f"{100 * float(edge):g} %"
            axes.axhline(level, color=RECORDED, linewidth=1, linestyle=line, label=label)
    if np.nanmin(errors, initial=math.inf) > 0:
        axes.set_yscale("log")
    axes.set_title("reconstruction error, mean squared; and the held-out frames' quantiles", loc="left")
    _legend(axes)


def _latency_row(axes: Axes, result: Evaluation, at_s: NDArray) -> None:
    _draw(axes, at_s, np.array([1e3 * tick.latency_s for tick in result.ticks]), page.QUIET, "")
    axes.set_ylim(bottom=0)
    axes.set_title("latency of a frame on this machine, ms", loc="left")


def _legend(axes: Axes) -> None:
    """Above the plot, where it hides nothing."""
    if labels := axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.95), ncols=len(labels), borderaxespad=0)


def _draw(axes: Axes, at_s: NDArray[np.float64], values: NDArray[np.float64], color: str, label: str) -> None:
    """A line; of a long recording the mean of neighbours, with their range shaded."""
    values = np.clip(values, -MOST_DRAWN, MOST_DRAWN)
    x, mean, low, high = page.thin(at_s, values, 1500)
    if len(x) < len(at_s):
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(x, mean, color=color, linewidth=1.1, label=label)
    else:
        axes.plot(x, mean, color=color, linewidth=1.1, label=label, drawstyle="steps-post")


def side_by_side(look: Look, height: int = 240) -> NDArray[np.uint8]:
    """The camera's picture, and beside it what the policy got of it, uint8 RGB of even height and width."""
    pictures = ((look.camera, cv2.INTER_AREA), (look.seen, cv2.INTER_NEAREST))
    return np.hstack([_scaled(picture, height, how) for picture, how in pictures])


def _scaled(picture: NDArray[np.uint8], height: int, how: int) -> NDArray[np.uint8]:
    rows, cols = picture.shape[:2]
    return np.asarray(
        cv2.resize(picture, (max(2, round(cols * height / rows / 2) * 2), height), interpolation=how), np.uint8
    )


def _finite(values: list[float | None]) -> NDArray[np.float64]:
    """NaN for what is not there, or not finite."""
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _end_s(result: Evaluation) -> float:
    return max(result.ticks[-1].at_s, result.spec.control_period_s)


def _number(values: NDArray[np.float64] | None, i: int, unit: str) -> str:
    return "none" if values is None else f"{values[i]:.3g} {unit}"


def _short(values: NDArray[np.float64] | None, i: int) -> float | None:
    if values is None:
        return None
    short = float(f"{values[i]:.4g}")
    return short if math.isfinite(short) else float(values[i])  # the largest float64, rounded, is none


def _counted(number: int, what: str) -> str:
    return f"{page.count(number)} {what}" if number else "none"


def _novelty(facts: dict[str, Any]) -> str:
    if facts["novelty_p99"] is None:
        return "not finite" if facts["novelty_not_finite"] else "this policy file has no statistics"
    return f"99 % score at most {facts['novelty_p99']:.3g}; above 1 is beyond the held-out frames"
