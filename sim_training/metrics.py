"""Training curves: rows in CSV files and the same scalars for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

TRAIN_FIELDS = (
    "env_step agent_step update_step seconds episode_return critic_loss actor_loss alpha_loss autoencoder_loss"
    " alpha entropy q updates_per_s"
).split()
EVAL_FIELDS = "env_step agent_step update_step seconds episodes mean_return sd_return".split()


class Metrics:
    """Appends rows to train.csv and eval.csv and scalars to TensorBoard, all in one run folder."""

    def __init__(self, run_dir: Path, resume_at_env_step: int = 0) -> None:
        """On a resume, rows after the checkpoint's env step are dropped: they will be written again."""
        from torch.utils.tensorboard import SummaryWriter

        self._run_dir = run_dir
        for name in ("train", "eval"):
            _truncate(run_dir / f"{name}.csv", resume_at_env_step)
        purge = resume_at_env_step + 1 if resume_at_env_step else None
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge)

    def train(self, row: Mapping[str, float]) -> None:
        """Adds a row of losses or of an episode's return."""
        self._add("train", TRAIN_FIELDS, row)

    def evaluation(self, row: Mapping[str, float]) -> None:
        """Adds a row of an evaluation."""
        self._add("eval", EVAL_FIELDS, row)

    def close(self) -> None:
        """Flushes TensorBoard."""
        self._board.close()

    def _add(self, name: str, fields: list[str], row: Mapping[str, float]) -> None:
        path = self._run_dir / f"{name}.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fields, extrasaction="raise")
            if new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        for key, value in row.items():
            if not key.endswith("_step"):
                self._board.add_scalar(f"{name}/{key}", value, int(row["env_step"]))


def read(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV file; a cell that was not measured is left out of its row."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _truncate(path: Path, env_step: int) -> None:
    """Drops rows after `env_step`, and a last line that a crash cut short."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    header, kept = rows[:1], [row for row in rows[1:] if len(row) == len(rows[0]) and float(row[0]) <= env_step]
    with path.with_suffix(".tmp").open("w", newline="") as file:
        csv.writer(file).writerows([*header, *kept])
    path.with_suffix(".tmp").replace(path)
