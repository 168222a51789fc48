"""A threshold keeps its budget on benign tasks that it has not seen."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.calibration import CalibrationError, conformal_threshold


def test_the_threshold_is_the_stated_order_statistic():
    maxima = [0.1 * k for k in (5, 1, 9, 3, 7, 2, 8, 4, 6)]
    assert conformal_threshold(maxima, 0.1) == maxima[2]
    assert conformal_threshold(maxima, 0.2) == max(value for value in maxima if value < 0.85)
    assert conformal_threshold(maxima, 0.5) == 0.5


@given(
    st.lists(st.floats(0, 1), min_size=99, max_size=120),
    st.sampled_from((0.01, 0.02, 0.1, 0.25)),
)
def test_no_more_than_the_budget_of_the_tasks_lies_above(maxima, alpha):
    threshold = conformal_threshold(maxima, alpha)
    assert sum(value > threshold for value in maxima) <= alpha * len(maxima)
    rank = math.ceil((len(maxima) + 1) * (1 - alpha) - 1e-9)
    assert sum(value <= threshold for value in maxima) >= rank


def test_new_benign_tasks_exceed_the_threshold_no_more_often_than_promised():
    rng = random.Random(4)
    alpha, exceeded, trials = 0.1, 0, 4000
    for _ in range(trials):
        *seen, new = (rng.expovariate(1.0) for _ in range(20))
        exceeded += new > conformal_threshold(seen, alpha)
    # Exactly 2 of 21 ranks lie above the 19th smallest of 20, which is below alpha.
    assert exceeded / trials == pytest.approx(2 / 21, abs=0.015)


def test_too_few_tasks_for_the_budget_are_refused_with_the_number_that_is_needed():
    assert conformal_threshold([0.2] * 98 + [0.3], 0.01) == 0.3
    with pytest.raises(CalibrationError, match=r"98 benign tasks are too few .* at least 99"):
        conformal_threshold([0.2] * 98, 0.01)
    with pytest.raises(CalibrationError, match="0 benign tasks"):
        conformal_threshold([], 0.5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_budget_that_is_no_share_is_refused(alpha):
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        conformal_threshold([0.1] * 100, alpha)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reading_that_is_no_number_sets_no_threshold(value):
    with pytest.raises(CalibrationError, match="maximum of a benign task"):
        conformal_threshold([0.1, 0.2, value], 0.5)
