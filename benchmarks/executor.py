"""What the executor costs, and what it saves: the same graph on four executors.

    python benchmarks/executor.py [--quick] [--json FILE]

The engine stands behind the Engine protocol and answers after a set delay: a model would only add
its own noise to what is measured here, which is everything around it. Every thought of ours is
gated, and recorded in a ledger on SQLite (synchronous=FULL) before it is acted upon.

``ours``: Secateur, ledger included. ``sequential``: one operation at a time in topological order,
as the controller of the Graph of Thoughts paper's code. ``send``: LangGraph 1.x with a ``Send`` for
each thought and ``InMemorySaver`` (checkpoints in memory: nothing is durable). ``asyncio``: plain
coroutines, the floor: no gate, no record, no checkpoint.
"""

import argparse
import asyncio
import gc
import json
import operator
import os
import platform
import resource
import tempfile
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypedDict

from rich.console import Console
from rich.table import Table

from secateur import Agent, Budget, Ledger, Policy, Sampling, Vocabulary
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.words import generate, keep_best, operation, repeat, score, split
from secateur.agents.prompt import Piece, Special, Text
from secateur.agents.thought import Scene
from secateur.gates.evidence import Evidence
from secateur.gates.vocabulary import BoundVocabulary
from secateur.runtime.engines.protocol import EngineInfo, Request, Token

UNLIMITED = Budget(tokens=None, thoughts=None, seconds=None, in_flight=None)
POLICY = Policy.from_yaml("""
name: benchmark
rules:
  - {tag: deceit, reading: opened, at: 0.90, action: prune}
""")


@dataclass(frozen=True, slots=True)
class Shape:
    """``chains`` chains of ``levels`` thoughts, from one root; no thought waits for a sister."""

    chains: int
    levels: int
    delay: float
    """Seconds that a thought takes."""
    slow: float = 1.0
    """One chain at each level takes so many times longer: chain i at level i."""

    def takes(self, chain: int, level: int) -> float:
        """Seconds for one thought."""
        return self.delay * (self.slow if chain == level else 1.0)

    @property
    def critical(self) -> float:
        """Seconds of the longest chain: nothing can be faster."""
        return max(
            sum(self.takes(chain, level) for level in range(self.levels))
            for chain in range(self.chains)
        )

    @property
    def thoughts(self) -> int:
        return self.chains * self.levels


class Timed:
    """An engine that answers each prompt ``chain level`` after that thought's delay."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        vocabulary = Vocabulary.model_validate(
            {
                "name": "timed",
                "tags": [
                    {
                        "name": "deceit",
                        "scheme": "span",
                        "open": "<|deceit|>",
                        "close": "<|/deceit|>",
                    }
                ],
            }
        )
        self.info = EngineInfo(
            engine="timed",
            model="timed",
            model_digest="0" * 64,
            tokenizer_digest="0" * 64,
            vocabulary=BoundVocabulary(vocabulary, {"<|deceit|>": 256, "<|/deceit|>": 257}),
            context_length=10**6,
        )

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """One id for each byte."""
        text = "".join(p.text if isinstance(p, Text) else "" for p in pieces)
        assert not any(isinstance(piece, Special) for piece in pieces)
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The other way round."""
        return bytes(ids).decode()

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        """One token, when the time is up."""
        chain, level = map(int, self.decode(request.prompt).split())
        delay = self.shape.takes(chain, level)
        if delay:
            await asyncio.sleep(delay)
        request.usage.generated = 1
        yield Token(10, f"{chain} {level + 1}", -0.1, (-6.0,), None, "stop")

    async def annotate(self, ids: Sequence[int]) -> Evidence:
        raise NotImplementedError("the benchmark's policies annotate nothing")

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        raise NotImplementedError("the benchmark's policies weigh no posterior")

    async def aclose(self) -> None:
        """Nothing to let go of."""


def chains_of(count: int) -> Callable[[Scene], list[tuple[str, Any]]]:
    """A root cut into so many chains."""
    return lambda scene: [(f"{chain} 0", None) for chain in range(count)]


def plan_of(shape: Shape) -> Plan:
    """The shape as a plan: each thought starts as soon as the one above it is there."""
    plan: Plan = split(chains_of(shape.chains), name="chains")
    for _ in range(shape.levels):
        plan = plan >> generate("{text}", name="think")
    return plan


# The executors. Each runs the shape once and returns when it is through.


