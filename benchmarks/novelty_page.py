"""docs/novelty.md from the numbers stored under benchmarks/results/novelty."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any


def page(stored: Path) -> str:
    """The page's text; the same files give the same text."""
    result = json.loads((stored / "novelty.json").read_text())
    note = "<!-- Written by benchmarks/novelty.py; edit benchmarks/results/novelty/page.md instead. -->\n"
    return note + Template((stored / "page.md").read_text()).substitute(words(result))


def words(result: Mapping[str, Any]) -> dict[str, str]:
    """What the page's text has a place for."""
    limits, unchanged, cost, spec = (result[key] for key in ("limits", "unchanged", "cost_ms", "statistics"))
    facts = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return {
        "every": f"{limits['every']}",
        "warn": f"{limits['warn']:g}",
        "stop": f"{limits['stop']:g}",
        "m": f"{limits['m']}",
        "n": f"{limits['n']}",
        "delay": f"{_default(result)['median_s']:.3g}",
        "disturbances": disturbances(result),
        "dim_score": number(_row(result, "light", "lamps ×0.75")["median_score"]),
        "mirrored": _percent(_row(result, "camera", "mirrored")["warn"]["share"]),
        "mirrored_score": number(_row(result, "camera", "mirrored")["median_score"]),
        "others": others(result),
        "statistics": statistics_table(spec),
        "frames": f"{spec['frames']:,}",
        "hours": f"{unchanged['hours']:.1f}",
        "episodes": f"{unchanged['episodes']:,}",
        "disturbed_episodes": f"{max(row['episodes'] for row in result['disturbances'])}",
        "false_warns": _alarms(unchanged["warn"]),
        "false_stops": _alarms(unchanged["stop"]),
        "cover": f"({', '.join(map(str, result['best_cover']['color']))})",
        "cover_score": number(result["best_cover"]["score"]),
        "above_1": f"{100 * unchanged['share_above_1']:.2f} %",
        "highest": f"{unchanged['highest_score']:.2f}",
        "persistent": f"{unchanged['highest_persistent_score']:.2f}",
        "cost": f"{cost['with'] - cost['without']:.2f}",
        "cost_with": f"{cost['with']:.2f}",
        "cost_without": f"{cost['without']:.2f}",
        "machine": f"{facts['cpu']}, {facts['cores']} cores, {versions}; {facts['date']}",
    }


def tables(result: Mapping[str, Any]) -> str:
    """What the script prints."""
    return "\n\n".join((disturbances(result), others(result), f"undisturbed: {words(result)['false_stops']} stops"))


def disturbances(result: Mapping[str, Any]) -> str:
    """A line for each disturbance."""
    period_s = result["period_s"]
    head = ("disturbance", "drives", "score", "warned", "after", "stopped", "after")
    lines = []
    for row in result["disturbances"]:
        levels = [cell for level in ("warn", "stop") for cell in _level(row[level], period_s)]
        lines.append((title(row["group"], row["name"]), _percent(row["reward_share"]), _score(row), *levels))
    return _table(head, lines)


def title(group: str, name: str) -> str:
    """A disturbance, or its absence, in words."""
    return "undisturbed" if group == "nothing" else f"{group}: {name}"


def number(score: float) -> str:
    """Three digits at most before they are rounded away."""
    return f"{score:,.0f}" if score >= 100 else f"{score:.3g}"


def others(result: Mapping[str, Any]) -> str:
    """A line for each other threshold or persistence."""
    head = ("judged by", "threshold", "every", "m of n", "false alarms", "detected", "median delay")
    lines = [
        (
            row["judged_by"],
            f"{row['threshold']:g}",
            f"{row['every']}",
            f"{row['m']} of {row['n']}",
            _alarms(row["false"]),
            _percent(row["share"]),
            f"{row['median_s']:.3g} s",
        )
        for row in result["others"]
    ]
    return _table(head, lines)


def statistics_table(spec: Mapping[str, Any]) -> str:
    """The policy file's own quantiles."""
    keys = list(spec["error"])
    lines = [(name, *(f"{spec[kind][key]:.3g}" for key in keys)) for name, kind in NAMES.items()]
    return _table(("quantile", *keys), lines)


NAMES = {"reconstruction error": "error", "frame variance": "variance"}


def _row(result: Mapping[str, Any], group: str, name: str) -> Mapping[str, Any]:
    return next(row for row in result["disturbances"] if (row["group"], row["name"]) == (group, name))


def _default(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line of `others` with the warning's own threshold and persistence."""
    wanted = {"judged_by": "both", "threshold": result["limits"]["warn"]}
    wanted |= {key: result["limits"][key] for key in ("every", "m", "n")}
    return next(row for row in result["others"] if wanted.items() <= row.items())


def _level(found: Mapping[str, Any], period_s: float) -> tuple[str, str]:
    if found["median_s"] is None:
        return _percent(found["share"]), ""
    seconds = (found["median_s"], found["max_s"])
    in_seconds, in_periods = (" / ".join(f"{value / unit:.3g}" for value in seconds) for unit in (1.0, period_s))
    return _percent(found["share"]), f"{in_seconds} s ({in_periods})"


def _score(row: Mapping[str, Any]) -> str:
    """The median score, and by which statistic."""
    by = "variance" if row["variance_share"] > 0.5 else "error"
    return f"{number(row['median_score'])} ({by})" if row["median_score"] > 1 else number(row["median_score"])


def _alarms(false: Mapping[str, float]) -> str:
    return f"{false['alarms']:.0f} (95 %: at most {false['at_most_per_hour']:.1f} an hour)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
