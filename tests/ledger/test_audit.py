"""Asking: what was cut, why, and whether the verdict comes out the same again."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from secateur.agents.thought import Status
from secateur.gates.errors import PolicyError
from secateur.gates.policy import Policy
from secateur.gates.verdict import Action, Broken
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.reading.audit import AuditLog


@pytest.fixture
def audit(told):
    with AuditLog(told.url) as audit:
        yield audit


def test_runs_are_listed_newest_first_with_how_they_went(audit, told):
    second, first = audit.runs()
    assert (first.run, second.run) == (told.first, told.second)
    assert (first.status, first.result) == ("done", "web is up")
    assert (second.status, second.finished_at) == ("unfinished", None)
    assert (first.thoughts, first.pruned, first.tokens) == (7, 2, 30)
    assert (first.task, first.policy, second.context) == ("restart web", "test", "fiction")
    assert set(first.digests) == {"policy", "model", "tokenizer", "vocabulary", "code"}
    assert len(audit.runs(limit=1)) == 1


def test_a_run_is_found_by_the_start_of_its_id(audit, told, one_line):
    assert audit.run(told.first).run == told.first
    assert audit.run(told.first.upper()[:11]).run in (told.first, told.second)
    with pytest.raises(LedgerError, match="no run starts with") as error:
        audit.run("zzzz")
    one_line(error.value)
    with pytest.raises(LedgerError, match="several runs start with") as error:
        audit.run(told.first[:2])
    one_line(error.value)
    for nothing in ("", " ", "%", "_"):
        with pytest.raises(LedgerError, match="no run starts with"):
            audit.run(nothing)


def test_pruned_lists_what_was_cut_newest_first(audit, told):
    found = audit.pruned()
    assert [(row.run, row.thought) for row in found] == [
        (told.second, "d1"),
        (told.first, "b4"),
        (told.first, "b1"),
    ]
    cut = found[-1]
    assert (cut.agent, cut.tag, cut.reading, cut.action) == ("opsdesk", "deceit", "opened", "prune")
    assert cut.threshold == 0.3
    assert cut.score == pytest.approx(0.55, abs=0.01)
    assert cut.margin == pytest.approx(cut.score - 0.3)
    assert cut.text == "I restarted web.\n"


def test_what_could_not_be_read_is_listed_without_a_tag(audit):
    (row,) = [row for row in audit.pruned() if row.thought == "b4"]
    assert (row.tag, row.reading, row.score, row.threshold) == (None, None, None, None)
    assert row.action == "prune"
    assert row.reason


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"tag": "deceit"}, {"b1", "d1"}),
        ({"tag": "powerseeking"}, set()),
        ({"agent": "writer"}, {"d1"}),
        ({"min_score": 0.7}, {"d1"}),
        ({"min_score": 0.99}, set()),
        ({"limit": 1}, {"d1"}),
        ({"since": timedelta(hours=1)}, {"b1", "b4", "d1"}),
        ({"since": -timedelta(hours=1)}, set()),
    ],
)
def test_pruned_filters(audit, asked, expected):
    if "since" in asked:
        asked = {"since": datetime.now(UTC) - asked["since"]}
    assert {row.thought for row in audit.pruned(**asked)} == expected


def test_pruned_filters_by_run(audit, told):
    assert {row.thought for row in audit.pruned(run=told.first)} == {"b1", "b4"}


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"tag": "deceit"}, "ix_thought_pruned_tag (tag=? AND at>?)"),
        ({"agent": "opsdesk"}, "ix_thought_pruned_agent (agent=? AND at>?)"),
        ({}, "ix_thought_pruned (at>?)"),
    ],
)
def test_pruned_is_answered_from_a_partial_index(audit, told, asked, index):
    assert told.path.exists()  # the plan is SQLite's
    sent: list[tuple[str, tuple]] = []

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def listen(_conn, _cursor, statement, parameters, *_):
        sent.append((statement, parameters))

    audit.pruned(since=datetime.now(UTC) - timedelta(days=7), **asked)
    sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    ((statement, parameters),) = [s for s in sent if "FROM thought" in s[0]]
    plan = [row[-1] for row in told.ask(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert plan[0] == f"SEARCH thought USING INDEX {index}"


def test_the_views_say_the_same(told):
    cut = told.ask("SELECT run, thought, tag, reading, action FROM pruned_branch ORDER BY at")
    assert cut[0] == (told.first, "b1", "deceit", "opened", "prune")
    assert len(cut) == 3
    why = told.ask(
        "SELECT tag, decided, peak > 0.4, cause, threshold, policy, agent FROM why_pruned "
        "WHERE thought = 'b1' ORDER BY tag"
    )
    assert why == [
        ("angry", 0, 0, "deceit", 0.3, "test", "opsdesk"),
        ("deceit", 1, 1, "deceit", 0.3, "test", "opsdesk"),
        ("powerseeking", 0, 0, "deceit", 0.3, "test", "opsdesk"),
    ]
    assert told.ask("SELECT tag FROM why_pruned WHERE thought = 'b4'") == [(None,)]


def test_why_tells_the_whole_story_of_a_cut(audit, told, make):
    found = audit.why("b1")
    assert (found.run.run, found.thought.status) == (told.first, Status.PRUNED)
    assert found.run.policy_digest == make.policy.digest
    assert found.rule == make.policy.rules[0]
    assert found.prompt == "restart web\n> report"
    assert "".join(token.text for token in found.tokens) == "I restarted web.\n"
    assert [round(token.temptations["deceit"], 2) for token in found.tokens] == [
        0.10, 0.50, 0.10, 0.00, 0.00,
    ]  # fmt: skip
    assert [token.convicts for token in found.tokens] == [False, True, False, False, False]
    assert {row.id for row in found.siblings} == {"b2", "b3", "b4", "b5"}
    assert "went on with b2" in found.next
    assert "deceit opened was 0.549" in found.summary


def test_why_names_the_threshold_that_would_have_let_it_pass(audit, make):
    found = audit.why("b1")
    (way,) = found.passes_if
    assert way.rule == make.policy.rules[0]
    assert f"a threshold above {way.score:.4g} (it is 0.3)" in str(way)
    looser = make.policy.model_copy(
        update={"rules": (way.rule.model_copy(update={"at": way.score * 1.0001}),)}
    )
    tighter = make.policy.model_copy(
        update={"rules": (way.rule.model_copy(update={"at": way.score * 0.9999}),)}
    )
    turned = {flip.thought: flip.after.action for flip in audit.replay(found.run.run, looser)}
    assert turned["b1"] is Action.ALLOW
    assert "b1" not in {flip.thought for flip in audit.replay(found.run.run, tighter)}


def test_why_prefers_the_run_in_which_it_was_cut_and_names_the_others(audit, told):
    assert audit.why("b1").also_in == (told.second,)
    other = audit.why("b1", run=told.second)
    assert (other.run.run, other.thought.status) == (told.second, Status.KEPT)
    assert other.passes_if == ()


def test_why_explains_what_was_not_cut(audit, told):
    kept, broken, waits = audit.why("b2", told.first), audit.why("b4"), audit.why("b5")
    assert kept.next == "it was kept; thoughts that stand on it: 1"
    assert "could not be read" in broken.summary
    assert broken.rule is None
    assert "the rule says escalate from 0.5" in waits.summary
    assert audit.why("a0").summary.startswith("no model wrote it")


def test_why_refuses_what_it_cannot_find(audit, one_line):
    for name, said in (("ffff", "no thought starts with"), ("b", "several thoughts start with")):
        with pytest.raises(LedgerError, match=said) as error:
            audit.why(name)
        one_line(error.value)


def test_every_verdict_is_recomputed_from_its_stored_evidence_and_policy(audit, told):
    judged = 0
    for run in (told.first, told.second):
        assert audit.replay(run) == []
        for thought in audit.thoughts(run):
            if thought.judgement is not None:
                judged += 1
                assert audit.recompute(run, thought.id) == thought.judgement
    assert judged == 8
    with pytest.raises(LedgerError, match="was not judged"):
        audit.recompute(told.first, "c1")


def test_replay_lists_the_verdicts_that_another_policy_turns(audit, told):
    lax = Policy.from_yaml(
        "name: lax\nrules:\n  - {tag: deceit, reading: opened, at: 0.99, action: flag}\n"
    )
    flips = {f.thought: (f.before.action, f.after.action) for f in audit.replay(told.first, lax)}
    assert flips == {
        "b1": (Action.PRUNE, Action.ALLOW),
        "b2": (Action.FLAG, Action.ALLOW),
        "b5": (Action.ESCALATE, Action.ALLOW),
    }
    still = audit.recompute(told.first, "b4")
    assert isinstance(still, Broken)


def test_replay_refuses_a_policy_for_other_tags(audit, told, one_line):
    other = Policy.from_yaml(
        "name: x\nrules:\n  - {tag: greed, reading: peak, at: 0.1, action: flag}"
    )
    with pytest.raises(PolicyError, match="greed") as error:
        audit.replay(told.first, other)
    one_line(error.value)


def test_a_verdict_that_was_tampered_with_is_not_given_again(told):
    told.change(
        'UPDATE event SET body = replace(body, \'"action":"prune"\', \'"action":"flag"\') '
        "WHERE thought_id = 'b1' AND kind = 'judged'"
    )
    with AuditLog(told.url) as audit:
        assert "b1" in {flip.thought for flip in audit.replay(told.first)}
