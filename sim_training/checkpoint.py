"""Checkpoints: everything a run needs to go on exactly, in a folder that appears whole or not at all.

RUN/checkpoints/000012000/ holds agent.pt (networks, targets, log alpha, optimisers, random states, counters) and
replay.npz. RUN/best.pt holds the best evaluated networks alone.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sac_ae_ros.core.errors import RunError
from sim_training.replay import Replay


def save(run_dir: Path, env_step: int, state: dict[str, Any], replay: Replay) -> Path:
    """Writes a checkpoint beside the previous one, then removes the previous one; returns its folder."""
    parent = run_dir / "checkpoints"
    final, partial = parent / f"{env_step:09d}", parent / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    torch.save(state, partial / "agent.pt")
    np.savez(partial / "replay.npz", **replay.state())  # type: ignore[arg-type]
    for file in partial.iterdir():
        _sync(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(parent)
    for folder in _complete(run_dir):
        if folder != final:
            shutil.rmtree(folder)
    return final


def load(run_dir: Path, replay: Replay, device: str) -> dict[str, Any]:
    """Reads the newest checkpoint into `replay` and returns the state that `save` was given.

    Raises:
        RunError: the run has no checkpoint, or it cannot be read.
    """
    folders = _complete(run_dir)
    if not folders:
        raise RunError(f"resume: expected a checkpoint under {run_dir / 'checkpoints'}, found none; start a new run")
    state = load_tensors(folders[-1] / "agent.pt", device)
    try:
        with np.load(folders[-1] / "replay.npz", allow_pickle=False) as arrays:
            replay.load_state(dict(arrays))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"resume: cannot read {folders[-1] / 'replay.npz'} ({error})") from None
    return state


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """Writes a file of tensors and plain values atomically."""
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    _sync(partial)
    partial.replace(path)


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Reads a file of tensors and plain values; it may come from anywhere, so no code in it is run.

    Raises:
        RunError: no such file, or not a checkpoint.
    """
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RunError(f"checkpoint: cannot read {path} ({str(error).splitlines()[0][:160]})") from None


def _complete(run_dir: Path) -> list[Path]:
    return sorted(folder for folder in (run_dir / "checkpoints").glob("[0-9]*") if folder.is_dir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def source_revision() -> str:
    """The revision of the training code, where git knows it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
