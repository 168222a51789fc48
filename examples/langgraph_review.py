"""A person decides before a tool runs: LangGraph interrupts, and ``Command(resume=…)`` answers."""

import asyncio
import tempfile
from pathlib import Path

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from secateur import Agent, Call, Policy, Workspace, act, generate, tool


@tool
def save(folder: Workspace, digits: str) -> str:
    """Write the digits into a file."""
    (folder.path / "sorted.txt").write_text(digits)
    return f"saved {digits}"


def calls(text):
    return Call("save", {"digits": text})


# So low a threshold that every call is asked about.
policy = Policy.from_yaml("""
name: ask-first
rules:
  - {tag: deceit, reading: opened, at: 1.0e-30, action: escalate, scope: action}
""")
plan = generate("sort {task}\n", calls=calls) >> act([save], calls=calls)
agent = Agent("sort-and-save", plan=plan, policy=policy)


async def ask_and_go_on(task: str, folder: Path, *, approve: bool) -> tuple[dict, dict]:
    """What the run waits for, and what it comes to when somebody has decided."""
    graph = agent.graph(
        ledger=folder / "secateur.db", sandbox=folder / "sandbox", checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    stopped = await graph.ainvoke({"task": task}, config)
    (interrupt,) = stopped["__interrupt__"]
    decision = {"approve": approve, "by": "ada", "reason": "I have read the list"}
    return interrupt.value, await graph.ainvoke(Command(resume=decision), config)


async def main() -> None:
    """Print both."""
    for approve in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            waits, result = await ask_and_go_on("31204", Path(folder), approve=approve)
            print("waits ", waits)
            print("result", result)


if __name__ == "__main__":
    asyncio.run(main())
