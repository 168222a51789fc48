"""A policy that is accepted takes effect as written; what cannot is refused, with the remedy."""

import copy
import pickle

import pytest
from pydantic import ValidationError

from secateur.gates.control import ALLOW, BAN, Control
from secateur.gates.errors import PolicyError
from secateur.gates.policy import Policy
from secateur.gates.rule import ContextOverride, Rule, TagSetting


def rule(tag="deceit", reading="peak", at=0.5, action="prune", **rest) -> dict:
    return {"tag": tag, "reading": reading, "at": at, "action": action, **rest}


def make(*rules: dict, **rest) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **rest})


BANNED = {"deceit": {"control": "ban", "locked": True}}


def test_python_and_yaml_build_the_same_policy():
    built = Policy(
        name="internal-ops",
        tags={"deceit": TagSetting(control=BAN, locked=True)},
        rules=(Rule(tag="deceit", reading="posterior", at=0.2, action="prune"),),
        contexts={"fiction": ContextOverride(tags={"angry": TagSetting(control=ALLOW)})},
    )
    read = Policy.from_yaml(
        """
        contexts:
          fiction: {tags: {angry: {control: allow}}}
        rules:
          - {action: prune, tag: deceit, reading: posterior, at: 0.20}
        tags:
          deceit: {control: ban, locked: true}
        name: internal-ops
        """
    )
    assert read == built
    assert read.digest == built.digest
    assert len(built.digest) == 64


