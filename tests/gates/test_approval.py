"""What a person lets pass is one rule in the text that they read, and no other."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.approval import Approval
from secateur.gates.evidence import Evidence
from secateur.gates.gate import StreamGate, judge
from secateur.gates.policy import Policy
from secateur.gates.reading import Reading
from secateur.gates.rule import Rule
from secateur.gates.verdict import Verdict

ROWS = st.lists(
    st.tuples(
        st.sampled_from([7, 900, 901]), st.tuples(*[st.sampled_from([0.001, 0.2, 0.45])] * 2)
    ),
    min_size=1,
    max_size=12,
)
READINGS = st.sampled_from(["peak", "opened", "cusum", "emitted", "rate"])
TAGS = st.sampled_from(["deceit", "powerseeking"])
RULES = st.lists(
    st.builds(
        lambda tag, reading, at, action: {
            "tag": tag,
            "reading": reading,
            "at": at,
            "action": action,
        },
        TAGS,
        READINGS,
        st.sampled_from([0.1, 0.3, 0.6]),
        st.sampled_from(["flag", "prune", "escalate"]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: (rule["tag"], rule["reading"], rule["action"]),
)


def made(rules: list[dict]) -> Policy | None:
    try:
        return Policy.model_validate({"name": "test", "rules": rules})
    except Exception:  # two rules of which one can never take effect
        return None


def width(row: tuple[float, float], columns: int) -> list[float]:
    return [*row, *[0.001] * (columns - len(row))][:columns]


@given(ROWS, RULES, st.data())
def test_an_approval_is_never_looser_than_no_such_rule(
    spans, step, make_evidence, rows, rules, data
):
    policy = made(rules)
    if policy is None:
        return
    columns = len(spans.vocabulary.columns)
    evidence = make_evidence(spans, [step(*width(row, columns), id=id) for id, row in rows])
    rule = data.draw(st.sampled_from(policy.rules))
    tokens = data.draw(st.integers(0, len(rows)))
    without = policy.model_copy(update={"rules": tuple(r for r in policy.rules if r != rule)})
    approved = judge(policy, evidence, spans, approved=[Approval(rule, tokens)])
    bare = judge(without, evidence, spans)
    whole = judge(policy, evidence, spans)
    for verdict in (approved, bare, whole):
        assert isinstance(verdict, Verdict)
    if bare.action.keeps and approved.action.keeps:
        assert {c.tag for c in bare.crossings} <= {c.tag for c in approved.crossings}
    if not bare.action.keeps:
        assert not approved.action.keeps, "every other rule holds"
    # A mean, or a share that rivals took before, may be higher over the rest than over the whole.
    if whole.action.keeps and rule.reading in (Reading.PEAK, Reading.EMITTED, Reading.CUSUM):
        assert approved.action.keeps, "and none is reached by an approval alone"
    for crossing in getattr(approved, "crossings", ()):
        if policy.rules[crossing.rule] == rule:
            assert crossing.start >= tokens, "what was let pass convicts no more"
            assert crossing.end <= len(rows)


@given(ROWS, RULES, st.data())
def test_a_stream_with_an_approval_is_the_decision_on_its_evidence(spans, step, rows, rules, data):
    policy = made(rules)
    if policy is None:
        return
    approved = [Approval(data.draw(st.sampled_from(policy.rules)), data.draw(st.integers(0, 6)))]
    approved = [Approval.from_json(each.as_json()) for each in approved]
    gate = StreamGate(policy, spans, approved=approved)
    columns = len(spans.vocabulary.columns)
    for id, row in rows:
        if gate.feed(step(*width(row, columns), id=id)) is not None:
            break
    stored = Evidence.from_bytes(gate.evidence().to_bytes())
    again = judge(policy, stored, spans, approved=approved)
    assert repr(gate.finish(stored)) == repr(again)


def test_only_the_very_same_rule_is_let_pass(spans, step, make_evidence):
    rule = {"tag": "deceit", "reading": "peak", "at": 0.3, "action": "escalate"}
    policy = Policy.model_validate({"name": "test", "rules": [rule]})
    columns = len(spans.vocabulary.columns)
    evidence = make_evidence(spans, [step(*width((0.45, 0.001), columns))])
    (same,) = policy.rules
    assert judge(policy, evidence, spans, approved=[Approval(same, 1)]).action.keeps
    stricter: Rule = same.model_copy(update={"at": 0.2})
    for other in (stricter, same.model_copy(update={"scope": "action"})):
        assert not judge(policy, evidence, spans, approved=[Approval(other, 1)]).action.keeps
    assert not judge(
        policy, evidence, spans, approved=[replace(Approval(same, 1), tokens=0)]
    ).action.keeps
