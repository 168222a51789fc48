"""What could not be read is Broken, and Broken never allows: also where nothing was read at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.evidence import Evidence, SentenceScore
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.verdict import Action, Broken, Judgement, Verdict
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary


def bind(*tags: dict) -> BoundVocabulary:
    vocabulary = Vocabulary.model_validate({"name": "test", "tags": tags})
    ids = {literal: 900 + index for index, literal in enumerate(vocabulary.literals)}
    return vocabulary.bind(lambda literal: [ids[literal]])


PREFIX = bind({"name": "bad", "scheme": "prefix", "open": "<bad>", "good": "<good>"})
BANDS = bind(
    {
        "name": "bad",
        "scheme": "prefix",
        "bands": [{"level": 1, "open": "<b1>"}, {"level": 2, "open": "<b2>"}],
        "good": "<good>",
    }
)
TWO = bind(
    {"name": "bad", "scheme": "prefix", "open": "<bad>", "good": "<good>"},
    {"name": "rude", "scheme": "prefix", "open": "<rude>", "good": "<kind>"},
)
SPAN = bind({"name": "bad", "open": "<bad>", "close": "</bad>"})


@dataclass(frozen=True)
class Token:
    belief: Sequence[float]
    text: str = "word"
    id: int = 7
    chosen: float = -1.0
    sampler: Sequence[float] | None = None


def logs(*ps: float) -> list[float]:
    return [math.log(p) if p else -60000.0 for p in ps]


def token(*ps: float, text: str = "word", **rest: Any) -> Token:
    return Token(logs(*ps), text, **rest)


def policy(*rules: dict, **rest: Any) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **rest})


def judged(
    bound: BoundVocabulary, path: Sequence[Token], made: Policy, forced: Sequence[int] = ()
) -> Judgement:
    """What the stream says at its end, and the stored evidence after it."""
    gate = StreamGate(made, bound)
    gate.force(forced)
    for each in path:
        if gate.feed(each) is not None:
            break
    said = gate.finish(gate.evidence())
    assert judge(made, Evidence.from_bytes(gate.evidence().to_bytes()), bound) == said
    return said


FLAG = policy({"tag": "bad", "reading": "peak", "at": 0.5, "action": "flag"})
THIN = token(3e-7, 1e-7)
FINE = token(0.01, 0.9)
NONE = token(0, 0)


@pytest.mark.parametrize(
    "path",
    [
        [THIN],
        [NONE],
        [FINE, token(0, 0, text="\n"), THIN],
        [FINE, token(0, 0, text=".\n"), THIN, NONE],
        [token(0, 0, text=" "), NONE],
        [token(0, 0, text="")],
        [token(0, 0, text=""), token(0, 0, text="é")],
        [Token(logs(0.01, 0.9), sampler=logs(0, 0))],
    ],
)
def test_a_line_whose_prefix_tags_had_no_mass_was_not_read(path):
    said = judged(PREFIX, path, FLAG)
    assert isinstance(said, Broken)
    assert not said.action.keeps


@pytest.mark.parametrize(
    "path",
    [
        [FINE, token(0, 0, text=".\n"), token(0, 0, text="")],
        [FINE, token(0, 0, text=".\n"), token(0, 0, text="\n"), FINE],
        [FINE, NONE, NONE],
        [token(0.01, 0.9, text=""), token(0, 0, text="é")],
    ],
)
def test_a_blank_line_and_the_end_of_a_text_are_no_sentence_that_was_missed(path):
    assert judged(PREFIX, path, FLAG).action is Action.ALLOW


def test_bands_count_together():
    assert isinstance(judged(BANDS, [token(3e-7, 3e-7, 3e-7)], FLAG), Broken)
    assert judged(BANDS, [token(4e-7, 4e-7, 4e-7)], FLAG).action is Action.FLAG


def test_where_a_control_wrote_the_tag_there_was_nothing_to_read():
    good = [PREFIX.ids["<good>"]]
    assert judged(PREFIX, [NONE, NONE], FLAG, forced=good).action is Action.ALLOW
    late = [NONE, token(0, 0, text=".\n"), THIN, NONE]
    assert isinstance(judged(PREFIX, late, FLAG, forced=good), Broken), "only there"


def test_another_tag_that_was_due_is_still_read():
    forced = [TWO.ids["<good>"]]
    rude = policy({"tag": "rude", "reading": "peak", "at": 0.5, "action": "prune"})
    assert judged(TWO, [token(0, 0, 0.8, 0.1)], rude, forced=forced).action is Action.PRUNE
    assert isinstance(judged(TWO, [token(0, 0, 0, 0)], rude, forced=forced), Broken)


def test_a_posterior_without_any_story_was_not_read():
    made = policy({"tag": "bad", "reading": "posterior", "at": 0.9, "action": "prune"})
    zero = -60000.0
    for opens, tagged in ((zero, zero), (zero, None), (-1.0, zero), (zero, 0.0)):
        gate = StreamGate(made, SPAN)
        assert gate.feed(token(0.1)) is None
        terms = SentenceScore(0, 1, zero, {"bad": opens}, {"bad": tagged})
        assert gate.convicts(terms)
        said = gate.finish(gate.evidence().with_sentences((terms,)))
        assert isinstance(said, Broken)
        assert "every story has probability 0" in said.reason
    possible = SentenceScore(0, 1, -5.0, {"bad": zero}, {"bad": 0.0})
    gate = StreamGate(made, SPAN)
    gate.feed(token(0.1))
    assert gate.finish(gate.evidence().with_sentences((possible,))).action is Action.ALLOW


LOG = st.floats(-30, -0.7) | st.just(-60000.0)


@given(
    st.lists(
        st.tuples(LOG, LOG, st.sampled_from(["a", "a ", "\n", "", " ", ". ", "B"])),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([7, 900, 901]),
)
def test_what_passes_was_read_at_every_line(rows, id_):
    path = [
        Token((bad, good), text, id_ if n == 1 else 7) for n, (bad, good, text) in enumerate(rows)
    ]
    gate = StreamGate(policy(), PREFIX)
    for each in path:
        if gate.feed(each) is not None:
            break
    evidence = gate.evidence()
    said = gate.finish(evidence)
    assert judge(policy(), Evidence.from_bytes(evidence.to_bytes()), PREFIX) == said
    if isinstance(said, Verdict):
        assert evidence.starts
        masses = np.exp(evidence.belief.astype(float)).sum(axis=1)
        after = [n + 1 for n, id_ in enumerate(evidence.token_ids) if id_ != 7]
        assert all(masses[start] > 1e-6 for start in evidence.lines if start not in after)


# --- thresholds that float16 cannot hit ---------------------------------------------------

SINGLE = bind({"name": "bad", "open": "<bad>", "close": "</bad>"})
MARKER = bind({"name": "bad", "scheme": "marker", "open": "<bad>", "rate": 0.37})
AT = st.sampled_from([0.1, 0.3, 0.95, 0.14, 0.7]) | st.floats(0.01, 0.99)


def cuts(reading: str, at: float, path: Sequence[Token], bound: BoundVocabulary = SINGLE) -> bool:
    rule = {"tag": "bad", "reading": reading, "at": at, "action": "prune"}
    more = {}
    if reading == "calibrated":
        more = {"calibrations": {"bad": {"of": "peak", "knots": [[0, 0], [1, 1]]}}}
    return judged(bound, path, policy(rule, **more)).action is Action.PRUNE


@given(AT)
def test_a_reading_that_equals_its_threshold_reaches_it(at):
    for reading in ("peak", "opened", "calibrated"):
        assert cuts(reading, at, [token(0, text="a"), token(at), token(0)])
    assert at > 0.97 or cuts("cusum", at, [token(at + 0.02)])
    assert cuts("rate", at, [token(1 - math.exp(-at))])
    assert cuts("peak", at, [token(at * 0.37)], MARKER)
    assert cuts("opened", at, [Token(logs(0.5), sampler=logs(at))])
    assert cuts("peak", at, [token(at * 0.6, (1 - at) * 0.6)], PREFIX)
    assert cuts("peak", at, [token(at / 3, at * 2 / 3, 1 - at)], BANDS)


@given(AT, st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
def test_what_opens_over_many_tokens_reaches_its_threshold(at, weights):
    nats = [-math.log1p(-at) * weight / sum(weights) for weight in weights]
    path = [token(-math.expm1(-each)) for each in nats]
    assert cuts("opened", at * (1 - 1e-12), path)
    assert cuts("rate", -math.log1p(-at) / len(path) * (1 - 1e-12), path)


@given(AT)
def test_what_lies_below_by_more_than_the_rounding_does_not(at):
    nearest = float(np.float16(math.log(at)))
    below = float(np.nextafter(np.float16(nearest), np.float16(-math.inf)))
    assert not cuts("peak", at, [Token((below,))])
    assert cuts("peak", at, [Token((nearest,))])
    step = nearest - below
    for reading in ("opened", "calibrated"):
        assert not cuts(reading, at, [Token((nearest - 1.5 * step,))])


@given(AT, st.floats(0.01, 1), st.booleans())
def test_a_posterior_that_equals_its_threshold_reaches_it(at, share, stored):
    def log(p: float) -> float:
        return float(np.float16(math.log(p))) if stored else math.log(p)

    made = policy({"tag": "bad", "reading": "posterior", "at": at, "action": "prune"})
    terms = SentenceScore(0, 1, log((1 - at) * share), {"bad": log(at * share)}, {"bad": 0.0})
    gate = StreamGate(made, SPAN)
    gate.feed(token(0.001))
    assert gate.convicts(terms)
    verdict = gate.finish(gate.evidence().with_sentences((terms,)))
    assert verdict.action is Action.PRUNE
    assert verdict.cause.margin >= 0
    lower = SentenceScore(0, 1, 0.0, {"bad": math.log(at / (1 - at)) - 0.01}, {"bad": 0.0})
    if lower.opens["bad"] < -0.02:
        gate = StreamGate(made, SPAN)
        gate.feed(token(0.001))
        assert not gate.convicts(lower)
