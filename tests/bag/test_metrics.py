"""Errors against recorded commands, with expectations computed by hand."""

import numpy as np
import pytest

from sac_ae_ros.bag.metrics import compare, dropped, gaps, hold, jerk, pace, saturation, shown_times
from sac_ae_ros.core.spec import ActionSpec

SPEED = ActionSpec("speed", "m/s", -1.0, 1.0)
PERIOD_S = 0.1


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def speed(stamps, policy, recorded_stamps, recorded):
    args = np.array(stamps, float), column(*policy), np.array(recorded_stamps, float), column(*recorded)
    return compare(*args, [SPEED], PERIOD_S)["speed"]


def test_a_command_holds_until_the_next_and_no_longer_than_asked():
    stamps = np.array([0.0, 0.1, 0.19, 0.2, 0.45, 0.46])
    held = hold(stamps, np.array([0.2, 0.1]), column(2, 1), 0.25)  # recorded out of order
    np.testing.assert_array_equal(held[:, 0], [np.nan, 1, 1, 2, 2, np.nan])


def test_errors_by_hand():
    errors = speed([0, 0.1, 0.2, 0.3], [0.5, -0.5, 0.5, 0.25], [0, 0.1, 0.2, 0.3], [0.5, 0.5, -0.5, 0.0])
    assert errors.pairs == 4
    assert errors.mae == pytest.approx((0 + 1 + 1 + 0.25) / 4)
    assert errors.rmse == pytest.approx(np.sqrt((1 + 1 + 0.0625) / 4))
    assert errors.max == pytest.approx(1.0)
    # the recorded mean is 0.125: squared distances 3 * 0.140625 ... = 0.140625 + 0.140625 + 0.390625 + 0.015625
    assert errors.r2 == pytest.approx(1 - 2.0625 / 0.6875)
    assert errors.sign_agreement == pytest.approx(1 / 3)  # the last one, 0, is within the deadband


def test_a_constant_recording_has_no_r2_and_one_at_rest_no_sign():
    errors = speed([0, 0.1], [0.5, 0.4], [0, 0.1], [0.0, 0.0])
    assert (errors.r2, errors.sign_agreement) == (None, None)
    assert errors.mae == pytest.approx(0.45)


def test_what_is_no_number_is_no_pair():
    errors = speed([0, 0.1, 0.2], [0.5, np.nan, 0.1], [0, 0.1, 0.2], [0.25, 0.0, np.inf])
    assert (errors.pairs, errors.mae) == (1, 0.25)
    nothing = speed([0, 0.1, 0.2], [np.nan] * 3, [0, 0.1, 0.2], [0.0] * 3)
    assert (nothing.pairs, nothing.mae, nothing.best_shift_s) == (0, None, None)


def test_a_command_older_than_two_and_a_half_periods_does_not_count():
    assert speed([0.25], [1.0], [0.0], [1.0]).pairs == 1
    assert speed([0.26], [1.0], [0.0], [1.0]).pairs == 0


@pytest.mark.parametrize("shift_s", [-0.32, -0.1, 0.0, 0.05, 0.7])
def test_the_best_shift_is_how_much_later_the_policy_acts(shift_s):
    rng = np.random.default_rng(0)
    stamps = 1.7e9 + np.arange(100) * PERIOD_S
    values = rng.uniform(-1, 1, 300)
    recorded_stamps = 1.7e9 - 10 + np.arange(300) * PERIOD_S
    place = np.arange(100, 200)  # the policy's tick k says at 0.1 k + shift what was recorded at 0.1 k
    errors = speed(stamps + shift_s, values[place], recorded_stamps, values)
    assert errors.best_shift_s == pytest.approx(shift_s, abs=1e-9)
    assert errors.mae_at_shift == errors.rmse_at_shift == 0
    assert (errors.mae == 0) == (0 <= shift_s < PERIOD_S)  # for so long the recorded command holds


def test_a_constant_recording_has_no_shift():
    stamps = np.arange(30) * PERIOD_S
    errors = speed(stamps, np.linspace(0, 0.5, 30), stamps, np.full(30, 0.5))
    assert (errors.best_shift_s, errors.mae_at_shift) == (0, pytest.approx(0.25))