async def ours(shape: Shape, ledger: Ledger) -> None:
    """Secateur, each step recorded."""
    agent = agent_of(plan_of(shape))
    result = await agent.run("go", policy=POLICY, engine=Timed(shape), ledger=ledger)
    assert len(result.kept) == shape.chains, result.reason


def agent_of(plan: Plan) -> Agent:
    """An agent without limits."""
    return Agent("bench", plan, budget=UNLIMITED, sampling=Sampling(max_tokens=4))


async def asked(shape: Shape, chain: int, level: int) -> None:
    """What the other executors do for a thought: read the engine's one token."""
    engine = Timed(shape)
    prompt = tuple(engine.encode([Text(f"{chain} {level}")]))
    async for _ in engine.stream(Request(prompt, Sampling(max_tokens=4), 0)):
        pass


async def sequential(shape: Shape, ledger: Ledger) -> None:
    """One operation at a time, in topological order."""
    for level in range(shape.levels):
        for chain in range(shape.chains):
            await asked(shape, chain, level)


async def plain(shape: Shape, ledger: Ledger) -> None:
    """The floor: a coroutine for each chain."""

    async def chain_of(chain: int) -> None:
        for level in range(shape.levels):
            await asked(shape, chain, level)

    await asyncio.gather(*map(chain_of, range(shape.chains)))


class Sent(TypedDict):
    """What a LangGraph task gets."""

    chain: int
    level: int


class Graph(TypedDict):
    """What LangGraph keeps: the thoughts of the run."""

    done: Annotated[list[tuple[int, int]], operator.add]


async def send(shape: Shape, ledger: Ledger) -> None:
    """A ``Send`` for each thought: a superstep for each level."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph
    from langgraph.types import Send

    async def think(state: Sent) -> dict[str, list[tuple[int, int]]]:
        await asked(shape, state["chain"], state["level"])
        return {"done": [(state["chain"], state["level"] + 1)]}

    def spread(state: Graph) -> list[Send] | str:
        newest = state["done"][-shape.chains :] or [(c, 0) for c in range(shape.chains)]
        if newest[0][1] == shape.levels:
            return "end"
        return [Send("think", {"chain": chain, "level": level}) for chain, level in newest]

    graph: Any = StateGraph(Graph)
    graph.add_node("think", think)
    graph.add_node("join", lambda state: {})
    graph.add_node("end", lambda state: {})
    graph.add_conditional_edges(START, spread, ["think", "end"])
    graph.add_edge("think", "join")
    graph.add_conditional_edges("join", spread, ["think", "end"])
    app = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "x"}, "recursion_limit": 2 * shape.levels + 10}
    final = await app.ainvoke({"done": []}, config)
    assert len(final["done"]) == shape.thoughts


EXECUTORS: dict[str, Callable[[Shape, Ledger], Awaitable[None]]] = {
    "ours": ours,
    "sequential": sequential,
    "send": send,
    "asyncio": plain,
}


@dataclass(frozen=True, slots=True)
class Race:
    """One executor on one shape; medians over the rounds."""

    shape: str
    executor: str
    thoughts: int
    critical_s: float
    seconds: float
    cpu_us: float
    """CPU time per thought, of the whole process."""

    @property
    def ratio(self) -> float:
        """Times the critical path."""
        return self.seconds / self.critical_s if self.critical_s else float("nan")


async def measure(name: str, shape: Shape, executor: str, rounds: int) -> Race:
    """The medians of several rounds, each on an open ledger of its own."""
    seconds: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            async with Ledger.open(Path(folder) / "x.db") as ledger:
                gc.collect()
                began, busy = time.perf_counter(), time.process_time()
                await EXECUTORS[executor](shape, ledger)
                seconds.append(time.perf_counter() - began)
                cpu.append(time.process_time() - busy)
    return Race(
        shape=name,
        executor=executor,
        thoughts=shape.thoughts,
        critical_s=shape.critical,
        seconds=median(seconds),
        cpu_us=median(cpu) / shape.thoughts * 1e6,
    )


# What a thought costs as the graph grows


@dataclass(frozen=True, slots=True)
class Growth:
    """A graph of no-op thoughts."""

    kind: str
    thoughts: int
    seconds: float
    cpu_us: float
    """CPU time per thought, the ledger's writer thread included."""
    memory_kb: float
    """Memory per thought at the run's end, as tracemalloc sees it, with the thoughts themselves."""


