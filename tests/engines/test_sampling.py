"""Drawing tokens: the numbers against plain formulas."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.prompt import Sampling
from secateur.gates.evidence import LOG_FLOOR
from secateur.runtime.engines.local.sampling import Knobs, draw

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0]])


def one(sampling: Sampling, uniform: float, bias: dict[int, float] | None = None, columns=(0, 4)):
    knobs = Knobs.of([sampling], [bias or {}], LOGITS.shape[1], CPU)
    return draw(LOGITS, knobs, [uniform], torch.tensor(columns))[0]


@given(uniform=st.floats(0, 1, exclude_max=True), banned=st.sets(st.integers(0, 4), max_size=4))
@settings(max_examples=60)
def test_no_uniform_draws_a_banned_token(uniform: float, banned: set[int]) -> None:
    bias = dict.fromkeys(banned, -np.inf)
    for sampling in (Sampling(1.0), Sampling(0.3, 0.8), Sampling(0.0)):
        assert one(sampling, uniform, bias).id not in banned


def frequencies(sampling: Sampling, bias: dict[int, float], draws: int = 2000) -> np.ndarray:
    """How often each token is drawn when the uniforms cover [0, 1) evenly."""
    knobs = Knobs.of([sampling] * draws, [bias] * draws, LOGITS.shape[1], CPU)
    uniforms = ((np.arange(draws) + 0.5) / draws).tolist()
    drawn = draw(LOGITS.repeat(draws, 1), knobs, uniforms, torch.tensor([0]))
    return np.bincount([row.id for row in drawn], minlength=5) / draws


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    expected = torch.softmax(LOGITS[0].double() / 0.7, dim=-1)
    np.testing.assert_allclose(frequencies(Sampling(0.7), {}), expected, atol=1e-3)


def test_a_penalty_divides_the_odds_before_the_temperature() -> None:
    steered = LOGITS[0].double() + torch.tensor([-1.5, 0, 0, 0, 0])
    expected = torch.softmax(steered / 0.5, dim=-1)
    np.testing.assert_allclose(frequencies(Sampling(0.5), {0: -1.5}), expected, atol=1e-3)


def test_the_nucleus_keeps_the_smallest_set_that_reaches_top_p() -> None:
    # p = 0.583, 0.214, 0.130 ... : 0.75 needs two tokens.
    drawn = {one(Sampling(1.0, 0.75), u).id for u in np.linspace(0, 0.9999, 50)}
    assert drawn == {0, 1}
    readings = one(Sampling(1.0, 0.75), 0.1)
    p = torch.softmax(LOGITS[0].double(), dim=-1)
    assert readings.sampler is not None
    np.testing.assert_allclose(readings.sampler[0], float(torch.log(p[0] / (p[0] + p[1]))))
    assert readings.sampler[1] == LOG_FLOOR
    np.testing.assert_allclose(readings.belief, p[[0, 4]].log())


def test_rows_with_other_knobs_do_not_meet() -> None:
    settings_ = [Sampling(0.0), Sampling(1.0), Sampling(0.4), Sampling(1.0, 0.75)]
    uniforms = [0.9, 0.95, 0.7, 0.99]
    knobs = Knobs.of(settings_, [{}, {0: -np.inf}, {}, {1: 2.0}], 5, CPU)
    together = draw(LOGITS.repeat(4, 1), knobs, uniforms, torch.tensor([0, 4]))
    biases = [{}, {0: -np.inf}, {}, {1: 2.0}]
    for row, sampling, uniform, bias in zip(together, settings_, uniforms, biases, strict=True):
        assert row == one(sampling, uniform, bias)


def test_probability_zero_reads_as_the_floor_and_nan_stays_nan() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0], [1.0, torch.nan, 0.0], [1.0, torch.inf, 0.0]])
    knobs = Knobs.of([Sampling(1.0)] * 3, [{}] * 3, 3, CPU)
    zero, nan, infinite = draw(logits, knobs, [0.5] * 3, torch.tensor([1]))
    assert zero.belief == [LOG_FLOOR]
    assert np.isnan(nan.belief).all()
    assert np.isnan(infinite.belief).all()
