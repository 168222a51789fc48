"""What a person decides: approvals, refusals, and what came of a call that nobody knows of."""

from typing import Any

import pytest

from secateur import AuditLog
from secateur.agents.thought import Status
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.recovery.resuming import ResumeError
from secateur.runtime.review.decisions import DecisionError


@pytest.mark.parametrize(
    ("decision", "effects", "status", "answer"),
    [
        ({"approve": True, "outcome": "done"}, 1, RunStatus.DONE, "I looked"),
        ({"approve": True, "outcome": "not done"}, 2, RunStatus.DONE, "stamped"),
        ({"approve": False, "outcome": "done"}, 1, RunStatus.EMPTY, None),
        ({"approve": False}, 1, RunStatus.EMPTY, None),
    ],
)
async def test_a_person_settles_an_unknown_call(
    home, decision: dict[str, Any], effects: int, status: RunStatus, answer: str | None
):
    whole = await home.killed_at(home.stamper, "tool_intended")
    (unknown,) = (await home.resume(home.stamper, whole.run_id)).waiting
    await home.decide(unknown.id, **decision)
    again = await home.resume(home.stamper, whole.run_id)
    assert (again.status, again.answer) == (status, answer)
    assert home.stamped() == effects
    with AuditLog(home.db) as audit:
        assert audit.verify(whole.run_id).ok
        row = next(t for t in audit.thoughts(whole.run_id) if t.id == unknown.id)
    assert row.status is not Status.ESCALATED
    assert "person:ada" in (row.reason or "")


async def test_a_killed_call_waits_before_its_run_is_resumed(home):
    whole = await home.killed_at(home.stamper, "tool_intended")
    with AuditLog(home.db) as audit:
        (killed,) = audit.waiting(whole.run_id)
    assert (killed.about, killed.tool) == ("tool", "stamp")
    with pytest.raises(DecisionError, match="resume it first"):
        await home.decide(killed.thought, approve=True, outcome="done")
    (unknown,) = (await home.resume(home.stamper, whole.run_id)).waiting
    assert unknown.id == killed.thought
    with AuditLog(home.db) as audit:
        (waits,) = audit.waiting(whole.run_id)
    assert (waits.thought, waits.call) == (killed.thought, killed.call)


async def test_an_approved_thought_acts_and_a_refused_one_does_not(home):
    for approve, effects, status in ((True, 1, RunStatus.DONE), (False, 1, RunStatus.EMPTY)):
        run = await home.run(home.stamper, home.asking)
        assert run.status is RunStatus.ESCALATED
        await home.decide(run.waiting[0].id, approve=approve, run=run.run_id)
        again = await home.resume(home.stamper, run.run_id)
        assert (again.status, home.stamped()) == (status, effects)


async def test_a_run_that_waits_is_not_resumed_before_somebody_decides(home):
    run = await home.run(home.stamper, home.asking)
    with pytest.raises(ResumeError, match=f"waits for a person to decide on {run.waiting[0].id}"):
        await home.resume(home.stamper, run.run_id)
    assert home.kinds(run.run_id)[-1] == "run_finished"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"thought": "ffff", "approve": True}, "no thought that waits starts with 'ffff'"),
        ({"approve": True, "reason": " "}, "needs a reason"),
        ({"approve": True, "by": "a\nb"}, "say who decides"),
        ({"approve": True, "outcome": "done"}, "an outcome belongs to a tool call"),
    ],
)
async def test_a_decision_that_says_too_little_is_refused(home, given: dict[str, Any], says: str):
    run = await home.run(home.stamper, home.asking)
    with pytest.raises((DecisionError, LedgerError), match=says):
        await home.decide(**({"thought": run.waiting[0].id} | given))
    assert home.kinds(run.run_id)[-1] == "run_finished"


async def test_nobody_decides_on_a_run_that_may_still_go_on(home):
    run = await home.run(home.stamper, home.asking)
    home.cut_off(run.run_id, home.nth(run.run_id, "escalated"))
    with pytest.raises(DecisionError, match="has not ended"):
        await home.decide(run.waiting[0].id, approve=True)
