"""What a policy or vocabulary is known by: it can be read back, and no other shares its digest."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from secateur.gates.canonical import canonical_json
from secateur.gates.control import Control, forced_ids
from secateur.gates.errors import PolicyError
from secateur.gates.policy import Policy
from secateur.gates.policy_file import SHIPPED
from secateur.gates.vocabulary import Vocabulary

NATS = st.floats(0, 100) | st.sampled_from([1e-5, 1e-300, 5e-324, 0.1234567, 1 / 3, 100, 2.5, 1e-4])
CONTROLS = st.sampled_from(["ban", "allow", "force"]) | st.builds(
    lambda kind, nats: {"kind": kind, "nats": nats}, st.sampled_from(["penalise", "boost"]), NATS
)
TAGS = st.sampled_from(["deceit", "angry", "bad"])
RULES = st.builds(
    lambda tag, reading, at, action, scope, retries, back_to, nats: {
        "tag": tag,
        "reading": reading,
        "at": at,
        "action": action,
        "scope": scope,
        **(
            {
                "retries": retries,
                "back_to": back_to,
                "controls": {tag: {"kind": "penalise", "nats": nats}},
            }
            if action == "resample"
            else {}
        ),
    },
    TAGS,
    st.sampled_from(["peak", "opened", "cusum", "rate", "posterior", "emitted", "calibrated"]),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from(["flag", "resample", "prune", "escalate", "halt"]),
    st.sampled_from(["thought", "action"]),
    st.integers(1, 100),
    st.sampled_from(["thought", "line", "sentence", "span"]),
    NATS,
)
SETTINGS = st.fixed_dictionaries({"control": CONTROLS}, optional={"locked": st.booleans()})
POLICIES = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "ä b", "é"])},
    optional={
        "description": st.text(max_size=5),
        "tags": st.dictionaries(TAGS, SETTINGS, max_size=3),
        "rules": st.lists(RULES, max_size=4),
        "contexts": st.dictionaries(
            st.text(max_size=3),
            st.fixed_dictionaries(
                {},
                optional={
                    "tags": st.dictionaries(
                        TAGS, st.fixed_dictionaries({"control": CONTROLS}), max_size=2
                    ),
                    "rules": st.lists(RULES, max_size=2),
                },
            ),
            max_size=2,
        ),
        "calibrations": st.dictionaries(
            TAGS,
            st.just({"of": "peak", "knots": [[0, 0], [0.3, 1 / 3], [1, 1]]}),
            max_size=2,
        ),
        "regrow": st.sampled_from(["none", "ban"]),
        "on_broken": st.sampled_from(["prune", "halt"]),
    },
)


def make(data: dict) -> Policy | None:
    try:
        return Policy.model_validate(data)
    except PolicyError:
        return None


def stored(policy: Policy) -> str:
    return canonical_json(policy.model_dump(mode="json")).decode()


@given(POLICIES)
def test_a_policy_is_read_back_from_what_is_stored(data):
    policy = make(data)
    if policy is None:
        return
    again = Policy.recorded(stored(policy))
    assert again == policy == Policy.model_validate_json(stored(policy))
    assert stored(again) == stored(policy)
    for context in (None, *policy.contexts):
        assert again.rules_for(context) == policy.rules_for(context)
        assert again.controls(context) == policy.controls(context)
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


@given(POLICIES, POLICIES)
def test_policies_that_differ_have_other_digests(left, right):
    one, other = make(left), make(right)
    if one is None or other is None:
        return
    same = dict(one) == dict(other)  # field by field, not by digest
    assert (one.digest == other.digest) is same


@given(NATS, NATS, st.sampled_from(["penalise", "boost"]))
def test_a_controls_spelling_says_every_digit(one, other, kind):
    left, right = Control(kind=kind, nats=one), Control(kind=kind, nats=other)
    assert Control.model_validate(str(left)) == left
    assert (str(left) == str(right)) is (one == other)


@pytest.mark.parametrize(
    ("nats", "spelt"),
    [
        (1e-5, "penalise(1e-05)"),
        (2.0, "penalise(2)"),
        (2.5, "penalise(2.5)"),
        (-0.0, "penalise(0)"),
    ],
)
def test_what_0_1_spelt_right_is_spelt_so_still(nats, spelt):
    control = Control(kind="penalise", nats=nats)
    assert str(control) == spelt
    assert str(Control.model_validate(spelt)) == spelt


@pytest.mark.parametrize("kind", ["ban", "allow", "force"])
def test_nats_that_no_spelling_would_show_are_refused(kind):
    with pytest.raises(ValidationError, match="has no NATS"):
        Control(kind=kind, nats=5)


@pytest.mark.parametrize("raw", [math.inf, -math.inf, math.nan])
def test_a_calibration_from_no_number_is_refused(raw):
    knots = sorted([[raw, 0.0], [0.5, 1.0]])
    with pytest.raises(PolicyError):
        Policy.model_validate(
            {
                "name": "t",
                "rules": [{"tag": "bad", "reading": "calibrated", "at": 0.5, "action": "prune"}],
                "calibrations": {"bad": {"of": "peak", "knots": knots}},
            }
        )


DIGESTS = {"observe": "dab32cdb7a64b663", "prune": "efa7e1879bbedafb", "strict": "c5e8fef0ad2ca5f1"}
"""As version 0.1 had them; ledgers are bound to these."""


def test_the_digests_of_the_shipped_policies_stay():
    assert {name: Policy.load(name).digest[:16] for name in SHIPPED} == DIGESTS


def test_forced_tags_are_written_in_the_vocabularys_order_whatever_the_policys(make_vocabulary):
    bound = make_vocabulary(
        *({"name": n, "open": f"<{n}>", "close": f"</{n}>"} for n in ("deceit", "angry"))
    )
    there = {"deceit": Control(kind="force"), "angry": Control(kind="force")}
    assert forced_ids(there, bound) == forced_ids(dict(reversed(there.items())), bound)


PARTS = {"span": "close", "prefix": "good", "marker": "rate", "document": "good"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(PARTS)),
            st.sampled_from(["a", "b", "c"]),
            st.floats(0, 1, exclude_min=True),
            st.integers(0, 3),
            st.sampled_from(["line", "sentence"]),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each[1],
    ),
    st.sampled_from([0, 1]),
)
def test_a_vocabulary_is_read_back_and_known_by_what_it_says(tags, changed):
    def build(rate: float) -> Vocabulary:
        made = []
        for scheme, name, own, bands, unit in tags:
            levels = [{"level": n + 1, "open": f"<{name}{n}>"} for n in range(bands)]
            part = PARTS[scheme]
            value = own * rate if part == "rate" else f"<{part}-{name}>"
            opening = {"bands": levels} if levels else {"open": f"<{name}>"}
            made.append({"name": name, "scheme": scheme, "unit": unit, part: value, **opening})
        return Vocabulary.model_validate({"name": "v", "tags": made})

    one = build(1.0)
    text = canonical_json(one.model_dump(mode="json"))
    assert Vocabulary.model_validate_json(text) == one
    assert json.loads(text) == one.model_dump(mode="json")
    other = build(0.75 if changed else 1.0)
    assert (one.digest == other.digest) is (dict(one) == dict(other))