def test_every_change_of_substance_changes_the_digest():
    base = make(rule())
    others = [
        make(rule(at=0.51)),
        make(rule(action="halt")),
        make(rule(scope="action")),
        make(rule(), regrow="ban"),
        make(rule(), on_broken="halt"),
        make(rule(), tags={"deceit": {"control": "allow"}}),
        make(rule(), contexts={"fiction": {}}),
        make(rule(), description="why"),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_a_context_replaces_the_rule_of_its_kind_and_adds_others():
    made = make(
        rule(at=0.5),
        rule(at=0.2, action="flag"),
        tags={"deceit": {"control": "allow"}},
        contexts={
            "fiction": {
                "tags": {"angry": {"control": "boost(1.5)"}},
                "rules": [rule(at=0.9), rule("angry", at=0.7)],
            }
        },
    )
    assert [str(r) for r in made.rules_for("fiction")] == [
        "deceit peak >= 0.2: flag",
        "deceit peak >= 0.9: prune",
        "angry peak >= 0.7: prune",
    ]
    assert made.rules_for(None) == made.rules_for("unnamed") == made.rules
    assert made.controls("fiction") == {"deceit": ALLOW, "angry": Control(kind="boost", nats=1.5)}
    assert made.controls() == {"deceit": ALLOW}


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rules": [rule(at=1.7)]}, "rules[0].at: threshold 1.7 can never be reached"),
        ({"rules": [rule(at=0)]}, "rules[0].at: threshold 0 would always be reached"),
        ({"rules": [rule(at=-1, reading="rate")]}, "would always be reached"),
        ({"rules": [rule(at=float("nan"))]}, "rules[0].at: nan does not fit"),
        ({"rules": [rule(at="0.5")]}, "rules[0].at: '0.5' does not fit"),
        ({"rules": [rule(at=True)]}, "rules[0].at: True does not fit"),
        ({"rules": [{"tag": "deceit", "reading": "peak", "action": "prune"}]}, "its threshold"),
        ({"rules": [rule(reading="posteror")]}, "did you mean 'posterior'?"),
        ({"rules": [rule(action="prun")]}, "did you mean 'prune'?"),
        ({"rules": [rule(action="allow")]}, "drop it or write flag"),
        ({"rules": [rule(scope="tool")]}, "'tool' is no scope; choose thought, action"),
        ({"rules": [rule(treshold=1)]}, "unknown key 'treshold'; known keys: tag, reading"),
        ({"rules": [rule(action="resample")]}, "resample needs retries"),
        ({"rules": [rule(action="prune", retries=2)]}, "retries belong to resample"),
        ({"rules": [rule(action="resample", retries=1.5)]}, "rules[0].retries"),
        ({"rules": ["deceit"]}, "'deceit' is no mapping; write its keys: tag, reading"),
        ({"rules": 3}, "rules: 3 does not fit"),
        ({"tags": {"deceit": "ban"}}, "'ban' is no mapping; write its keys: control, locked"),
        ({"tags": {"deceit": {"control": "bann"}}}, "'bann' is no control; write allow, ban"),
        ({"tags": {"deceit": {"control": 3}}}, "3 is no control"),
        ({"tags": {"deceit": {"control": "penalise"}}}, "penalise(NATS)"),
        ({"tags": {"deceit": {"control": "ban(2)"}}}, "is no control"),
        ({"tags": {"deceit": {}}}, "tags.deceit: 'control' is missing"),
        ({"tags": {"deceit": {"control": "ban", "locked": "yes"}}}, "tags.deceit.locked"),
        ({"rule": []}, "unknown key 'rule' (did you mean 'rules'?)"),
        ({"regrow": "twice"}, "'twice' is no regrow; choose none, ban"),
        ({"on_broken": "allow"}, "'allow' is no on_broken; choose prune, halt"),
        ({"name": ""}, "name: '' does not fit"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_with_the_remedy(fields, message):
    with pytest.raises(PolicyError) as caught:
        Policy.model_validate({"name": "test", **fields})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reading", ["rate", "cusum"])
def test_readings_without_an_upper_limit_take_thresholds_above_one(reading):
    assert make(rule(reading=reading, at=3.5)).rules[0].at == 3.5


@pytest.mark.parametrize(
    "rules",
    [
        [rule(at=0.5), rule(at=0.6)],
        [rule(at=0.5), rule(at=0.5)],
        [rule(at=0.5, action="halt"), rule(at=0.6, action="flag")],
        [rule(at=0.6), rule(at=0.5)],
        [rule(at=0.5), rule(at=0.6, scope="action")],
        [rule(at=0.5), rule(at=0.6, action="resample", retries=3)],
        [
            rule(at=0.5, action="resample", retries=2),
            rule(at=0.6, action="resample", retries=3),
        ],
    ],
)
def test_a_rule_that_a_stronger_one_always_precedes_is_refused(rules):
    with pytest.raises(PolicyError, match=r"can never fire.*strongest action reached wins"):
        make(*rules)


@pytest.mark.parametrize(
    "rules",
    [
        [rule(at=0.5, action="flag"), rule(at=0.6)],
        [rule(at=0.5), rule("powerseeking", at=0.6)],
        [rule(at=0.5), rule(reading="opened", at=0.6)],
        [rule(at=0.5, scope="action"), rule(at=0.6)],
        [rule(at=0.5, action="resample", retries=2), rule(at=0.6)],
        [
            rule(at=0.5, action="resample", retries=3),
            rule(at=0.6, action="resample", retries=2),
        ],
    ],
)
def test_rules_that_can_each_decide_are_kept(rules):
    assert len(make(*rules).rules) == len(rules)


def test_the_rule_at_fault_is_named_by_its_place():
    with pytest.raises(PolicyError, match=r"^rules\[0\]: the rule 'deceit peak >= 0.6: prune'"):
        make(rule(at=0.6), rule(at=0.5))
    with pytest.raises(PolicyError, match=r"^rules\[1\]: "):
        make(rule(at=0.5), rule(at=0.5))
    same = Rule(tag="deceit", reading="peak", at=0.5, action="prune")
    with pytest.raises(PolicyError, match=r"^rules\[1\]: "):
        Policy(name="twice", rules=(same, same))


def test_a_banned_tag_is_never_emitted_so_a_rule_on_that_is_refused():
    emitted = {"tag": "deceit", "reading": "emitted", "action": "prune"}
    with pytest.raises(PolicyError, match="is banned, so it is never sampled"):
        make(emitted, tags={"deceit": {"control": "ban"}})
    somewhere = {"fiction": {"tags": {"deceit": {"control": "allow"}}}}
    made = make(emitted, tags={"deceit": {"control": "ban"}}, contexts=somewhere)
    assert made.rules[0].at == 1.0, "it can fire in fiction"
    with pytest.raises(PolicyError, match=r"contexts.fiction.rules\[0\]: .*is banned"):
        make(contexts={"fiction": {"rules": [emitted], "tags": {"deceit": {"control": "ban"}}}})


def test_a_contexts_rule_that_can_never_fire_is_refused():
    with pytest.raises(PolicyError, match=r"contexts.fiction.rules\[0\]: .*can never fire"):
        make(rule(at=0.5), contexts={"fiction": {"rules": [rule(at=0.6, action="flag")]}})


def test_calibrated_needs_a_map_that_can_reach_the_threshold():
    knots = {"of": "posterior", "knots": [[0.0, 0.0], [1.0, 0.6]]}
    calibrated = rule(reading="calibrated", at=0.5)
    assert make(calibrated, calibrations={"deceit": knots})
    with pytest.raises(PolicyError, match="needs a map for 'deceit'"):
        make(calibrated)
    with pytest.raises(PolicyError, match=r"never exceeds 0.6"):
        make(rule(reading="calibrated", at=0.7), calibrations={"deceit": knots})
    with pytest.raises(PolicyError, match="no rule reads the calibration"):
        make(calibrations={"deceit": knots})
    falling = {"of": "peak", "knots": [[1.0, 0.0], [0.0, 1.0]]}
    with pytest.raises(PolicyError, match="must rise strictly"):
        make(calibrated, calibrations={"deceit": falling})
    with pytest.raises(PolicyError, match="emitted cannot be calibrated"):
        make(calibrated, calibrations={"deceit": {**knots, "of": "emitted"}})


# --- locks ------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["allow", "penalise(99)", "boost(1)", "force"])
def test_a_locked_ban_cannot_be_loosened_by_a_context(control):
    with pytest.raises(PolicyError, match=r"loosens 'deceit' from ban to .* it is locked"):
        make(tags=BANNED, contexts={"fiction": {"tags": {"deceit": {"control": control}}}})


def test_a_context_may_tighten_a_lock():
    locked = {"deceit": {"control": "allow", "locked": True}}
    made = make(
        rule(at=0.5),
        tags=locked,
        contexts={
            "ops": {"tags": {"deceit": {"control": "ban"}}, "rules": [rule(at=0.1)]},
        },
    )
    assert made.controls("ops")["deceit"] == BAN
    assert made.rules_for("ops")[0].at == 0.1


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        (rule(at=0.5), rule(at=0.6)),
        (
            rule(at=0.5, action="resample", retries=1),
            rule(at=0.5, action="resample", retries=2),
        ),
    ],
)
def test_a_rule_of_a_locked_tag_cannot_be_weakened_by_a_context(base, wanted):
    contexts = {"fiction": {"rules": [wanted]}}
    with pytest.raises(PolicyError, match=r"contexts.fiction.rules\[0\]: .* is locked"):
        make(base, tags=BANNED, contexts=contexts)
    assert make(base, contexts=contexts), "without the lock it may"


