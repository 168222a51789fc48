"""Going on with a run: nothing finished happens twice, nothing unknown happens again."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from secateur import Agent, AuditLog, Budget, Ledger, LocalEngine, Policy, Sampling
from secateur.agents.joins import first
from secateur.agents.plan import (
    act,
    aggregate,
    each,
    generate,
    keep_best,
    operation,
    repeat,
    score,
    split,
)
from secateur.agents.thought import Scene, Status, Thought
from secateur.agents.tool import Call, Workspace, tool
from secateur.runtime.deciding import DecisionError, decide
from secateur.runtime.engines.protocol import Request, Token
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import ErasedBlob, RunStatus
from secateur.runtime.resuming import ResumeError, RunOverError
from secateur.runtime.run import RunResult

HOT = Sampling(temperature=1.0, max_tokens=8)


@pytest.fixture
async def engine(tiny_checkpoint: Path):
    loaded = LocalEngine.load(tiny_checkpoint)
    yield loaded
    await loaded.aclose()


class Watched:
    """The engine itself, with a note of every request."""

    def __init__(self, engine: LocalEngine) -> None:
        self.info, self.encode, self.decode = engine.info, engine.encode, engine.decode
        self.annotate, self.score, self.aclose = engine.annotate, engine.score, engine.aclose
        self.inner, self.requests = engine, list[Request]()

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        self.requests.append(request)
        async for token in self.inner.stream(request):
            yield token


def cut_off(path: Path, run: str, last: int) -> None:
    """The ledger as it is on disk when the process is killed right after this event."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.execute(names).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        after = (run, last)
        connection.execute(
            "DELETE FROM tag_score WHERE run_id = ? AND thought_id IN "
            "(SELECT id FROM thought WHERE run_id = ? AND seq > ?)",
            (run, *after),
        )
        for table in ("thought", "decision", "event"):
            connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND seq > ?", after)


def kinds(path: Path, run: str) -> list[str]:
    with AuditLog(path) as audit:
        return [event.kind for event in audit.events(run)]


def nth(path: Path, run: str, kind: str, which: int = 0) -> int:
    """The number of an event."""
    return [seq for seq, found in enumerate(kinds(path, run)) if found == kind][which]


def graph(path: Path, run: str) -> dict[str, tuple[Any, ...]]:
    with AuditLog(path) as audit:
        return {
            t.id: (t.parents, t.operation, t.index, t.attempt, t.status, t.text, t.score, t.reason)
            for t in audit.thoughts(run)
        }


def length(scene: Scene) -> float:
    return float(len(scene.text))


def halves(scene: Scene) -> list[tuple[str, str]]:
    middle = len(scene.task) // 2
    return [(part, part) for part in (scene.task[:middle], scene.task[middle:])]


def mood(progress) -> dict[str, str] | None:
    return {"angry": "ban"} if len(progress.token_ids) == 3 else None


def stamps(text: str) -> Call:
    return Call("stamp", {})


@tool
def stamp(folder: Workspace) -> str:
    """An effect that can be counted."""
    with (folder.path / "stamps.txt").open("a") as file:
        file.write("stamped\n")
    return "stamped"


def stamped(folder: Path) -> int:
    file = folder / "stamps.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


SENT_BACK = Policy.model_validate(
    {
        "name": "sent back",
        "tags": {"deceit": {"control": "boost(4)"}},
        "rules": [
            {"tag": "deceit", "reading": "emitted", "action": "resample", "retries": 2}
            | {"controls": {"deceit": "ban"}}
        ],
    }
)
ASKING = Policy.model_validate(
    {
        "name": "asking",
        "rules": [
            {"tag": "angry", "reading": "opened", "at": 1e-9, "action": "escalate"}
            | {"scope": "action"}
        ],
    }
)
FIGURE = Agent(
    "figure",
    split(halves)
    >> each(
        generate("say {text}\n", n=2, steer=mood, steer_at="token", name="say")
        >> score(length)
        >> keep_best(1)
    )
    >> aggregate("join {texts}\n", calls=stamps, name="join")
    >> act([stamp], calls=stamps, name="stamp"),
    sampling=HOT,
)
STAMPER = Agent(
    "stamper",
    generate("say {task}\n", calls=stamps, name="say") >> act([stamp], calls=stamps, name="stamp"),
    sampling=HOT,
)


