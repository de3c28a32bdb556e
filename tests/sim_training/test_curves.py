"""Curves show what was measured, at a size that a page can carry, in the page's own colours."""

import numpy as np

from sac_ae_ros import page
from sim_training import curves

LOSS = curves.Panel("critic loss", {"critic_loss": ""}, log=True)


def test_a_column_leaves_out_what_was_not_measured():
    rows = [
        {"env_step": 1.0, "q": 2.0},
        {"env_step": 2.0},
        {"env_step": 3.0, "q": np.nan},
        {"env_step": 4.0, "q": -1.0},
    ]
    steps, values = curves.column(rows, "q")
    assert (steps.tolist(), values.tolist()) == ([1.0, 4.0], [2.0, -1.0])


def test_thinning_keeps_means_and_extremes():
    x, mean, low, high = page.thin(np.arange(5.0), np.array([0.0, 2.0, 9.0, 1.0, 7.0]), most=3)
    assert x.tolist() == [0.5, 2.5, 4.0]
    assert (mean.tolist(), low.tolist(), high.tolist()) == ([1.0, 5.0, 7.0], [0.0, 1.0, 7.0], [2.0, 9.0, 7.0])


def test_a_short_curve_is_drawn_point_by_point():
    steps, values = np.arange(7.0), np.arange(7.0) ** 2
    assert all(np.array_equal(each, values) for each in page.thin(steps, values)[1:])


def test_a_long_run_makes_no_larger_picture():
    rng = np.random.default_rng(0)
    rows = [{"env_step": float(i), "critic_loss": v, "episode_return": v} for i, v in enumerate(rng.random(20_000))]
    assert 5_000 < len(curves.panel_svg(LOSS, rows)) < 60_000
    assert 5_000 < len(curves.returns_svg(rows, [])) < 120_000
    assert "1 of 25" in curves.returns_svg(rows, [])


def test_a_picture_takes_the_pages_colour_and_brings_no_style_or_name_of_its_own():
    svg = curves.panel_svg(LOSS, [{"env_step": 1.0, "critic_loss": 2.0}, {"env_step": 2.0, "critic_loss": 2.5}])
    assert svg.startswith('<svg role="img" aria-label="critic loss over env steps"')
    assert "currentColor" in svg
    assert not [word for word in ("#010203", "<style", "font-family", '<g id="', "#000000") if word in svg]


def test_pictures_of_one_page_share_no_names():
    rows = [{"env_step": float(i), "critic_loss": 1.0 + i, "q": 1.0 + i, "mean_return": 1.0 + i} for i in range(5)]
    pictures = [curves.panel_svg(LOSS, rows), curves.panel_svg(curves.Panel("Q", {"q": ""}), rows)]
    names = [{part.split('"')[0] for part in svg.split(' id="')[1:]} for svg in pictures]
    assert names[0]
    assert not names[0] & names[1]


def test_nothing_measured_is_no_picture():
    assert curves.panel_svg(LOSS, [{"env_step": 1.0}]) == ""
    assert curves.returns_svg([{"env_step": 1.0}], []) == ""


def test_one_evaluation_alone_is_a_picture():
    assert "<svg" in curves.returns_svg([], [{"env_step": 1.0, "mean_return": -3.0, "sd_return": 0.0}])
