"""The shape of commands: filter, deadband, slew, jerk and limits, and which of them gives way."""

import math
import timeit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.core.shaping import CommandShaper

PERIOD_S = 0.1
LOW, HIGH = np.array([-0.2, -1.5]), np.array([0.6, 1.5])
ROUNDING = 1e-12


def shaper(low=LOW, high=HIGH, **options) -> CommandShaper:
    return CommandShaper(PERIOD_S, np.array(low, float), np.array(high, float), **options)


def sent(shaped: CommandShaper, targets, start=None) -> np.ndarray:
    """What is sent for `targets` [N, A], after the start [N + 1, A]."""
    start = np.zeros(len(targets[0])) if start is None else np.array(start, float)
    shaped.reset(start)
    return np.array([start, *(shaped.step(np.array(target, float)) for target in targets)])


finite = st.floats(-4, 4)
targets_of_two = st.lists(st.tuples(finite, finite), min_size=1, max_size=60)
rates = st.floats(0.01, 100) | st.just(math.inf)
rates_of_two = st.tuples(rates, rates)
options = st.fixed_dictionaries(
    {
        "low_pass_s": st.tuples(st.floats(0, 2), st.floats(0, 2)),
        "deadband": st.tuples(st.floats(0, 1), st.floats(0, 1)),
        "max_slew": rates_of_two,
        "max_jerk": rates_of_two,
    }
)
starts = st.tuples(st.floats(-0.2, 0.6), st.floats(-1.5, 1.5))


@given(targets_of_two)
def test_without_options_only_limits_hold(targets):
    assert np.array_equal(sent(shaper(), targets)[1:], np.clip(targets, LOW, HIGH))


@given(targets_of_two, rates_of_two, st.tuples(finite, finite))
def test_slew_alone_is_a_clip_around_the_value_before(targets, max_slew, start):
    expected, before = [], np.array(start)
    for target in targets:
        step = np.array(max_slew) * PERIOD_S
        before = np.clip(np.clip(target, before - step, before + step), LOW, HIGH)
        expected.append(before)
    assert np.array_equal(sent(shaper(max_slew=max_slew), targets, start)[1:], expected)


@settings(max_examples=300)
@given(targets_of_two, options, starts)
def test_limits_slew_and_jerk_hold_whatever_the_targets(targets, options, start):
    values = sent(shaper(**options), targets, start)
    assert (values >= LOW).all()
    assert (values <= HIGH).all()
    steps = np.diff(values, axis=0, prepend=values[:1])
    assert (np.abs(steps) <= np.array(options["max_slew"]) * PERIOD_S + ROUNDING).all()
    assert (np.abs(np.diff(steps, axis=0)) <= np.array(options["max_jerk"]) * PERIOD_S**2 + ROUNDING).all()


@settings(max_examples=150)
@given(st.tuples(finite, finite), options, starts)
def test_a_constant_target_is_reached_exactly_and_never_overshot(target, options, start):
    options = {**options, "low_pass_s": ()}
    options["max_slew"] = np.maximum(options["max_slew"], 0.2)
    options["max_jerk"] = np.maximum(options["max_jerk"], 0.2)
    values = sent(shaper(**options), [target] * 200, start)
    goal = np.clip(np.where(np.abs(np.clip(target, LOW, HIGH)) < options["deadband"], 0, target), LOW, HIGH)
    assert (np.diff(np.abs(values - goal), axis=0) <= 0).all(), "nearer at every step"
    assert (np.sign(goal - values) * np.sign(goal - values[0]) >= 0).all(), "never beyond"
    assert np.array_equal(values[-1], goal)


@given(targets_of_two, options, starts, st.tuples(st.floats(-0.2, 0.6), st.floats(-1.5, 1.5)))
def test_reset_forgets_everything(targets, options, start, target):
    used, fresh = shaper(**options), shaper(**options)
    sent(used, targets)
    assert np.array_equal(sent(used, [target] * 5, start), sent(fresh, [target] * 5, start))


@given(targets_of_two, options, starts)
def test_each_action_is_shaped_on_its_own(targets, options, start):
    both = sent(shaper(**options), targets, start)
    for i in range(2):
        alone = shaper(LOW[i : i + 1], HIGH[i : i + 1], **{name: value[i : i + 1] for name, value in options.items()})
        assert np.array_equal(
            sent(alone, [target[i : i + 1] for target in targets], start[i : i + 1])[:, 0], both[:, i]
        )