class Home:
    """One ledger, one engine, and folders for tools."""

    def __init__(self, path: Path, engine: LocalEngine) -> None:
        self.db, self.engine, self.sandbox = path / "x.db", engine, path / "sandbox"
        self.watched = Watched(engine)

    async def run(self, agent: Agent, policy: Policy | str = "observe", seed: int = 5) -> RunResult:
        return await agent.run(
            "3120 4217",
            policy=policy,
            engine=self.watched,
            ledger=self.db,
            seed=seed,
            sandbox=self.sandbox,
        )

    async def resume(self, agent: Agent, run: str, **given: Any) -> RunResult:
        self.watched.requests.clear()
        return await agent.resume(run, engine=self.watched, ledger=self.db, **given)

    async def killed_at(
        self, agent: Agent, kind: str, which: int = 0, policy: Policy | str = "observe"
    ) -> RunResult:
        """A run whose process was killed right after this event."""
        whole = await self.run(agent, policy)
        cut_off(self.db, whole.run_id, nth(self.db, whole.run_id, kind, which))
        return whole

    async def decide(self, thought: str, **given: Any) -> None:
        async with Ledger.open(self.db) as ledger:
            await decide(ledger, thought, **({"by": "ada", "reason": "I looked"} | given))


@pytest.fixture
def home(tmp_path: Path, engine: LocalEngine) -> Home:
    return Home(tmp_path, engine)


async def test_a_run_killed_after_any_event_comes_to_the_same_graph(home: Home):
    whole = await home.run(FIGURE, SENT_BACK)
    wanted, events = graph(home.db, whole.run_id), kinds(home.db, whole.run_id)
    assert {"switched", "backed_up", "scored", "selected", "tool_returned"} <= set(events)
    equal = 0
    # From the end: each cut leaves less of the same record.
    for last in reversed(range(len(events) - 1)):
        done = events[: last + 1]
        cut_off(home.db, whole.run_id, last)
        (home.sandbox / "stamps.txt").unlink(missing_ok=True)
        for _ in range(done.count("tool_returned")):
            stamp.run(Workspace(home.sandbox), {})
        again = await home.resume(FIGURE, whole.run_id)
        with AuditLog(home.db) as audit:
            assert audit.verify(whole.run_id).ok
        if done.count("tool_intended") > done.count("tool_returned"):
            assert again.status is RunStatus.ESCALATED
            assert stamped(home.sandbox) == 0
            continue
        assert again.status is RunStatus.DONE
        assert stamped(home.sandbox) == 1
        if "abandoned" not in kinds(home.db, whole.run_id):
            assert graph(home.db, whole.run_id) == wanted
            assert again.answer == whole.answer
            equal += 1
    assert equal >= 10


async def test_what_is_finished_is_not_asked_again(home: Home):
    whole = await home.run(FIGURE)
    asked = list(home.watched.requests)
    cut_off(home.db, whole.run_id, nth(home.db, whole.run_id, "selected", 1))
    await home.resume(FIGURE, whole.run_id)
    assert [request.prompt for request in home.watched.requests] == [asked[-1].prompt]
    assert home.watched.requests[0].seed == asked[-1].seed


async def test_an_open_model_call_is_abandoned_and_made_anew(home: Home):
    whole = await home.killed_at(STAMPER, "model_intended")
    again = await home.resume(STAMPER, whole.run_id)
    assert again.status is RunStatus.DONE
    with AuditLog(home.db) as audit:
        events = {e.kind: e for e in audit.events(whole.run_id)}
        (said,) = [t for t in audit.thoughts(whole.run_id) if t.kind == "generate"]
    lost = next(t.id for t in whole.thoughts if t.kind == "generate")
    assert (events["abandoned"].thought, events["abandoned"].attempt) == (lost, 0)
    assert (said.attempt, said.retries) == (1, 0)
    assert said.id != lost


