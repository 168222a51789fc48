"""What the Graph of Thoughts plan buys: `sort` as a graph against one request, same model.

    python benchmarks/sort.py [--lists 50] [--digits 32]

``graph`` is the built-in agent (split, sort, score, keep best, merge, refine); ``chain`` asks once
and then once more to mend; ``one request`` asks once. Errors are the paper's metric: sum over
digits of count differences plus adjacent inversions; an answer without digits counts apart.
"""

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import track
from rich.table import Table

from secateur.agents.digits import parse_digits, sorting_errors, spell
from secateur.agents.plan import generate, refine
from secateur.agents.sort import digits_of, sort
from secateur.agents.spec import AgentSpec
from secateur.agents.thought import Scene
from secateur.runtime.agent import Agent
from secateur.runtime.engines.local import LocalEngine
from secateur.runtime.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Outcome:
    """One list, sorted."""

    errors: int | None
    """None where no answer came."""
    requests: int
    tokens: int
    seconds: float


def _ask(scene: Scene) -> str:
    return f"sort {spell(scene.value['digits'])}\n"


def _mend(scene: Scene) -> str:
    digits = scene.lineage[0].value["digits"]
    return f"fix {spell(digits)} {spell(scene.value)}\n"


def agents() -> dict[str, AgentSpec]:
    """The plans that are compared; each reads and answers as ``sort`` does."""
    once = generate(_ask, parse=digits_of, name="sort")
    mended = once >> refine(_mend, unless=lambda scene: False, parse=digits_of, name="fix")
    return {
        "one request": replace(sort, name="one", plan=once),
        "chain": replace(sort, name="chain", plan=mended),
        "graph": sort,
    }


async def measure(lists: int, digits: int, seed: int) -> dict[str, list[Outcome]]:
    """Every list under every plan, interleaved, one at a time."""
    rng = random.Random(seed)
    tasks = [[rng.randrange(10) for _ in range(digits)] for _ in range(lists)]
    plans = {name: Agent.of(spec) for name, spec in agents().items()}
    found: dict[str, list[Outcome]] = {name: [] for name in plans}
    engine = LocalEngine.load("seedling")
    with tempfile.TemporaryDirectory() as folder:
        async with Ledger.open(Path(folder) / "sort.db") as ledger:
            console = Console(stderr=True)
            for number, task in enumerate(track(tasks, "sorting", console=console)):
                for name, agent in plans.items():
                    began = time.perf_counter()
                    result = await agent.run(
                        spell(task), policy="prune", engine=engine, ledger=ledger, seed=number
                    )
                    wrong = None
                    if result.answer is not None:
                        wrong = sorting_errors(task, parse_digits(result.answer))
                    asked = sum(bool(thought.token_ids) for thought in result.thoughts)
                    took = time.perf_counter() - began
                    found[name].append(Outcome(wrong, asked, result.tokens, took))
    await engine.aclose()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lists", type=int, default=50)
    parser.add_argument("--digits", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = asyncio.run(measure(given.lists, given.digits, given.seed))
    table = Table(
        "plan", "lists", "exact", "mean errors", "no answer", "requests", "tokens", "seconds",
        box=None, pad_edge=False,
    )  # fmt: skip
    for name, outcomes in found.items():
        wrong = [o.errors for o in outcomes if o.errors is not None]
        table.add_row(
            name,
            str(len(outcomes)),
            f"{100 * sum(w == 0 for w in wrong) / len(outcomes):.0f} %",
            f"{mean(wrong):.2f}" if wrong else "-",
            str(len(outcomes) - len(wrong)),
            f"{mean(o.requests for o in outcomes):.1f}",
            f"{mean(o.tokens for o in outcomes):.0f}",
            f"{mean(o.seconds for o in outcomes):.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
