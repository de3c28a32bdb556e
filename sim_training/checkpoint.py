"""Checkpoints: everything a run needs to go on exactly, in a folder that appears whole or not at all.

RUN/checkpoints/000012000/ holds agent.pt (networks, targets, log alpha, optimisers, random states, counters),
replay.npz (all but the frames) and env.npz (the simulation in the middle of its episode). The frames lie in
RUN/replay/frames.bin, of which a checkpoint writes only the new ones, and none over those of the checkpoint before.
RUN/best.pt holds the best evaluated networks alone.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from sac_ae_ros.core.errors import RunError

Arrays = Mapping[str, NDArray[Any]]
FRAMES = Path("replay") / "frames.bin"
CURVES = (Path("train.csv"), Path("eval.csv"))


def save(run_dir: Path, env_step: int, state: dict[str, Any], arrays: Mapping[str, Arrays]) -> Path:
    """Writes a checkpoint beside the previous one, then removes the previous one; returns its folder.

    Args:
        run_dir: the run's folder.
        env_step: names the checkpoint.
        state: tensors and plain values.
        arrays: file name without suffix -> arrays, each written as an .npz.

    Raises:
        RunError: it cannot be written, for example as the disk is full; the previous one stays.
    """
    parent = run_dir / "checkpoints"
    final, partial, replaced = parent / f"{env_step:09d}", parent / "partial", parent / "replaced"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_tensors(partial / "agent.pt", state)
        for name, values in arrays.items():
            write_arrays(partial / f"{name}.npz", values)
        _sync_folder(partial)
        if final.exists():  # a kill between the two renames leaves `replaced` as the only checkpoint, until the next
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        partial.rename(final)
        _sync_folder(parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror or str(error)
        raise RunError(f"checkpoint: cannot write {final} ({reason}); the previous one is kept") from error
    for folder in (*_complete(run_dir), replaced):
        if folder != final:
            shutil.rmtree(folder, ignore_errors=True)
    return final


def exists(run_dir: Path) -> bool:
    """Return whether the run folder holds a checkpoint to resume from."""
    return bool(_complete(run_dir)) or (run_dir / "checkpoints" / "replaced").is_dir()


def load(run_dir: Path, device: str) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
    """Reads the newest checkpoint: what `save` was given.

    Raises:
        RunError: the run has no checkpoint, or it cannot be read.
    """
    _require_own(run_dir)
    folders = _complete(run_dir)
    if not folders and (run_dir / "checkpoints" / "replaced").is_dir():
        folders = [run_dir / "checkpoints" / "replaced"]  # killed between two renames
    if not folders:
        raise RunError(f"resume: expected a checkpoint under {run_dir / 'checkpoints'}, found none; start a new run")
    if not (found := folders[-1].resolve()).is_relative_to(run_dir.resolve()):
        raise RunError(f"resume: {folders[-1]} leads to {found}, outside of the run's folder; copy it there")
    state = load_tensors(folders[-1] / "agent.pt", device)
    return state, {path.stem: load_arrays(path) for path in sorted(folders[-1].glob("*.npz"))}


def _require_own(run_dir: Path) -> None:
    """A resume writes to these files; in a folder from anywhere they might be links to others'."""
    for path in (run_dir / name for name in (*CURVES, FRAMES)):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise RunError(f"resume: expected {path} to be a file of the run's own, got a link or no file")


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz and makes it durable; OSError where it cannot be."""
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        _sync_file(file)


def load_arrays(path: Path, purpose: str = "resume") -> dict[str, NDArray[Any]]:
    """Reads an .npz; it may come from anywhere, so no code in it is run.

    Raises:
        RunError: no such file, or none of arrays; `purpose` says what it was wanted for.
    """
    try:
        _require_stored(path)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # what parses such files raises many kinds
        raise RunError(f"{purpose}: cannot read {path} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _require_stored(path: Path) -> None:
    """As `write_arrays` makes them, members lie in the file as they are: none can claim to be larger than it."""
    if not path.is_file():
        raise ValueError("no such file")
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    if not stored or claimed > path.stat().st_size:
        raise ValueError(f"expected {path.stat().st_size} bytes of arrays, not compressed, it claims {claimed}")


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """Writes a file of tensors and plain values atomically.

    Raises:
        RunError: it cannot be written; an older file of that name stays.
    """
    partial = path.with_suffix(".tmp")
    try:
        _write_tensors(partial, state)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"checkpoint: cannot write {path} ({error.strerror or error})") from error


def _write_tensors(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # written by torch itself, a full disk would not be an OSError
    torch.save(state, buffer)
    with path.open("wb") as file:
        file.write(buffer.getbuffer())
        _sync_file(file)


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Reads a file of tensors and plain values; it may come from anywhere, so no code in it is run.

    Raises:
        RunError: no such file, or not a checkpoint.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file")
        return dict(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # what parses such files raises many kinds
        raise RunError(f"checkpoint: cannot read {path} ({_reason(error)})") from None


def _complete(run_dir: Path) -> list[Path]:
    found = (run_dir / "checkpoints").glob("[0-9]*")
    folders = [each for each in found if each.name.isdecimal() and each.is_dir() and not each.is_symlink()]
    return sorted(folders, key=lambda folder: int(folder.name))


def _sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def big_ints_to_text(value: Any) -> Any:
    """numpy's generators have 128-bit integers, which torch.save(weights_only) does not know."""
    if isinstance(value, dict):
        return {key: big_ints_to_text(item) for key, item in value.items()}
    return f"int:{value}" if isinstance(value, int) else value


def text_to_big_ints(value: Any) -> Any:
    """Undoes `big_ints_to_text`."""
    if isinstance(value, dict):
        return {key: text_to_big_ints(item) for key, item in value.items()}
    return int(value[4:]) if isinstance(value, str) and value.startswith("int:") else value