async def test_a_lost_call_uses_up_no_retry(home: Home):
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


async def test_an_open_tool_call_is_not_made_again_and_waits_for_a_person(home: Home):
    whole = await home.killed_at(STAMPER, "tool_intended")
    again = await home.resume(STAMPER, whole.run_id)
    assert again.status is RunStatus.ESCALATED
    assert stamped(home.sandbox) == 1  # that of the run that was not cut off
    with AuditLog(home.db) as audit:
        (waits,) = audit.waiting()
    assert (waits.about, waits.tool, waits.run) == ("tool", "stamp", whole.run_id)
    assert "nobody knows" in (waits.reason or "")


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
    home: Home, decision: dict[str, Any], effects: int, status: RunStatus, answer: str | None
):
    whole = await home.killed_at(STAMPER, "tool_intended")
    (unknown,) = (await home.resume(STAMPER, whole.run_id)).waiting
    await home.decide(unknown.id, **decision)
    again = await home.resume(STAMPER, whole.run_id)
    assert (again.status, again.answer) == (status, answer)
    assert stamped(home.sandbox) == effects
    with AuditLog(home.db) as audit:
        assert audit.verify(whole.run_id).ok
        row = next(t for t in audit.thoughts(whole.run_id) if t.id == unknown.id)
    assert row.status is not Status.ESCALATED
    assert "person:ada" in (row.reason or "")


async def test_an_idempotent_tool_runs_again_as_another_attempt(home: Home):
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
    events = kinds(home.db, whole.run_id)
    assert (events.count("tool_intended"), events.count("abandoned")) == (2, 1)


async def test_a_result_that_was_not_placed_is_placed_and_the_tool_stays_alone(home: Home):
    whole = await home.killed_at(STAMPER, "tool_returned")
    again = await home.resume(STAMPER, whole.run_id)
    assert again.answer == "stamped"
    assert stamped(home.sandbox) == 1


# People


async def test_an_approved_thought_acts_and_a_refused_one_does_not(home: Home):
    for approve, effects, status in ((True, 1, RunStatus.DONE), (False, 1, RunStatus.EMPTY)):
        run = await home.run(STAMPER, ASKING)
        assert run.status is RunStatus.ESCALATED
        await home.decide(run.waiting[0].id, approve=approve, run=run.run_id)
        again = await home.resume(STAMPER, run.run_id)
        assert (again.status, stamped(home.sandbox)) == (status, effects)


async def test_a_run_that_waits_is_not_resumed_before_somebody_decides(home: Home):
    run = await home.run(STAMPER, ASKING)
    with pytest.raises(ResumeError, match=f"waits for a person to decide on {run.waiting[0].id}"):
        await home.resume(STAMPER, run.run_id)
    assert kinds(home.db, run.run_id)[-1] == "run_finished"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"thought": "ffff", "approve": True}, "no thought that waits starts with 'ffff'"),
        ({"approve": True, "reason": " "}, "needs a reason"),
        ({"approve": True, "by": "a\nb"}, "say who decides"),
        ({"approve": True, "outcome": "done"}, "an outcome belongs to a tool call"),
    ],
)
async def test_a_decision_that_says_too_little_is_refused(
    home: Home, given: dict[str, Any], says: str
):
    run = await home.run(STAMPER, ASKING)
    with pytest.raises((DecisionError, LedgerError), match=says):
        await home.decide(**({"thought": run.waiting[0].id} | given))
    assert kinds(home.db, run.run_id)[-1] == "run_finished"


async def test_nobody_decides_on_a_run_that_may_still_go_on(home: Home):
    run = await home.run(STAMPER, ASKING)
    cut_off(home.db, run.run_id, nth(home.db, run.run_id, "escalated"))
    with pytest.raises(DecisionError, match="has not ended"):
        await home.decide(run.waiting[0].id, approve=True)


