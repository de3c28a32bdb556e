"""Training curves: rows in CSV files and the same scalars for TensorBoard."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import RunError

TRAIN_FIELDS = (
    "env_step agent_step update_step seconds episode_return critic_loss actor_loss alpha_loss autoencoder_loss"
    " alpha entropy q updates_per_s env_steps_per_s wait_share diverged"
).split()
EVAL_FIELDS = "env_step agent_step update_step seconds episodes mean_return sd_return diverged".split()


MOST_FRAMES, VIDEO_HEIGHT_PX = 250, 100  # of a GIF
FILES = ("train.csv", "eval.csv")


class Metrics:
    """Appends rows to train.csv and eval.csv, and scalars and pictures to TensorBoard, all in one run folder."""

    def __init__(self, run_dir: Path, sizes: Mapping[str, int] | None = None, resume_at_env_step: int = 0) -> None:
        """On a resume, the files are cut back to the `sizes` they had at the checkpoint; the rest comes again."""
        from torch.utils.tensorboard import SummaryWriter

        self._run_dir = run_dir
        for name, size in (sizes or {}).items():
            if name not in FILES or type(size) is not int or size < 0:  # any other name might be another's file
                raise RunError(f"resume: expected sizes of {' and '.join(FILES)} in the checkpoint, got {name}: {size}")
            _cut_back(run_dir / name, size)
        purge = resume_at_env_step + 1 if resume_at_env_step else None
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge)

    def train(self, row: Mapping[str, float]) -> None:
        """Adds a row of losses or of an episode's return."""
        self._add("train", TRAIN_FIELDS, row)

    def evaluation(self, row: Mapping[str, float]) -> None:
        """Adds a row of an evaluation."""
        self._add("eval", EVAL_FIELDS, row)

    def picture(self, name: str, rgb: NDArray[np.uint8], env_step: int) -> None:
        """Shows TensorBoard a picture of an evaluation, uint8 RGB [H, W, 3]."""
        self._board.add_image(f"eval/{name}", rgb, env_step, dataformats="HWC")

    def video(self, name: str, frames: NDArray[np.uint8], period_s: float, env_step: int) -> None:
        """Shows TensorBoard an episode of an evaluation, uint8 RGB [T, H, W, 3], as a GIF in its own time.

        SummaryWriter.add_video writes the same, but needs moviepy.
        """
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        every, larger = -(-len(frames) // MOST_FRAMES), -(-VIDEO_HEIGHT_PX // frames.shape[1])
        shown = frames[::every].repeat(larger, 1).repeat(larger, 2)
        first, *rest = (Image.fromarray(frame) for frame in shown)
        data = io.BytesIO()
        first.save(data, "GIF", save_all=True, append_images=rest, duration=round(1000 * every * period_s), loop=0)
        size = {"height": shown.shape[1], "width": shown.shape[2], "colorspace": 3}
        image = Summary.Image(**size, encoded_image_string=data.getvalue())
        writer = self._board._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=f"eval/{name}", image=image)]), env_step)

    def sizes(self) -> dict[str, int]:
        """Bytes in each file so far."""
        paths = [self._run_dir / name for name in FILES]
        return {path.name: path.stat().st_size if path.exists() else 0 for path in paths}

    def close(self) -> None:
        """Flushes TensorBoard."""
        self._board.close()

    def _add(self, name: str, fields: list[str], row: Mapping[str, float]) -> None:
        path = self._run_dir / f"{name}.csv"
        new = not path.exists() or not path.stat().st_size
        assert set(row) <= set(fields)
        cells = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        try:
            with path.open("a+", newline="") as file:
                file.seek(0)  # reading only; a run of an earlier version goes on with its own columns
                writer = csv.DictWriter(file, fields if new else next(csv.reader(file)), extrasaction="ignore")
                if new:
                    writer.writeheader()
                writer.writerow(cells)
        except OSError as error:
            raise RunError(f"metrics: cannot write {path} ({error.strerror or error})") from error
        for key, value in row.items():
            if not key.endswith("_step"):
                self._board.add_scalar(f"{name}/{key}", value, int(row["env_step"]))


def read(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV file; a cell that was not measured is left out of its row."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _cut_back(path: Path, size: int) -> None:
    if path.exists():
        if size:
            os.truncate(path, min(size, path.stat().st_size))
        else:
            path.unlink()
