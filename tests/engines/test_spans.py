"""A closing tag is due exactly while its tag is open."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.vocabulary import BoundVocabulary, Vocabulary
from secateur.runtime.engines.spans import OpenSpans

VOCABULARY = BoundVocabulary(
    Vocabulary.model_validate(
        {
            "name": "two",
            "tags": [
                {"name": "deceit", "open": "<d>", "close": "</d>"},
                {
                    "name": "angry",
                    "bands": [{"level": 1, "open": "<a1>"}, {"level": 2, "open": "<a2>"}],
                    "close": "</a>",
                },
                {"name": "fiction", "scheme": "document", "open": "<f>"},
            ],
        }
    ),
    {"<d>": 1, "</d>": 2, "<a1>": 3, "<a2>": 4, "</a>": 5, "<f>": 6},
)
CLOSES = {2: {1}, 5: {3, 4}}


@given(st.lists(st.integers(0, 8), max_size=30))
def test_a_close_is_allowed_exactly_while_its_tag_is_open(text: list[int]):
    spans = OpenSpans(VOCABULARY, text)
    for close, opens in CLOSES.items():
        last = max((i for i, token in enumerate(text) if token in opens | {close}), default=None)
        is_open = last is not None and text[last] in opens
        assert (close in spans.due) == is_open
        assert (close in spans.forbidden) != is_open


@given(st.lists(st.integers(0, 8), max_size=30), st.integers(0, 8))
def test_turns_are_exactly_the_tokens_that_change_what_is_due(text: list[int], token: int):
    spans = OpenSpans(VOCABULARY, text)
    before, turns = set(spans.due), spans.turns
    assert spans.follow(token) == (spans.due != before) == (token in turns)


def test_tags_nest_and_close_in_any_order():
    spans = OpenSpans(VOCABULARY, [1, 4])
    assert spans.due == {2, 5}
    assert spans.follow(2)
    assert spans.due == {5}


@pytest.mark.parametrize("tag", [6, 7, 0])
def test_tokens_without_a_close_open_nothing(tag: int):
    assert not OpenSpans(VOCABULARY).follow(tag)


def test_the_shipped_vocabulary_can_be_followed():
    from secateur.runtime.engines.checkpoint import find_model

    tags = Vocabulary.load(Path(find_model("seedling")) / "vocabulary.json")
    ids = {literal: place for place, literal in enumerate(tags.literals)}
    spans = OpenSpans(BoundVocabulary(tags, ids), [ids["<|deceit|>"]])
    assert spans.due == {ids["<|/deceit|>"]}
