"""What temperature and top-p make of a temptation is never read too low."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.prompt import Sampling
from secateur.runtime.engines.local.sampling import Knobs, draw
from secateur.runtime.engines.vllm.tempering import tempering

WIDTH = 24
COLUMNS = [3, 5, 7]


def exact(logits: torch.Tensor, sampling: Sampling, uniform: float):
    """A draw from the whole distribution, as the local engine makes it."""
    knobs = Knobs.of([sampling], [{}], WIDTH, torch.device("cpu"))
    return draw(logits[None], knobs, [uniform], torch.tensor(COLUMNS))[0]


@given(
    st.lists(st.floats(-12, 12), min_size=WIDTH, max_size=WIDTH),
    st.floats(0.1, 3.0),
    st.floats(0.2, 1.0),
    st.floats(0, 0.999),
)
def test_a_temptation_is_never_read_lower_than_it_is(
    logits: list[float], temperature: float, top_p: float, uniform: float
):
    sampling = Sampling(temperature, top_p)
    drawn = exact(torch.tensor(logits, dtype=torch.float64), sampling, uniform)
    temper = tempering(sampling, COLUMNS, WIDTH)
    if temper is None:
        assert drawn.sampler is None
        return
    assert drawn.sampler is not None
    for most, log in zip(temper(drawn.id, drawn.chosen, drawn.belief), drawn.sampler, strict=True):
        assert math.exp(most) >= math.exp(log) - 1e-9
        assert most <= 0


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(0.3, 2.0))
def test_it_is_exact_where_tags_and_the_drawn_token_hold_the_mass(
    tag: float, other: float, temperature: float
):
    logits = torch.full((WIDTH,), -60.0, dtype=torch.float64)
    logits[3], logits[11] = tag, other
    sampling = Sampling(temperature)
    drawn = exact(logits, sampling, 0.5)
    temper = tempering(sampling, COLUMNS, WIDTH)
    if temper is not None and drawn.id == 11:
        assert drawn.sampler is not None
        found = temper(drawn.id, drawn.chosen, drawn.belief)[0]
        assert math.exp(found) == pytest.approx(math.exp(drawn.sampler[0]), abs=1e-3)


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0), Sampling(0.0, 0.5)], ids=str)
def test_there_is_nothing_to_temper_at_temperature_one_and_zero(sampling: Sampling):
    assert tempering(sampling, COLUMNS, WIDTH) is None


@pytest.mark.parametrize(("chosen", "belief"), [(math.nan, -1.0), (-1.0, math.nan)])
def test_what_is_no_number_never_reads_as_calm(chosen: float, belief: float):
    temper = tempering(Sampling(0.7), COLUMNS, WIDTH)
    assert temper is not None
    assert not temper(11, chosen, [belief, -2.0, -3.0])[0] < -1e-9
