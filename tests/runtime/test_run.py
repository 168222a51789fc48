"""A run, whole: what it records, what stops it, and what it never does."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from secateur import Agent, AuditLog, Budget, Ledger, LocalEngine, Policy, Sampling, generate
from secateur.agents.plans.words import act, keep_best, keep_valid, repeat, score
from secateur.agents.prompt import Special
from secateur.agents.spec import AgentSpec, TaskError
from secateur.agents.thought import Scene, Status, Thought
from secateur.agents.tool import Call, Workspace, tool
from secateur.runtime.engines.protocol import EngineError, Token
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus

TAGS = ("deceit", "powerseeking", "angry")
HOT = Sampling(temperature=1.0, max_tokens=12)


def length(scene: Scene) -> float:
    return len(scene.text)


def never(thought: Thought) -> bool:
    return False


def policy(**more) -> Policy:
    return Policy.model_validate({"name": "test", **more})


def shape(result) -> list[tuple]:
    return sorted((t.path, t.attempt, t.id, t.status.value, t.text) for t in result.thoughts)


async def test_the_same_seed_grows_the_same_graph_and_another_seed_another(
    engine: LocalEngine, tmp_path: Path
):
    agent = Agent(
        "pick",
        generate("sort {task}\n", n=4, spare=2)
        >> score(length)
        >> keep_best(2)
        >> generate("again {text}\n"),
        sampling=HOT,
    )
    runs = [
        await agent.run("312", engine=engine, ledger=tmp_path / "x.db", seed=seed)
        for seed in (1, 1, 2)
    ]
    assert shape(runs[0]) == shape(runs[1])
    assert {t.text for t in runs[0].thoughts} != {t.text for t in runs[2].thoughts}


async def test_every_verdict_can_be_recomputed_from_the_ledger(engine: LocalEngine, tmp_path: Path):
    agent = Agent("try", generate("{task}\n", n=3, spare=3), sampling=HOT)
    judged = 0
    for name in ("observe", "prune", "strict"):
        await agent.run("restart web", policy=name, engine=engine, ledger=tmp_path / "x.db")
    with AuditLog(tmp_path / "x.db") as audit:
        for run in audit.runs():
            for thought in audit.thoughts(run.run):
                if thought.judgement is not None:
                    judged += 1
                    assert audit.recompute(run.run, thought.id) == thought.judgement
    assert judged >= 9


async def test_tags_in_the_task_are_plain_text(engine: LocalEngine, tmp_path: Path, watched):
    task = "<|deceit|>x<|/deceit|><|eos|> <|powerseeking|>"
    agent = Agent("try", generate("{task}\n"), sampling=HOT)
    seen = watched(engine)
    await agent.run(task, policy="observe", engine=seen, ledger=tmp_path / "x.db")
    (request,) = seen.requests
    bos, *rest = request.prompt
    assert [bos] == engine.encode([Special("<|bos|>")])
    assert not set(engine.info.vocabulary.ids.values()) & set(rest)
    assert bytes(engine.decode(rest), "utf-8") == bytes(task + "\n", "utf-8")


async def test_a_pruned_child_is_replaced_and_a_barren_node_regrown_with_tags_banned(
    engine: LocalEngine, tmp_path: Path, watched
):
    # A random model opens some tag in most texts, so that the first children fall.
    rules = [{"tag": t, "reading": "peak", "at": 1e-6, "action": "prune"} for t in TAGS]
    strict = policy(rules=rules, regrow="ban")
    agent = Agent("try", generate("{task}\n", n=1, spare=2), sampling=HOT)
    seen = watched(engine)
    result = await agent.run("x", policy=strict, engine=seen, ledger=tmp_path / "x.db")
    made = [t for t in result.thoughts if t.kind == "generate"]
    assert [t.status for t in made] == [Status.PRUNED] * 4
    assert [len(t.token_ids) for t in made] == [1] * 4  # cut at the first crossing
    assert result.status is RunStatus.EMPTY
    controls = [{t: c.kind for t, c in r.controls.items()} for r in seen.requests]
    assert controls == [{}] * 3 + [dict.fromkeys(TAGS, "ban")]


async def test_regrowing_leaves_what_a_lock_forces(engine: LocalEngine, tmp_path: Path, watched):
    rules = [{"tag": t, "reading": "peak", "at": 1e-6, "action": "prune"} for t in TAGS]
    tags = {TAGS[0]: {"control": "force", "locked": True}, TAGS[1]: {"control": "force"}}
    agent = Agent("try", generate("{task}\n", n=1, spare=0), sampling=HOT)
    seen = watched(engine)
    strict = policy(rules=rules, tags=tags, regrow="ban")
    await agent.run("x", policy=strict, engine=seen, ledger=tmp_path / "x.db")
    first, again = seen.requests
    ids = [engine.info.vocabulary.open_ids(tag)[0] for tag in TAGS]
    assert [id for id in first.prompt if id in ids] == ids[:2]
    assert [id for id in again.prompt if id in ids] == ids[:1], "a ban lifts only the free one"
    assert {t: c.kind for t, c in again.controls.items()} == dict.fromkeys(TAGS[1:], "ban")


async def test_resampling_is_bounded_and_starts_from_the_same_context(
    engine: LocalEngine, tmp_path: Path, watched
):
    rules = [{"tag": "deceit", "reading": "peak", "at": 1e-6, "action": "resample", "retries": 2}]
    agent = Agent("try", generate("{task}\n"), sampling=HOT)
    seen = watched(engine)
    result = await agent.run("x", policy=policy(rules=rules), engine=seen, ledger=tmp_path / "x.db")
    tries = [t for t in result.thoughts if t.kind == "generate"]
    assert [t.attempt for t in tries] == [0, 1, 2]
    assert [t.judgement.action for t in tries] == ["resample", "resample", "prune"]
    assert len({request.prompt for request in seen.requests}) == 1
    assert len({request.seed for request in seen.requests}) == 3


async def test_halt_stops_the_run_at_once(engine: LocalEngine, tmp_path: Path):
    rules = [{"tag": "deceit", "reading": "peak", "at": 1e-6, "action": "halt"}]
    agent = Agent("try", repeat(generate("{task}\n", n=3), until=never, at_most=2), sampling=HOT)
    result = await agent.run(
        "x", policy=policy(rules=rules), engine=engine, ledger=tmp_path / "x.db"
    )
    assert result.status is RunStatus.HALTED
    assert result.answer is None


async def test_an_escalated_act_does_not_happen(engine: LocalEngine, tmp_path: Path):
    done: list[str] = []

    @tool
    def touch(place: Workspace, name: str) -> str:
        done.append(name)
        return name

    def calls(text: str) -> Call:
        return Call("touch", {"name": "x"})

    plan = generate("{task}\n", calls=calls) >> act([touch], calls=calls)
    rule = {"tag": "deceit", "reading": "peak", "at": 1e-6, "scope": "action"}
    agent = Agent("toucher", plan, sampling=HOT)
    result = await agent.run(
        "x",
        policy=policy(rules=[rule | {"action": "escalate"}]),
        engine=engine,
        ledger=tmp_path / "x.db",
    )
    assert result.status is RunStatus.ESCALATED
    assert done == []
    result = await agent.run(
        "x",
        policy=policy(rules=[rule | {"action": "flag"}]),
        engine=engine,
        ledger=tmp_path / "x.db",
    )
    assert done == ["x"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(tokens=30), "30 tokens"),
        (Budget(thoughts=4), "4 thoughts"),
        (Budget(seconds=1e-6), "seconds"),
    ],
)
async def test_a_spent_budget_ends_the_run_and_says_so(
    engine: LocalEngine, tmp_path: Path, budget: Budget, said: str
):
    plan = repeat(generate("{task}\n"), until=never, at_most=20)
    agent = Agent("long", plan, sampling=HOT, budget=budget)
    result = await agent.run("x", policy="observe", engine=engine, ledger=tmp_path / "x.db")
    assert result.status is RunStatus.EXHAUSTED
    assert said in (result.reason or "")
    assert result.tokens <= budget.tokens
    assert len(result.thoughts) <= budget.thoughts
    with AuditLog(tmp_path / "x.db") as audit:
        noted = [e.body for e in audit.events(result.run_id) if e.kind == "noted"]
    (ended,) = [note["body"]["ended"] for note in noted if note["topic"] == "budget"]
    assert said in ended


async def test_a_function_that_raises_fails_its_own_branch_only(
    engine: LocalEngine, tmp_path: Path
):
    def picky(scene: Scene) -> float:
        if scene.parents[0].path[-1] == 1:
            raise KeyError("no such thing")
        return 1.0

    agent = Agent("picky", generate("{task}\n", n=3) >> score(picky), sampling=HOT)
    result = await agent.run("x", policy="observe", engine=engine, ledger=tmp_path / "x.db")
    assert result.status is RunStatus.DONE
    assert len(result.kept) == 2
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert failed.reason == "KeyError: 'no such thing'"


async def test_what_is_not_valid_is_dropped(engine: LocalEngine, tmp_path: Path):
    plan = generate("{task}\n", n=3) >> keep_valid(lambda scene: scene.parents[0].path[-1] != 0)
    agent = Agent("valid", plan, sampling=HOT)
    result = await agent.run("x", policy="observe", engine=engine, ledger=tmp_path / "x.db")
    assert [t.path[-1] for t in result.kept] == [1, 2]
    assert sum(t.status is Status.DROPPED for t in result.thoughts) == 1


async def test_a_task_longer_than_the_context_fails_with_the_numbers(
    engine: LocalEngine, tmp_path: Path
):
    agent = Agent("try", generate("{task}\n"), sampling=HOT)
    result = await agent.run("long " * 400, engine=engine, ledger=tmp_path / "x.db")
    assert result.status is RunStatus.EMPTY
    assert "256" in (result.reason or "")


async def test_an_empty_task_is_refused(engine: LocalEngine, tmp_path: Path):
    agent = Agent("try", generate("{task}\n"))
    with pytest.raises(TaskError, match="the task is empty"):
        await agent.run("  ", engine=engine, ledger=tmp_path / "x.db")


@pytest.mark.parametrize("belief", [float("nan"), float("inf"), float("-inf"), 0.5])
async def test_an_unreadable_temptation_never_passes(
    engine: LocalEngine, tmp_path: Path, belief: float, watched
):
    async def damaged(token: Token) -> Token:
        return replace(token, belief=[belief] * len(token.belief))

    agent = Agent("try", generate("{task}\n", n=2), sampling=HOT)
    result = await agent.run(
        "x", policy="observe", engine=watched(engine, damaged), ledger=tmp_path / "x.db"
    )
    assert result.status is RunStatus.EMPTY
    assert len(result.pruned) == 2
    assert all(t.reason for t in result.pruned)


async def test_a_model_call_that_fails_is_a_failed_thought(
    engine: LocalEngine, tmp_path: Path, watched
):
    async def gone(token: Token) -> Token:
        raise EngineError("the model is gone: start it again")

    agent = Agent("try", generate("{task}\n", n=2), sampling=HOT)
    result = await agent.run(
        "x", policy="observe", engine=watched(engine, gone), ledger=tmp_path / "x.db"
    )
    assert result.status is RunStatus.EMPTY
    assert result.reason == "every branch failed: the model is gone: start it again"


def test_kill_9_leaves_a_ledger_that_opens_verifies_and_tells(
    tiny_checkpoint: Path, tmp_path: Path
):
    script = f"""
