"""An agent in a LangGraph application of your own: as a subgraph, and within a plain node."""

import asyncio
import tempfile
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from secateur import Agent, generate, keep_best, score
from secateur.agents.ready.digits import parse_digits, sorting_errors


def errors(scene):
    return sorting_errors(parse_digits(scene.task), parse_digits(scene.text))


plan = generate("sort {task}\n", n=3) >> score(errors) >> keep_best(1, lowest=True)
agent = Agent("my-sort", plan=plan)


class State(TypedDict, total=False):
    """Yours; the subgraph takes ``task`` from it, and gives ``run``, ``status`` and ``result``."""

    order: str
    task: str
    run: str
    status: str
    result: str | None
    reply: str


def read(state: State) -> State:
    return {"task": state["order"].removeprefix("please sort ")}


def reply(state: State) -> State:
    return {"reply": f"here you are: {state.get('result')} (run {state.get('run')})"}


def as_subgraph(db: Path):
    """The agent's own graph is a node: its steps, streams and interrupts are yours."""
    app = StateGraph(State)
    app.add_node("read", read)
    app.add_node("sort", agent.graph(ledger=db))
    app.add_node("reply", reply)
    app.add_edge(START, "read")
    app.add_edge("read", "sort")
    app.add_edge("sort", "reply")
    app.add_edge("reply", END)
    return app.compile()


def as_plain_node(db: Path):
    """A node that runs the agent, and takes of its result what it likes."""

    async def sort(state: State) -> State:
        result = await agent.run(state["task"], ledger=db)
        return {"run": result.run_id, "status": str(result.status), "result": result.answer}

    app = StateGraph(State)
    app.add_node("read", read)
    app.add_node("sort", sort)
    app.add_node("reply", reply)
    app.add_edge(START, "read")
    app.add_edge("read", "sort")
    app.add_edge("sort", "reply")
    app.add_edge("reply", END)
    return app.compile()


async def main() -> None:
    """Ask both."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "secateur.db"
        for app in (as_subgraph(db), as_plain_node(db)):
            final = await app.ainvoke({"order": "please sort 31204"})
            print(final["reply"])


if __name__ == "__main__":
    asyncio.run(main())
