"""The measures say what the textbooks say, and refuse what no measure can be made of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.pretraining.evaluation.measures import (
    Difference,
    MeasureError,
    Rate,
    Ratio,
    auroc,
    bins,
    bootstrap,
    brier,
    calibration_error,
    chance_error,
)


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_the_share(n: int, data: st.DataObject) -> None:
    rate = Rate(data.draw(st.integers(0, n)), n)
    low, high = rate.interval
    assert 0 <= low <= rate.value <= high <= 1
    assert high > low


def test_wilsons_interval_agrees_with_the_textbook() -> None:
    low, high = Rate(0, 400).interval
    assert low == 0
    assert high == pytest.approx(0.00951, abs=1e-4)
    low, high = Rate(50, 100).interval
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_nothing_counted_is_no_share_and_no_knowledge() -> None:
    assert Rate(0, 0).to_json() == {"value": None, "low": 0.0, "high": 1.0, "hits": 0, "n": 0}


def test_a_paired_differences_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(600):
        hard = rng.random(100)  # shared by both, so that the pairs correlate
        one, two = (hard + rng.random(100) < 1.1).tolist(), (hard + rng.random(100) < 0.9).tolist()
        low, high = Difference.of(one, two).interval
        covered += low <= (1 - 0.9**2 / 2) - 0.9**2 / 2 <= high
    assert 0.92 <= covered / 600 <= 0.985


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_paired_difference_is_the_negative_of_its_mirror(pairs: list[tuple[bool, bool]]) -> None:
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = Difference.of(one, two), Difference.of(two, one)
    assert there.value == -back.value
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.interval[0] <= there.value <= there.interval[1]


def test_equal_shares_of_all_still_have_an_interval() -> None:
    low, high = Difference.of([True] * 100, [True] * 100).interval
    assert low < -0.01
    assert high > 0.01


def test_a_ratio_over_nothing_is_infinite_and_begins_at_a_finite_number() -> None:
    found = Ratio(Rate(250, 400), Rate(0, 400))
    low, high = found.interval
    assert found.value == high == math.inf
    assert 55 < low < 75
    written = found.to_json()
    assert written["value"] is None
    assert written["high"] is None
    assert written["under"] == 0


@given(st.integers(1, 300), st.integers(0, 300), st.integers(300, 900))
def test_a_ratio_lies_in_its_interval(over: int, under: int, n: int) -> None:
    found = Ratio(Rate(over, n), Rate(under, n))
    low, high = found.interval
    assert 0 <= low <= found.value + 1e-9
    assert found.value <= high + 1e-9


def test_a_ratios_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        found = Ratio(
            Rate(int(rng.binomial(400, 0.6)), 400), Rate(int(rng.binomial(400, 0.02)), 400)
        )
        low, high = found.interval
        covered += low <= 30 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("seed", range(4))
def test_auroc_and_brier_agree_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(seed)
    scores = rng.random(200).round(1)  # with ties
    outcomes = (rng.random(200) < scores).astype(float)
    assert auroc(scores, outcomes) == pytest.approx(roc_auc_score(outcomes, scores))
    assert brier(scores, outcomes) == pytest.approx(brier_score_loss(outcomes, scores))


def test_several_runs_of_a_prompt_count_each_with_its_score() -> None:
    scores = np.array([0.1, 0.8])
    runs = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    flat = np.repeat(scores, 3), runs.reshape(-1)
    assert auroc(scores, runs) == auroc(*flat)
    assert calibration_error(scores, runs) == calibration_error(*flat)


def test_one_class_alone_has_no_auroc() -> None:
    assert math.isnan(auroc(np.array([0.1, 0.9]), np.zeros(2)))


@pytest.mark.parametrize("measure", [auroc, brier, calibration_error])
def test_a_score_that_is_no_number_is_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(MeasureError, match="NaN"):
        measure(np.array([0.1, math.nan]), np.array([0.0, 1.0]))


def test_calibration_error_is_the_mean_gap_between_forecast_and_outcome() -> None:
    scores = np.array([0.05] * 10 + [0.95] * 30)
    outcomes = np.array([0.0] * 9 + [1.0] + [1.0] * 24 + [0.0] * 6)
    assert calibration_error(scores, outcomes) == pytest.approx(0.25 * 0.05 + 0.75 * 0.15)
    assert [(one.n, one.observed) for one in bins(scores, outcomes)] == [(10, 0.1), (30, 0.8)]


def test_a_perfect_forecast_is_as_far_off_as_chance_says() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random(500)
    seen = [calibration_error(scores, (rng.random(500) < scores) * 1.0) for _ in range(100)]
    assert chance_error(scores, np.zeros(500)) == pytest.approx(float(np.mean(seen)), rel=0.1)


def test_the_bootstrap_of_a_mean_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(7).normal(1.0, 2.0, 400)
    found = bootstrap(lambda some: float(some.mean()), values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.03
    )
    assert found.n == 400


def test_the_bootstrap_of_nothing_says_so() -> None:
    found = bootstrap(lambda some: float(some.mean()), np.array([]))
    assert found.to_json() == {"value": None, "low": None, "high": None, "n": 0}