def test_jerk_by_hand():
    # steps may change by 0.1 * 0.1 * 10 = 0.1: 0.1 and 0.2, then 0.2 and 0.1 to stand still at 0.6
    assert np.allclose(
        sent(shaper([-2], [2], max_jerk=[10]), [[0.6]] * 6)[:, 0], [0, 0.1, 0.3, 0.5, 0.6, 0.6, 0.6], atol=1e-6
    )
    with_slew = sent(shaper([-2], [2], max_jerk=[10], max_slew=[1.5]), [[0.6]] * 7)[:, 0]
    assert np.allclose(with_slew, [0, 0.1, 0.25, 0.4, 0.55, 0.6, 0.6, 0.6], atol=1e-6)


def test_a_target_that_turns_is_overshot_only_as_far_as_jerk_demands():
    values = sent(shaper([-2], [2], max_jerk=[10]), [[2]] * 3 + [[0]] * 10)[:, 0]
    # moving at 0.3 a step: 0.2, 0.1 and 0 still go on, then it comes back and stops
    assert np.allclose(values[3:8], [0.6, 0.8, 0.9, 0.9, 0.8], atol=1e-6)
    assert values.max() < 0.91
    assert values[-1] >= 0
    assert values[-1] < 0.1


def test_low_pass_by_hand():
    shaped = shaper(low_pass_s=(0.1, 0.0))
    values = sent(shaped, [[0.5, 0.5]] * 2)
    assert np.allclose(values[1:, 0], [0.5 * (1 - math.exp(-1)), 0.5 * (1 - math.exp(-2))], rtol=1e-12)
    assert values[1, 1] == 0.5


def test_the_filter_does_not_wind_up_beyond_limits():
    shaped = shaper(low_pass_s=(0.1, 0.1))
    values = sent(shaped, [[100, 100]] * 50 + [[0, 0]])
    assert np.allclose(values[-1], HIGH * math.exp(-1))


def test_a_filtered_command_ends_at_zero_through_the_deadband():
    values = sent(shaper(low_pass_s=(0.1, 0.1), deadband=(0.01, 0.01)), [[0, 0]] * 20, start=[0.5, -0.5])
    assert (values[1] != 0).all()
    assert (values[-1] == 0).all()


def test_deadband_by_hand():
    values = sent(shaper(deadband=(0.1, 0.1)), [[0.09, -0.09], [0.1, -0.1]])
    assert values[1:].tolist() == [[0, 0], [0.1, -0.1]]


def test_from_outside_the_limits_it_goes_straight_to_them_and_on_from_rest():
    values = sent(shaper([1], [2], max_jerk=[10]), [[2]] * 3)[:, 0]
    assert np.allclose(values, [0, 1, 1.1, 1.3])


def test_slew_counts_from_what_was_sent_even_outside_the_limits():
    values = sent(shaper([0.2], [2], max_slew=[3]), [[2]] * 2)[:, 0]
    assert np.allclose(values, [0, 0.3, 0.6])


def test_the_filter_starts_within_limits():
    values = sent(shaper([1], [2], low_pass_s=[0.1]), [[2]])[:, 0]
    assert np.allclose(values, [0, 2 - math.exp(-1)])


def test_what_step_returned_may_be_changed():
    shaped = shaper(max_slew=(1, 1))
    values = shaped.step(np.array([1.0, 1.0]))
    values[:] = 7
    assert np.allclose(shaped.step(np.array([1.0, 1.0])), [0.2, 0.2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_slew": (1,)}, r"limits\.max_slew: expected 2 positive numbers"),
        ({"max_slew": (1, 0)}, r"limits\.max_slew"),
        ({"max_jerk": (1, math.nan)}, r"limits\.max_jerk"),
        ({"max_jerk": (-1, 1)}, r"limits\.max_jerk"),
        ({"low_pass_s": (0, -1)}, r"limits\.low_pass_s: expected 2 finite numbers from 0"),
        ({"low_pass_s": (0, math.inf)}, r"limits\.low_pass_s"),
        ({"deadband": (0, math.nan)}, r"limits\.deadband"),
        ({"deadband": (0.1, 0.1), "low": (0.2, -1)}, r"limits\.deadband: expected 0 for actions that cannot be 0"),
        ({"low": (0.7, 0)}, r"limits\.low"),
        ({"low": (0,)}, r"limits\.low"),
        ({"low": (math.nan, 0)}, r"limits\.low"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        shaper(**options)


def test_actions_that_cannot_be_zero_go_without_a_deadband():
    assert sent(shaper(low=(0.2, -1.5), deadband=(0, 0.1)), [[0, 0.05]])[1].tolist() == [0.2, 0]


def test_a_step_is_quick():
    shaped = shaper(low_pass_s=(0.1, 0.1), deadband=(0.1, 0.1), max_slew=(1, 1), max_jerk=(10, 10))
    target = np.array([0.5, -0.5])
    step_s = min(timeit.repeat(lambda: shaped.step(target), number=100, repeat=20)) / 100
    assert step_s < 200e-6, "some 40 us on a desktop; this is for a slow one"
