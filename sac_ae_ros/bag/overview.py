"""Many scores in one table, for a terminal and as a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sac_ae_ros.core.errors import printable

if TYPE_CHECKING:
    from sac_ae_ros.bag.many import Scored

MAE, NONE = "mae ", "-"


def table(found: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one for each pair, with each action's MAE and best shift; shorter where it failed."""
    actions = list(dict.fromkeys(name for each in found if each.facts for name in each.facts["actions"]))
    header = ["bag", "policy", "ticks", "salvaged", "novelty_p99"]
    header += [column for name in actions for column in (f"{MAE}{name}", "shift s")]
    rows = []
    for each in found:
        row = [printable(each.job.bag.resolve().name), printable(each.job.policy.stem)]
        if each.facts is not None:
            row += [str(each.facts["ticks"]), str(each.facts["salvaged"]), _text(each.facts["novelty_p99"])]
            for name in actions:
                errors = each.facts["actions"].get(name, {})
                row += [_text(errors.get("mae")), _text(errors.get("best_shift_s"))]
        rows.append(row)
    return header, rows


def render(found: Sequence[Scored]) -> str:
    """The table for a terminal."""
    header, rows = table(found)
    rows = [
        header,
        *([*row, *(["failed"] if each.facts is None else [])] for row, each in zip(rows, found, strict=True)),
    ]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def write_index(found: Sequence[Scored], out: Path) -> None:
    """The table as a page, `out`/index.html, with a link to each pair's."""
    from sac_ae_ros import page

    header, texts = table(found)
    rows = []
    for i, (each, row) in enumerate(zip(found, texts, strict=True)):
        first = i > 0 and found[i - 1].job.bag != each.job.bag
        link = f"{quote(each.job.out.name)}/report.html" if each.job.out is not None else ""
        rows.append(
            {"texts": row, "first": first, "link": link, "error": each.error, "best": _best(i, found, header, texts)}
        )
    template = page.template(Path(__file__).parent, "index.html.jinja")
    text = template.render(header=header, rows=rows, made=time.strftime("%Y-%m-%d %H:%M"))
    page.write(out / "index.html", text)


def _best(i: int, found: Sequence[Scored], header: list[str], texts: list[list[str]]) -> list[int]:
    """The columns of errors in which no other policy is better on the same bag; none where there is no other."""
    rivals = [k for k, each in enumerate(found) if each.job.bag == found[i].job.bag and each.facts is not None]
    if found[i].facts is None or len(rivals) < 2:
        return []
    columns = [k for k, name in enumerate(header) if name.startswith(MAE)]
    numbers = {k: [float(texts[rival][k]) for rival in rivals if texts[rival][k] != NONE] for k in columns}
    return [k for k in columns if texts[i][k] != NONE and float(texts[i][k]) == min(numbers[k])]


def _text(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"
