"""Records the runs of this folder: ``python record.py URL FOLDER``, with version 0.1 alone.

Kept as the recipe of ``sqlite.db.gz`` and ``postgresql.sql.gz``; later versions only read them.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from agents import MODEL, RESUMED, asking, figure, sent_back, stamper
from secateur import Agent, AuditLog, Ledger, LocalEngine
from secateur.agents.loading import load_agent
from secateur.runtime.review.decisions import decide

TASK = "3120 4217"


async def recorded(url: str, folder: Path) -> dict[str, str]:
    """The runs by what became of them."""
    engine = LocalEngine.load(MODEL)
    runs: dict[str, str] = {}

    async def run(name: str, agent, policy="observe", seed=5, task=TASK, **given):
        given = {"engine": engine, "ledger": url, "sandbox": folder / name} | given
        result = await agent.run(task, policy=policy, seed=seed, **given)
        runs[name] = result.run_id
        return result

    await run("done", figure)
    await run("done-pruned", figure, policy=sent_back, seed=11)
    await run("done-odd-text", stamper, task="grüße 重启 <|deceit|> \u202e x")
    await run("waiting", stamper, policy=asking)
    for name, answer in (("approved", {"approve": True}), ("refused", {"approve": False})):
        result = await run(name, stamper, policy=asking, seed=len(name))
        async with Ledger.open(url) as ledger:
            await decide(
                ledger, result.waiting[0].id, run=result.run_id, by="ada", reason="seen", **answer
            )
    await engine.aclose()
    seedling = LocalEngine.load("seedling")
    for policy in ("prune", "strict"):
        task = "your job is on the line. restart web and confirm it is up."
        await run(
            f"opsdesk-{policy}",
            Agent.of(load_agent("opsdesk")),
            policy=policy,
            task=task,
            engine=seedling,
        )
    await seedling.aclose()
    return runs


def killed(go: Callable[[str, Path], None], url: str, folder: Path) -> str:
    """The id of a run whose process died by SIGKILL."""
    child = os.fork()
    if not child:
        go(url, folder)
        os._exit(3)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with AuditLog(url) as audit:
        return audit.runs()[0].run


def killed_in_tool(url: str, folder: Path) -> None:
    os.environ["DIE_IN_TOOL"] = "1"
    engine = LocalEngine.load(MODEL)
    asyncio.run(
        stamper.run(
            TASK,
            policy="observe",
            engine=engine,
            ledger=url,
            sandbox=folder / "killed_in_tool",
            seed=21,
        )
    )


def killed_in_thought(url: str, folder: Path) -> None:
    seen = []

    def observe(thought) -> None:
        seen.append(thought)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = LocalEngine.load(MODEL)
    asyncio.run(
        figure.run(
            TASK,
            policy="observe",
            engine=engine,
            ledger=url,
            sandbox=folder / "killed_in_thought",
            seed=22,
            observe=observe,
        )
    )


async def resumed(url: str, folder: Path, runs: dict[str, str]) -> dict[str, object]:
    """What version 0.1 itself makes of them in the end."""
    engine = LocalEngine.load(MODEL)
    ends: dict[str, object] = {}
    for name, agent in RESUMED.items():
        done = await agent.resume(runs[name], engine=engine, ledger=url, sandbox=folder / name)
        ends[name] = {
            "status": done.status,
            "answer": done.answer,
            "thoughts": sorted([t.id, t.status, t.text] for t in done.thoughts),
        }
    await engine.aclose()
    return ends


if __name__ == "__main__":
    url, folder = sys.argv[1], Path(sys.argv[2])
    runs = {go.__name__: killed(go, url, folder) for go in (killed_in_tool, killed_in_thought)}
    runs |= asyncio.run(recorded(url, folder))
    told: dict[str, object] = {"runs": runs}
    if url.endswith(".db"):
        copy = shutil.copy(url, Path(url).with_name("copy.db"))
        told["resumed"] = asyncio.run(resumed(copy, folder, runs))
    print(json.dumps(told, indent=1))
