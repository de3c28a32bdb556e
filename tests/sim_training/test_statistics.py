"""Numbers over runs: by hand where that can be done, and against the bootstrap's definition."""

import dataclasses

import numpy as np
import pytest

from sim_training import statistics
from sim_training.statistics import Score, interval, iqm, score, summarise


def evaluation(env_step: int, mean: float, seconds: float = 60.0) -> dict[str, float]:
    return {"env_step": env_step, "mean_return": mean, "sd_return": 1.0, "seconds": seconds}


def scores(*finals: float) -> dict[int, Score]:
    """Runs of the seeds 1, 2, ..., each with a best evaluation 10 above its last, and an hour long."""
    return {seed: Score(final, final + 10, 3600.0) for seed, final in enumerate(finals, 1)}


def test_a_run_is_judged_by_its_last_evaluation_and_the_best_is_told_beside():
    rows = [evaluation(100, 5.0), evaluation(200, 9.0), evaluation(302, 7.0, seconds=90.0)]
    assert score(rows, 300) == Score(final=7.0, best=9.0, seconds=90.0)


def test_a_run_short_of_its_budget_has_no_score():
    rows = [evaluation(100, 5.0), evaluation(200, 9.0)]
    assert score(rows, 201) is None
    assert score([], 100) is None
    cut_short = {"env_step": 300.0, "mean_return": 1.0}
    assert score([*rows, cut_short], 300) is None


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end():
    assert iqm(np.array([[0.0, 40.0], [10.0, 20.0], [30.0, 1000.0], [12.0, -500.0]])) == [(10 + 12 + 20 + 30) / 4]
    assert iqm(np.array([[1.0], [2.0], [6.0]])) == [3.0]


def test_a_row_is_summed_up_over_its_seeds():
    line = summarise("cheetah_run", "best", 100_000, [scores(1.0, 2.0, 3.0, 4.0, 90.0)])
    assert (line.config, line.row, line.env_steps, line.seeds) == ("cheetah_run", "best", 100_000, (1, 2, 3, 4, 5))
    assert line.mean == 20.0
    assert line.sd == pytest.approx(np.sqrt((19**2 + 18**2 + 17**2 + 16**2 + 70**2) / 4))
    assert line.iqm == 3.0
    assert line.best_mean == 30.0
    assert line.hours == 1.0
    assert line.iqm_low < line.iqm < line.iqm_high
    assert line.iqm_low >= 1.0


def test_one_seed_has_no_spread():
    line = summarise("rover", "plain", 100, [scores(7.0)])
    assert (line.mean, line.iqm, line.best_mean) == (7.0, 7.0, 17.0)
    assert (line.sd, line.iqm_low, line.iqm_high) == (None, None, None)


def test_no_run_gives_no_numbers():
    line = dataclasses.asdict(summarise("rover", "plain", 100, [{}]))
    assert line.pop("seeds") == ()
    assert {key for key, value in line.items() if value is not None} == {"config", "row", "env_steps"}


def test_over_tasks_only_the_seeds_count_that_all_have():
    one, other = scores(0.0, 10.0, 20.0), {2: Score(100.0, 100.0, 0.0), 3: Score(200.0, 200.0, 0.0)}
    line = summarise("all 2", "best", None, [one, other])
    assert line.seeds == (2, 3)
    assert line.mean == (15 + 150) / 2
    assert line.sd is None
    assert line.iqm == (20 + 100) / 2
    assert line.hours == 0.5


def test_the_bootstrap_draws_seeds_within_a_task():
    constant_tasks = np.array([[0.0, 50.0, 100.0]] * 5)
    assert interval(constant_tasks, iqm).tolist() == [[50.0], [50.0]]
    low, high = interval(np.arange(100.0)[:, None], lambda scores: scores.mean(axis=0))[:, 0]
    standard_error = np.arange(100).std() / 10
    assert low == pytest.approx(49.5 - 1.96 * standard_error, abs=1.0)
    assert high == pytest.approx(49.5 + 1.96 * standard_error, abs=1.0)


def test_the_same_scores_give_the_same_interval_and_the_generator_is_left_alone():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.uniform()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    values = np.random.default_rng(0).uniform(size=(4, 2))
    first = interval(values, iqm)
    assert np.random.uniform() == expected  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert (interval(values, iqm) == first).all()


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        interval(np.array([[1.0], [np.nan]]), iqm)


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (float("nan"), "–"), (1.25, "1.2"), (-0.06, "-0.1")])
def test_numbers_in_tables(value, shown):
    assert statistics.text(value) == shown
