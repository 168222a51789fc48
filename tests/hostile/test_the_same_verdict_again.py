"""A verdict is given again by its evidence: the same one, in the same words, whatever came."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secateur.gates.evidence import Evidence, SentenceScore
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.verdict import Broken, Verdict
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary


def bind(*tags: dict) -> BoundVocabulary:
    vocabulary = Vocabulary.model_validate({"name": "test", "tags": tags})
    ids = {literal: 900 + index for index, literal in enumerate(vocabulary.literals)}
    return vocabulary.bind(lambda literal: [ids[literal]])


SPANS = bind(*({"name": n, "open": f"<{n}>", "close": f"</{n}>"} for n in ("deceit", "angry")))
MIXED = bind(
    {"name": "deceit", "scheme": "prefix", "open": "<bad>", "good": "<good>"},
    {"name": "angry", "scheme": "marker", "open": "<angry>", "rate": 0.05},
)


@dataclass(frozen=True)
class Token:
    """One token as an engine would send it; anything may be wrong with it."""

    id: Any = 7
    text: Any = "a "
    chosen: Any = -1.0
    belief: Any = (-9.0, -9.0)
    sampler: Any = None


RULES = st.lists(
    st.builds(
        lambda tag, reading, at, action, scope: {
            "tag": tag,
            "reading": reading,
            "at": at,
            "action": action,
            "retries": int(action == "resample"),
            "scope": scope,
        },
        st.sampled_from(["deceit", "angry"]),
        st.sampled_from(["peak", "opened", "cusum", "emitted", "rate"]),
        st.floats(0.01, 1),
        st.sampled_from(["flag", "resample", "prune", "escalate", "halt"]),
        st.sampled_from(["thought", "action"]),
    ),
    max_size=5,
    unique_by=lambda rule: (rule["tag"], rule["reading"]),
)
ODD = st.sampled_from(
    [
        *(math.nan, math.inf, -math.inf, 1e-3, 0.5, 70000.0, -65519.9, -65520.0, -1e9, -1e308),
        *(1e308, -0.0, -5e-324, -1e-8, 2**-24, None, "-1", "x", b"", [], object, 10**400, True),
    ]
)
LOG = st.floats(-12, -0.7) | st.just(-60000.0)
ROWS = st.lists(LOG | ODD, max_size=5) | st.just(None) | st.just(3.0) | st.just("ab")
IDS = st.sampled_from([7, 8, 900, 901, 902, 903])


@st.composite
def tokens(draw: st.DrawFn, width: int) -> list[Token]:
    """A path that may be read, and at its end whatever may come."""
    sampled = draw(st.booleans())
    row = st.tuples(*[LOG] * width)
    sampler = row if sampled else st.none()
    text = st.sampled_from(["a ", "", ".", " B", "\n", "é"])
    fine = st.builds(Token, IDS, text, st.floats(-9, 0), row, sampler)
    path = draw(st.lists(fine, min_size=1, max_size=12))
    odd_rows = st.lists(LOG | ODD, min_size=width, max_size=width) | ROWS
    change = st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from([None, "7", 3.5, -1, 10**30, True]),
            "text": st.sampled_from([None, 5, b"x", "\ud800"]),
            "chosen": ODD,
            "belief": odd_rows,
            "sampler": odd_rows,
        },
    )
    place = draw(st.integers(0, len(path)))
    path.insert(place, replace(draw(fine), **draw(change)))
    return path


def policy(*rules: dict, **rest: Any) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **rest})


def again(made: Policy, bound: BoundVocabulary, path: list[Token], **how: Any) -> Any:
    """What the stream said at its end; it must be what the stored evidence says."""
    gate = StreamGate(made, bound, **how)
    for token in path:
        if gate.feed(token) is not None:
            break
    stored = Evidence.from_bytes(gate.evidence().to_bytes())
    said = gate.finish(gate.evidence())
    assert repr(judge(made, stored, bound, **how)) == repr(said)
    assert Evidence.from_bytes(stored.to_bytes()).to_bytes() == stored.to_bytes()
    return said


@given(RULES, st.data(), st.sampled_from([SPANS, MIXED]), st.integers(0, 1))
def test_the_stream_and_the_stored_evidence_say_the_same_words(rules, data, bound, attempt):
    path = data.draw(tokens(len(bound.vocabulary.columns)))
    again(policy(*rules), bound, path, attempt=attempt)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"belief": (-1e9, -1.0)}, "a log p lies beyond float16"),
        ({"chosen": -1e9}, "a log p lies beyond float16"),
        ({"belief": (math.nan, -1e9)}, "a log p lies beyond float16"),
        ({"belief": (-1.0,)}, "1 beliefs and none of the sampler came for the 2 columns"),
        ({"belief": None}, "none beliefs and none of the sampler came"),
        ({"belief": 3.0}, "one beliefs and none of the sampler came"),
        ({"sampler": (-1.0, -1.0)}, "come and go within one generation"),
        ({"sampler": ()}, "2 beliefs and 0 of the sampler came"),
        ({"text": None}, "its id or its text has the wrong type"),
        ({"id": None}, "its id or its text has the wrong type"),
        ({"belief": (math.nan, -1.0)}, "log p of <deceit> is nan"),
        ({"belief": (-1.0, math.inf)}, "log p of <angry> is inf"),
        ({"chosen": math.nan}, "its own log p is nan"),
        ({"belief": (-0.01, -0.01)}, "sum to 1.98"),
    ],
)
def test_what_cannot_be_stored_is_stored_as_what_was_said_of_it(change, words):
    path = [Token(), replace(Token(), **change), Token()]
    said = again(policy(), SPANS, path)
    assert isinstance(said, Broken)
    assert said.reason.startswith("token 1: ")
    assert words in said.reason


def test_a_rule_that_is_reached_before_any_line_begins_is_the_verdict_again():
    rule = {"tag": "angry", "reading": "peak", "at": 0.5, "action": "prune"}
    nothing = (-60000.0, -60000.0, -1.0)
    said = again(policy(rule), MIXED, [Token(7, "\n", belief=nothing)])
    assert said.cause.tag == "angry"
    nothing, rule = (-60000.0, -60000.0, -60000.0), {**rule, "action": "flag"}
    blank = Token(7, "", belief=nothing)
    unread = again(policy(rule), MIXED, [blank, replace(blank, id=None)])
    assert "so nothing was read" in unread.reason


TERM = st.none() | st.floats(-70000, 0) | st.sampled_from([math.nan, math.inf, -math.inf, 1.0])


@given(TERM, TERM, TERM, st.integers(-1, 3), st.integers(-1, 3), st.floats(0.01, 1))
@example(-60000.0, -60000.0, -60000.0, 0, 2, 0.9)
def test_a_posterior_is_weighed_again_to_the_same_words(untagged, opens, tagged, start, end, at):
    made = policy({"tag": "deceit", "reading": "posterior", "at": at, "action": "prune"})
    gate = StreamGate(made, SPANS)
    for _ in range(2):
        assert gate.feed(Token()) is None
    terms = SentenceScore(start, end, untagged, {"deceit": opens}, {"deceit": tagged})
    convicted = gate.convicts(terms)
    evidence = gate.evidence().with_sentences((terms,))
    stored = Evidence.from_bytes(evidence.to_bytes())
    replayed = judge(made, stored, SPANS)
    assert repr(gate.finish(evidence)) == repr(replayed)
    if convicted:
        assert not replayed.action.keeps, "what was broken off does not pass"
    if isinstance(replayed, Verdict) and not replayed.action.keeps:
        assert convicted
