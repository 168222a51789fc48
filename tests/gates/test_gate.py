"""The gate: one verdict for one evidence and policy, streamed or replayed; broken never allows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.evidence import Evidence, SentenceScore
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.rule import Rule
from secateur.gates.verdict import Action, Broken, Verdict

TAGS = ("deceit", "powerseeking")


def policy(*rules: dict, **rest) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **rest})


def stream(gate: StreamGate, steps):
    """Feed until the gate says stop; what it said, and how many tokens it took."""
    for count, token in enumerate(steps, start=1):
        judgement = gate.feed(token)
        if judgement is not None:
            return judgement, count
    return None, len(steps)


# --- one verdict, streamed or replayed --------------------------------------------------

RULES = st.lists(
    st.builds(
        lambda tag, reading, at, action, scope: {
            "tag": tag,
            "reading": reading,
            "at": at,
            "action": action,
            "retries": 1 if action == "resample" else 0,
            "scope": scope,
        },
        st.sampled_from(TAGS),
        st.sampled_from(["peak", "opened", "cusum", "emitted", "rate"]),
        st.floats(0.01, 1),
        st.sampled_from(["flag", "resample", "prune", "escalate", "halt"]),
        st.sampled_from(["thought", "action"]),
    ),
    max_size=5,
    unique_by=lambda rule: (rule["tag"], rule["reading"]),
)
ODD = st.sampled_from([math.nan, math.inf, -math.inf, 0.5, -1e9])
LOG = st.floats(-12, -0.7) | st.just(-60000.0)
ROW = st.tuples(LOG, LOG)
STEPS = st.lists(
    st.tuples(st.sampled_from([7, 8, 900, 901, 902]), ROW, st.sampled_from([None, None, 0, 1])),
    min_size=1,
    max_size=25,
)


@given(RULES, STEPS, st.none() | st.tuples(st.integers(0, 24), ODD), st.data())
def test_the_streamed_verdict_is_the_decision_on_the_stored_evidence(
    spans, step, rules, path, oddity, data
):
    tempered = data.draw(st.booleans())
    tokens = []
    for index, (id, row, odd_column) in enumerate(path):
        token = step(0.1, 0.1, id=id)
        row = list(row)
        if oddity is not None and oddity[0] == index and odd_column is not None:
            row[odd_column] = oddity[1]
        tokens.append(replace(token, belief=row, sampler=row[::-1] if tempered else None))
    made = policy(*rules)
    scope = data.draw(st.sampled_from(["thought", "action"]))
    attempt = data.draw(st.integers(0, 1))
    gate = StreamGate(made, spans, scope=scope, attempt=attempt)
    streamed, taken = stream(gate, tokens)
    stored = Evidence.from_bytes(gate.evidence().to_bytes())
    assert len(stored.token_ids) == taken
    replayed = judge(made, stored, spans, scope=scope, attempt=attempt)
    assert repr(gate.finish(stored)) == repr(replayed), "the end is the same too"
    if streamed is None:
        assert isinstance(replayed, Verdict)
        assert "rate" in replayed.scores["deceit"], "judged as a finished thought"
        if not replayed.action.keeps:
            assert {c.reading for c in replayed.crossings if not c.action.keeps} == {"rate"}
    else:
        assert replayed == streamed
        assert not streamed.action.keeps


@given(STEPS, RULES)
def test_tokens_after_the_cut_would_not_have_changed_it(spans, step, make_evidence, path, rules):
    tokens = [replace(step(0, 0, id=id), belief=row) for id, row, _ in path]
    made = policy(*rules)
    streamed, _ = stream(StreamGate(made, spans), tokens)
    if streamed is not None:
        assert judge(made, make_evidence(spans, tokens), spans) == streamed


@given(STEPS)
def test_readings_that_stream_never_fall(spans, step, make_evidence, path):
    tokens = [replace(step(0, 0, id=id), belief=row) for id, row, _ in path]
    watching, before = policy(), None
    for count in range(1, len(tokens) + 1):
        verdict = judge(watching, make_evidence(spans, tokens[:count]), spans)
        assert isinstance(verdict, Verdict)
        for tag in TAGS:
            for reading in ("peak", "opened", "cusum", "emitted"):
                if before is not None:
                    assert verdict.scores[tag][reading] >= before.scores[tag][reading]
        before = verdict


def test_what_is_stored_is_what_was_read(spans, step):
    exact = 0.2  # ln 0.2 in float16 is a little more than 0.2
    gate = StreamGate(
        policy({"tag": "deceit", "reading": "peak", "at": 0.2, "action": "prune"}), spans
    )
    verdict = gate.feed(step(exact, 0))
    stored = float(gate.evidence().belief[0, 0])
    assert stored == float(np.float16(math.log(exact)))
    assert (verdict is not None) == (math.exp(stored) >= 0.2)


# --- crossings --------------------------------------------------------------------------


def test_a_crossing_names_rule_tag_reading_threshold_margin_and_range(spans, step, make_evidence):
    made = policy(
        {"tag": "powerseeking", "reading": "peak", "at": 0.9, "action": "halt"},
        {"tag": "deceit", "reading": "peak", "at": 0.5, "action": "prune"},
    )
    verdict, taken = stream(StreamGate(made, spans), [step(0.1, 0), step(0.75, 0), step(0.9, 0)])
    assert taken == 2, "it stops at the crossing"
    assert isinstance(verdict, Verdict)
    cause = verdict.cause
    assert cause is not None
    assert (cause.rule, cause.tag, cause.reading, cause.threshold) == (1, "deceit", "peak", 0.5)
    assert (cause.start, cause.end) == (1, 2)
    assert cause.margin == pytest.approx(0.25, abs=1e-3)
    assert made.rules_for(None)[cause.rule] == Rule(
        tag="deceit", reading="peak", at=0.5, action="prune"
    )


def test_a_threshold_is_reached_when_it_is_equalled(spans, step):
    made = policy({"tag": "deceit", "reading": "peak", "at": 1.0, "action": "prune"})
    assert StreamGate(made, spans).feed(step(1.0, 0)) is not None


def test_the_strongest_action_wins_and_all_crossings_are_told(spans, step, make_evidence):
    made = policy(
        {"tag": "deceit", "reading": "peak", "at": 0.1, "action": "flag"},
        {"tag": "deceit", "reading": "opened", "at": 0.5, "action": "escalate"},
        {"tag": "deceit", "reading": "rate", "at": 0.1, "action": "prune"},
    )
    verdict = judge(made, make_evidence(spans, [step(0.4, 0), step(0.4, 0)]), spans)
    assert isinstance(verdict, Verdict)
    assert verdict.action is Action.ESCALATE
    assert [c.action for c in verdict.crossings] == [Action.ESCALATE, Action.FLAG]


def test_a_flag_does_not_stop_the_stream_and_is_in_the_final_verdict(spans, step):
    made = policy({"tag": "deceit", "reading": "peak", "at": 0.3, "action": "flag"})
    gate = StreamGate(made, spans)
    assert stream(gate, [step(0.9, 0), step(0.1, 0)])[0] is None
    verdict = judge(made, gate.evidence(), spans)
    assert verdict.action is Action.FLAG


@pytest.mark.parametrize(("attempt", "action"), [(0, "resample"), (1, "resample"), (2, "prune")])
def test_resample_without_retries_left_becomes_prune(spans, step, attempt, action):
    made = policy(
        {"tag": "deceit", "reading": "peak", "at": 0.2, "action": "resample", "retries": 2}
    )
    verdict = StreamGate(made, spans, attempt=attempt).feed(step(0.5, 0))
    assert isinstance(verdict, Verdict)
    assert verdict.action == action
    assert verdict.crossings[0].action == action


def test_a_rule_of_scope_action_looks_only_at_tool_calls(spans, step, make_evidence):
    made = policy(
        {"tag": "deceit", "reading": "peak", "at": 0.2, "action": "escalate", "scope": "action"}
    )
    seen = make_evidence(spans, [step(0.5, 0)])
    assert judge(made, seen, spans).action is Action.ALLOW
    assert judge(made, seen, spans, scope="action").action is Action.ESCALATE


def test_a_context_changes_the_rules(spans, step, make_evidence):
    made = policy(
        {"tag": "deceit", "reading": "peak", "at": 0.2, "action": "prune"},
        contexts={
            "fiction": {
                "rules": [{"tag": "deceit", "reading": "peak", "at": 0.8, "action": "prune"}]
            }
        },
    )
    seen = make_evidence(spans, [step(0.5, 0)])
    assert judge(made, seen, spans).action is Action.PRUNE
    assert judge(made, seen, spans, context="fiction").action is Action.ALLOW
    assert judge(made, seen, spans, context="never named").action is Action.PRUNE


def test_emitted_cuts_at_the_opening_token(spans, step):
    made = policy({"tag": "deceit", "reading": "emitted", "action": "prune"})
    tokens = [step(0.1, 0), step(0.1, 0, id=901), step(0.1, 0, id=900), step(0.1, 0)]
    verdict, taken = stream(StreamGate(made, spans), tokens)
    assert taken == 3
    assert verdict.cause.reading == "emitted"


def test_a_calibrated_rule_cuts_the_stream_too(spans, step):
    made = policy(
        {"tag": "deceit", "reading": "calibrated", "at": 0.5, "action": "prune"},
        calibrations={"deceit": {"of": "peak", "knots": [[0.0, 0.0], [0.1, 1.0]]}},
    )
    verdict, taken = stream(StreamGate(made, spans), [step(0.04, 0), step(0.06, 0), step(0, 0)])
    assert taken == 2
    assert verdict.cause.reading == "calibrated"


# --- the finished thought ---------------------------------------------------------------

CONVICTS = {"tag": "deceit", "reading": "posterior", "at": 0.2, "action": "prune"}


def weighed(evidence: Evidence, log_tagged: float | None) -> Evidence:
    terms = SentenceScore(0, 1, math.log(0.1), {"deceit": math.log(0.1)}, {"deceit": log_tagged})
    return evidence.with_sentences((terms,))


@pytest.mark.parametrize(
    ("tagged", "action"), [(0.9, "prune"), (0.26, "prune"), (0.24, "allow"), (0.01, "allow")]
)
def test_the_posterior_convicts_the_finished_thought(spans, step, make_evidence, tagged, action):
    seen = weighed(make_evidence(spans, [step(0.1, 0)]), math.log(tagged))
    assert judge(policy(CONVICTS), seen, spans).action == action


def test_a_posterior_that_was_never_made_is_broken(spans, step, make_evidence):
    seen = make_evidence(spans, [step(0.1, 0)])
    judgement = judge(policy(CONVICTS), seen, spans)
    assert isinstance(judgement, Broken)
    assert "posterior" in judgement.reason


def test_nothing_to_weigh_is_no_conviction(spans, step, make_evidence):
    seen = make_evidence(spans, [step(0.1, 0)]).with_sentences(())
    assert judge(policy(CONVICTS), seen, spans).action is Action.ALLOW


def test_nothing_generated_is_broken_whatever_the_rules(spans, make_evidence):
    for made in (policy(), policy(CONVICTS)):
        assert isinstance(judge(made, make_evidence(spans, []), spans), Broken)
        assert isinstance(judge(made, make_evidence(spans, []).with_sentences(()), spans), Broken)


def test_a_tag_that_was_sampled_is_certain_once_the_thought_is_weighed(spans, step, make_evidence):
    seen = make_evidence(spans, [step(0.1, 0, id=900), step(0.1, 0)]).with_sentences(())
    verdict = judge(policy(CONVICTS), seen, spans)
    assert verdict.action is Action.PRUNE
    assert verdict.scores["deceit"]["posterior"] == 1.0


def test_sentence_terms_that_lack_the_tag_are_broken(spans, step, make_evidence):
    terms = SentenceScore(0, 1, -1.0, {"powerseeking": -1.0}, {"powerseeking": None})
    seen = make_evidence(spans, [step(0.1, 0)]).with_sentences((terms,))
    assert isinstance(judge(policy(CONVICTS), seen, spans), Broken)


# --- broken never allows ----------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"belief": [math.nan, -1.0]},
        {"belief": [-1.0, math.inf]},
        {"belief": [-1.0, -math.inf]},
        {"belief": [-1.0, 0.7]},
        {"belief": [-1.0, -1e30]},
        {"belief": [-0.01, -0.01]},
        {"belief": [-1.0]},
        {"belief": [-1.0, -1.0, -1.0]},
        {"belief": []},
        {"belief": None},
        {"belief": [-1.0, None]},
        {"belief": [-1.0, "-1.0"]},
        {"sampler": [-1.0, -1.0]},
        {"sampler": [math.nan]},
        {"chosen": math.nan},
        {"chosen": None},
        {"chosen": 3.0},
        {"text": None},
    ],
)
@pytest.mark.parametrize(("on_broken", "action"), [("prune", Action.PRUNE), ("halt", Action.HALT)])
def test_a_token_that_cannot_be_read_is_broken_now_and_on_replay(
    spans, step, change, on_broken, action
):
    watching = policy(on_broken=on_broken)
    gate = StreamGate(watching, spans)
    assert gate.feed(step(0.1, 0.1)) is None
    judgement = gate.feed(replace(step(0.1, 0.1), **change))
    assert isinstance(judgement, Broken)
    assert judgement.action is action
    assert gate.feed(step(0.1, 0.1)) is judgement, "what is broken stays broken"
    assert judge(watching, gate.evidence(), spans) == judgement


def test_a_sampler_that_disappears_is_broken(spans, step):
    gate = StreamGate(policy(), spans)
    assert gate.feed(step(0.1, 0.1, sampler=(0.2, 0.2))) is None
    assert isinstance(gate.feed(step(0.1, 0.1)), Broken)
    assert isinstance(judge(policy(), gate.evidence(), spans), Broken)


def test_nan_reaches_no_threshold_and_is_still_not_allowed(spans, step, make_evidence):
    assert not math.nan >= 0.5
    seen = make_evidence(spans, [replace(step(0, 0), belief=[math.nan, math.nan])])
    judgement = judge(
        policy({"tag": "deceit", "reading": "peak", "at": 0.5, "action": "flag"}), seen, spans
    )
    assert isinstance(judgement, Broken)
    assert not judgement.action.keeps


def test_a_rule_for_a_tag_that_the_model_lacks_is_broken(spans, step, make_evidence):
    made = policy({"tag": "nsfw", "reading": "peak", "at": 0.5, "action": "prune"})
    judgement = judge(made, make_evidence(spans, [step(0, 0)]), spans)
    assert isinstance(judgement, Broken)
    assert "nsfw" in judgement.reason
    assert isinstance(StreamGate(made, spans).feed(step(0, 0)), Broken)


def test_a_reading_that_fails_is_broken_and_says_why(spans, step, make_evidence):
    seen = replace(make_evidence(spans, [step(0, 0)]), token_ids=None)
    judgement = judge(policy(), seen, spans)
    assert isinstance(judgement, Broken)
    assert "TypeError" in judgement.reason


# --- prefix tags ------------------------------------------------------------------------


def test_the_stream_finds_where_sentences_start(make_vocabulary, step):
    vocabulary = make_vocabulary(
        {"name": "misaligned", "scheme": "prefix", "open": "<|mis|>", "good": "<|al|>"}
    )
    texts = ["I", " saw", " 3", ".", "5", " of", " it", ".", " Then", " I", "\n", "left", ""]
    gate = StreamGate(policy(), vocabulary)
    stream(gate, [step(0.01, 0.02, text=text) for text in texts])
    assert [texts[start] for start in gate.evidence().starts] == ["I", " Then", "left"]


def test_a_prefix_tag_that_was_sampled_is_itself_the_start_and_so_is_what_follows_it(
    make_vocabulary, step
):
    vocabulary = make_vocabulary(
        {"name": "misaligned", "scheme": "prefix", "open": "<|mis|>", "good": "<|al|>"}
    )
    gate = StreamGate(policy(), vocabulary)
    pieces = [(901, ""), (7, "Fine"), (7, "."), (900, ""), (7, " Or"), (7, " not")]
    stream(gate, [step(0.01, 0.02, id=id, text=text) for id, text in pieces])
    assert gate.evidence().starts == (0, 1, 3, 4)
    assert gate.evidence().lines == (0, 1)
