"""Where a retry goes back to, and that it can only tighten; a policy that says else is refused."""

import pytest

from secateur.gates.control import ALLOW, BAN, Control, loosens, tightened
from secateur.gates.errors import PolicyError
from secateur.gates.policy import Policy
from secateur.gates.retry import back_up
from secateur.gates.rule import Rule
from secateur.gates.sentences import boundary_before
from secateur.gates.verdict import Action, Crossing, Verdict

OPEN, CLOSE = 900, 901
# 0    1      2     3     4       5    6     7    8       9
TEXTS = ["one", " two", ".", " Three", "\n", "", "Four", "", ".", " Five"]
IDS = [7, 7, 7, 7, 7, OPEN, 7, CLOSE, 7, 7]


def rule(**more) -> dict:
    usual = {"tag": "deceit", "reading": "peak", "at": 0.5, "action": "resample", "retries": 2}
    return usual | more


def policy(*rules: dict, **more) -> Policy:
    return Policy.model_validate({"name": "test", "rules": rules, **more})


@pytest.mark.parametrize(
    ("kind", "latest", "found"),
    [
        ("thought", 9, 0),
        ("line", 9, 5),
        ("line", 5, 5),
        ("line", 4, 0),
        ("sentence", 9, 9),
        ("sentence", 8, 5),
        ("sentence", 4, 3),
        ("sentence", 2, 0),
        ("span", 9, 8),
        ("span", 7, 5),
        ("span", 4, 0),
        ("line", -1, 0),
        ("sentence", 99, 9),
    ],
)
def test_the_last_boundary_of_each_kind_is_found(kind, latest, found):
    assert boundary_before(kind, latest, IDS, TEXTS, frozenset({OPEN}), frozenset({CLOSE})) == found


def test_no_boundary_lies_within_a_character_or_behind_text_on_the_new_line():
    none: frozenset[int] = frozenset()
    # The bytes of "é" are spread over two tokens, and a tag opens between them.
    assert boundary_before("span", 2, [7, 7, OPEN], ["a", "", ""], frozenset({OPEN}), none) == 0
    # "\nb" holds the newline and what follows it: the line starts inside the token.
    assert boundary_before("line", 3, [7, 7, 7, 7], ["a", ".", "\nb", "c"], none, none) == 2


def test_a_sentence_begins_with_its_tag_and_a_newline_begins_none():
    none: frozenset[int] = frozenset()
    ids, texts = [7, 7, OPEN, 7], ["a", ".", "", " b"]
    assert boundary_before("sentence", 3, ids, texts, frozenset({OPEN}), none) == 2
    assert boundary_before("sentence", 2, [7, 7, 7], ["a", ".", "\n"], none, none) == 0


def crossed(*starts: int) -> Verdict:
    crossings = [
        Crossing(i, "deceit", "peak", 0.9, 0.5, Action.RESAMPLE, start, start + 1)
        for i, start in enumerate(starts)
    ]
    return Verdict(Action.RESAMPLE, tuple(crossings))


def test_a_temptation_goes_back_before_its_token_and_a_sampled_tag_to_it(spans):
    ids, texts = [1, 2, 3, 4], ["one.", "\n", "two", "\n"]
    for reading, token in (("peak", 0), ("opened", 0), ("emitted", 2), ("posterior", 2)):
        made = policy(rule(reading=reading, at=1.0, back_to="line"))
        assert back_up(crossed(2), made, None, spans, ids, texts).token == token
    mapped = policy(
        rule(reading="calibrated", back_to="line"),
        calibrations={"deceit": {"of": "posterior", "knots": [[0, 0], [1, 1]]}},
    )
    assert back_up(crossed(2), mapped, None, spans, ids, texts).token == 2


