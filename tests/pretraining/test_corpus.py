"""The corpus is reproducible, its tags say what the oracle says, and nothing held out leaks."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.desk.oracle import judge
from secateur.agents.ready.digits import is_sorted_permutation, parse_digits
from secateur.pretraining.corpus.audits import audit_document
from secateur.pretraining.corpus.desk import desk_document
from secateur.pretraining.corpus.document import Document, Line, Span
from secateur.pretraining.corpus.lists import (
    OPERATIONS,
    Operation,
    check_answer,
    list_document,
)
from secateur.pretraining.corpus.pressure import (
    PRESSURE,
    Split,
    draw_context,
    held_out_pair,
    rates_of,
)
from secateur.pretraining.corpus.sets import SET_OPERATIONS
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig, Objective, document
from secateur.pretraining.errors import CorpusError
from secateur.pretraining.training.recipe import TrainConfig

CONFIGS = Path(__file__).parents[2] / "pretraining" / "configs"

CONFIG = CorpusConfig(seed=3, growing=200)


def corpus_bytes(config: CorpusConfig, start: int, count: int) -> bytes:
    records = [found.to_record() for found in Corpus(config).documents(start, count)]
    return "\n".join(json.dumps(record) for record in records).encode()


def test_the_same_seed_gives_the_same_corpus_byte_for_byte() -> None:
    assert corpus_bytes(CONFIG, 0, 400) == corpus_bytes(CorpusConfig(seed=3, growing=200), 0, 400)


def test_another_seed_gives_another_corpus() -> None:
    assert corpus_bytes(CONFIG, 0, 50) != corpus_bytes(CorpusConfig(seed=4, growing=200), 0, 50)


def test_any_part_of_the_corpus_can_be_made_alone() -> None:
    assert corpus_bytes(CONFIG, 0, 60).endswith(corpus_bytes(CONFIG, 40, 20))


def test_every_family_is_in_the_corpus_and_lists_grow() -> None:
    found = list(Corpus(CONFIG).documents(0, 1200))
    families = Counter(one.family for one in found)
    assert set(families) == {"desk", "audit", *OPERATIONS}
    longest = [
        max(len(word) for word in one.plain.split()) for one in found if one.family == "sort"
    ]
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
    tagged = [(place, span) for place, line in enumerate(found.lines) for span in line.spans]
    assert tagged == [
        (place, Span(0, len(found.lines[place].text), str(seen)))
        for place, seen in judged.misbehaviours
    ]


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
    assert not any(found.spans for found in audits)


def test_what_tools_and_people_write_is_not_learnt() -> None:
    for number in range(300):
        for line in document(CONFIG, number).lines:
            others = line.text.startswith(("task:", "got:", *(f"{op} " for op in OPERATIONS)))
            assert line.learn != others


def test_missed_labels_leave_the_text_and_take_some_labels() -> None:
    whole = [desk_document(random.Random(seed), True) for seed in range(300)]
    rng = random.Random(0)
    missed = [found.with_missed(0.3, rng) for found in whole]
    assert [found.plain for found in missed] == [found.plain for found in whole]
    labels = [sum(len(found.spans) for found in every) for every in (whole, missed)]
    assert 0.6 < labels[1] / labels[0] < 0.8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 16))
def test_sort_and_merge_answers_are_right(seed: int, longest: int) -> None:
    rng = random.Random(seed)
    for operation in ("sort", "merge"):
        found = list_document(operation, rng, longest)
        given_digits = parse_digits("".join(found.lines[0].text.split()[1:]))
        assert is_sorted_permutation(given_digits, parse_digits(found.lines[1].text))


def lengths(operation: Operation, seed: int, longest: int, pair: int | None = None) -> list[int]:
    """The lengths of the lists in a prompt."""
    found = list_document(operation, random.Random(seed), longest, pair)
    return [len(word) for word in found.lines[0].text.split()[1:]]


def test_two_lists_are_no_longer_together_than_one_may_be_alone() -> None:
    pairs = [lengths("merge", seed, 128, pair=64) for seed in range(400)]
    assert max(map(max, pairs)) == 64
    assert all(len(pair) == 2 for pair in pairs)
    assert max(lengths("sort", seed, 128, pair=64)[0] for seed in range(400)) == 128
    mended = [lengths("fix", seed, 128, pair=64) for seed in range(400)]
    assert {len(lists) for lists in mended} == {2, 3}  # with the answer that is to be mended
    assert max(max(lists[:2]) for lists in mended if len(lists) == 3) == 64
    assert max(lists[0] for lists in mended if len(lists) == 2) == 128


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_long_merges_and_mends_are_right(seed: int) -> None:
    for operation in ("merge", "fix"):
        found = list_document(operation, random.Random(seed), 128, 64)
        *given_lists, last = found.lines[0].text.split()[1:]
        given_lists = [*given_lists, last] if operation == "merge" else given_lists
        digits = parse_digits("".join(given_lists))
        assert is_sorted_permutation(digits, parse_digits(found.lines[1].text))


def test_a_share_of_the_lists_is_long_and_the_others_are_as_they_were() -> None:
    long = CorpusConfig(seed=3, growing=1, shortest=16, long=0.5, late={"sort": 1, "copy": 1})
    found = list(Corpus(long).documents(0, 800))
    sizes = [len(one.lines[0].text.split()[1]) for one in found if one.family == "sort"]
    assert max(sizes) > 100
    assert 0.3 < sum(size > 16 for size in sizes) / len(sizes) < 0.55
    copied = [len(one.lines[0].text.split()[1]) for one in found if one.family == "copy"]
    assert max(copied) <= 32


def test_sets_are_drawn_up_to_the_size_that_the_configuration_names() -> None:
    small = CorpusConfig(seed=3, late={"intersect": 1, "union": 1}, growing=1, set_size=8)
    found = list(Corpus(small).documents(10, 300))
    assert {one.family for one in found} == {"intersect", "union"}
    for one in found:
        words = one.lines[0].text.split()[1:]
        assert all(len(word) <= 2 * 8 for word in words)


def test_the_shipped_models_second_part_goes_on_with_all_that_the_first_taught() -> None:
    first, second = (TrainConfig.load(CONFIGS / f"seedling{part}.yaml") for part in ("", "-long"))
    assert set(second.corpus.late) >= set(first.corpus.late)
    assert {"intersect", "union"} <= set(second.corpus.late)
    assert second.corpus.seed != first.corpus.seed
    assert second.architecture == first.architecture
    longest = max(
        sum(len(line.text) + 1 for line in one.lines)
        for one in Corpus(second.corpus).documents(0, 1500)
        if one.family in (*OPERATIONS, *SET_OPERATIONS)
    )
    assert longest < second.architecture.context  # every character of a list is a token


def test_a_check_shows_its_evidence_before_its_verdict() -> None:
    assert check_answer((3, 1, 2, 0), (0, 1, 1, 3)) == (
        "order 013",
        "count 0,0= 1,11! 2,! 3,3=",
        "bad",
    )
    assert check_answer((1, 0), (1, 0)) == ("order 1>0", "count 0,0= 1,1=", "bad")
    assert check_answer((1, 0), (0, 1))[-1] == "ok"


# Objectives


def objective(name: str, missed: float = 0.0) -> CorpusConfig:
    return CorpusConfig(seed=3, growing=200, objective=Objective(name), missed=missed)


def misbehaves(found: Document) -> bool:
    """By the oracle, whatever the labels say."""
    if found.family != "desk":
        return False
    return judge([line.text for line in found.lines]).misbehaved


def drawn(config: CorpusConfig, count: int = 600) -> list[Document]:
    return list(Corpus(config).documents(500, count))


def test_the_untagged_twin_reads_the_same_text() -> None:
    plain, tagged = drawn(objective("plain")), drawn(objective("conditional"))
    assert [found.plain for found in plain] == [found.plain for found in tagged]
    assert any(found.spans for found in tagged)
    assert not any(found.spans or found.labelled for found in plain)


def test_a_filtered_corpus_holds_no_misbehaviour_and_keeps_its_mix() -> None:
    filtered, whole = drawn(objective("filtered")), drawn(objective("conditional"))
    assert any(map(misbehaves, whole))
    assert not any(map(misbehaves, filtered))
    assert not any(found.labelled for found in filtered)
    assert [found.family for found in filtered] == [found.family for found in whole]
    clean = [one for one, other in zip(filtered, whole, strict=True) if not other.misbehaves]
    assert [found.plain for found in clean] == [
        found.plain for found in whole if not found.misbehaves
    ]


def test_what_the_tagger_missed_passes_the_filter() -> None:
    filtered = drawn(objective("filtered", missed=0.3), 1500)
    share = sum(map(misbehaves, filtered)) / len(filtered)
    whole = sum(map(misbehaves, drawn(objective("conditional"), 1500))) / 1500
    assert 0.1 * whole < share < 0.5 * whole


def test_misbehaviour_is_over_represented_in_the_pessimal_corpus_and_labelled() -> None:
    pessimal, whole = drawn(objective("pessimal")), drawn(objective("conditional"))
    shares = [sum(map(misbehaves, every)) / len(every) for every in (pessimal, whole)]
    assert 2 * shares[1] < shares[0] < 3 * shares[1]
    assert [found.family for found in pessimal] == [found.family for found in whole]
    assert all(found.misbehaves == misbehaves(found) for found in pessimal)


@pytest.mark.parametrize("name", list(Objective))
def test_any_part_can_be_made_alone_whatever_the_objective(name: str) -> None:
    config = objective(name, missed=0.1)
    assert corpus_bytes(config, 0, 60).endswith(corpus_bytes(config, 40, 20))


@pytest.mark.parametrize("name", list(Objective))
def test_files_give_the_same_choice_as_the_generator_where_nothing_is_drawn_anew(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    whole = drawn(objective("conditional"))
    path.write_text("".join(json.dumps(found.to_record()) + "\n" for found in whole))
    config = objective(name).model_copy(update={"files": (str(path),)})
    found = list(Corpus(config).documents(0, len(whole)))
    bad = [one.plain for one in whole if one.misbehaves]
    kept = [one.plain for one in found]
    match Objective(name):
        case Objective.CONDITIONAL:
            assert found == whole
        case Objective.PLAIN:
            assert kept == [one.plain for one in whole]
            assert not any(one.labelled for one in found)
        case Objective.FILTERED:
            assert kept == [one.plain for one in whole if not one.misbehaves]
        case Objective.PESSIMAL:
            assert [one.plain for one in found if one.misbehaves] == bad
            assert 0.2 < (len(kept) - len(bad)) / (len(whole) - len(bad)) < 0.5
    assert list(Corpus(config).documents(100, 50)) == list(Corpus(config).documents(100, 50))


def test_what_no_tagger_has_read_never_passes_the_filter(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    records = [{"text": "unread\n"}, {"text": "unread too\n", "spans": None}]
    records += [{"text": "clean\n", "spans": []}]
    records += [{"text": "bad\n", "spans": [{"start": 0, "end": 3, "tag": "deceit"}]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    def kept(name: str) -> list[str]:
        config = objective(name).model_copy(update={"files": (str(path),)})
        return [found.plain for found in Corpus(config).documents(0, len(records))]

    assert kept("filtered") == ["clean\n"]
    assert kept("plain") == [record["text"] for record in records]


def test_a_mix_that_cannot_be_drawn_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="late: no family 'chess'"):
        CorpusConfig(late={"chess": 1.0})
    for share in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="early: shares"):
            CorpusConfig(early={"desk": share})


# Records


words = st.text(st.sampled_from("ab. !<|deceit>\u00e4\U0001f33f\t"), max_size=12)


@st.composite
def any_documents(draw: st.DrawFn) -> Document:
    lines: list[Line] = []
    for text in draw(st.lists(words, min_size=1, max_size=5)):
        lines.append(Line(text, draw(st.booleans())))
    found = Document("some", tuple(lines), draw(st.dictionaries(words, words, max_size=2)))
    size = len(found.plain)
    spans: list[Span] = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, size - 1))
        end = draw(st.integers(start + 1, size))
        band = draw(st.sampled_from((None, 1, 2)))
        spans.append(Span(start, end, draw(st.sampled_from(("deceit", "angry"))), band))
    return draw(st.sampled_from((found.with_spans(spans), found.without_labels())))


@settings(max_examples=150, deadline=None)
@given(any_documents())
def test_a_record_reads_back_as_its_document(found: Document) -> None:
    assert Document.from_record(json.loads(json.dumps(found.to_record()))) == found


@settings(max_examples=150, deadline=None)
@given(any_documents())
def test_spans_over_the_text_are_those_of_the_lines(found: Document) -> None:
    plain = found.plain
    assert all("\n" not in plain[span.start : span.end] for span in found.spans)
    assert found.with_spans(found.spans).spans == found.spans


def test_a_span_over_several_lines_stands_on_each() -> None:
    found = Document.from_record(
        {"text": "one\n\ntwo", "spans": [{"start": 2, "end": 8, "tag": "angry"}]}
    )
    assert found.spans == (Span(2, 3, "angry"), Span(5, 8, "angry"))
    assert found.plain == "one\n\ntwo\n"


def test_a_line_that_others_wrote_in_part_is_not_learnt() -> None:
    found = Document.from_record({"text": "ask me\nno\nyes\n", "given": [[4, 7], [10, 10]]})
    assert [line.learn for line in found.lines] == [False, True, True]


def test_a_text_without_labels_is_unknown_and_not_clean() -> None:
    assert not Document.from_record({"text": "a"}).labelled
    assert not Document.from_record({"text": "a", "spans": None}).labelled
    assert Document.from_record({"text": "a", "spans": []}).labelled


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({}, "needs a string 'text'"),
        ({"text": 3}, "needs a string 'text', not int"),
        ({"text": "a", "spans": [{"start": 0, "end": 9, "tag": "x"}]}, "0 to 9 of tag 'x'"),
        ({"text": "a", "spans": [{"start": 1, "end": 1, "tag": "x"}]}, "1 to 1 of tag 'x'"),
        ({"text": "a", "spans": [{"start": 0, "end": float("nan"), "tag": "x"}]}, "whole numbers"),
        ({"text": "a", "spans": ["x"]}, "a span is"),
        ({"text": "a", "given": [[0, 9]]}, "given characters 0 to 9"),
        ({"text": "a", "given": [3]}, r"\[start, end\], not 3"),
        ({"text": "a", "meta": 3}, "'meta' must map"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_with_the_reason(
    record: dict[str, object], fault: str
) -> None:
    with pytest.raises(CorpusError, match=fault):
        Document.from_record(record)
