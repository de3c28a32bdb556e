"""docs/faults.md from the stored result of benchmarks/faults.py and the page's prose; the same files, the same text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "faults"
PAGE = ROOT / "docs" / "faults.md"
NOTE = "<!-- Written by benchmarks/faults.py --page; edit benchmarks/results/faults/page.md instead. -->\n"
MOST_CHARS = 130
MOST_CHARS_REFUSED = 220


def page(stored: Path = STORED) -> str:
    """The page's text."""
    result = json.loads((stored / "cpu.json").read_text())
    template = Template((stored / "page.md").read_text())
    rows = result["rows"]
    return NOTE + template.substitute(
        stops=_stops({name: row for name, row in rows.items() if row["within_s"] is not None}, result["period_s"]),
        bars=_bars({name: row for name, row in rows.items() if row["bars"]}),
        others=_others({name: row for name, row in rows.items() if row["within_s"] is None and not row["bars"]}),
        rounds=result["rounds"],
        machine=_machine(result),
        reloads=_reloads(result["reloads"]),
        verdict=_verdict(result),
        gaps=_gaps({name: row["gap_s"] for name, row in rows.items() if row["within_s"] is not None}),
    )


def _stops(rows: dict[str, Any], period_s: float) -> str:
    lines = [
        "| fault | what happened | reason | due | stop out, p50 | max | /diagnostics | what clears it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        stops_s = row["stop_s"]
        times = [_time(row["within_s"], period_s), _time(median(stops_s), period_s), _time(max(stops_s), period_s)]
        reason = ", ".join(row["reasons"]) or "–"
        lines.append(_line(name, row["happens"], reason, *times, _said(row["diagnosis"]), row["cleared"]))
    return "\n".join(lines)


def _others(rows: dict[str, Any]) -> str:
    lines = ["| fault | what happened | longest time between two commands | /diagnostics |", "|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(_line(name, row["happens"], f"{1e3 * row['gap_s']:.0f} ms", _said(row["diagnosis"])))
    return "\n".join(lines)


def _bars(rows: dict[str, Any]) -> str:
    lines = ["| fault | what happened | what the node says | /diagnostics |", "|---|---|---|---|"]
    for name, row in rows.items():
        said = _said(row["refused"], MOST_CHARS_REFUSED)
        lines.append(_line(name, row["happens"], said, _said(row["diagnosis"])))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _time(seconds: float, period_s: float) -> str:
    return f"{1e3 * seconds:.0f} ms ({seconds / period_s:.1f})" if seconds else "at once"


def _said(text: str, most_chars: int = MOST_CHARS) -> str:
    short = re.sub(r"FOLDER/\w+/", "", text if most_chars > MOST_CHARS else text.split("; ")[0])
    return f"`{short if len(short) <= most_chars else short[: most_chars - 1] + '…'}`" if short else "–"


def _gaps(gaps_s: dict[str, float]) -> str:
    (name, longest_s), (_, next_s) = sorted(gaps_s.items(), key=lambda pair: -pair[1])[:2]
    return f"at most {1e3 * longest_s:.0f} ms lay between two (under “{name}”; {1e3 * next_s:.0f} ms in all other rows)"


def _machine(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    load = " to ".join(f"{value:g}" for value in result["load"])
    return (
        f"{result['cpu']}, {result['cores']} cores, load {load}; {versions}; {result['date']},"
        f" revision {result['revision']}"
    )


def _reloads(growth: dict[str, Any]) -> str:
    before, after = growth["before"], growth["after"]
    return (
        f"{growth['reloads']} reloads, {growth['seconds_each']:.2f} s each, while the robot drove: resident memory"
        f" {before['rss_mb']:.1f} to {after['rss_mb']:.1f} MB, threads {before['threads']} to {after['threads']}, open"
        f" files {before['files']} to {after['files']}; {growth['stops']} stops, commands at most"
        f" {1e3 * growth['gap_s']:.0f} ms apart."
    )


def _verdict(result: dict[str, Any]) -> str:
    rows = result["rows"].values()
    moved, failures = sum(row["moved"] for row in rows), sum(len(row["failures"]) for row in rows)
    runs = result["rounds"] * len(rows)
    return (
        f"Of {runs} runs, {failures or 'none'} did not end as described; {moved or 'no'} moving"
        f" command{'s' if moved > 1 else ''} came between a stop and what cleared it."
    )