# What does not fit


async def test_a_run_that_is_done_says_so(home: Home):
    run = await home.run(STAMPER)
    before = kinds(home.db, run.run_id)
    with pytest.raises(RunOverError, match="is done already: stamped"):
        await home.resume(STAMPER, run.run_id)
    assert kinds(home.db, run.run_id) == before


def other_plan(agent: Agent) -> Agent:
    plan = generate("say it: {task}\n", calls=stamps, name="say") >> act(
        [stamp], calls=stamps, name="stamp"
    )
    return Agent.of(replace(agent, plan=plan))


@pytest.mark.parametrize(
    ("agent", "given", "says"),
    [
        (STAMPER, {"policy": "strict"}, "has another policy, 'observe'"),
        (STAMPER, {"task": "another"}, "has another task, '3120 4217'"),
        (other_plan(STAMPER), {}, "step 1 was 'say' and is another one"),
        (FIGURE, {}, "is one of agent 'stamper'"),
        (Agent.of(replace(STAMPER, sampling=Sampling(max_tokens=9))), {}, "sample otherwise"),
    ],
)
async def test_another_run_is_not_passed_off_as_this_one(
    home: Home, agent: Agent, given: dict[str, Any], says: str
):
    whole = await home.killed_at(STAMPER, "judged")
    before = kinds(home.db, whole.run_id)
    with pytest.raises(ResumeError, match=says) as refused:
        await home.resume(agent, whole.run_id, **given)
    assert "\n" not in str(refused.value)
    assert kinds(home.db, whole.run_id) == before


@pytest.mark.parametrize("what", ["model_digest", "tokenizer_digest"])
async def test_another_model_is_refused(home: Home, what: str):
    whole = await home.killed_at(STAMPER, "judged")
    home.watched.info = replace(home.watched.info, **{what: "f" * 64})
    with pytest.raises(LedgerError, match=f"another {what.removesuffix('_digest')}"):
        await home.resume(STAMPER, whole.run_id)
    assert kinds(home.db, whole.run_id)[-1] == "judged"


async def test_a_run_that_is_not_there_is_named(home: Home):
    await home.run(STAMPER)
    with pytest.raises(LedgerError, match="no run is called 'nowhere'"):
        await home.resume(STAMPER, "nowhere")


async def test_an_erased_or_damaged_record_is_not_gone_on_with(home: Home):
    whole = await home.killed_at(STAMPER, "judged")
    with closing(sqlite3.connect(home.db, isolation_level=None)) as connection:
        connection.execute("UPDATE event SET actor = 'nobody' WHERE seq = 1")
    with pytest.raises(LedgerError, match=f"event 1 of run {whole.run_id} was damaged"):
        await home.resume(STAMPER, whole.run_id)
    run = await home.run(STAMPER, ASKING)
    async with Ledger.open(home.db) as ledger:
        log = await ledger.reopen(run.run_id)
        with closing(sqlite3.connect(home.db)) as connection:
            digest = connection.execute(
                "SELECT json_extract(blobs, '$.task') FROM event WHERE run_id = ? AND seq = 0",
                (run.run_id,),
            ).fetchone()[0]
        await log.erased([ErasedBlob(digest, 0, "task")], by="ada", reason="asked to")
    with pytest.raises(LedgerError, match="texts of it were erased"):
        await home.resume(STAMPER, run.run_id)


# Budgets, folders, functions


async def test_budgets_count_what_was_spent_before(home: Home):
    agent = Agent(
        "long",
        repeat(generate("{task}\n"), until=lambda thought: False, at_most=9),
        sampling=HOT,
        budget=Budget(tokens=40),
    )
    whole = await home.run(agent)
    assert whole.status is RunStatus.EXHAUSTED
    cut_off(home.db, whole.run_id, nth(home.db, whole.run_id, "judged", 1))
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.EXHAUSTED
    assert (again.tokens, len(again.thoughts)) == (whole.tokens, len(whole.thoughts))
    with pytest.raises(ResumeError, match="give a larger one"):
        await home.resume(agent, whole.run_id)
    richer = Agent.of(replace(agent, budget=Budget(tokens=60)))
    more = await home.resume(richer, whole.run_id)
    assert whole.tokens < more.tokens <= 60


