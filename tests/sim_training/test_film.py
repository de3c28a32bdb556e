"""A film shows the episode that an evaluation judges, larger than the policy sees it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_config import TINY

from sac_ae_ros.cli import evaluate_run
from sim_training.film import HEIGHT_PX, SEED, Film, size
from sim_training.trainer import Trainer


@pytest.fixture(scope="module", params=["pixels", "state"])
def run_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("film") / "run"
    env = replace(TINY.env, obs=request.param, height=12, width=20)
    trainer = Trainer(replace(TINY, env=env, run=replace(TINY.run, env_steps=100, eval_every=100)), folder)
    try:
        trainer.run()
    finally:
        trainer.close()
    return folder


def test_filming_changes_nothing_and_shows_what_happens(run_dir):
    film = Film(run_dir)
    try:
        shots = []
        seen = []
        for shot in film.shots():
            shots.append(shot)
            seen.append(getattr(film._env, "camera_image", None))
    finally:
        film.close()
    assert film.episode_return == evaluate_run(run_dir, range(SEED, SEED + 1)).mean == shots[-1].return_so_far
    assert len(shots) == 101
    assert shots[-1].time_s == pytest.approx(100 * film.period_s)
    assert all(shot.picture.shape == (HEIGHT_PX, round(HEIGHT_PX * 20 / 12), 3) for shot in shots)
    assert not np.array_equal(shots[0].picture, shots[50].picture)
    for shot, camera in list(zip(shots, seen, strict=True))[::20] if seen[0] is not None else []:
        small = cv2.resize(shot.picture, (20, 12), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - camera).mean() < 4  # the film's picture, made small, is the policy's


def test_a_film_keeps_the_proportions():
    assert size(replace(TINY.env, height=84, width=84)) == (320, 320)
    assert size(replace(TINY.env, height=36, width=64)) == (320, 569)
