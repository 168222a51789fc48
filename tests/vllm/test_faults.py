"""What a server, or the way to it, can do wrong: retried where that is safe, else failed closed."""

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from secateur.agents.loading import load_agent
from secateur.agents.prompt import Sampling, Special, Text
from secateur.agents.thought import Status
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Engine, EngineError, Request, Token
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.serving.launch import LaunchPlan
from secateur.runtime.engines.vllm.serving.server import VllmServer
from secateur.runtime.engines.vllm.wire import Patience
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.tests.vllm.proxy import Event, Proxy

TASK = "restart web and confirm it is up."
TOKENS = 24
DEADLINE_S = 120
"""No fault may hang: far more than any of them needs."""


@pytest.fixture
async def proxy(vllm_server: VllmServer) -> AsyncIterator[Proxy]:
    async with Proxy(vllm_server.url) as running:
        yield running


async def connect(url: str, stall_s: float = 10.0) -> Engine:
    """An engine that is sooner out of patience than the default; the proxy runs in our own loop."""
    patience = Patience(stall_s=stall_s, pause_s=0.01)
    return await asyncio.to_thread(VLLMEngine.connect, url, "seedling", patience=patience)


@pytest.fixture
async def engine(proxy: Proxy) -> AsyncIterator[Engine]:
    """The engine over the proxy, which spoils nothing yet."""
    opened = await connect(proxy.url)
    yield opened
    await opened.aclose()


def request(engine: Engine, tokens: int = TOKENS) -> Request:
    prompt = engine.encode([Special("<|bos|>"), Text(f"task: {TASK}\n")])
    return Request(tuple(prompt), Sampling(0.7, 1.0, tokens, ()), seed=5)


async def generate(
    engine: Engine, tokens: int = TOKENS, into: list[Token] | None = None
) -> list[Token]:
    """What comes of one request; ``into`` keeps the tokens that came before an error."""
    found: list[Token] = [] if into is None else into
    async with asyncio.timeout(DEADLINE_S), aclosing(engine.stream(request(engine, tokens))) as s:
        async for token in s:
            found.append(token)
    return found


async def fails(engine: Engine, tokens: int = TOKENS) -> tuple[str, list[Token]]:
    """The one line that a request fails with, and the tokens before it."""
    before: list[Token] = []
    with pytest.raises(EngineError) as caught:
        await generate(engine, tokens, before)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(math.isnan(value) for token in before for value in token.belief)
    return said, before


def at(count: int, change: Callable[[Event], Any]) -> Callable[[int, Event], Event]:
    """Spoil one event of a stream, and all after it."""

    def spoil(number: int, event: Event) -> Event:
        if number >= count:
            change(event)
        return event

    return spoil


def without_logprobs(event: Event) -> None:
    event["choices"][0]["logprobs"] = None


def with_nan(event: Event) -> None:
    event["choices"][0]["logprobs"]["top_logprobs"][0]["token_id:3"] = math.nan


def without_a_tag(event: Event) -> None:
    del event["choices"][0]["logprobs"]["top_logprobs"][0]["token_id:5"]


def without_choices(event: Event) -> None:
    del event["choices"]


def with_two_rows_for_one_token(event: Event) -> None:
    event["choices"][0]["logprobs"]["top_logprobs"] *= 2


def from_another_model(event: Event) -> None:
    event["model"] = "another"


SPOILED = [
    without_logprobs,
    with_nan,
    without_a_tag,
    without_choices,
    with_two_rows_for_one_token,
    from_another_model,
]


async def test_a_busy_server_is_asked_again_and_the_answer_is_the_same(
    engine: Engine, proxy: Proxy
) -> None:
    calm = await generate(engine)
    proxy.refusals, proxy.asked = [429, 503, 500], []
    again = await generate(engine)
    assert [token.id for token in again] == [token.id for token in calm]
    assert len(proxy.asked) == 4
    assert proxy.asked[0] == proxy.asked[-1]


async def test_a_server_that_stays_busy_is_given_up(engine: Engine, proxy: Proxy) -> None:
    proxy.refusals = [503] * 100
    said, before = await fails(engine)
    assert "503" in said
    assert not before
    assert 2 <= len(proxy.asked) <= 20


async def test_a_refusal_that_asking_again_cannot_mend_is_not_repeated(
    engine: Engine, proxy: Proxy
) -> None:
    proxy.refusals = [400] * 10
    said, _ = await fails(engine)
    assert "400" in said or "busy" in said
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("change", SPOILED)
async def test_a_reply_that_cannot_be_read_fails_closed_where_it_happens(
    engine: Engine, proxy: Proxy, change: Callable[[Event], Any]
) -> None:
    proxy.spoil = at(2, change)
    _, before = await fails(engine)
    assert len(before) < TOKENS


async def test_half_a_chunk_fails_closed(engine: Engine, proxy: Proxy) -> None:
    proxy.cut_after = 3
    _, before = await fails(engine)
    assert len(before) < TOKENS  # an event of a busy server carries several tokens


async def test_a_stream_that_ends_before_the_model_did_fails_closed(
    engine: Engine, proxy: Proxy
) -> None:
    proxy.end_after = 3
    _, before = await fails(engine)
    assert len(before) < TOKENS  # an event of a busy server carries several tokens


async def test_what_was_already_read_is_never_asked_for_again(engine: Engine, proxy: Proxy) -> None:
    proxy.cut_after = 3
    await fails(engine)
    assert len(proxy.asked) == 1


