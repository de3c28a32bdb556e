"""A run as one HTML page that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

import csv
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from sac_ae_ros import page
from sac_ae_ros.core.errors import RunError
from sac_ae_ros.page import count, duration
from sim_training import checkpoint, curves, metrics, statistics
from sim_training import config as configs
from sim_training.config import TrainConfig

TEMPLATE = "report.html.jinja"
MOST_PICTURES = 6
MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS = 16 << 20, 16_000_000
MAX_VALUE = 1e100  # of a run's numbers; plots add and multiply them


@dataclass(frozen=True)
class Record:
    """What a run folder holds: its config, the rows of both CSV files, and the facts beside best.pt's networks."""

    run_dir: Path
    config: TrainConfig
    train: list[dict[str, float]]
    evals: list[dict[str, float]]
    best: dict[str, Any] | None


@dataclass(frozen=True)
class Clip:
    """One filmed episode: H.264 MP4, a JPEG of it, the env step of its networks, the episode's seed and return."""

    data: bytes
    poster: bytes
    env_step: int
    seed: int
    episode_return: float


@dataclass(frozen=True)
class Picture:
    """A PNG and its size in pixels."""

    env_step: int
    data: bytes
    height: int
    width: int


def read(run_dir: Path) -> Record:
    """Reads a run, finished or under way.

    Raises:
        RunError: not a run folder, or one of its files cannot be read.
        ConfigError: its config.yaml is not valid.
    """
    path, best = configs.run_config(run_dir), None
    if (run_dir / "best.pt").is_file():
        state = checkpoint.load_tensors(run_dir / "best.pt")
        best = {key: value for key, value in state.items() if key != "agent"}
    config = configs.load(path)
    return Record(run_dir, config, _rows(run_dir / "train.csv"), _rows(run_dir / "eval.csv"), best)


def write(record: Record, out: Path, clip: Clip | str) -> None:
    """Writes the page whole or not at all; in place of a clip, the reason why there is none."""
    text = page.template(Path(__file__).parent, TEMPLATE).render(
        config=record.config,
        yaml=(record.run_dir / "config.yaml").read_text(),
        summary=summary(record),
        returns=Markup(curves.returns_svg(record.train, record.evals)),
        panels=[Markup(svg) for panel in curves.PANELS if (svg := curves.panel_svg(panel, record.train))],
        pictures=pictures(record.run_dir / "reconstructions"),
        commands=commands(record),
        clip=None if isinstance(clip, str) else clip,
        no_clip=clip,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )
    configs.write_text(out, text)


def summary(record: Record) -> dict[str, str]:
    """The table at the top of the page, label to text; what was not measured is left out."""
    run, newest = record.config.run, _newest(record)
    rows = {}
    if record.evals:
        rows["best evaluation"] = _evaluation(max(record.evals, key=statistics.rank))
        rows["last evaluation"] = _evaluation(record.evals[-1])
    rows["env steps"] = f"{count(newest.get('env_step', 0))} of {count(run.env_steps)}"
    rows["agent steps"] = count(newest.get("agent_step", 0))
    rows["updates"] = count(newest.get("update_step", 0))
    _, diverged = curves.column(record.train, "diverged")
    if diverged.any():
        rows["diverged episodes"] = count(diverged.max())
    seconds = newest.get("seconds", 0.0)
    rows["wall time"] = duration(seconds)
    for label, name in (("updates/s", "updates_per_s"), ("env steps/s", "env_steps_per_s")):
        _, values = curves.column(record.train, name)
        if len(values):
            rows[label] = f"{np.median(values):.3g} (median)"
    if "env steps/s" not in rows and seconds > 0:
        rows["env steps/s"] = f"{newest.get('env_step', 0) / seconds:.3g} overall"
    _, waits = curves.column(record.train, "wait_share")
    if len(waits):
        rows["learner waits"] = f"{100 * waits.mean():.0f} % of the time"
    rows["device"] = run.device + (f", threads: {run.threads}" if run.threads and run.device == "cpu" else "")
    if record.best is not None:
        rows["source revision"] = str(record.best.get("revision", "unknown"))
    return rows


def pictures(folder: Path, most: int = MOST_PICTURES) -> list[Picture]:
    """Reconstructions, named by their env step, spread over the run from the first to the last."""
    files = sorted((path for path in folder.glob("*.png") if path.stem.isdigit()), key=lambda path: int(path.stem))
    picked = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    found = []
    for path in (files[i] for i in picked):
        data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_PICTURE_BYTES else b""
        height, width = _png_size(data)
        if not 0 < height * width <= MAX_PICTURE_PIXELS:
            continue
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:  # one that is just being written is left out
            found.append(Picture(int(path.stem), data, *image.shape[:2]))
    return found


def _png_size(data: bytes) -> tuple[int, int]:
    """Height and width that a PNG claims; zeros for anything else."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return 0, 0
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def commands(record: Record) -> dict[str, str]:
    """What to do with the run, and the command for it; one that is finished goes on with twice its budget."""
    run_dir, budget = record.run_dir, record.config.run.env_steps
    run = shlex.quote(str(run_dir))
    more = f" --run.env_steps={2 * budget}" if _newest(record).get("env_step", 0) >= budget else ""
    export = f"sac-ae export {run} --out {shlex.quote(str(run_dir / 'policy.onnx'))}"
    return {
        "go on training": f"sac-ae train --resume {run}{more}",
        "judge the best networks": f"sac-ae eval {run} --episodes 20",
        **({"export them for a robot": export} if record.config.env.obs == "pixels" else {}),
        "make this page again": f"sac-ae report {run}",
    }


def _newest(record: Record) -> Mapping[str, float]:
    """The row that stands furthest in the run."""
    ends = [rows[-1] for rows in (record.train, record.evals) if rows]
    return max(ends, key=lambda row: row.get("env_step", 0), default={})


def _evaluation(row: Mapping[str, float]) -> str:
    judged = f"{row.get('mean_return', np.nan):.1f} ± {row.get('sd_return', np.nan):.1f}"
    return f"{judged} over {row.get('episodes', 0):.0f} episodes, at env step {count(row.get('env_step', 0))}"


def _rows(path: Path) -> list[dict[str, float]]:
    try:
        rows = metrics.read(path)
    except (csv.Error, ValueError, TypeError) as error:
        raise RunError(f"report: expected rows of numbers in {path}, got something else ({error})") from None
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if not abs(value) <= MAX_VALUE:  # NaN neither
                raise RunError(f"report: expected finite numbers in {path}, got {name} {value:g} in row {number}")
    return rows
