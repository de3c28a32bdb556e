"""Many scores in one table, for a terminal and as a page, and what they come to for each policy."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from sac_ae_ros.bag.score import NO_LIMITS, SCHEMA_VERSION, problems
from sac_ae_ros.core.errors import printable

if TYPE_CHECKING:
    from sac_ae_ros.bag.many import Scored

MAE, AT_SHIFT, NONE = "mae ", "at shift", "-"


def to_dict(found: Sequence[Scored]) -> dict[str, Any]:
    """All scores, what failed, and what they come to, as JSON takes it."""
    failed = [{"bag": str(each.job.bag), "policy": str(each.job.policy), "error": each.error} for each in found]
    return {
        "schema_version": SCHEMA_VERSION,
        "scores": [each.facts for each in found if each.facts is not None],
        "failed": [row for row in failed if row["error"]],
        "aggregate": aggregate(found),
    }


def aggregate(found: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each policy over all of its bags that could be scored: sums of counts, and errors with their spread."""
    policies = dict.fromkeys(each.job.policy for each in found)
    rows = []
    for policy in policies:
        scores = [each.facts for each in found if each.job.policy == policy and each.facts is not None]
        actions = dict.fromkeys(name for facts in scores for name in facts["actions"])
        rows.append(
            {
                "policy": str(policy),
                "bags": len(scores),
                **{key: sum(facts[key] for facts in scores) for key in ("frames", "ticks", "salvaged", "recorded_s")},
                "refused": sum(facts["refused"]["frames"] for facts in scores),
                "novelty_p99": spread([facts["novelty_p99"] for facts in scores]),
                "actions": {
                    name: _over_bags([facts["actions"][name] for facts in scores if name in facts["actions"]])
                    for name in actions
                },
            }
        )
    return rows


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Of one number for each bag: how many have it, mean, sample standard deviation (of two or more), least, most."""
    found = np.array([value for value in values if value is not None], np.float64)
    if not len(found):
        return {"bags": 0, "mean": None, "sd": None, "min": None, "max": None}
    sd = float(found.std(ddof=1)) if len(found) > 1 else None
    return {
        "bags": len(found),
        "mean": float(found.mean()),
        "sd": sd,
        "min": float(found.min()),
        "max": float(found.max()),
    }


def _over_bags(errors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": sum(each["pairs"] for each in errors),
        **{key: spread([each[key] for each in errors]) for key in ("mae", "mae_at_shift", "best_shift_s")},
        "mae_at_shift_of_range": spread([each["of_range"].get("mae_at_shift") for each in errors]),
    }


def table(found: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one for each pair, with each action's MAE and best shift; shorter where it failed."""
    actions = _actions(found)
    header = ["bag", "policy", "ticks", "pairs", "refused", "salvaged", "novelty_p99"]
    header += [column for name in actions for column in (f"{MAE}{printable(name)}", AT_SHIFT, "shift s")]
    rows = []
    for each in found:
        row = [printable(each.job.bag.resolve().name), printable(each.job.policy.stem)]
        if each.facts is not None:
            row += [
                str(each.facts["ticks"]),
                str(_pairs(each.facts["actions"])),
                str(each.facts["refused"]["frames"]),
                str(each.facts["salvaged"]),
            ]
            row.append(_text(each.facts["novelty_p99"]))
            for name in actions:
                errors = each.facts["actions"].get(name, {})
                row += [_text(errors.get(key)) for key in ("mae", "mae_at_shift", "best_shift_s")]
        rows.append(row)
    return header, rows


def totals(found: Sequence[Scored]) -> list[list[str]]:
    """Rows below the table: each policy that has several bags over all of them, errors as mean ± standard deviation."""
    rows = []
    for each in aggregate(found):
        if each["bags"] < 2:
            continue
        counts = [str(count) for count in (each["ticks"], _pairs(each["actions"]), each["refused"], each["salvaged"])]
        row = [f"all {each['bags']}", printable(Path(each["policy"]).stem), *counts, _spread_text(each["novelty_p99"])]
        for name in _actions(found):
            errors = each["actions"].get(name, {})
            row += [_spread_text(errors.get(key)) for key in ("mae", "mae_at_shift", "best_shift_s")]
        rows.append(row)
    return rows


def _pairs(actions: dict[str, Any]) -> int:
    """Of the action that has the fewest."""
    return min((errors["pairs"] for errors in actions.values()), default=0)


def _actions(found: Sequence[Scored]) -> list[str]:
    return list(dict.fromkeys(name for each in found if each.facts for name in each.facts["actions"]))


def render(found: Sequence[Scored]) -> str:
    """The table for a terminal, and below it what is wrong with a score."""
    header, rows = table(found)
    rows = [
        header,
        *([*row, *(["failed"] if each.facts is None else [])] for row, each in zip(rows, found, strict=True)),
        *totals(found),
    ]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for each in found:
        if each.facts is not None:
            lines += [
                f"{each.job.bag} with {each.job.policy}: {' '.join(line.split())}" for line in problems(each.facts)
            ]
    return "\n".join([*lines, NO_LIMITS] if _actions(found) else lines)


def write_index(found: Sequence[Scored], out: Path) -> None:
    """The table as a page, `out`/index.html, with a link to each pair's."""
    from sac_ae_ros import page

    header, texts = table(found)
    rows = []
    for i, (each, row) in enumerate(zip(found, texts, strict=True)):
        first = i > 0 and found[i - 1].job.bag != each.job.bag
        link = f"{quote(os.fsencode(each.job.out.name))}/report.html" if each.job.out is not None else ""
        rows.append(
            {"texts": row, "first": first, "link": link, "error": each.error, "best": _best(i, found, header, texts)}
        )
    template = page.template(Path(__file__).parent, "index.html.jinja")
    text = template.render(header=header, rows=rows, totals=totals(found), made=time.strftime("%Y-%m-%d %H:%M"))
    page.write(out / "index.html", text)


def _best(i: int, found: Sequence[Scored], header: list[str], texts: list[list[str]]) -> list[int]:
    """The columns of errors in which no other policy is better on the same bag; none where there is no other."""
    rivals = [k for k, each in enumerate(found) if each.job.bag == found[i].job.bag and each.facts is not None]
    if found[i].facts is None or len(rivals) < 2:
        return []
    columns = [k for k, name in enumerate(header) if name.startswith(MAE) or name == AT_SHIFT]
    numbers = {k: [float(texts[rival][k]) for rival in rivals if texts[rival][k] != NONE] for k in columns}
    return [k for k in columns if texts[i][k] != NONE and float(texts[i][k]) == min(numbers[k])]


def _text(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def _spread_text(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return NONE
    return f"{found['mean']:.3g}" if found["sd"] is None else f"{found['mean']:.3g} ± {found['sd']:.2g}"
