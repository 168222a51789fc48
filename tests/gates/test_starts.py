"""Where prefix tags are read: at the starts of their own unit, each group once, in its turn."""

import json
from dataclasses import replace

import pytest

from secateur.gates.errors import UnreadableError
from secateur.gates.evidence import Evidence
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.reading import Reading
from secateur.gates.readings import read

POLICY = Policy.model_validate({"name": "test", "rules": []})
CALM, NOISE, TEMPTED = (0.01, 0.4), (4e-6, 1e-6), (0.3, 0.1)
"""p of the bad token and of its good twin; in the noise their ratio is 0.8."""


def prefix(name: str, good: str, unit: str = "sentence") -> dict:
    return {"name": name, "scheme": "prefix", "open": f"<|{name}|>", "good": good, "unit": unit}


DECEIT, ANGRY = prefix("deceit", "<|honest|>"), prefix("angry", "<|calm|>")
BAD, GOOD, BAD_2, GOOD_2 = 900, 901, 902, 903


def peaks(vocabulary, steps) -> dict[str, tuple[float, int]]:
    """Of each tag the highest belief and its token; streamed and replayed they are the same."""
    gate = StreamGate(POLICY, vocabulary)
    for step in steps:
        assert gate.feed(step) is None
    replayed = read(Evidence.from_bytes(gate.evidence().to_bytes()), vocabulary)
    found = {tag: scores[Reading.PEAK] for tag, scores in gate.readings().items()}
    assert {tag: scores[Reading.PEAK] for tag, scores in replayed.items()} == found
    return {tag: (round(score.value, 2), score.start) for tag, score in found.items()}


@pytest.mark.parametrize("ends", [[".", "\n"], [".", " \n"], [". ", "\n"], [".", "\r\n"]])
def test_noise_before_the_newline_of_a_finished_sentence_is_not_read(make_vocabulary, step, ends):
    *first, last = ends
    steps = [step(*CALM, text="Fine"), *(step(0, 0, text=text) for text in first)]
    steps += [step(*NOISE, text=last), step(*CALM, text="And")]
    assert peaks(make_vocabulary(DECEIT), steps)["deceit"] == (0.02, 0)


def test_a_blank_line_is_read_since_a_line_was_due(make_vocabulary, step):
    texts = ["Fine", "\n", "\n", "And"]
    steps = [step(*(TEMPTED if at == 2 else CALM), text=text) for at, text in enumerate(texts)]
    assert peaks(make_vocabulary(DECEIT), steps)["deceit"] == (0.75, 2)


@pytest.mark.parametrize(("unit", "found"), [("line", (0.02, 0)), ("sentence", (0.75, 2))])
def test_a_tag_of_lines_is_not_read_at_a_sentence_within_one(make_vocabulary, step, unit, found):
    steps = [step(*CALM, text="Fine"), step(0, 0, text="."), step(*TEMPTED, text=" And")]
    vocabulary = make_vocabulary(prefix("deceit", "<|honest|>", unit))
    assert peaks(vocabulary, steps)["deceit"] == found


@pytest.mark.parametrize("unit", ["line", "sentence"])
def test_both_units_are_read_where_a_line_starts(make_vocabulary, step, unit):
    steps = [step(*CALM, text="Fine"), step(0, 0, text=".\n"), step(*TEMPTED, text="And")]
    vocabulary = make_vocabulary(prefix("deceit", "<|honest|>", unit))
    assert peaks(vocabulary, steps)["deceit"] == (0.75, 2)


def test_of_two_groups_side_by_side_each_is_read_in_its_turn(make_vocabulary, step):
    steps = [
        step(*CALM, *NOISE, id=GOOD, text=""),
        step(*NOISE, *TEMPTED, id=GOOD_2, text=""),
        step(*NOISE, *NOISE, text="Fine"),
    ]
    found = peaks(make_vocabulary(DECEIT, ANGRY), steps)
    assert found == {"deceit": (0.02, 0), "angry": (0.75, 1)}


def test_a_group_whose_token_was_left_out_is_read_with_the_one_that_came(make_vocabulary, step):
    steps = [step(*CALM, *TEMPTED, id=GOOD_2, text=""), step(*NOISE, *NOISE, text="Fine")]
    found = peaks(make_vocabulary(DECEIT, ANGRY), steps)
    assert found == {"deceit": (0.02, 0), "angry": (0.75, 0)}


def test_within_a_line_only_the_group_of_sentences_is_read(make_vocabulary, step):
    vocabulary = make_vocabulary(prefix("deceit", "<|honest|>", "line"), ANGRY)
    steps = [
        step(*CALM, *NOISE, id=GOOD, text=""),
        step(*NOISE, *CALM, id=GOOD_2, text=""),
        step(0, 0, 0, 0, text="Fine"),
        step(0, 0, 0, 0, text="."),
        step(*NOISE, *TEMPTED, id=GOOD_2, text=""),
        step(*NOISE, *NOISE, text=" And"),
    ]
    assert peaks(vocabulary, steps) == {"deceit": (0.02, 0), "angry": (0.75, 4)}


def test_a_prefix_tag_is_read_behind_a_span_that_closes_and_not_behind_one_that_opens(
    make_vocabulary, step
):
    span = {"name": "rage", "open": "<|rage|>", "close": "<|/rage|>"}
    vocabulary = make_vocabulary(span, DECEIT)
    opens, closes = vocabulary.open_ids("rage")[0], vocabulary.close_id("rage")
    steps = [
        step(0, *CALM, id=opens, text=""),
        step(0, *NOISE, text="Fine"),
        step(0, 0, 0, text="."),
        step(0, *NOISE, id=closes, text=""),
        step(0, *TEMPTED, text=" And"),
    ]
    assert peaks(vocabulary, steps)["deceit"] == (0.75, 4)


def test_old_evidence_that_does_not_tell_lines_from_sentences_replays_as_it_was_read(
    make_vocabulary, step, make_evidence
):
    vocabulary = make_vocabulary(prefix("deceit", "<|honest|>", "line"), ANGRY)
    steps = [step(*CALM, *CALM, text="Fine"), step(*TEMPTED, *TEMPTED, id=GOOD, text="")]
    old = make_evidence(vocabulary, steps, starts=(0, 1))
    assert "lines" not in json.loads(old.to_bytes().partition(b"\n")[0])
    again = Evidence.from_bytes(old.to_bytes())
    for scores in read(again, vocabulary).values():
        assert scores[Reading.PEAK].start == 1
    rule = {"tag": "deceit", "reading": "peak", "at": 0.5, "action": "prune"}
    strict = Policy.model_validate({"name": "test", "rules": [rule]})
    assert judge(strict, again, vocabulary).crossings[0].start == 1
    assert judge(strict, replace(again, lines=(0,)), vocabulary).action.keeps


def test_a_line_that_starts_where_nothing_does_cannot_be_read(make_vocabulary, step, make_evidence):
    vocabulary = make_vocabulary(DECEIT)
    seen = make_evidence(vocabulary, [step(*CALM)] * 2, starts=(0,))
    with pytest.raises(UnreadableError, match="a line starts"):
        read(replace(seen, lines=(0, 1)), vocabulary)
