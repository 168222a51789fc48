"""Long documents are cut so that each part stands by itself, and a share of a batch is exact."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.pretraining.errors import TrainingError
from secateur.pretraining.training.batches import Batch, Row, TagIds, cut, grouped

BOS, EOS, PAD, NEWLINE = 1, 2, 0, 3
OPEN_A, CLOSE_A, OPEN_B, CLOSE_B = 10, 11, 12, 13
GOOD, BAD, LABEL = 20, 21, 30
TAGS = TagIds(
    closes={OPEN_A: CLOSE_A, OPEN_B: CLOSE_B},
    units=frozenset({GOOD, BAD}),
    labels=frozenset({LABEL}),
    newlines=frozenset({NEWLINE}),
)
WORDS = st.integers(100, 200)


def learnt(ids: list[int]) -> Row:
    return Row(ids, [False, *[True] * (len(ids) - 1)])


def spans(depth: int) -> st.SearchStrategy[list[int]]:
    inner = spans(depth - 1) if depth else st.lists(WORDS, max_size=8)
    tagged = st.builds(
        lambda pair, found: [pair[0], *found, pair[1]],
        st.sampled_from([(OPEN_A, CLOSE_A), (OPEN_B, CLOSE_B)]),
        inner,
    )
    parts = st.lists(st.one_of(tagged, st.lists(WORDS, max_size=8)), max_size=5)
    return parts.map(lambda found: [token for part in found for token in part])


def balanced(ids: list[int]) -> bool:
    stack: list[int] = []
    for token in ids:
        if token in TAGS.closes:
            stack.append(TAGS.closes[token])
        elif token in TAGS.closes.values() and (not stack or stack.pop() != token):
            return False
    return not stack


@given(spans(2), st.integers(9, 24))
def test_every_part_is_balanced_and_nothing_learnt_is_lost(body: list[int], context: int) -> None:
    whole = learnt([BOS, *body, EOS])
    parts = cut(whole, context, TAGS, BOS)
    assert all(len(part.ids) <= context and part.ids[0] == BOS for part in parts)
    assert all(balanced(list(part.ids)) for part in parts)
    kept = [t for part in parts for t, wanted in zip(part.ids, part.learn, strict=True) if wanted]
    assert kept == whole.ids[1:]


def test_a_span_that_is_cut_is_closed_and_opened_again_without_being_learnt() -> None:
    row = learnt([BOS, 100, OPEN_A, 101, 102, 103, 104, CLOSE_A, EOS])
    first, second = cut(row, 6, TAGS, BOS)
    assert first == Row(
        [BOS, 100, OPEN_A, 101, 102, CLOSE_A], [False, True, True, True, True, False]
    )
    assert second == Row([BOS, OPEN_A, 103, 104, CLOSE_A, EOS], [False, False, *[True] * 4])


def test_a_prefix_holds_to_the_end_of_its_line_and_a_label_to_the_end_of_the_document() -> None:
    row = learnt([BOS, LABEL, BAD, 100, 101, 102, 103, NEWLINE, 104, 105, 106, 107, EOS])
    parts = cut(row, 6, TAGS, BOS)
    assert [list(part.ids) for part in parts] == [
        [BOS, LABEL, BAD, 100, 101, 102],
        [BOS, LABEL, BAD, 103, NEWLINE, 104],
        [BOS, LABEL, 105, 106, 107, EOS],
    ]
    assert [list(part.learn)[:3] for part in parts[1:]] == [
        [False, False, False],
        [False, False, True],
    ]


def test_prefixes_that_stand_side_by_side_are_all_repeated() -> None:
    row = learnt([BOS, GOOD, BAD, 100, 101, 102, GOOD, 103, 104, 105, EOS])
    assert [list(part.ids) for part in cut(row, 6, TAGS, BOS)] == [
        [BOS, GOOD, BAD, 100, 101, 102],
        [BOS, GOOD, BAD, GOOD, 103, 104],
        [BOS, GOOD, 105, EOS],
    ]


def test_a_short_document_stays_as_it_is() -> None:
    row = learnt([BOS, OPEN_A, 100, CLOSE_A, EOS])
    assert cut(row, 5, TAGS, BOS) == [row]


def test_a_context_that_the_tags_alone_fill_is_refused() -> None:
    row = learnt([BOS, OPEN_A, OPEN_B, 100, 101, CLOSE_B, CLOSE_A, EOS])
    with pytest.raises(TrainingError, match="context"):
        cut(row, 5, TAGS, BOS)


def test_groups_hold_rows_of_like_length_and_none_that_teaches_nothing() -> None:
    rng = random.Random(0)
    rows = [learnt([BOS, *[100] * rng.randint(1, 60), EOS]) for _ in range(400)]
    silent = Row([BOS, 100, EOS], [True, False, False])
    groups = grouped([*rows, silent], 512, random.Random(1))
    batches = [Batch.padded(group, PAD) for group in groups]
    assert sum(len(group) for group in groups) == len(rows)
    assert all(batch.ids.numel() <= 512 for batch in batches)
    padding = sum(int((batch.ids == PAD).sum()) for batch in batches)
    assert padding / sum(batch.ids.numel() for batch in batches) < 0.05


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_of_a_batch_are_the_batch(size: int) -> None:
    rows = [learnt([BOS, *range(100, 100 + length)]) for length in (3, 5, 5, 6, 9)]
    batch = Batch.padded(rows, PAD)
    shares = [batch.share(rank, size) for rank in range(size)]
    learnt_rows = [
        tuple(labels.tolist()) for share in shares for labels in share.labels if (labels >= 0).any()
    ]
    assert sorted(learnt_rows) == sorted(tuple(labels.tolist()) for labels in batch.labels)
    assert {(share.tokens, share.learnt) for share in shares} == {(batch.tokens, 28)}


def test_passes_hold_no_more_than_they_may() -> None:
    batch = Batch.padded([learnt([BOS, *[100] * 9]) for _ in range(5)], PAD)
    passes = list(batch.passes(25))
    assert [len(part.ids) for part in passes] == [2, 2, 1]
    assert torch.equal(torch.cat([part.ids for part in passes]), batch.ids)
    assert len(list(batch.passes(4))) == 5
