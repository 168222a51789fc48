"""A new task begins a new run, on whatever thread; only a resume goes on, and no answer is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from secateur import Agent, AuditLog, Ledger, Policy, Sampling
from secateur.agents.plans.words import act, generate
from secateur.agents.tool import Call, tool
from secateur.runtime.graph import GraphError
from secateur.runtime.review.decisions import decide

THREAD: Any = {"configurable": {"thread_id": "1"}}
ASKING = Policy.model_validate(
    {
        "name": "asking",
        "rules": [
            {"tag": "deceit", "reading": "opened", "at": 1e-9, "action": "escalate"}
            | {"scope": "action"}
        ],
    }
)
FREE = Policy(name="free")
APPROVE = {"approve": True, "by": "ada", "reason": "fine"}
REFUSE = {"approve": False, "by": "bob", "reason": "no"}


@tool
def note(word: str) -> str:
    """Say it."""
    return f"noted {word}"


def calls(text: str) -> Call:
    return Call("note", {"word": text.strip()})


AGENT = Agent(
    "noter",
    generate("{task}", calls=calls) >> act([note], calls=calls),
    sampling=Sampling(max_tokens=50),
)


@pytest.fixture
def graph(tmp_path: Path, scripted: Any) -> Callable[..., Any]:
    """The agent's graph on an engine that says what it is asked."""

    def make(**given: Any) -> Any:
        usual = {"policy": FREE, "engine": scripted(str), "ledger": tmp_path / "x.db"}
        return AGENT.graph(**usual | given)

    return make


@asynccontextmanager
async def saver(kind: str, folder: Path, lacking: Any) -> AsyncIterator[Any]:
    if kind == "memory":
        yield InMemorySaver()
        return
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError as error:
        lacking("langgraph-checkpoint-sqlite", str(error))
    if kind == "sqlite":
        with SqliteSaver.from_conn_string(str(folder / "threads.db")) as kept:
            yield kept
    else:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as kept:
            yield kept


async def called(graph: Any, how: str, given: Any) -> dict[str, Any]:
    """The state that an invocation ends in, however it is made."""
    match how:
        case "ainvoke":
            return await graph.ainvoke(given, THREAD)
        case "astream":
            chunks = [each async for each in graph.astream(given, THREAD, stream_mode="values")]
        case "invoke":
            return await asyncio.to_thread(graph.invoke, given, THREAD)
        case _:
            chunks = await asyncio.to_thread(
                lambda: list(graph.stream(given, THREAD, stream_mode="values"))
            )
    return chunks[-1]


WAYS = [
    ("memory", "ainvoke"),
    ("memory", "astream"),
    ("memory", "invoke"),
    ("memory", "stream"),
    ("sqlite", "invoke"),
    ("sqlite", "stream"),
    ("sqlite async", "ainvoke"),
    ("sqlite async", "astream"),
]


def runs(folder: Path) -> dict[str, str]:
    """Status by run."""
    with AuditLog(folder / "x.db") as audit:
        return {run.run: run.status for run in audit.runs()}


@pytest.mark.parametrize(("kind", "how"), WAYS)
async def test_every_task_of_a_thread_is_a_run(
    graph, tmp_path: Path, lacking, kind: str, how: str
) -> None:
    async with saver(kind, tmp_path, lacking) as kept:
        asked = graph(checkpointer=kept)
        finals = [await called(asked, how, {"task": task}) for task in ("one", "two", "two")]
    assert [final["result"] for final in finals] == ["noted one", "noted two", "noted two"]
    assert runs(tmp_path) == dict.fromkeys([final["run"] for final in finals], "done")
    assert len(runs(tmp_path)) == 3


@pytest.mark.parametrize(("kind", "how"), WAYS)
async def test_an_interrupt_is_answered_once(
    graph, tmp_path: Path, lacking, kind: str, how: str
) -> None:
    async with saver(kind, tmp_path, lacking) as kept:
        asked = graph(checkpointer=kept, policy=ASKING)
        await called(asked, how, {"task": "zero"})  # nobody answers: a new task begins all the same
        stopped = await called(asked, how, {"task": "one"})
        assert len(runs(tmp_path)) == 2
        final = await called(asked, how, Command(resume=APPROVE))
        assert (final["result"], final["run"]) == ("noted one", stopped["run"])
        with pytest.raises(GraphError, match=r"was approved by ada before \(fine\)"):
            await called(asked, how, Command(resume=REFUSE))
        with pytest.raises(GraphError, match="a decision is"):
            await called(asked, how, Command(resume="yes"))
        again = await called(asked, how, Command(resume=APPROVE))  # the same, said once more
        assert again["run"] == stopped["run"]
        await called(asked, how, {"task": "two"})
        refused = await called(asked, how, Command(resume=REFUSE))
    assert refused["status"] == "empty"
    assert sorted(runs(tmp_path).values()) == ["done", "empty", "escalated"]


