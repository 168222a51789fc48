"""The fast ways to spell what is hashed give the very bytes of canonical JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.canonical import canonical_json, digest
from secateur.gates.reading import Reading
from secateur.gates.verdict import Action, Broken, Crossing, Verdict
from secateur.runtime.ledger import derive, tables
from secateur.runtime.ledger.chain import as_text, event_hash, from_text, plain_text
from secateur.runtime.ledger.judgements import judgement_text, judgement_to_json

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WITHOUT_FLOATS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
SCORES = st.dictionaries(
    st.text(min_size=1),
    st.dictionaries(st.sampled_from([str(r) for r in Reading]), FINITE | st.floats(0, 1)),
    max_size=4,
)


@given(WITHOUT_FLOATS)
def test_plain_text_is_canonical(value):
    assert plain_text(value) == json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


@given(st.dictionaries(st.text(), WITHOUT_FLOATS), FINITE)
def test_members_that_are_spelt_already_stand_among_the_others(value, score):
    whole = value | {"score": score}
    assert plain_text(whole, {"score": repr(score)}) == as_text(whole)


@given(SCORES, FINITE)
def test_a_verdict_is_spelt_canonically(scores, threshold):
    crossing = Crossing(0, "deceit", "opened", 0.5, threshold, Action.PRUNE, 0, 2)
    for crossings in ((), (crossing,)):
        data = judgement_to_json(Verdict(Action.PRUNE, crossings, scores))
        assert judgement_text(data) == as_text(data)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_refused_rather_than_spelt(score):
    data = judgement_to_json(Verdict(Action.ALLOW, (), {"deceit": {"peak": score}}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        judgement_text(data)


def test_a_broken_judgement_is_spelt_canonically():
    data = judgement_to_json(Broken("the reading is “torn”"))
    assert judgement_text(data) == as_text(data)


@given(
    st.fixed_dictionaries(
        {
            column.name: st.none() | st.text()
            if column.nullable and column.name == "thought_id"
            else st.none() | FINITE
            if column.name == "latency_s"
            else st.integers() | st.none()
            if column.name in ("seq", "monotonic_ns", "attempt")
            else st.text()
            for column in tables.event.c
        }
    )
)
def test_an_events_hash_is_that_of_its_columns_canonical_json(event):
    hashed = {name: value for name, value in event.items() if name != "hash"}
    assert event_hash(event) == digest(hashed)
    # Of another type than was written: still a hash, so that a change is found as one.
    assert event_hash(event | {"body": 7}) == digest(hashed | {"body": 7})


def test_derived_rows_have_their_tables_columns(make):
    event = {"run_id": "r", "thought_id": "t", "seq": 1, "at": "x", "attempt": 0, "latency_s": None}
    body = from_text(
        '{"parents":[],"operation":"o","kind":"k","depth":1,"index":0,"status":"kept",'
        '"scope":"thought","score":null,"tokens":1,"acted":null,"reason":null,"judgement":'
        '{"action":"allow","crossings":[],"scores":{"deceit":{"peak":0.25,"rate":0.125}}}}'
    )
    row = dict(
        zip(
            tables.thought.c.keys(),
            derive.thought_row(event, body, "a", "", None, "e"),
            strict=True,
        )
    )
    assert (row["agent"], row["child"], row["action"], row["evidence"]) == ("a", 0, "allow", "e")
    ((*score,),) = derive.tag_score_rows(event, body)
    named = dict(zip(tables.tag_score.c.keys(), score, strict=True))
    assert (named["peak"], named["rate"], named["opened"]) == (0.25, 0.125, None)
    assert canonical_json(named["decided"]) == b"false"