async def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9") as caught:
        await asyncio.wait_for(connect("http://127.0.0.1:9"), DEADLINE_S)
    assert "\n" not in str(caught.value)


async def run(engine: Engine, folder: Path, seed: int = 1) -> RunResult:
    """A whole run, whose ledger must verify however it ended."""
    async with asyncio.timeout(5 * DEADLINE_S), Ledger.open(folder / "run.db") as ledger:
        result = await Agent.of(load_agent("opsdesk")).run(
            TASK, engine=engine, ledger=ledger, seed=seed, sandbox=folder / "sandbox"
        )
    with AuditLog(folder / "run.db") as audit:
        verified = audit.verify(None)
    assert verified.ok
    assert verified.runs == 1
    return result


@pytest.mark.parametrize("change", [without_logprobs, with_nan, without_a_tag])
async def test_a_run_over_spoiled_replies_keeps_nothing_and_says_so(
    engine: Engine, proxy: Proxy, tmp_path: Path, change: Callable[[Event], Any]
) -> None:
    proxy.spoil = at(1, change)
    result = await run(engine, tmp_path)
    assert result.status is not RunStatus.DONE
    asked = [thought for thought in result.thoughts if thought.kind == "generate"]
    assert asked
    assert all(thought.status in (Status.FAILED, Status.PRUNED) for thought in asked)
    assert all(thought.reason and "\n" not in thought.reason for thought in asked)
    assert not (tmp_path / "sandbox" / "outbox" / "report.txt").exists()


async def test_a_run_over_a_connection_that_breaks_ends_with_an_honest_status(
    engine: Engine, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.cut_after = 2
    result = await run(engine, tmp_path)
    assert result.status is not RunStatus.DONE


async def test_a_run_survives_a_busy_server(engine: Engine, proxy: Proxy, tmp_path: Path) -> None:
    proxy.refusals = [503, 429, 503]
    result = await run(engine, tmp_path)
    assert result.status is RunStatus.DONE


async def test_a_run_does_not_go_on_with_another_model(
    engine: Engine, proxy: Proxy, tmp_path: Path
) -> None:
    asked = 0

    def swap(number: int, event: Event) -> Event:
        nonlocal asked
        asked += number == 0
        if asked > 2:  # the server was started anew with something else
            event["model"] = "another"
        return event

    proxy.spoil = swap
    result = await run(engine, tmp_path)
    assert result.status is not RunStatus.DONE
    assert any("another" in (thought.reason or "") for thought in result.thoughts)


async def test_a_server_started_anew_with_something_else_is_noticed(
    engine: Engine, proxy: Proxy, tmp_path: Path
) -> None:
    await generate(engine)
    proxy.cut_after = 3
    await fails(engine)  # the old server ends
    proxy.cut_after = None
    card = {"root": "/models/other"}
    proxy.answers["/v1/models"] = lambda said: said | {"data": [said["data"][0] | card]}
    said, before = await fails(engine)
    assert "not the one that the run began with" in said
    assert not before
    result = await run(engine, tmp_path)
    assert result.status is not RunStatus.DONE


async def test_a_run_over_a_connection_that_stalls_ends_with_an_honest_status(
    proxy: Proxy, tmp_path: Path
) -> None:
    engine = await connect(proxy.url, stall_s=1.0)
    proxy.stall_after = 2
    result = await run(engine, tmp_path)
    await engine.aclose()
    assert result.status is not RunStatus.DONE


async def test_a_server_that_is_really_stopped_in_mid_stream_is_given_up(
    vllm_server: VllmServer,
) -> None:
    engine = await connect(vllm_server.url)
    read: list[Token] = []

    async def read_and_stop() -> None:
        async with aclosing(engine.stream(request(engine, 400))) as stream:
            async for token in stream:
                read.append(token)
                if len(read) == 3:
                    os.killpg(vllm_server.group, signal.SIGSTOP)

    try:
        calm = await generate(engine)
        with pytest.raises(EngineError, match="sent no token for 10 s"):
            await asyncio.wait_for(read_and_stop(), DEADLINE_S)
        os.killpg(vllm_server.group, signal.SIGCONT)
        again = await generate(engine)
    finally:
        os.killpg(vllm_server.group, signal.SIGCONT)
        await engine.aclose()
    assert [token.id for token in again] == [token.id for token in calm]


@pytest.fixture
def doomed(
    launch: Callable[..., LaunchPlan], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A server of one's own, to be killed."""
    log = tmp_path_factory.mktemp("doomed") / "server.log"
    with VllmServer.start(launch(), log=log) as server:
        server.wait_ready(timeout_s=900)
        yield server


async def test_a_server_killed_in_mid_stream_fails_what_runs_and_loses_nothing(
    doomed: VllmServer, tmp_path: Path
) -> None:
    engine = await connect(doomed.url)
    read: list[Token] = []

    async def read_and_kill() -> None:
        async with aclosing(engine.stream(request(engine, 400))) as stream:
            async for token in stream:
                read.append(token)
                if len(read) == 5:
                    os.killpg(doomed.group, signal.SIGKILL)

    try:
        with pytest.raises(EngineError) as caught:
            await asyncio.wait_for(read_and_kill(), DEADLINE_S)
        result = await run(engine, tmp_path)
    finally:
        await engine.aclose()
    assert "\n" not in str(caught.value)
    assert 5 <= len(read) < 400
    assert result.status is not RunStatus.DONE
    assert not result.answer