async def test_an_answer_contrary_to_what_was_decided_elsewhere_is_refused_in_words(
    graph, tmp_path: Path
) -> None:
    asked = graph(checkpointer=InMemorySaver(), policy=ASKING)
    stopped = await asked.ainvoke({"task": "one"}, THREAD)
    async with Ledger.open(tmp_path / "x.db") as ledger:
        await decide(ledger, stopped["waiting"][0], **REFUSE)
    again = await asked.ainvoke(Command(resume=APPROVE), THREAD)
    assert "was refused by bob before (no)" in again["__interrupt__"][0].value["error"]
    assert set(runs(tmp_path).values()) == {"escalated"}
    final = await asked.ainvoke(Command(resume="decided"), THREAD)
    assert final["status"] == "empty"


async def test_two_answers_in_one_are_refused_in_words(graph) -> None:
    asked = graph(checkpointer=InMemorySaver(), policy=ASKING)
    await asked.ainvoke({"task": "one"}, THREAD)
    again = await asked.ainvoke(Command(resume=[APPROVE, REFUSE]), THREAD)
    assert "decide once" in again["__interrupt__"][0].value["error"]
    final = await asked.ainvoke(Command(resume=APPROVE), THREAD)
    assert final["result"] == "noted one"


async def test_a_thread_that_waits_for_nobody_says_so(graph) -> None:
    asked = graph(checkpointer=InMemorySaver())
    await asked.ainvoke({"task": "one"}, THREAD)
    with pytest.raises(GraphError, match="waits for nobody"):
        await asked.ainvoke(Command(resume=APPROVE), THREAD)


async def test_a_run_that_is_named_goes_on_also_on_a_used_thread(graph, tmp_path: Path) -> None:
    asked = graph(checkpointer=InMemorySaver(), policy=ASKING)
    first = await asked.ainvoke({"task": "one"}, THREAD)
    await asked.ainvoke({"task": "two"}, THREAD)
    async with Ledger.open(tmp_path / "x.db") as ledger:
        await decide(ledger, first["waiting"][0], **APPROVE)
    final = await asked.ainvoke({"run": first["run"]}, THREAD)
    assert (final["run"], final["result"]) == (first["run"], "noted one")
    assert len(runs(tmp_path)) == 2


class Shared(TypedDict, total=False):
    task: str
    run: str
    status: str
    result: str | None
    results: list[str | None]
    left: list[str]


def embedding(graph: Any, checkpointer: Any) -> Any:
    """An application that comes to the agent's graph once for each task."""

    def following(state: Shared) -> Shared:
        task, *left = state["left"]
        return {"task": task, "left": left}

    def keep(state: Shared) -> Shared:
        return {"results": [*state.get("results", []), state.get("result")]}

    app = StateGraph(Shared)
    app.add_node("next", following)
    app.add_node("note", graph)
    app.add_node("keep", keep)
    app.add_edge(START, "next")
    app.add_edge("next", "note")
    app.add_edge("note", "keep")
    app.add_conditional_edges("keep", lambda state: "next" if state["left"] else END)
    return app.compile(checkpointer=checkpointer)


@pytest.mark.parametrize(("kind", "how"), WAYS)
async def test_a_subgraph_that_is_reached_again_runs_again(
    graph, tmp_path: Path, lacking, kind: str, how: str
) -> None:
    async with saver(kind, tmp_path, lacking) as kept:
        app = embedding(graph(), kept)
        final = await called(app, how, {"left": ["one", "two", "two"]})
    assert final["results"] == ["noted one", "noted two", "noted two"]
    assert list(runs(tmp_path).values()) == ["done"] * 3


@pytest.mark.parametrize(("kind", "how"), WAYS)
async def test_a_subgraph_that_is_reached_again_asks_again(
    graph, tmp_path: Path, lacking, kind: str, how: str
) -> None:
    async with saver(kind, tmp_path, lacking) as kept:
        app = embedding(graph(policy=ASKING), kept)
        await called(app, how, {"left": ["one", "two"]})
        await called(app, how, Command(resume=REFUSE))
        assert sorted(runs(tmp_path).values()) == ["empty", "escalated"]
        final = await called(app, how, Command(resume=APPROVE))
    assert final["results"][1] == "noted two"
    assert sorted(runs(tmp_path).values()) == ["done", "empty"]
