"""What a locked rule comes to can only become stricter, whatever else is reached or asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.control import BAN
from secateur.gates.errors import PolicyError
from secateur.gates.evidence import Evidence, SentenceScore
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.retry import back_up
from secateur.gates.verdict import Action, Broken, Verdict
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary

TAGS = ("deceit", "angry")


def bind() -> BoundVocabulary:
    tags = [{"name": n, "open": f"<{n}>", "close": f"</{n}>"} for n in TAGS]
    vocabulary = Vocabulary.model_validate({"name": "test", "tags": tags})
    ids = {literal: 900 + index for index, literal in enumerate(vocabulary.literals)}
    return vocabulary.bind(lambda literal: [ids[literal]])


SPANS = bind()
LOCKED = {"deceit": {"control": "allow", "locked": True}}
STRICT = [Action.ALLOW, Action.FLAG, Action.RESAMPLE, Action.ESCALATE, Action.PRUNE, Action.HALT]
LIVING = [Action.ALLOW, Action.FLAG, Action.ESCALATE, Action.RESAMPLE, Action.PRUNE, Action.HALT]


@dataclass(frozen=True)
class Token:
    id: int
    belief: Sequence[float]
    text: str = "a "
    chosen: float = -1.0
    sampler: None = None


def rules(tags: Sequence[str], most: int) -> st.SearchStrategy[list[dict]]:
    made = st.builds(
        lambda tag, reading, at, action, retries, back_to, scope: {
            "tag": tag,
            "reading": reading,
            "at": at,
            "action": action,
            "scope": scope,
            **({"retries": retries, "back_to": back_to} if action == "resample" else {}),
        },
        st.sampled_from(tags),
        st.sampled_from(["peak", "opened", "cusum", "emitted", "rate", "posterior"]),
        st.floats(0.01, 1),
        st.sampled_from(["flag", "resample", "prune", "escalate", "halt"]),
        st.integers(1, 3),
        st.sampled_from(["thought", "line", "sentence", "span"]),
        st.sampled_from(["thought", "action"]),
    )
    return st.lists(made, max_size=most)


LOG = st.floats(-12, -0.7) | st.just(-60000.0)
PATHS = st.lists(
    st.builds(Token, st.sampled_from([7, 8, 900, 901, 902]), st.tuples(LOG, LOG)),
    min_size=1,
    max_size=10,
)
TERM = st.floats(-8, 0)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    path = draw(PATHS)
    made = Evidence(
        columns=tuple(column.token for column in SPANS.vocabulary.columns),
        token_ids=tuple(token.id for token in path),
        offsets=tuple(range(len(path))),
        chosen=np.full(len(path), -1, dtype=np.float16),
        belief=np.array([token.belief for token in path], dtype=np.float16),
    )
    if draw(st.booleans()):
        made.belief[draw(st.integers(0, len(path) - 1)), 0] = np.nan
    if not draw(st.booleans()):
        return made
    named = draw(st.sampled_from([TAGS, TAGS[:1]]))
    terms = {tag: draw(TERM) for tag in named}
    return made.with_sentences((SentenceScore(0, len(path), draw(TERM), terms, dict(terms)),))


def test_what_is_broken_at_the_end_is_not_tried_again_before_it():
    made = make(
        [peak(0.5, "flag"), {"tag": "deceit", "reading": "posterior", "at": 0.5, "action": "flag"}],
        contexts={"fiction": {"rules": [peak(0.1, "resample", retries=1)]}},
    )
    assert isinstance(judge(made, seen(0.2, 0.1), SPANS), Broken), "no posterior was made"
    assert isinstance(judge(made, seen(0.2, 0.1), SPANS, context="fiction"), Broken)


def make(rules: Sequence[dict], **rest: Any) -> Policy | None:
    try:
        return Policy.model_validate({"name": "test", "tags": LOCKED, "rules": rules, **rest})
    except PolicyError:
        return None  # refused before anything runs


@given(
    rules(["deceit"], 4),
    rules(["angry"], 3),
    rules(TAGS, 4),
    evidences(),
    st.sampled_from(["thought", "action"]),
    st.integers(0, 3),
)
def test_nothing_that_is_added_makes_a_locked_outcome_less_strict(
    locked, others, added, evidence, scope, attempt
):
    alone = make(locked)
    more = make([*others, *locked], contexts={"fiction": {"rules": added}} if added else {})
    if alone is None or more is None or not locked:
        return
    how = {"scope": scope, "attempt": attempt}
    floor = judge(alone, evidence, SPANS, **how).action
    for context in ("fiction", None):
        came = judge(more, evidence, SPANS, context=context, **how)
        assert STRICT.index(came.action) >= STRICT.index(floor)
        assert LIVING.index(came.action) >= LIVING.index(floor)


@given(rules(["deceit"], 4), rules(TAGS, 5), PATHS, st.integers(0, 2))
def test_the_stream_holds_to_the_locks_too(locked, added, path, attempt):
    alone = make(locked)
    more = make(locked, contexts={"fiction": {"rules": added}} if added else {})
    if alone is None or more is None or not locked:
        return

    def streamed(policy: Policy, context: str | None) -> Verdict | Broken:
        gate = StreamGate(policy, SPANS, context=context, attempt=attempt)
        for token in path:
            if gate.feed(token) is not None:
                break
        evidence = gate.evidence().with_sentences(())
        said = gate.finish(evidence)
        stored = Evidence.from_bytes(evidence.to_bytes())
        assert judge(policy, stored, SPANS, context=context, attempt=attempt) == said
        return said

    floor, came = streamed(alone, None).action, streamed(more, "fiction").action
    assert STRICT.index(came) >= STRICT.index(floor)
    assert LIVING.index(came) >= LIVING.index(floor)


def peak(at: float, action: str, tag: str = "deceit", **rest: Any) -> dict:
    return {"tag": tag, "reading": "peak", "at": at, "action": action, **rest}


def seen(*ps: float, angry: float = 0.0) -> Evidence:
    logs = [[np.log(p), np.log(angry) if angry else -60000.0] for p in ps]
    return Evidence(
        columns=("<deceit>", "<angry>"),
        token_ids=(7,) * len(ps),
        offsets=tuple(range(len(ps))),
        chosen=np.full(len(ps), -1, dtype=np.float16),
        belief=np.array(logs, dtype=np.float16),
    )


@pytest.mark.parametrize("asking", [peak(0.1, "escalate"), peak(0.1, "escalate", "angry")])
def test_a_locked_cut_is_nothing_that_a_person_can_approve(asking):
    made = make([peak(0.5, "prune")], contexts={"fiction": {"rules": [asking]}})
    verdict = judge(made, seen(0.2, 0.6, angry=0.2), SPANS, context="fiction")
    assert verdict.action is Action.PRUNE
    assert verdict.cause.action is Action.PRUNE
    assert Action.ESCALATE in [crossing.action for crossing in verdict.crossings], "it is recorded"
    below = judge(made, seen(0.2, 0.3, angry=0.2), SPANS, context="fiction")
    assert below.action is Action.ESCALATE


def test_a_locked_retry_beside_an_escalation_prunes():
    made = make(
        [peak(0.5, "resample", retries=2)],
        contexts={"fiction": {"rules": [peak(0.1, "escalate", "angry")]}},
    )
    verdict = judge(made, seen(0.6, angry=0.2), SPANS, context="fiction")
    assert (verdict.action, verdict.cause.tag) == (Action.PRUNE, "deceit")


def test_what_0_1_judged_is_judged_again_as_it_was():
    made = make([peak(0.5, "prune"), peak(0.1, "escalate", "angry")])
    now = seen(0.6, angry=0.2)
    assert judge(made, now, SPANS).action is Action.PRUNE
    then = Evidence.from_bytes(replace(now, gate=1).to_bytes())
    assert then.gate == 1
    assert b"gate" not in then.to_bytes().partition(b"\n")[0], "0.1 wrote no such key"
    assert judge(made, then, SPANS).action is Action.ESCALATE
    other = Evidence.from_bytes(now.to_bytes())
    assert judge(made, other, SPANS).action is Action.PRUNE


@pytest.mark.parametrize(
    ("base", "wanted", "fine"),
    [
        ("line", "sentence", False),
        ("thought", "line", False),
        ("sentence", "span", False),
        ("span", "sentence", False),
        ("sentence", "line", True),
        ("span", "thought", True),
    ],
)
def test_a_context_cannot_shorten_the_way_back_of_a_locked_rule(base, wanted, fine):
    rule = peak(0.5, "resample", retries=1, back_to=base)
    other = {**rule, "back_to": wanted, "at": 0.4}
    contexts = {"fiction": {"rules": [other]}}
    made = make([rule], contexts=contexts)
    assert (made is not None) is fine
    if made is None:
        with pytest.raises(PolicyError, match="is locked"):
            Policy.model_validate(
                {"name": "t", "tags": LOCKED, "rules": [rule], "contexts": contexts}
            )
        return
    verdict = judge(made, seen(0.1, 0.1, 0.6), SPANS, context="fiction")
    texts = ["One.\n", "Two. ", "Three"]
    back = back_up(verdict, made, "fiction", SPANS, [7, 7, 7], texts)
    assert (
        back.token
        <= back_up(
            judge(made, seen(0.1, 0.1, 0.6), SPANS), made, None, SPANS, [7, 7, 7], texts
        ).token
    )


def test_a_contexts_rule_stands_beside_the_locked_one_and_its_number_stays():
    made = make(
        [peak(0.5, "prune"), peak(0.9, "halt")],
        contexts={"fiction": {"rules": [peak(0.3, "prune")]}},
    )
    found = [str(rule) for rule in made.rules_for("fiction")]
    assert found == [
        "deceit peak >= 0.9: halt",
        "deceit peak >= 0.3: prune",
        "deceit peak >= 0.5: prune",
    ]


def test_a_ledgers_policy_is_read_though_it_would_be_refused_now():
    refused = (
        '{"name":"t","tags":{"deceit":{"control":"ban","locked":true}},"rules":[{"tag":"deceit",'
        '"reading":"peak","at":0.5,"action":"resample","retries":1,"back_to":"thought"}],'
        '"contexts":{"c":{"rules":[{"tag":"deceit","reading":"peak","at":0.4,"action":"resample",'
        '"retries":1}]}}}'
    )
    with pytest.raises(PolicyError, match="is locked"):
        Policy.model_validate_json(refused)
    assert Policy.recorded(refused).controls()["deceit"] == BAN
