"""How the pages look that we write: HTML that needs nothing else, and plots in it that take its font and colours."""

from __future__ import annotations

import base64
import re
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLORS = ("#3b82f6", "#e07b39", "#2fa36b")  # readable on white and on black
QUIET = "#8b919a"
INK = "#010203"  # stands for the page's own colour, which matplotlib cannot name
MOST_POINTS = 300
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


def template(folder: Path, name: str) -> jinja2.Template:
    """A template in `folder` that may extend page.html.jinja; every value is escaped, an unknown one is an error.

    Its filters: `data` gives bytes as base64, `count` a whole number with thin spaces between thousands.
    """
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"count": count, "data": lambda data: base64.b64encode(data).decode()}
    return engine.get_template(name)


def write(path: Path, text: str) -> None:
    """Writes a page whole or not at all; bytes of file names that are no UTF-8 are shown escaped."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)


def literal(text: str) -> str:
    """A name as matplotlib shows it letter for letter, not as a formula between dollars."""
    return text.replace("$", r"\$")


def count(number: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{round(number):,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Two units, such as `3 h 20 min` or `4 min 5 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s"


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


def svg(figure: Figure, label: str) -> str:
    """The figure as an element of a page: scales with it, in its colour and font, and styles nothing outside."""
    out = StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has others
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
