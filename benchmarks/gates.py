"""What gating does to the ops desk: misbehaviour, success and cost of the three shipped policies.

    python benchmarks/gates.py [--tasks 240] [--sentences held-out|seen] [--json FILE]

Every task runs under each policy in turn, interleaved, each time in a fresh sandbox. Misbehaviour
and success are judged by the oracle on what stands in the sandbox (journal, access, outbox), never
on the tags. Pressure sentences are those that were held out of training whole, or those seen in it.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from secateur.agents.desk.aftermath import judge_sandbox
from secateur.agents.desk.agent import opsdesk
from secateur.agents.thought import Status
from secateur.gates.policy import Policy
from secateur.pretraining.corpus.desk import draw_task
from secateur.pretraining.corpus.pressure import Split, draw_context
from secateur.pretraining.evaluation.measures import Rate
from secateur.runtime.agent import Agent
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.ledger.ledger import Ledger

POLICIES = ("observe", "prune", "strict")
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run, judged."""

    policy: str
    pressed: bool
    unsafe: bool
    success: bool
    finished: bool
    tokens: int
    cut_tokens: int
    """Tokens in branches that were cut or failed."""
    cuts: int
    regrown: bool
    seconds: float


def task_text(split: Split, pressed: bool, seed: int) -> str:
    """A task with the sentences before it."""
    rng = random.Random(f"gates/{pressed}/{seed}")
    return draw_context(rng, pressed, split).before(draw_task(rng).text)


async def run_one(
    engine: LocalEngine,
    ledger: Ledger,
    policy: Policy,
    text: str,
    pressed: bool,
    seed: int,
    folder: Path,
) -> Outcome:
    """One task under one policy in its own sandbox."""
    sandbox = folder / f"{policy.name}-{pressed}-{seed}"
    result = await Agent.of(opsdesk).run(
        text, policy=policy, engine=engine, ledger=ledger, seed=seed, sandbox=sandbox
    )
    after = judge_sandbox(sandbox)
    lost = [t for t in result.thoughts if t.status in (Status.PRUNED, Status.FAILED)]
    per_parent: dict[tuple[str, ...], int] = {}
    for thought in result.thoughts:
        if thought.kind == "generate":
            per_parent[thought.parents] = per_parent.get(thought.parents, 0) + 1
    return Outcome(
        policy=policy.name,
        pressed=pressed,
        unsafe=after.unsafe,
        success=after.success,
        finished=result.status.value == "done",
        tokens=result.tokens,
        cut_tokens=sum(thought.tokens for thought in lost),
        cuts=len(result.pruned),
        regrown=max(per_parent.values(), default=0) > 4,
        seconds=result.seconds,
    )


async def measure(tasks: int, split: Split, seed: int) -> tuple[list[Outcome], float]:
    """All outcomes, and the seconds that they took together."""
    engine = LocalEngine.load("seedling")
    places = asyncio.Semaphore(AT_ONCE)
    policies = [Policy.load(name, engine.info.vocabulary.vocabulary) for name in POLICIES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Ledger.open(folder / "bench.db") as ledger:

            async def one(policy: Policy, pressed: bool, number: int) -> Outcome:
                text = task_text(split, pressed, number)
                async with places:
                    return await run_one(engine, ledger, policy, text, pressed, number, folder)

            began = time.monotonic()
            running = [
                asyncio.ensure_future(one(policy, pressed, seed * 100_000 + number))
                for number in range(tasks)
                for pressed in (True, False)
                for policy in policies
            ]
            console = Console(stderr=True)
            outcomes = [await task for task in track(running, "ops desk", console=console)]
            took = time.monotonic() - began
    await engine.aclose()
    return outcomes, took


def percent(rate: Rate) -> str:
    """``1.2 (0.5-3.0)``: the rate and its interval, in percent."""
    low, high = rate.interval
    return f"{100 * rate.value:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def table(outcomes: list[Outcome]) -> Table:
    """Misbehaviour, success and cost, by pressure and policy, with Wilson 95 % intervals."""
    drawn = Table(
        "", "policy", "tasks", "unsafe %", "success %", "finished %", "regrown %", "cuts",
        "tokens", "lost", "against observe", box=None, pad_edge=False,
    )  # fmt: skip
    for pressed in (True, False):
        base = 0.0
        for policy in POLICIES:
            rows = [o for o in outcomes if o.policy == policy and o.pressed is pressed]
            n = len(rows)
            tokens = sum(o.tokens for o in rows) / n
            base = base or tokens
            drawn.add_row(
                "pressed" if pressed else "calm",
                policy,
                str(n),
                percent(Rate(sum(o.unsafe for o in rows), n)),
                percent(Rate(sum(o.success for o in rows), n)),
                percent(Rate(sum(o.finished for o in rows), n)),
                percent(Rate(sum(o.regrown for o in rows), n)),
                f"{sum(o.cuts for o in rows) / n:.2f}",
                f"{tokens:.1f}",
                f"{sum(o.cut_tokens for o in rows) / n:.1f}",
                f"x{tokens / base:.2f}",
            )
    return drawn


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=240, help="tasks per policy and pressure")
    parser.add_argument("--sentences", choices=["held-out", "seen"], default="held-out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every outcome there")
    given = parser.parse_args()
    split = Split.TRAIN if given.sentences == "seen" else Split.SENTENCES
    outcomes, took = asyncio.run(measure(given.tasks, split, given.seed))
    Console(width=140).print(table(outcomes))
    print("In percent with Wilson 95 % intervals; cuts, tokens and lost tokens are means a task.")
    print(f"{len(outcomes)} runs in {took:.0f} s, {AT_ONCE} at once")
    if given.json is not None:
        given.json.write_text("\n".join(json.dumps(asdict(o)) for o in outcomes) + "\n")


if __name__ == "__main__":
    main()
