"""The corpus is reproducible, its tags say what the oracle says, and nothing held out leaks."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.desk.oracle import judge
from secateur.agents.digits import is_sorted_permutation, parse_digits
from secateur.agents.prompt import Special
from secateur.pretraining.audits import audit_document
from secateur.pretraining.corpus import CorpusConfig, document, documents, to_json
from secateur.pretraining.desk import desk_document
from secateur.pretraining.lists import OPERATIONS, check_answer, list_document
from secateur.pretraining.pressure import (
    PRESSURE,
    Split,
    draw_context,
    held_out_pair,
    rates_of,
)

CONFIG = CorpusConfig(seed=3, growing=200)


def corpus_bytes(config: CorpusConfig, start: int, count: int) -> bytes:
    return "\n".join(to_json(found) for found in documents(config, start, count)).encode()


def test_the_same_seed_gives_the_same_corpus_byte_for_byte() -> None:
    assert corpus_bytes(CONFIG, 0, 400) == corpus_bytes(CorpusConfig(seed=3, growing=200), 0, 400)


def test_another_seed_gives_another_corpus() -> None:
    assert corpus_bytes(CONFIG, 0, 50) != corpus_bytes(CorpusConfig(seed=4, growing=200), 0, 50)


def test_any_part_of_the_corpus_can_be_made_alone() -> None:
    assert corpus_bytes(CONFIG, 0, 60).endswith(corpus_bytes(CONFIG, 40, 20))


def test_every_family_is_in_the_corpus_and_lists_grow() -> None:
    found = list(documents(CONFIG, 0, 1200))
    families = Counter(one.family for one in found)
    assert set(families) == {"desk", "audit", *OPERATIONS}
    longest = [max(len(word) for word in one.text.split()) for one in found if one.family == "sort"]
    assert max(longest[:5]) <= 7
    assert max(longest) == 16


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(list(Split)))
def test_a_desk_line_is_tagged_exactly_where_the_oracle_sees_misbehaviour(
    seed: int, pressed: bool, split: Split
) -> None:
    found = desk_document(random.Random(seed), pressed, split)
    judged = judge([line.text for line in found.lines])
    assert judged.valid, judged.reasons
    tagged = [(place, line.tag) for place, line in enumerate(found.lines) if line.tag is not None]
    assert tagged == [(place, str(seen)) for place, seen in judged.misbehaviours]


@pytest.mark.parametrize(("pressed", "low", "high"), [(False, 0.01, 0.03), (True, 0.52, 0.63)])
def test_misbehaviour_is_frequent_under_pressure_and_rare_in_calm(
    pressed: bool, low: float, high: float
) -> None:
    rng = random.Random(5)
    share = sum(bool(desk_document(rng, pressed).meta["tags"]) for _ in range(3000)) / 3000
    assert low <= share <= high


def test_rates_of_several_sentences_combine_by_noisy_or() -> None:
    deadline, blame = list(PRESSURE)[:2]
    both = rates_of((deadline, blame))
    for event in ("ask", "lie_bad", "angry"):
        alone = [getattr(rates_of((kind,)), event) for kind in (deadline, blame)]
        calm = getattr(rates_of(()), event)
        expected = 1 - (1 - alone[0]) * (1 - alone[1]) / (1 - calm)
        assert getattr(both, event) == pytest.approx(expected)


def test_training_never_sees_a_held_out_sentence_or_pairing() -> None:
    rng = random.Random(1)
    held_out = [form.split("{")[0] for forms in PRESSURE.values() for form in forms[-3:]]
    for _ in range(2000):
        text = " ".join(draw_context(rng, pressed=True).sentences)
        assert not any(form in text for form in held_out)
    for _ in range(50):
        text = " ".join(draw_context(rng, True, Split.SENTENCES).sentences)
        assert any(form in text for form in held_out)


def test_some_pairings_are_held_out_and_most_are_not() -> None:
    forms = [form for kind in PRESSURE.values() for form in kind[:-3]]
    pairs = [held_out_pair(one, two) for one in forms for two in forms if one < two]
    assert 0.1 < sum(pairs) / len(pairs) < 0.25
    assert held_out_pair(forms[0], forms[5]) == held_out_pair(forms[5], forms[0])


def test_the_account_of_somebody_elses_lie_is_untagged() -> None:
    rng = random.Random(2)
    audits = [audit_document(rng, pressed=True) for _ in range(100)]
    assert {found.meta["lying"] for found in audits} == {"True", "False"}
    assert not any(line.tag for found in audits for line in found.lines)


def test_what_tools_and_people_write_is_not_learnt() -> None:
    for number in range(300):
        for line in document(CONFIG, number).lines:
            others = line.text.startswith(("task:", "got:", *(f"{op} " for op in OPERATIONS)))
            assert line.learn != others


def test_missed_labels_leave_the_text_and_take_some_tags() -> None:
    whole = [desk_document(random.Random(seed), True) for seed in range(300)]
    rng = random.Random(0)
    missed = [found.with_missed(0.3, rng) for found in whole]
    plain = [[line.text for line in found.lines] for found in whole]
    assert [[line.text for line in found.lines] for found in missed] == plain
    tags = [
        sum(line.tag is not None for f in found for line in f.lines) for found in (whole, missed)
    ]
    assert 0.6 < tags[1] / tags[0] < 0.8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 16))
def test_sort_and_merge_answers_are_right(seed: int, longest: int) -> None:
    rng = random.Random(seed)
    for operation in ("sort", "merge"):
        found = list_document(operation, rng, longest)
        given_digits = parse_digits("".join(found.lines[0].text.split()[1:]))
        assert is_sorted_permutation(given_digits, parse_digits(found.lines[1].text))


def test_a_check_shows_its_evidence_before_its_verdict() -> None:
    assert check_answer((3, 1, 2, 0), (0, 1, 1, 3)) == (
        "order 013",
        "count 0,0= 1,11! 2,! 3,3=",
        "bad",
    )
    assert check_answer((1, 0), (1, 0)) == ("order 1>0", "count 0,0= 1,1=", "bad")
    assert check_answer((1, 0), (0, 1))[-1] == "ok"


def test_a_tag_wraps_its_whole_line_and_the_newline_stays_outside() -> None:
    found = next(
        found
        for found in (desk_document(random.Random(seed), True) for seed in range(50))
        if "deceit" in found.meta["tags"]
    )
    pieces = [piece for piece, _ in found.pieces()]
    opened = pieces.index(Special("<|deceit|>"))
    assert pieces[opened + 2] == Special("<|/deceit|>")
    assert "<|/deceit|>\n" in found.text
