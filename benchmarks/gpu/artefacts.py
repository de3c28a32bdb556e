"""Draws learning curves and reconstructions, and zips the policies that fit."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter
from published import published

from gpu import sizes
from gpu.scores import PROFILES
from gpu.store import POLICY

POLICIES_BYTES = 16_000_000
CARD = """Policies of one measurement, as benchmarks/gpu_day.py left them; day.json says on which machine.

Each <task>-<profile>-seed<k>.pt holds encoder and actor of the last evaluated networks as float16: a dict of names and
tensors. scores.json says after how many env steps, and what they scored. Read one with
`torch.load(path, weights_only=True)`; `SacAeAgent.load_state_dict(state, strict=False)` takes it, for the config that
benchmarks/gpu/sizes.py gives the task and profile. Licence: Apache-2.0.
"""


def task_of(config: str) -> str:
    """`cheetah_run` -> `cheetah/run`."""
    domain, _, task = config.rpartition("_")
    return f"{domain}/{task}"


def curves(rows: list[dict[str, Any]], out: Path) -> None:
    """A panel for each task: returns of training episodes, evaluations on top, and what others published."""
    figure, grid = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    handles: dict[str, Any] = {}
    for axes, task in zip(grid.flat, sizes.TASKS, strict=True):
        own = [row for row in rows if row["task"] == task]
        for row in own:
            color = f"C{PROFILES.index(row['profile'])}"
            if row["training"]:
                axes.plot(*zip(*row["training"], strict=True), color=color, alpha=0.35, linewidth=1)
            label = row["profile"] if row["seed"] == 1 else None
            if row["evaluations"]:
                marker = "os"[PROFILES.index(row["profile"])]
                size = {"markersize": 7, "mfc": "none"} if marker == "s" else {"markersize": 4}
                axes.plot(*zip(*row["evaluations"], strict=True), f"{marker}-", color=color, label=label, **size)
        steps = max((row["env_steps"] for row in own), default=0)
        for score in published({task_of(task)}):
            if score.env_steps == sizes.ENV_STEPS and steps >= sizes.ENV_STEPS // 4:
                marker = {"SAC+AE": "s", "DrQ": "^"}[score.method]
                name = f"{score.method}, published"
                axes.errorbar(
                    score.env_steps, score.mean, score.sd, fmt=marker, color="0.4", mfc="none", capsize=3, label=name
                )
        axes.set(title=task_of(task), xlabel="env steps", ylabel="return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if not own:
            axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", color="0.5")
    figure.suptitle("Points: evaluations; thin lines: episodes of training, with exploration")
    names = sorted(handles, key=lambda name: (name not in PROFILES, name))
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=4)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)


def strips(folder: Path, out: Path) -> None:
    """One strip a task: what the camera saw above what the autoencoder made of it, of the newest evaluation."""
    found = {}
    for task in sizes.TASKS:
        pictures = sorted(
            folder.glob(f"{task}-best-seed*/reconstructions/*.png"), key=lambda path: path.stat().st_mtime
        )
        if pictures:
            found[task] = pictures[-1]
    if not found:
        return
    figure, grid = plt.subplots(len(found), 1, figsize=(10, 2.6 * len(found)), squeeze=False, layout="constrained")
    for axes, (task, path) in zip(grid.flat, found.items(), strict=True):
        axes.imshow(cv2.imread(str(path))[..., ::-1], interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{task_of(task)}, best: camera above reconstruction, {int(path.stem):,} env steps", fontsize=10)
    figure.savefig(out, dpi=100, metadata={"Software": None})
    plt.close(figure)


def policies(folder: Path, out: Path) -> list[str]:
    """Zips the policies that fit, first seeds of `best` first; returns the names of those left out."""
    found = [folder / f"{task}-{profile}-seed1" / POLICY for profile in PROFILES for task in sizes.TASKS]
    left_out, used = [], 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", CARD)
        for path in (path for path in found if path.exists()):
            size = path.stat().st_size
            if used + size > POLICIES_BYTES:
                left_out.append(path.parent.name)
                continue
            archive.write(path, f"{path.parent.name}.pt")
            used += size
    return left_out
