"""Going on with a run: nothing finished happens twice, nothing unknown happens again."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest

from secateur import Agent, AuditLog, Budget, Policy, Sampling
from secateur.agents.plans.joins import first
from secateur.agents.plans.words import (
    act,
    aggregate,
    generate,
    keep_best,
    operation,
    repeat,
    score,
)
from secateur.agents.thought import Scene, Thought
from secateur.agents.tool import Call, Workspace, tool
from secateur.runtime.engines.protocol import Token
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.recovery.resuming import ResumeError

HOT = Sampling(temperature=1.0, max_tokens=8)


async def test_a_run_killed_after_any_event_comes_to_the_same_graph(home):
    whole = await home.run(home.figure, home.sent_back)
    wanted, events = home.recorded(whole.run_id), home.kinds(whole.run_id)
    assert {"switched", "backed_up", "scored", "selected", "tool_returned"} <= set(events)
    equal = 0
    # From the end: each cut leaves less of the same record.
    for last in reversed(range(len(events) - 1)):
        done = events[: last + 1]
        home.cut_off(whole.run_id, last)
        (home.sandbox / "stamps.txt").unlink(missing_ok=True)
        for _ in range(done.count("tool_returned")):
            home.stamp()
        again = await home.resume(home.figure, whole.run_id)
        with AuditLog(home.db) as audit:
            assert audit.verify(whole.run_id).ok
        if done.count("tool_intended") > done.count("tool_returned"):
            assert again.status is RunStatus.ESCALATED
            assert home.stamped() == 0
            continue
        assert again.status is RunStatus.DONE
        assert home.stamped() == 1
        if "abandoned" not in home.kinds(whole.run_id):
            assert home.recorded(whole.run_id) == wanted
            assert again.answer == whole.answer
            equal += 1
    assert equal >= 10


async def test_what_is_finished_is_not_asked_again(home):
    whole = await home.run(home.figure)
    asked = list(home.watched.requests)
    home.cut_off(whole.run_id, home.nth(whole.run_id, "selected", 1))
    await home.resume(home.figure, whole.run_id)
    assert [request.prompt for request in home.watched.requests] == [asked[-1].prompt]
    assert home.watched.requests[0].seed == asked[-1].seed


async def test_an_open_model_call_is_abandoned_and_made_anew(home):
    whole = await home.killed_at(home.stamper, "model_intended")
    again = await home.resume(home.stamper, whole.run_id)
    assert again.status is RunStatus.DONE
    with AuditLog(home.db) as audit:
        events = {e.kind: e for e in audit.events(whole.run_id)}
        (said,) = [t for t in audit.thoughts(whole.run_id) if t.kind == "generate"]
    lost = next(t.id for t in whole.thoughts if t.kind == "generate")
    assert (events["abandoned"].thought, events["abandoned"].attempt) == (lost, 0)
    assert (said.attempt, said.retries) == (1, 0)
    assert said.id != lost


async def test_a_lost_call_uses_up_no_retry(home):
    once = Policy.model_validate(
        {
            "name": "once",
            "rules": [
                {"tag": "deceit", "reading": "peak", "at": 1e-9, "action": "resample"}
                | {"retries": 1}
            ],
        }
    )
    agent = Agent("try", generate("say {task}\n"), sampling=HOT)
    whole = await home.killed_at(agent, "model_intended", policy=once)
    again = await home.resume(agent, whole.run_id)
    tries = [t for t in again.thoughts if t.kind == "generate"]
    assert [(t.attempt, str(t.judgement.action)) for t in tries if t.judgement] == [
        (1, "resample"),
        (2, "prune"),
    ]
    with AuditLog(home.db) as audit:
        for thought in tries:
            assert audit.recompute(whole.run_id, thought.id) == thought.judgement


# Tools


async def test_an_open_tool_call_is_not_made_again_and_waits_for_a_person(home):
    whole = await home.killed_at(home.stamper, "tool_intended")
    again = await home.resume(home.stamper, whole.run_id)
    assert again.status is RunStatus.ESCALATED
    assert home.stamped() == 1  # that of the run that was not cut off
    with AuditLog(home.db) as audit:
        (waits,) = audit.waiting()
    assert (waits.about, waits.tool, waits.run) == ("tool", "stamp", whole.run_id)
    assert "nobody knows" in (waits.reason or "")


async def test_an_idempotent_tool_runs_again_as_another_attempt(home):
    ran = count(1)

    @tool(idempotent=True)
    def look() -> str:
        """Change nothing."""
        return f"seen {next(ran)}"

    def looks(text: str) -> Call:
        return Call("look", {})

    plan = generate("say {task}\n", calls=looks) >> act([look], calls=looks)
    agent = Agent("looker", plan, sampling=HOT)
    whole = await home.killed_at(agent, "tool_intended")
    again = await home.resume(agent, whole.run_id)
    assert again.answer == "seen 2"
    assert again.best is not None
    assert again.best.attempt == 1
    events = home.kinds(whole.run_id)
    assert (events.count("tool_intended"), events.count("abandoned")) == (2, 1)


async def test_a_result_that_was_not_placed_is_placed_and_the_tool_stays_alone(home):
    whole = await home.killed_at(home.stamper, "tool_returned")
    again = await home.resume(home.stamper, whole.run_id)
    assert again.answer == "stamped"
    assert home.stamped() == 1


# Budgets, folders, functions


async def test_budgets_count_what_was_spent_before(home):
    agent = Agent(
        "long",
        repeat(generate("{task}\n"), until=lambda thought: False, at_most=9),
        sampling=HOT,
        budget=Budget(tokens=40),
    )
    whole = await home.run(agent)
    assert whole.status is RunStatus.EXHAUSTED
    home.cut_off(whole.run_id, home.nth(whole.run_id, "judged", 1))
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.EXHAUSTED
    assert (again.tokens, len(again.thoughts)) == (whole.tokens, len(whole.thoughts))
    with pytest.raises(ResumeError, match="give a larger one"):
        await home.resume(agent, whole.run_id)
    richer = Agent.of(replace(agent, budget=Budget(tokens=60)))
    more = await home.resume(richer, whole.run_id)
    assert whole.tokens < more.tokens <= 60


async def test_a_cancelled_run_goes_on(home):
    begun = asyncio.Event()

    async def stuck(token: Token) -> Token:
        begun.set()
        await asyncio.sleep(60)
        return token

    quick, home.watched.alter = home.watched.alter, stuck
    running = asyncio.ensure_future(home.run(home.stamper))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    home.watched.alter = quick
    with AuditLog(home.db) as audit:
        (run,) = audit.runs()
    assert run.status == "cancelled"
    assert (await home.resume(home.stamper, run.run)).status is RunStatus.DONE


async def test_a_folder_that_was_half_laid_out_is_laid_out_again(home):
    def prepare(folder: Workspace, task: str, seed: int) -> None:
        (folder.path / "new.txt").touch(exist_ok=False)

    agent = Agent.of(replace(home.stamper, prepare=prepare))
    whole = await home.run(agent)
    home.cut_off(whole.run_id, 0)
    (home.sandbox / "stamps.txt").unlink()
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.DONE
    assert {file.name for file in home.sandbox.iterdir()} == {"new.txt", "stamps.txt"}
    assert (home.sandbox.parent / "sandbox.unfinished-1" / "new.txt").exists()


async def test_functions_are_not_asked_twice_for_what_they_said(home):
    called = Counter[str]()

    def rated(scene: Scene) -> float:
        called["rated"] += 1
        return float(called["rated"])

    def cut(scene: Scene) -> list[str]:
        called["cut"] += 1
        return ["one", "two"]

    def broken(scene: Scene) -> float:
        called["broken"] += 1
        if called["broken"] == 1:
            raise KeyError("not yet")
        return 1.0

    plan = operation(cut, name="cut") >> score(rated, name="rate") >> keep_best(1)
    agent = Agent("functions", plan >> score(broken, name="break"), sampling=HOT)
    whole = await home.run(agent)
    assert whole.status is RunStatus.EMPTY
    before = Counter(called)
    home.cut_off(whole.run_id, len(home.kinds(whole.run_id)) - 2)
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.EMPTY
    assert called == before
    assert home.recorded(whole.run_id).keys() == {t.id for t in whole.thoughts}


async def test_the_winner_of_a_race_stays_the_winner(home):
    plan = generate("say {task}\n", n=3, name="say") >> aggregate(
        "join {texts}\n", join=first(1), name="join"
    )
    agent = Agent("race", plan, sampling=HOT)
    whole = await home.run(agent)
    with AuditLog(home.db) as audit:
        events = list(audit.events(whole.run_id))
    (decided,) = [e for e in events if e.kind == "noted" and e.body["topic"] == "decided"]
    home.cut_off(whole.run_id, decided.seq)
    again = await home.resume(agent, whole.run_id)
    (winner,) = decided.body["body"]["chosen"]
    assert again.best is not None
    assert again.best.parents == (winner,)


async def test_everybody_who_watches_sees_the_whole_graph(home):
    whole = await home.killed_at(home.figure, "selected", 1)
    seen: dict[str, Thought] = {}

    def observe(thought: Thought) -> None:
        seen[thought.id] = thought

    again = await home.resume(home.figure, whole.run_id, observe=observe)
    assert seen.keys() == {thought.id for thought in whole.thoughts}
    shape = {(t.path, t.id, t.status, t.text, t.token_ids) for t in again.thoughts}
    assert shape == {(t.path, t.id, t.status, t.text, t.token_ids) for t in whole.thoughts}


async def test_what_is_recorded_is_recalled_although_the_time_is_up(home):
    agent = Agent.of(replace(home.figure, budget=Budget(seconds=30)))
    whole = await home.killed_at(agent, "selected", 1)
    hurried = Agent.of(replace(agent, budget=Budget(seconds=1e-6)))
    again = await home.resume(hurried, whole.run_id)
    assert again.status is RunStatus.EXHAUSTED
    assert home.watched.requests == []
    recorded = {t.id for t in whole.thoughts if t.kind in ("task", "split", "generate")}
    assert {thought.id for thought in again.thoughts} == recorded