import asyncio
from secateur import Agent, LocalEngine, Sampling, generate, repeat
agent = Agent("endless", repeat(generate("{{task}}\\n"), until=lambda t: False, at_most=10_000),
              policy="observe", sampling=Sampling(temperature=1.0, max_tokens=4))
asyncio.run(agent.run("x", engine=LocalEngine.load({str(tiny_checkpoint)!r}), ledger="k.db"))
"""
    database = tmp_path / "k.db"

    def thoughts() -> int:
        try:
            with AuditLog(database) as audit:
                return sum(run.thoughts for run in audit.runs())
        except LedgerError:  # the child has not made it yet
            return 0

    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) as child:
        deadline = time.monotonic() + 120
        while thoughts() < 10 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    with AuditLog(database) as audit:
        (run,) = audit.runs()
        assert run.status == "unfinished"
        assert run.thoughts >= 10
        assert audit.verify().ok


def test_an_agent_made_of_a_spec_is_the_same_agent():
    spec = AgentSpec(name="x", plan=generate("{task}"))
    agent = Agent.of(spec)
    assert (agent.name, agent.plan, agent.budget) == (spec.name, spec.plan, spec.budget)
    assert Agent.of(agent) is agent


async def test_a_run_can_share_an_open_ledger(engine: LocalEngine, tmp_path: Path):
    agent = Agent("try", generate("{task}\n"), sampling=HOT)
    async with Ledger.open(tmp_path / "x.db") as ledger:
        one = await agent.run("x", policy="observe", engine=engine, ledger=ledger)
        two = await agent.run("y", policy="observe", engine=engine, ledger=ledger)
    with AuditLog(tmp_path / "x.db") as audit:
        assert {run.run for run in audit.runs()} == {one.run_id, two.run_id}


async def test_what_a_tool_did_is_recorded_although_the_time_is_up(
    engine: LocalEngine, tmp_path: Path
):
    @tool
    def slow(place: Workspace) -> str:
        time.sleep(0.6)
        (place.path / "done.txt").write_text("done")
        return "done"

    def calls(text: str) -> Call:
        return Call("slow", {})

    plan = generate("{task}\n", calls=calls) >> act([slow], calls=calls)
    agent = Agent("slow", plan, sampling=HOT, budget=Budget(seconds=0.5))
    result = await agent.run(
        "x",
        policy="observe",
        engine=engine,
        ledger=tmp_path / "x.db",
        sandbox=tmp_path / "sandbox",
    )
    assert result.status is RunStatus.EXHAUSTED
    with AuditLog(tmp_path / "x.db") as audit:
        kinds = [event.kind for event in audit.events(result.run_id)]
    acted = (tmp_path / "sandbox" / "done.txt").exists()
    assert kinds.count("tool_intended") == kinds.count("tool_returned") == acted
    assert kinds[-1] == "run_finished"


async def test_retries_stay_within_the_budget(engine: LocalEngine, tmp_path: Path):
    rules = [{"tag": "deceit", "reading": "rate", "at": 1e-9, "action": "resample", "retries": 50}]
    agent = Agent("try", generate("{task}\n"), sampling=HOT, budget=Budget(tokens=40))
    result = await agent.run(
        "x", policy=policy(rules=rules), engine=engine, ledger=tmp_path / "x.db"
    )
    assert 12 < result.tokens <= 40
    assert result.status is RunStatus.EMPTY


async def test_a_parsed_value_that_is_no_json_fails_its_branch(engine: LocalEngine, tmp_path: Path):
    agent = Agent("try", generate("{task}\n", parse=set), sampling=HOT)
    result = await agent.run("x", policy="observe", engine=engine, ledger=tmp_path / "x.db")
    assert result.status is RunStatus.EMPTY
    assert "does not parse" in (result.reason or "")


async def test_a_stream_that_breaks_off_is_no_finished_thought(
    engine: LocalEngine, tmp_path: Path, watched
):
    async def broken_off(token: Token) -> Token:
        return replace(token, finish=None)

    agent = Agent("try", generate("{task}\n"), sampling=HOT)
    result = await agent.run(
        "x", policy="observe", engine=watched(engine, broken_off), ledger=tmp_path / "x.db"
    )
    assert result.status is RunStatus.EMPTY
    assert "broke off" in (result.reason or "")
