"""The evaluation's parts: intervals, batched decoding, and tables that carry their n."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.pretraining.decode import Sampling, write
from secateur.pretraining.evaluate import Rate, Subject


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_the_share(n: int, data: st.DataObject) -> None:
    rate = Rate(data.draw(st.integers(0, n)), n)
    low, high = rate.interval
    assert 0 <= low <= rate.value + 1e-12
    assert rate.value - 1e-12 <= high <= 1
    assert high > low


def test_wilsons_interval_agrees_with_the_textbook() -> None:
    low, high = Rate(0, 400).interval
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == pytest.approx(0.00951, abs=1e-4)
    low, high = Rate(50, 100).interval
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-3)


@pytest.fixture(scope="module")
def subject(tiny_checkpoint: Path) -> Subject:
    torch.set_num_threads(1)
    return Subject.load(tiny_checkpoint)


CONTEXTS = [[1, 60, 70, 80], [1, 99], [1, 60, 61, 62, 63, 64, 65], [1]]


def test_a_row_is_written_the_same_alone_and_in_company(subject: Subject) -> None:
    together = write(subject.model, CONTEXTS, {2}, 12, Sampling())
    for context, row in zip(CONTEXTS, together, strict=True):
        alone = write(subject.model, [context], {2}, 12, Sampling())[0]
        assert alone.ids == row.ids


def test_greedy_writing_follows_the_models_largest_logit(subject: Subject) -> None:
    ids = list(CONTEXTS[0])
    for token in write(subject.model, [ids], {2}, 6, Sampling())[0].ids:
        with torch.inference_mode():
            logits = subject.model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_a_banned_tag_is_never_written_and_its_probability_still_read(subject: Subject) -> None:
    openings = subject.openings
    sampling = Sampling(1.5, openings, seed=3)
    rows = write(subject.model, CONTEXTS * 8, {2}, 24, sampling, watched=openings)
    assert not any(set(row.ids) & set(openings) for row in rows)
    assert all(row.log_closed < 0 for row in rows)


def test_closed_is_the_product_over_every_position(subject: Subject) -> None:
    context, openings = CONTEXTS[0], subject.openings
    row = write(subject.model, [context], {2}, 5, Sampling(1.0, openings, 1), watched=openings)[0]
    whole = torch.tensor([[*context, *row.ids]])
    with torch.inference_mode():
        chances = subject.model(input_ids=whole).logits[0].softmax(-1)[:, list(openings)].sum(-1)
    places = range(len(context) - 1, len(context) - 1 + len(row.ids))
    expected = sum(math.log1p(-float(chances[place])) for place in places)
    assert row.log_closed == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_writes_the_same_and_another_differs(subject: Subject) -> None:
    one, two, other = (
        [row.ids for row in write(subject.model, CONTEXTS, {2}, 20, Sampling(1.0, (), seed))]
        for seed in (5, 5, 6)
    )
    assert one == two
    assert one != other
