"""An agent as a LangGraph graph: streams, interrupts, embedding, and what its state holds."""

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

import secateur
from secateur import AuditLog
from secateur.agents.spec import TaskError
from secateur.runtime.engines.protocol import Token
from secateur.runtime.executor.resources import ConfigError

EXAMPLES = Path(secateur.__file__).parent / "examples"
THREAD: Any = {"configurable": {"thread_id": "1"}}


async def test_a_graph_gives_what_a_run_gives(home):
    given = await home.graph(seed=3).ainvoke({"task": "x"})
    with AuditLog(home.db) as audit:
        found = audit.run(given["run"])
    assert given == {"run": found.run, "status": "done", "waiting": [], "result": "stamped"}
    assert (found.seed, found.status) == (3, "done")


async def test_thoughts_come_over_the_stream_as_they_are_recorded(home):
    graph = home.graph()
    said = [chunk async for chunk in graph.astream({"task": "x"}, stream_mode="custom")]
    assert [(each["operation"], each["status"]) for each in said] == [
        ("task", "kept"),
        ("say", "kept"),
        ("stamp", "kept"),
    ]
    steps = [chunk async for chunk in graph.astream({"task": "y"}, stream_mode="updates")]
    assert [name for step in steps for name in step] == ["admit", "grow", "review", "deliver"]


async def test_checkpoints_hold_ids_and_a_cursor_and_never_a_text(home):
    saver = InMemorySaver()
    graph = home.graph(policy=home.asking, checkpointer=saver)
    await graph.ainvoke({"task": "x"}, THREAD)
    await graph.ainvoke(Command(resume={"approve": True, "by": "ada", "reason": "fine"}), THREAD)
    kept = repr([*saver.storage.values(), *saver.blobs.values(), *saver.writes.values()])
    with AuditLog(home.db) as audit:
        (run,) = audit.runs()
        thoughts = list(audit.thoughts(run.run))
    assert run.run in kept
    assert "stamped" in {thought.text for thought in thoughts}
    for thought in thoughts:
        if thought.kind != "task":
            assert thought.text.strip()[:4] not in kept or not thought.text.strip()


async def test_an_interrupt_is_answered_and_the_run_goes_on(home):
    for approve, status, effects in ((True, "done", 1), (False, "empty", 1)):
        graph = home.graph(policy=home.asking, checkpointer=InMemorySaver())
        stopped = await graph.ainvoke({"task": "x"}, THREAD)
        (interrupt,) = stopped["__interrupt__"]
        assert interrupt.value == {"run": stopped["run"], "waiting": stopped["waiting"]}
        assert len(stopped["waiting"]) == 1
        decision = {"approve": approve, "by": "ada", "reason": "fine"}
        final = await graph.ainvoke(Command(resume=decision), THREAD)
        assert (final["status"], home.stamped()) == (status, effects)
        with AuditLog(home.db) as audit:
            (decided,) = [e for e in audit.events(final["run"]) if e.kind == "decided"]
            assert audit.verify(final["run"]).ok
        assert (decided.actor, decided.body["approve"]) == ("person:ada", approve)


async def test_a_decision_taken_elsewhere_counts(home):
    graph = home.graph(policy=home.asking, checkpointer=InMemorySaver())
    stopped = await graph.ainvoke({"task": "x"}, THREAD)
    await home.decide(stopped["waiting"][0], approve=True)
    final = await graph.ainvoke(Command(resume="decided"), THREAD)
    assert (final["status"], final["result"]) == ("done", "stamped")


async def test_several_that_wait_are_decided_by_name(home):
    graph = home.graph(home.stamping(n=2), policy=home.asking, checkpointer=InMemorySaver())
    stopped = await graph.ainvoke({"task": "x"}, THREAD)
    one, two = stopped["waiting"]
    said = {"by": "ada", "reason": "fine"}
    again = await graph.ainvoke(Command(resume={"approve": True} | said), THREAD)
    assert 'say which "thought"' in again["__interrupt__"][0].value["error"]
    both = [{"thought": one, "approve": True} | said, {"thought": two, "approve": False} | said]
    final = await graph.ainvoke(Command(resume=both), THREAD)
    assert (final["status"], home.stamped()) == ("done", 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("yes", "a decision is"),
        ({"approve": "yes", "by": "ada", "reason": "x"}, "lacks 'approve': give a bool"),
        ({"approve": True, "by": "ada"}, "lacks 'reason': give a str"),
        ({"approve": True, "by": "ada", "reason": "x", "tag": "deceit"}, "a decision is"),
        ({"approve": True, "by": "ada", "reason": "x", "outcome": "done"}, "an outcome belongs"),
        ({"approve": True, "by": "ada", "reason": "x", "thought": "ff"}, "ff does not wait"),
    ],
)
async def test_an_answer_that_is_no_decision_changes_nothing(home, answer: Any, error: str):
    graph = home.graph(policy=home.asking, checkpointer=InMemorySaver())
    stopped = await graph.ainvoke({"task": "x"}, THREAD)
    again = await graph.ainvoke(Command(resume=answer), THREAD)
    assert error in again["__interrupt__"][0].value["error"]
    with AuditLog(home.db) as audit:
        assert "decided" not in {event.kind for event in audit.events(stopped["run"])}
    decision = {"approve": True, "by": "ada", "reason": "fine"}
    final = await graph.ainvoke(Command(resume=decision), THREAD)  # the thread still waits
    assert final["status"] == "done"


