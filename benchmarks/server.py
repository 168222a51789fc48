"""What gating costs on a vLLM server, and what it saves.

    python benchmarks/server.py [--engine URL] [--quick] [--json FILE]

Without ``--engine`` a server of the shipped model is started here, and stopped at the end. What is
compared takes turns in one run, and each ratio is the median over rounds of two neighbours:

* the same requests without the temptations, on a bare client; with them on a bare client; through
  the engine; through engine and gate; and through the ``openai`` client's typed stream. The end of
  the document and all tags are forbidden in all of them, so that the same tokens are generated;
* the ops desk under pressure, cut in the stream, or with each thought generated to its end first;
* a graph of 64 thoughts, ledger and verdicts included, against its own requests fired at once.

What one switch of controls and one back-up cost: ``python benchmarks/steering.py --engine URL``.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
from rich.console import Console
from rich.table import Table

from secateur.agents.budget import Budget
from secateur.agents.desk.agent import opsdesk
from secateur.agents.desk.grammar import task_line
from secateur.agents.plans.words import generate
from secateur.agents.prompt import Sampling, Special, Text
from secateur.agents.thought import Scene
from secateur.gates.control import BAN, BAN_BIAS
from secateur.gates.gate import StreamGate
from secateur.gates.policy import Policy
from secateur.pretraining.corpus.desk import draw_task
from secateur.pretraining.corpus.pressure import Split, draw_context
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Request, Token
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.serving.launch import plan_launch
from secateur.runtime.engines.vllm.serving.server import VllmServer
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.settings import Settings

TASK = "restart web and confirm it is up"
GRAPH = 64
AT_ONCE = 16
TEMPTATIONS = ("logprobs", "logprob_token_ids", "return_tokens_as_token_ids", "stop_token_ids")
"""What the engine asks for beyond the tokens themselves."""
WHOLE_PROMPTS = ("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192")
"""On a CPU, vLLM 0.32 dies of a seeded request whose prompt is read in two steps."""
Reader = Callable[[int], Awaitable[int]]
"""Generates once with a seed, and says how many tokens came."""


class Endless(VLLMEngine):
    """The engine with the end of the document forbidden; keeps the requests that it sends."""

    sent: list[dict[str, Any]]

    def _generation(self, *given: Any) -> dict[str, Any]:
        body = super()._generation(*given)
        body["logit_bias"] |= {str(id_): BAN_BIAS for id_ in self._eos}
        self.sent.append(body)
        return body


class Patient(VLLMEngine):
    """The engine for a gate that waits: each generation is finished before anyone reads it."""

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        for token in [token async for token in super().stream(request)]:
            yield token


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    tokens: int
    """Of each generation."""
    tasks: int


@dataclass(frozen=True, slots=True)
class Timing:
    """One round of one way of reading."""

    tokens: int
    seconds: float
    cpu: float
    """Seconds of this process."""


async def read_bare(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> int:
    """aiohttp and orjson alone, nothing checked: tokens of one streamed completion."""
    tokens, rest = 0, b""
    headers = {"content-type": "application/json"}
    async with session.post(
        f"{url}/v1/completions", data=orjson.dumps(body), headers=headers
    ) as reply:
        reply.raise_for_status()
        while data := await reply.content.readany():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if not event.endswith(b"[DONE]"):
                    tokens += len(orjson.loads(event[6:])["choices"][0]["token_ids"])
    return tokens


async def read_typed(client: openai.AsyncOpenAI, body: dict[str, Any]) -> int:
    """The ``openai`` client: tokens of one streamed completion."""
    more = {key: value for key, value in body.items() if key not in ("model", "prompt", "stream")}
    stream = await client.completions.create(
        model=body["model"], prompt=body["prompt"], stream=True, extra_body=more
    )
    tokens = 0
    async for chunk in stream:
        tokens += len((chunk.choices[0].model_extra or {})["token_ids"])
    return tokens


async def timed(read: Reader, streams: int, seed: int) -> Timing:
    """That many generations at once, from the first request to the last token."""
    began, worked = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(*(read(seed + place) for place in range(streams)))
    return Timing(sum(counts), time.perf_counter() - began, time.process_time() - worked)


async def measure_streams(
    engine: Endless, url: str, session: aiohttp.ClientSession, streams: int, size: Size
) -> dict[str, list[Timing]]:
    """Each way of reading ``streams`` streams, in turns; timings per round."""
    vocabulary = engine.info.vocabulary
    policy = Policy.load("observe", vocabulary.vocabulary)
    prompt = tuple(engine.encode([Special(engine.info.bos or ""), Text(task_line(TASK) + "\n")]))
    sampling = Sampling(temperature=1.0, max_tokens=size.tokens, stop=())
    banned = {tag.name: BAN for tag in vocabulary.vocabulary.tags}

    async def read(seed: int, gate: StreamGate | None = None) -> int:
        tokens = 0
        async for token in engine.stream(Request(prompt, sampling, seed, banned)):
            tokens += 1
            if gate is not None and gate.feed(token) is not None:
                raise AssertionError("a policy that only flags has stopped a generation")
        return tokens

    engine.sent = []
    await read(0)
    full = engine.sent[0]
    plain = {key: value for key, value in full.items() if key not in TEMPTATIONS}
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ways: dict[str, Reader] = {
        "ungated": lambda seed: read_bare(session, url, plain | {"seed": seed}),
        "gated": lambda seed: read(seed, StreamGate(policy, vocabulary)),
    }
    if streams == GRAPH:
        ways |= {
            "bare": lambda seed: read_bare(session, url, full | {"seed": seed}),
            "engine": read,
            "openai": lambda seed: read_typed(client, full | {"seed": seed}),
        }
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for round_ in range(size.rounds):
        order = list(ways) if round_ % 2 == 0 else list(reversed(ways))
        for name in order:
            timings[name].append(await timed(ways[name], streams, 1000 * round_))
    await client.close()
    for name, rounds in timings.items():
        short = [t.tokens for t in rounds if t.tokens != streams * size.tokens]
        if short:
            raise AssertionError(f"{name} generated {short[0]} tokens, not {streams * size.tokens}")
    return timings


async def run_desk(engine: VLLMEngine, ledger: Ledger, folder: Path, tasks: int) -> list[RunResult]:
    """The ops desk under pressure and the policy ``prune``; the same tasks and seeds each time."""
    policy = Policy.load("prune", engine.info.vocabulary.vocabulary)
    places = asyncio.Semaphore(AT_ONCE)

    async def run_one(number: int) -> RunResult:
        rng = random.Random(f"server/{number}")
        text = draw_context(rng, True, Split.SENTENCES).before(draw_task(rng).text)
        async with places:
            return await Agent.of(opsdesk).run(
                text,
                policy=policy,
                engine=engine,
                ledger=ledger,
                seed=number,
                sandbox=folder / str(number),
            )

    return await asyncio.gather(*map(run_one, range(tasks)))


async def measure_saving(url: str, ledger: Ledger, folder: Path, size: Size) -> dict[str, Any]:
    """Tokens of the ops desk under pressure with cuts in the stream, and after whole thoughts."""
    totals: dict[str, Any] = {}
    for name, kind in (("stream", VLLMEngine), ("whole", Patient)):
        engine = kind.connect(url)
        results = await run_desk(engine, ledger, folder / name, size.tasks)
        await engine.aclose()
        cut = [thought for result in results for thought in result.pruned]
        totals[name] = {
            "generated": sum(result.tokens + result.spent_after for result in results),
            "spent after": sum(result.spent_after for result in results),
            "cuts": len(cut),
            "in cut branches": sum(thought.tokens + thought.spent_after for thought in cut),
        }
    return totals


async def measure_graph(
    engine: Endless, url: str, session: aiohttp.ClientSession, ledger: Ledger, size: Size
) -> list[tuple[float, float]]:
    """Seconds of a graph of 64 thoughts, and of its requests on the bare client; per round."""

    def document(scene: Scene) -> str:
        return task_line(scene.task) + "\n"

    tags = {tag.name: {"control": "ban"} for tag in engine.info.vocabulary.vocabulary.tags}
    policy = Policy.model_validate({"name": "bench", "tags": tags})
    sampling = Sampling(temperature=1.0, max_tokens=size.tokens, stop=())
    agent = Agent(
        "graph", generate(document, n=GRAPH), sampling=sampling, budget=Budget(in_flight=GRAPH)
    )
    pairs: list[tuple[float, float]] = []
    for seed in range(size.rounds):
        engine.sent = []
        began = time.perf_counter()
        result = await agent.run(TASK, policy=policy, engine=engine, ledger=ledger, seed=seed)
        graph = time.perf_counter() - began
        bodies = engine.sent
        if not (result.tokens == GRAPH * size.tokens and len(bodies) == GRAPH):
            raise AssertionError(f"{result.tokens} tokens in {len(bodies)} requests")
        began = time.perf_counter()
        await asyncio.gather(*(read_bare(session, url, body) for body in bodies))
        pairs.append((graph, time.perf_counter() - began))
    return pairs


def ratio(over: list[Timing], under: list[Timing]) -> float:
    """Median over rounds of how fast ``over`` is against ``under``."""
    pairs = zip(over, under, strict=True)
    return statistics.median(b.seconds / a.seconds for a, b in pairs)


def show_streams(console: Console, streams: int, timings: dict[str, list[Timing]]) -> None:
    """Speed of each way of reading, its ratio to the ungated one, and our CPU."""
    table = Table(
        f"{streams} streams",
        "tokens/s",
        "against ungated",
        "our CPU, us a token",
        box=None,
        pad_edge=False,
    )
    for name, rounds in timings.items():
        table.add_row(
            name,
            f"{statistics.median(t.tokens / t.seconds for t in rounds):.1f}",
            f"{ratio(rounds, timings['ungated']):.3f}",
            f"{statistics.median(1e6 * t.cpu / t.tokens for t in rounds):.1f}",
        )
    console.print(table)


async def measure(url: str, size: Size) -> dict[str, Any]:
    """Everything on one server, printed as it is known."""
    console = Console(width=100)
    engine = Endless.connect(url)
    assert isinstance(engine, Endless)
    figures: dict[str, Any] = {}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=2**20,
    ) as session:
        with tempfile.TemporaryDirectory() as name:
            async with Ledger.open(Path(name) / "bench.db") as ledger:
                for streams in (1, 16, GRAPH):
                    timings = await measure_streams(engine, url, session, streams, size)
                    show_streams(console, streams, timings)
                    figures[f"streams_{streams}"] = {
                        way: [(t.tokens, t.seconds, t.cpu) for t in rounds]
                        for way, rounds in timings.items()
                    }
                pairs = await measure_graph(engine, url, session, ledger, size)
                slower = statistics.median(graph / bare for graph, bare in pairs)
                seconds = [f"{statistics.median(side):.1f} s" for side in zip(*pairs, strict=True)]
                console.print(f"graph of {GRAPH}: {seconds[0]}, bare {seconds[1]}, x{slower:.3f}")
                saved = await measure_saving(url, ledger, Path(name), size)
                table = Table(
                    f"{size.tasks} pressed tasks", *saved["stream"], box=None, pad_edge=False
                )
                for way, totals in saved.items():
                    table.add_row(way, *map(str, totals.values()))
                console.print(table)
                figures |= {"graph_and_bare_s": pairs, "saving": saved}
    await engine.aclose()
    return figures


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", help="a server's address; without it one is started")
    parser.add_argument("--quick", action="store_true", help="few rounds, short generations")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    size = Size(rounds=5, tokens=32, tasks=24) if given.quick else Size(9, 256, 60)
    with ExitStack() as held:
        url = given.engine
        if url is None:
            python = Settings().vllm_python
            plan = plan_launch("seedling", port=free_port(), python=python, extra=WHOLE_PROMPTS)
            server = held.enter_context(VllmServer.start(plan))
            server.wait_ready(progress=print)
            url = server.url
        figures = asyncio.run(measure(url.rstrip("/"), size))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