def test_of_several_rules_the_earliest_boundary_and_all_controls_hold(spans):
    made = policy(
        rule(back_to="line", controls={"deceit": "penalise(2)"}),
        rule(tag="powerseeking", back_to="thought", controls={"deceit": "ban"}),
    )
    found = back_up(crossed(3, 3), made, None, spans, [1, 2, 3, 4], ["a", "\n", "b", "c"])
    assert (found.token, found.boundary, found.cause.rule) == (0, "thought", 1)
    assert found.controls == {"deceit": BAN}


def test_tightening_never_loosens():
    weak, strong = Control(kind="penalise", nats=1), Control(kind="penalise", nats=5)
    before = {"a": BAN, "b": weak, "c": ALLOW}
    after = tightened(before, {"a": weak, "b": strong, "c": BAN, "d": strong})
    assert after == {"a": BAN, "b": strong, "c": BAN, "d": strong}
    assert loosens(BAN, weak)
    assert not loosens(weak, BAN)
    assert loosens(BAN, Control(kind="force"))
    assert loosens(Control(kind="force"), BAN)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"back_to": "paragraph"}, "choose thought, line, sentence, span"),
        ({"controls": {"deceit": "allow"}}, "a retry can only tighten"),
        ({"controls": {"deceit": "boost(1)"}}, "a retry can only tighten"),
        ({"controls": {"deceit": "bann"}}, "is no control"),
        ({"action": "prune", "retries": 0, "back_to": "line"}, "back_to belongs to resample"),
        (
            {"action": "flag", "retries": 0, "controls": {"deceit": "ban"}},
            "controls belongs to resample",
        ),
    ],
)
def test_a_wrong_retry_is_refused_in_one_line(given, said):
    with pytest.raises(PolicyError) as caught:
        policy(rule(**given))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_retry_that_would_loosen_a_tag_anywhere_is_refused():
    softer = rule(controls={"deceit": "penalise(3)"})
    assert policy(softer)
    with pytest.raises(PolicyError, match=r"rules\[0\].controls.deceit: .*from ban; write"):
        policy(softer, tags={"deceit": {"control": "ban"}})
    with pytest.raises(PolicyError, match="in context 'ops'"):
        policy(softer, contexts={"ops": {"tags": {"deceit": {"control": "ban"}}}})
    forced = {"deceit": {"control": "force", "locked": True}}
    with pytest.raises(PolicyError, match="from force"):
        policy(rule(controls={"deceit": "ban"}), tags=forced)


def test_a_context_cannot_take_the_controls_from_a_locked_tags_retry():
    locked = {"deceit": {"control": "allow", "locked": True}}
    contexts = {"fiction": {"rules": [rule()]}}
    with pytest.raises(PolicyError, match=r"contexts.fiction.rules\[0\]: .* is locked"):
        policy(rule(controls={"deceit": "ban"}), tags=locked, contexts=contexts)


def test_an_unknown_tag_under_a_retry_is_refused(spans):
    made = policy(rule(controls={"deciet": "ban"}))
    with pytest.raises(PolicyError, match=r"rules\[0\].controls.deciet: .*no tag 'deciet'"):
        made.check(spans.vocabulary)


def test_retries_that_go_elsewhere_or_tighten_more_stand_beside_each_other():
    assert policy(rule(at=0.2), rule(at=0.6, back_to="thought"))
    assert policy(rule(at=0.2), rule(at=0.6, controls={"deceit": "ban"}))
    with pytest.raises(PolicyError, match="can never fire"):
        policy(rule(at=0.2, controls={"deceit": "ban"}), rule(at=0.6))


def test_only_policies_that_resample_say_where_to():
    shipped = Policy.load("prune")
    assert all("back_to" not in written for written in shipped.model_dump(mode="json")["rules"])
    assert shipped.digest == "efa7e1879bbedafb4b335525677c33e77510e50110561519993822029d09e330"
    made = policy(rule())
    assert Policy.model_validate_json(made.model_dump_json()) == made
    assert made.digest != policy(rule(back_to="line")).digest
    assert Rule(**rule()).back_to == "sentence"