async def test_a_cancelled_run_goes_on(home: Home):
    begun = asyncio.Event()

    class Slow(Watched):
        async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
            begun.set()
            async for token in self.inner.stream(request):
                await asyncio.sleep(60)
                yield token

    quick, home.watched = home.watched, Slow(home.engine)
    running = asyncio.ensure_future(home.run(STAMPER))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    home.watched = quick
    with AuditLog(home.db) as audit:
        (run,) = audit.runs()
    assert run.status == "cancelled"
    assert (await home.resume(STAMPER, run.run)).status is RunStatus.DONE


async def test_a_folder_that_was_half_laid_out_is_laid_out_again(home: Home):
    def prepare(folder: Workspace, task: str, seed: int) -> None:
        (folder.path / "new.txt").touch(exist_ok=False)

    agent = Agent.of(replace(STAMPER, prepare=prepare))
    whole = await home.run(agent)
    cut_off(home.db, whole.run_id, 0)
    (home.sandbox / "stamps.txt").unlink()
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.DONE
    assert {file.name for file in home.sandbox.iterdir()} == {"new.txt", "stamps.txt"}
    assert (home.sandbox.parent / "sandbox.unfinished-1" / "new.txt").exists()


async def test_functions_are_not_asked_twice_for_what_they_said(home: Home):
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
    cut_off(home.db, whole.run_id, len(kinds(home.db, whole.run_id)) - 2)
    again = await home.resume(agent, whole.run_id)
    assert again.status is RunStatus.EMPTY
    assert called == before
    assert graph(home.db, whole.run_id).keys() == {t.id for t in whole.thoughts}


async def test_the_winner_of_a_race_stays_the_winner(home: Home):
    plan = generate("say {task}\n", n=3, name="say") >> aggregate(
        "join {texts}\n", join=first(1), name="join"
    )
    agent = Agent("race", plan, sampling=HOT)
    whole = await home.run(agent)
    with AuditLog(home.db) as audit:
        events = list(audit.events(whole.run_id))
    (decided,) = [e for e in events if e.kind == "noted" and e.body["topic"] == "decided"]
    cut_off(home.db, whole.run_id, decided.seq)
    again = await home.resume(agent, whole.run_id)
    (winner,) = decided.body["body"]["chosen"]
    assert again.best is not None
    assert again.best.parents == (winner,)


async def test_everybody_who_watches_sees_the_whole_graph(home: Home):
    whole = await home.killed_at(FIGURE, "selected", 1)
    seen: dict[str, Thought] = {}

    def observe(thought: Thought) -> None:
        seen[thought.id] = thought

    again = await home.resume(FIGURE, whole.run_id, observe=observe)
    assert seen.keys() == {thought.id for thought in whole.thoughts}
    shape = {(t.path, t.id, t.status, t.text, t.token_ids) for t in again.thoughts}
    assert shape == {(t.path, t.id, t.status, t.text, t.token_ids) for t in whole.thoughts}


async def test_what_is_recorded_is_recalled_although_the_time_is_up(home: Home):
    agent = Agent.of(replace(FIGURE, budget=Budget(seconds=30)))
    whole = await home.killed_at(agent, "selected", 1)
    hurried = Agent.of(replace(agent, budget=Budget(seconds=1e-6)))
    again = await home.resume(hurried, whole.run_id)
    assert again.status is RunStatus.EXHAUSTED
    assert home.watched.requests == []
    recorded = {t.id for t in whole.thoughts if t.kind in ("task", "split", "generate")}
    assert {thought.id for thought in again.thoughts} == recorded