def test_a_context_cannot_lock():
    tags = {"deceit": {"control": "ban", "locked": True}}
    with pytest.raises(PolicyError, match="a context cannot lock"):
        make(contexts={"fiction": {"tags": tags}})


def test_code_cannot_loosen_a_policy_that_was_checked():
    made = make(rule(), tags=BANNED)
    loose = TagSetting(control=ALLOW)
    with pytest.raises(TypeError, match="cannot be changed"):
        made.tags["deceit"] = loose
    with pytest.raises(TypeError, match="cannot be changed"):
        made.tags.update(deceit=loose)
    with pytest.raises(TypeError, match="cannot be changed"):
        made.tags.clear()
    with pytest.raises(ValidationError):
        made.rules = ()
    with pytest.raises(ValidationError):
        made.digest = "0" * 64
    made.controls()["deceit"] = ALLOW
    assert made.controls()["deceit"] == BAN, "controls are handed out as a copy"
    with pytest.raises(PolicyError, match="loosens"):
        made.model_copy(
            update={"contexts": {"fiction": {"tags": {"deceit": {"control": "allow"}}}}}
        )


def test_a_changed_copy_has_a_digest_of_its_own():
    made = make(rule())
    before = made.digest
    assert made.model_copy(update={"name": "another"}).digest != before
    assert made.model_copy(update={"name": "another"}) != made
    assert made.digest == before


def test_a_policy_travels_by_pickle_and_copy():
    made = make(rule(), tags=BANNED)
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    assert made in {made}


# --- against a vocabulary ---------------------------------------------------------------


def test_an_unknown_tag_is_refused_and_the_known_ones_are_named(spans):
    for made in (
        make(rule("deciet")),
        make(tags={"deciet": {"control": "ban"}}),
        make(contexts={"fiction": {"rules": [rule("deciet")]}}),
        make(contexts={"fiction": {"tags": {"deciet": {"control": "ban"}}}}),
    ):
        with pytest.raises(PolicyError) as caught:
            made.check(spans.vocabulary)
        assert "no tag 'deciet' (did you mean 'deceit'?)" in str(caught.value)
        assert "its tags are deceit, powerseeking" in str(caught.value)


def test_a_reading_that_the_scheme_does_not_offer_is_refused(make_vocabulary):
    bound = make_vocabulary({"name": "unsafe", "scheme": "marker", "open": "<|u|>", "rate": 0.1})
    make(rule("unsafe", "opened")).check(bound.vocabulary)
    with pytest.raises(PolicyError, match="posterior cannot be read from 'unsafe'"):
        make(rule("unsafe", "posterior")).check(bound.vocabulary)
    indirect = {"of": "posterior", "knots": [[0, 0], [1, 1]]}
    with pytest.raises(PolicyError, match="posterior cannot be read from 'unsafe'"):
        make(rule("unsafe", "calibrated"), calibrations={"unsafe": indirect}).check(
            bound.vocabulary
        )
