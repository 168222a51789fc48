"""A LangChain tool in an agent: its schema checks the call, and the gate judges it before."""

import asyncio
import tempfile
from pathlib import Path

from langchain_core.tools import tool

from secateur import Agent, Call, act, generate


@tool
async def add_up(digits: str) -> str:
    """Add up a row of digits."""
    return str(sum(int(digit) for digit in digits if digit.isdigit()))


def calls(text):
    return Call("add_up", {"digits": text})


plan = generate("sort {task}\n", calls=calls) >> act([add_up], calls=calls)
agent = Agent("sort-and-add", plan=plan)


async def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as folder:
        result = await agent.run("31204", ledger=Path(folder) / "secateur.db")
        print(result.answer)


if __name__ == "__main__":
    asyncio.run(main())
