"""Watch a run over LangGraph's stream modes: the thoughts as they are recorded, and the nodes."""

import asyncio
import tempfile
from pathlib import Path

from secateur import Agent, generate, keep_best, score
from secateur.agents.ready.digits import parse_digits, sorting_errors


def errors(scene):
    return sorting_errors(parse_digits(scene.task), parse_digits(scene.text))


plan = generate("sort {task}\n", n=3) >> score(errors) >> keep_best(1, lowest=True)
agent = Agent("my-sort", plan=plan)


async def watch(task: str, db: Path) -> list[tuple[str, object]]:
    """All that comes over the three modes, in order."""
    graph = agent.graph(ledger=db, seed=1)
    modes = ["custom", "updates", "values"]
    return [(mode, said) async for mode, said in graph.astream({"task": task}, stream_mode=modes)]


async def main() -> None:
    """Print it."""
    with tempfile.TemporaryDirectory() as folder:
        for mode, said in await watch("31204", Path(folder) / "secateur.db"):
            print(f"{mode:8}", said)


if __name__ == "__main__":
    asyncio.run(main())