def wide(count: int) -> Plan:
    """So many thoughts of a function, side by side under one root, scored, and the best kept."""
    mark = operation(lambda scene: scene.text, name="mark")
    scored = score(lambda scene: float(len(scene.text)), name="length")
    return split(chains_of(count), name="spread") >> mark >> scored >> keep_best(1)


def deep(count: int) -> Plan:
    """So many thoughts of a function, each below the one before."""
    mark = operation(lambda scene: scene.text, name="mark")
    return repeat(mark, until=lambda thought: False, at_most=count)


def modelled(count: int) -> Plan:
    """So many gated thoughts of a model that answers at once."""
    return split(chains_of(count), name="spread") >> generate("{text}", name="think")


async def noop(kind: str, count: int) -> Growth:
    """One run with a ledger on SQLite, and another one under tracemalloc."""
    plans = {"function, wide": wide, "function, deep": deep, "model, wide": modelled}

    agent, engine = agent_of(plans[kind](count)), Timed(Shape(count, 1, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        async with Ledger.open(Path(folder) / "x.db") as ledger:
            gc.collect()
            began, busy = time.perf_counter(), time.process_time()
            result = await agent.run("go", policy=POLICY, engine=engine, ledger=ledger)
            seconds, cpu = time.perf_counter() - began, time.process_time() - busy
            made = len(result.thoughts)
            result = None
            gc.collect()
            tracemalloc.start()
            result = await agent.run("go", policy=POLICY, engine=engine, ledger=ledger)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert len(result.thoughts) == made
    return Growth(kind, made, seconds, cpu / made * 1e6, held / made / 1024)


async def benchmark(quick: bool) -> tuple[list[Race], list[Growth]]:
    """Everything, one after the other."""
    delay = 0.1 if quick else 0.5
    width, levels = (8, 6) if quick else (8, 10)
    shapes = {
        "free chains": Shape(width, levels, delay),
        "one straggler a level (10x)": Shape(width, levels, delay, slow=10.0),
        "no-op thoughts": Shape(100 if quick else 1_000, 5, 0.0),
    }
    for executor in EXECUTORS:  # the first run imports and compiles what later ones share
        await measure("warm-up", Shape(2, 2, 0.0), executor, 1)
    races: list[Race] = []
    for name, shape in shapes.items():
        for executor in EXECUTORS:
            rounds = 1 if executor == "sequential" or quick else 3
            races.append(await measure(name, shape, executor, rounds))
    counts = (10, 100, 1_000) if quick else (10, 100, 1_000, 10_000)
    growths = [
        await noop(kind, count)
        for kind in ("function, wide", "function, deep", "model, wide")
        for count in counts
    ]
    return races, growths


def show(races: Sequence[Race], growths: Sequence[Growth]) -> None:
    """Two tables."""
    console = Console(width=110)
    table = Table(
        "graph", "executor", "thoughts", "critical path s", "seconds", "x critical path",
        "CPU us/thought", "ours is faster by", box=None, pad_edge=False,
    )  # fmt: skip
    for race in races:
        mine = next(r for r in races if r.shape == race.shape and r.executor == "ours")
        table.add_row(
            race.shape,
            race.executor,
            str(race.thoughts),
            f"{race.critical_s:.2f}",
            f"{race.seconds:.3f}",
            f"{race.ratio:.3f}" if race.critical_s else "-",
            f"{race.cpu_us:.0f}",
            f"{race.seconds / mine.seconds:.2f}x",
        )
    console.print(table)
    console.print()
    grown = Table(
        "no-op thoughts, ledger on SQLite", "thoughts", "seconds", "CPU us/thought", "KB/thought",
        box=None, pad_edge=False,
    )  # fmt: skip
    for growth in growths:
        grown.add_row(
            growth.kind,
            str(growth.thoughts),
            f"{growth.seconds:.3f}",
            f"{growth.cpu_us:.0f}",
            f"{growth.memory_kb:.1f}",
        )
    console.print(grown)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"\npeak memory of the whole benchmark: {peak:.0f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller graphs, one round")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    given = parser.parse_args()
    races, growths = asyncio.run(benchmark(given.quick))
    show(races, growths)
    if given.json is not None:
        found = {
            "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
            "races": [asdict(race) for race in races],
            "growths": [asdict(growth) for growth in growths],
        }
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
