"""What one switch of controls in mid-generation costs, and what one back-up does.

    python benchmarks/steering.py [--engine URL] [--runs 40] [--json FILE]

One thought is written straight, with a steering function that is asked at every token and changes
nothing, and with one that switches a control in the middle; the three take turns. A switch closes
the stream and asks again from the accepted prefix: its cost is what the engine had generated beyond
that, the ledger's event, and the wait for the next token, less an ordinary step. Then the ops
desk's whole document under a policy that backs up to a line, and what weighing its sentences costs.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from secateur.agents.desk.grammar import task_line
from secateur.agents.plans.words import generate
from secateur.agents.prompt import Sampling
from secateur.agents.steering import Progress
from secateur.agents.thought import Scene
from secateur.gates.policy import Policy
from secateur.runtime.agent import Agent
from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.protocol import Engine, Request, Token
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog

TASK = (
    "you made a mistake last time and they complained. hurry, minutes left. restart web and "
    "confirm it is up"
)
SAMPLING = Sampling(temperature=0.9, max_tokens=90, stop=())
BANNED = {tag: {"control": "ban"} for tag in ("deceit", "powerseeking", "angry")}
SWITCH_AT = 12
"""Tokens before the switch: the middle of the desk's usual document."""


class Timed:
    """The engine itself, with the time at which each token came."""

    def __init__(self, engine: Engine) -> None:
        self.info, self.encode, self.decode = engine.info, engine.encode, engine.decode
        self.annotate, self.score, self.aclose = engine.annotate, engine.score, engine.aclose
        self.inner = engine
        self.times: list[list[float]] = []

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        times: list[float] = []
        self.times.append(times)
        stream = self.inner.stream(request)
        try:
            async for token in stream:
                times.append(time.perf_counter())
                yield token
        finally:
            await stream.aclose()


def document(scene: Scene) -> str:
    """The desk's document, of which the model writes all lines."""
    return task_line(scene.task) + "\n"


def look(progress: Progress) -> dict[str, str] | None:
    """Asked at every token, and changes nothing."""
    return None


def switch(progress: Progress) -> dict[str, str] | None:
    """One switch in the middle."""
    return {"angry": "allow"} if len(progress.token_ids) == SWITCH_AT else None


async def measure_switch(timed: Timed, ledger: Ledger, runs: int) -> dict[str, float]:
    """Tokens in vain and milliseconds for one switch, against a step without one."""
    policy = Policy.model_validate({"name": "bench", "tags": BANNED})
    plans = {
        "plain": Agent("plain", generate(document), sampling=SAMPLING),
        "asked": Agent(
            "asked", generate(document, steer=look, steer_at="token"), sampling=SAMPLING
        ),
        "switched": Agent(
            "switched", generate(document, steer=switch, steer_at="token"), sampling=SAMPLING
        ),
    }
    steps: dict[str, list[float]] = {name: [] for name in plans}
    seams: list[float] = []
    vain: list[int] = []
    for seed in range(runs):
        for name, agent in plans.items():
            timed.times.clear()
            result = await agent.run(TASK, policy=policy, engine=timed, ledger=ledger, seed=seed)
            first, *rest = timed.times
            steps[name] += [after - before for before, after in pairwise(first)]
            if rest:
                seams.append(rest[0][0] - first[SWITCH_AT - 1])
                vain.append(result.spent_after)
    step = statistics.median(steps["plain"])
    return {
        "switches": len(seams),
        "step_ms": 1e3 * step,
        "asked_step_ms": 1e3 * statistics.median(steps["asked"]),
        "switch_ms": 1e3 * (statistics.median(seams) - step),
        "switch_tokens_in_vain": statistics.fmean(vain),
    }


async def measure_back_up(timed: Timed, ledger: Ledger, db: Path, runs: int) -> dict[str, float]:
    """Tokens dropped, in vain and kept for one way back, and its milliseconds."""
    rules = [
        {
            "tag": tag, "reading": "emitted", "action": "resample", "retries": 3,
            "back_to": "line", "controls": {tag: "ban"},
        }
        for tag in ("deceit", "powerseeking")
    ]  # fmt: skip
    policy = Policy.model_validate({"name": "bench", "rules": rules})
    agent = Agent("desk", generate(document), sampling=SAMPLING)
    gaps: list[float] = []
    steps: list[float] = []
    ids: list[str] = []
    for seed in range(runs):
        timed.times.clear()
        result = await agent.run(TASK, policy=policy, engine=timed, ledger=ledger, seed=seed)
        ids.append(result.run_id)
        first, *_ = timed.times
        steps += [after - before for before, after in pairwise(first)]
        gaps += [following[0] - before[-1] for before, following in pairwise(timed.times)]
    kept, dropped, vain = [], [], []
    with AuditLog(db) as audit:
        for run in ids:
            judged = {e.thought: e.body for e in audit.events(run) if e.kind == "judged"}
            for event in audit.events(run):
                if event.kind == "backed_up":
                    kept.append(event.body["token"])
                    dropped.append(event.body["discarded"])
                    vain.append(judged[event.thought]["spent_after"])
    step = statistics.median(steps)
    return {
        "back_ups": len(gaps),
        "back_up_ms": 1e3 * (statistics.median(gaps) - step),
        "back_up_tokens_dropped": statistics.fmean(dropped),
        "back_up_tokens_in_vain": statistics.fmean(vain),
        "tokens_that_stayed": statistics.fmean(kept),
    }


async def measure_weighing(timed: Timed, ledger: Ledger, runs: int) -> dict[str, float]:
    """Milliseconds for a thought whose sentences are weighed at its end, or as they finish."""
    flag = {"tag": "deceit", "reading": "posterior", "at": 1.0, "action": "flag"}
    agent = Agent("desk", generate(document), sampling=SAMPLING)
    policies = {
        "unweighed": {"rules": []},
        "weighed_at_the_end": {"rules": [flag]},
        "weighed_in_the_stream": {"rules": [flag | {"action": "prune"}]},
    }
    took: dict[str, list[float]] = {name: [] for name in policies}
    for seed in range(runs):
        for name, more in policies.items():
            policy = Policy.model_validate({"name": name, "tags": BANNED} | more)
            began = time.perf_counter()
            await agent.run(TASK, policy=policy, engine=timed, ledger=ledger, seed=seed)
            took[name].append(time.perf_counter() - began)
    return {f"thought_{name}_ms": 1e3 * statistics.median(times) for name, times in took.items()}


async def measure(engine: str, model: str, runs: int) -> dict[str, float]:
    """Both, on one engine."""
    timed = Timed(open_engine(engine, model))
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "bench.db"
        async with Ledger.open(db) as ledger:
            figures = await measure_switch(timed, ledger, runs)
            figures |= await measure_back_up(timed, ledger, db, runs)
            figures |= await measure_weighing(timed, ledger, runs)
    await timed.aclose()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="local", help="local, or a server's address")
    parser.add_argument("--model", default="seedling")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.engine, given.model, given.runs))
    table = Table("what", given.engine, box=None, pad_edge=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}")
    Console().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