async def test_one_invocation_may_have_its_own_settings(home):
    graph = home.graph()
    config: Any = {"configurable": {"secateur": {"seed": 9, "policy": "strict"}}}
    given = await graph.ainvoke({"task": "x"}, config)
    with AuditLog(home.db) as audit:
        found = audit.run(given["run"])
    assert (found.seed, found.policy) == (9, "strict")
    with pytest.raises(ConfigError, match="policy, engine, ledger, seed, sandbox"):
        await graph.ainvoke({"task": "x"}, {"configurable": {"secateur": {"sead": 9}}})


async def test_a_task_that_is_none_is_refused_before_anything_runs(home):
    with pytest.raises(TaskError, match="the task is empty"):
        await home.graph().ainvoke({"task": " "})
    assert not home.db.exists()


async def test_a_graph_that_was_stopped_goes_on_with_the_same_run(home):
    """As after a crash: LangGraph runs the node again from its top, and the ledger has the run."""
    begun = asyncio.Event()

    async def stuck(token: Token) -> Token:
        begun.set()
        await asyncio.sleep(60)
        return token

    quick, home.watched.alter = home.watched.alter, stuck
    graph = home.graph(checkpointer=InMemorySaver())
    running = asyncio.ensure_future(graph.ainvoke({"task": "x"}, THREAD, durability="sync"))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    home.watched.alter = quick
    final = await graph.ainvoke(None, THREAD)
    with AuditLog(home.db) as audit:
        (run,) = audit.runs()
        kinds = [event.kind for event in audit.events(run.run)]
    assert (final["run"], final["status"]) == (run.run, "done")
    assert (kinds.count("resumed"), kinds.count("abandoned")) == (1, 1)
    assert home.stamped() == 1


class Order(TypedDict, total=False):
    task: str
    mine: str
    result: str | None


async def test_interrupts_of_a_subgraph_reach_whoever_embeds_it(home):
    app = StateGraph(Order)
    app.add_node("ask", home.graph(policy=home.asking))
    app.add_edge(START, "ask")
    app.add_edge("ask", END)
    whole = app.compile(checkpointer=InMemorySaver())
    stopped = await whole.ainvoke({"task": "x", "mine": "kept"}, THREAD)
    (interrupt,) = stopped["__interrupt__"]
    assert len(interrupt.value["waiting"]) == 1
    decision = {"approve": True, "by": "ada", "reason": "fine"}
    final = await whole.ainvoke(Command(resume=decision), THREAD)
    assert (final["mine"], final["result"], home.stamped()) == ("kept", "stamped", 1)


# The examples, with the shipped model


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)

    def load(name: str) -> SimpleNamespace:
        return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))

    return load


async def test_the_streaming_example_shows_thoughts_and_nodes(example, tmp_path: Path):
    said = await example("langgraph_stream").watch("31204", tmp_path / "x.db")
    assert {mode for mode, _ in said} == {"custom", "updates", "values"}
    texts = [each["text"] for mode, each in said if mode == "custom"]
    assert texts[0] == "31204"
    assert said[-1][1]["result"] in texts


async def test_the_review_example_acts_only_where_it_may(example, tmp_path: Path):
    ask_and_go_on = example("langgraph_review").ask_and_go_on
    for approve in (True, False):
        folder = tmp_path / str(approve)
        folder.mkdir()
        waits, result = await ask_and_go_on("31204", folder, approve=approve)
        assert len(waits["waiting"]) == 1
        assert (folder / "sandbox" / "sorted.txt").exists() is approve
        assert result["status"] == ("done" if approve else "empty")


async def test_the_embedding_examples_reply(example, tmp_path: Path):
    module = example("langgraph_embed")
    for build in (module.as_subgraph, module.as_plain_node):
        final = await build(tmp_path / "x.db").ainvoke({"order": "please sort 31204"})
        with AuditLog(tmp_path / "x.db") as audit:
            run = audit.run(final["run"])
        assert final["reply"] == f"here you are: {run.result} (run {run.run})"


def test_the_drawing_example_draws_the_four_nodes(example):
    drawn = example("langgraph_draw").agent.graph().get_graph().draw_mermaid()
    for edge in ("admit --> grow", "grow --> review", "review -.-> grow", "review -.-> deliver"):
        assert edge in drawn


async def test_the_langchain_example_adds_up(example, tmp_path: Path):
    result = await example("langchain_tool").agent.run("31204", ledger=tmp_path / "x.db")
    asked = next(t for t in result.thoughts if t.kind == "generate")
    assert result.answer == str(sum(int(c) for c in asked.text if c.isdigit()))
