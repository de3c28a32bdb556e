"""`sac-ae report`: films a run's best networks, then has sim_training.report write the page."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from sac_ae_ros import video
from sac_ae_ros.core.errors import SacAeError, printable


def make(run_dir: Path, out: Path, *, with_video: bool = True) -> None:
    """Writes the page of a run, finished or under way; where no video can be made, the page says why.

    Raises:
        RunError: not a run folder, or its files cannot be read.
    """
    from sim_training import report

    record = report.read(run_dir)  # what is no run is refused before anything slow begins
    clip: Any = "Left out on request."
    if with_video and record.best is None:
        clip = "None yet: it shows the best evaluated networks, and this run has not been evaluated."
    elif with_video:
        _say("filming a held-out episode of the best networks")
        try:
            clip = film(run_dir)
        except SacAeError as error:
            clip = f"None could be made: {error}"
            _say(f"warning: no video ({error})")
    _say("drawing the page")
    report.write(record, out, clip)


def film(run_dir: Path) -> Any:
    """One held-out episode of a run's best networks, as a Clip with its commands drawn below.

    Raises:
        RunError: no best.pt, or it does not fit config.yaml.
        SimError: this machine cannot render.
    """
    from sim_training.film import Film
    from sim_training.report import Clip

    source = Film(run_dir)
    moments = (
        video.Moment(shot.picture, shot.action, f"{shot.time_s:4.1f} s   return {shot.return_so_far:5.1f}")
        for shot in source.shots()
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "episode.mp4"
            video.write(path, moments, source.actions, max(1, round(1 / source.period_s)))
            return Clip(path.read_bytes(), video.poster(path), source.env_step, source.seed, source.episode_return)
    finally:
        source.close()


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
