"""What a sweep consists of, what each run of it comes to, and what is left to do for it."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training import config as configs
from sim_training import statistics, table
from sim_training.config import CHANGEABLE, PROFILES, TrainConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# What a run leaves before its first checkpoint.
OWN_START = {
    "config.yaml",
    "train.csv",
    "eval.csv",
    "tensorboard",
    "best.pt",
    "replay",
    "reconstructions",
    "checkpoints",
}
# Of these, what it leaves before config.yaml is nothing.
OWN_LATER = OWN_START - {"replay"}
OWN_TMP = re.compile(r"(config\.yaml.*|best)\.tmp")


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        files: YAML files of training configs; their names without suffix name the rows.
        profiles: of `best` and `plain`.
        variants: texts `NAME: --GROUP.KEY=VALUE ...`, each a row of that name, on top of the profile `best`.
        seeds: how many; they are 1, 2, ...
        overrides: `--GROUP.KEY=VALUE` arguments for every run.
        jobs: runs side by side; None is half the cores.
        out: folder of all runs.
    """

    files: tuple[Path, ...]
    profiles: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: int
    overrides: tuple[str, ...]
    jobs: int | None
    out: Path


@dataclass(frozen=True)
class Run:
    """One training run of a sweep.

    Args:
        file: YAML file of its config.
        row: profile or variant.
        arguments: what `sac-ae train` gets beside the file, but for seed and threads.
        seed: its seed.
        config: what all that comes to.
        folder: its run folder, OUT/<config>-<row>/seed<k>.
    """

    file: Path
    row: str
    arguments: tuple[str, ...]
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """`<config>-<row>/seed<k>`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """The file that takes its output."""
        return self.folder.with_suffix(".log")

    def command(self, state: str, threads: int) -> tuple[str, ...]:
        """Arguments of `sac-ae` that start it, or go on with it."""
        if state == "resume":
            wanted = configs.parse(self.all_arguments(threads), path=self.file).run.threads
            return ("train", "--resume", str(self.folder), f"--run.threads={wanted}")
        where = ("--run-dir", str(self.folder))
        return ("train", "--config", str(self.file), *self.all_arguments(threads), *where)

    def all_arguments(self, threads: int) -> tuple[str, ...]:
        """Threads first: the sweep's own arguments may set them otherwise."""
        return (f"--run.threads={threads}", *self.arguments, f"--run.seed={self.seed}")


def plan(request: Request) -> list[Run]:
    """All runs of a sweep, a seed of every row before the next seed.

    Raises:
        ConfigError: a config, a profile or a variant does not fit, or two rows would share a folder.
    """
    rows = _rows(request)
    names = [file.stem for file in request.files]
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep --configs: expected files of different names, got {' '.join(names)}")
    if any(argument.startswith("--run.seed") for argument in [*request.overrides, *sum(rows.values(), ())]):
        raise ConfigError("sweep: expected no --run.seed, as --seeds says how many; drop it")
    return [
        Run(file, row, own, seed, config, request.out / f"{file.stem}-{row}" / f"seed{seed}")
        for seed in range(1, request.seeds + 1)
        for file in request.files
        for row, arguments in rows.items()
        for own in [(*arguments[:1], *request.overrides, *arguments[1:])]
        for config in [configs.parse([*own, f"--run.seed={seed}"], path=file)]
    ]


def _rows(request: Request) -> dict[str, tuple[str, ...]]:
    """The rows' names and arguments, the profile first."""
    rows: dict[str, tuple[str, ...]] = {name: (f"--profile={name}",) for name in request.profiles}
    for variant in request.variants:
        name, colon, arguments = variant.partition(":")
        if not (colon and NAME.fullmatch(name) and arguments.strip()) or name in (*PROFILES, *rows):
            raise ConfigError(f"sweep --variant: expected 'NAME: --GROUP.KEY=VALUE ...' of a new name, got {variant!r}")
        rows[name] = ("--profile=best", *shlex.split(arguments))
    return rows


def state_of(run: Run) -> Literal["complete", "resume", "start"]:
    """What is left to do for a run; an unfinished start of a sweep without a checkpoint counts as none.

    Raises:
        RunError: its folder holds a run of another config, or something that is not of a sweep's run; or a file of it
            cannot be read.
    """
    if not run.folder.exists():
        return "start"
    begun = (run.folder / "config.yaml").is_file()  # without it, a run has opened its replay at most
    if begun:
        _check_same(run)
        if score_of(run) is not None:
            return "complete"
        if any(path.name != "partial" for path in (run.folder / "checkpoints").glob("*")):
            return "resume"
    names = sorted(path.name for path in run.folder.iterdir())
    # Without a log, no sweep began it: it may be a run that someone has just started by hand.
    swept = run.log.is_file() and run.log.stat().st_size > 0
    foreign = [name for name in names if not (swept and is_own_start(name) and (begun or name not in OWN_LATER))]
    if foreign:
        raise RunError(
            f"sweep: {run.folder} has no checkpoint, but holds {' '.join(foreign)}; move it, or change --out"
        )
    return "start"


def is_own_start(name: str) -> bool:
    """Whether a file or folder of this name in a run's folder is the run's own, from before its first checkpoint."""
    return name in OWN_START or bool(OWN_TMP.fullmatch(name))


def score_of(run: Run) -> statistics.Score | None:
    """What the run is judged by; None before its last evaluation.

    Raises:
        RunError: its eval.csv cannot be read.
    """
    return statistics.score(table.evaluations(run.folder), run.config.run.env_steps)


def _check_same(run: Run) -> None:
    saved, wanted = _flat(configs.load(run.folder / "config.yaml")), _flat(run.config)
    for key, value in wanted.items():
        if saved[key] != value and key != "run.threads":  # threads change a run's speed, not what it is
            # A run that was stopped may have been finished by hand with these.
            resume = f"`sac-ae train --resume {shlex.quote(str(run.folder))} --{key}={value}` first, or "
            raise RunError(
                f"sweep: {run.folder} was run with {key} {saved[key]}, now {value} is wanted;"
                f" {resume if key in CHANGEABLE else ''}choose another --out"
            )


def _flat(config: TrainConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for group, value in asdict(config).items():
        flat |= {f"{group}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {group: value}
    return flat