def test_a_shift_that_leaves_too_few_pairs_does_not_count():
    stamps = np.arange(20) * PERIOD_S
    recorded = np.where(stamps > 1.5, 0.5, -0.5)
    errors = speed(stamps, np.full(20, 0.5), stamps, recorded)
    assert errors.best_shift_s == pytest.approx(-1.0)  # 10 of 20 ticks have a partner then, and not one fewer


def test_saturation_is_the_share_at_the_limits():
    assert saturation(np.array([-1.0, 0.999, 0.99, 0, np.nan, 2.0]), SPEED) == pytest.approx(3 / 5)
    assert saturation(np.array([np.nan]), SPEED) is None


def test_jerk_is_the_mean_second_difference_and_skips_gaps():
    stamps = np.array([0, 0.1, 0.2, 0.3])
    assert jerk(stamps, np.array([0, 1.0, 0, 0]), PERIOD_S) == pytest.approx((2 + 1) / 2 / 0.01)
    assert jerk(np.array([0, 0.1, 0.2, 1.3]), np.array([0, 1.0, 0, 0]), PERIOD_S) == pytest.approx(2 / 0.01)
    assert jerk(stamps, np.array([0, np.inf, np.nan, 0]), PERIOD_S) is None
    assert jerk(stamps[:2], np.zeros(2), PERIOD_S) is None


def test_gaps_are_longer_than_two_and_a_half_periods():
    found = gaps(np.array([0, 0.1, 0.35, 0.65, 0.2]), PERIOD_S)
    assert found == [(0.35, pytest.approx(0.3))]


def test_dropped_frames_are_counted_by_the_cameras_own_pace():
    stamps = np.array([0, 0.03, 0.06, 0.19, 0.22, 0.25])  # jitter apart, 0.09, 0.12 and 0.15 are missing
    assert dropped(stamps, pace([stamps])) == [(0.06, 3)]
    assert dropped(stamps[:1], pace([stamps[:1]])) == []


def test_baselines_and_shares_by_hand():
    errors = speed([0, 0.1, 0.2, 1.2], [0.5, -0.5, 0.5, 0.0], [0, 0.1, 0.2, 1.2], [0.5, 0.5, -0.5, 0.1])
    found = {name: (each.mae, each.rmse) for name, each in errors.baselines.items()}
    assert found["zero"] == (pytest.approx(0.4), pytest.approx(np.sqrt(0.76 / 4)))
    assert found["mean"][0] == pytest.approx((0.35 + 0.35 + 0.65 + 0.05) / 4)  # the mean is 0.15
    assert found["repeat"] == (pytest.approx(0.5), pytest.approx(np.sqrt(0.5)))  # 0 and 1; none over the gap
    assert errors.of_range["mae"] == pytest.approx(errors.mae / 2)
    assert set(errors.of_range) == {"mae", "rmse", "max", "mae_at_shift", "rmse_at_shift"}


def test_one_pair_has_nothing_to_repeat():
    errors = speed([0], [0.5], [0], [0.25])
    assert (errors.baselines["repeat"].mae, errors.baselines["mean"].mae) == (None, 0)


def test_numbers_near_the_largest_float_are_infinite_errors_without_a_complaint():
    wide = ActionSpec("wide", "m", -1.7e308, 1.7e308)
    stamps = np.array([0, 0.1])
    with np.errstate(all="raise"):
        (errors,) = compare(stamps, column(1.7e308, 0), stamps, column(-1.7e308, 0), [wide], PERIOD_S).values()
    assert (errors.pairs, errors.max) == (2, np.inf)


def test_shown_times_go_on_with_stamps_without_leaps_and_long_pauses():
    stamps_s = [0, 1, 2, 102, 103, 3, 4, 7204, 7205]  # ahead by 100 s, back, and a pause of two hours
    logs_s = [0, 1, 2, 4, 5, 6, 7, 7207, 7208]
    shown_s, leaps = shown_times(*(np.array(each, np.int64) * 10**9 for each in (stamps_s, logs_s)))
    assert shown_s.tolist() == [0, 1, 2, 4, 5, 6, 7, 3607, 3608]
    assert leaps.tolist() == [3, 5]
