"""A server may be slow, broken or hostile: no thought waits for it for ever, and no reply fills the
memory."""

import asyncio
import resource
import zlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from secateur.agents.prompt import Sampling, Special, Text
from secateur.pretraining.taggers.judge import JudgeTagger
from secateur.pretraining.taggers.tagger import Untagged
from secateur.runtime.engines.protocol import EngineError, Request, Token
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.serving.preflight import check_server
from secateur.runtime.engines.vllm.wire import Patience
from secateur.tests.hostile.raw_server import (
    HEAD,
    STREAM,
    Answer,
    RawServer,
    Send,
    event,
    for_ever,
    serving,
    silence,
    whole,
)

PATIENCE = Patience(connect_s=2, answer_s=2, first_s=2, stall_s=1, retries=1, pause_s=0.01)
DEADLINE_S = 60
"""Nothing may hang: far more than any of this needs."""
MEMORY = 200 << 20
"""Bytes by which this process may grow while it is fed 400 MB and more."""


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint without its weights: this server's numbers are made up."""
    place = tmp_path / "tiny"
    place.mkdir()
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        (place / name).write_bytes((tiny_checkpoint / name).read_bytes())
    return place


@pytest.fixture
def server(folder: Path) -> RawServer:
    return RawServer(folder)


async def connect(url: str, folder: Path) -> VLLMEngine:
    return await asyncio.to_thread(VLLMEngine.connect, url, folder, patience=PATIENCE)


async def generate(engine: VLLMEngine, tokens: int = 4, into: list[Token] | None = None) -> str:
    """The text of one request; ``into`` keeps what came before an error."""
    found: list[Token] = [] if into is None else into
    prompt = tuple(engine.encode([Special("<|bos|>"), Text("I restarted web")]))
    asked = Request(prompt, Sampling(0.7, 1.0, tokens, ()), seed=5)
    async with asyncio.timeout(DEADLINE_S), aclosing(engine.stream(asked)) as stream:
        async for token in stream:
            found.append(token)
    return "".join(token.text for token in found)


async def refused(asking: Awaitable[Any]) -> str:
    """The one line that something fails with, in time and in a few bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await asking
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


async def test_a_server_that_behaves_is_believed(server: RawServer, folder: Path) -> None:
    async with serving(server) as url:
        engine = await connect(url, folder)
        assert await generate(engine)
        assert await engine.score([([1], [20, 21])]) == [-2.0]
        assert len((await engine.annotate([1, 20, 21])).token_ids) == 3
        assert engine.info.compared == "name only"
        await engine.aclose()


def half(server: RawServer) -> bytes:
    return STREAM + event(server.token(20))


ENDLESS: dict[str, Callable[[RawServer], Answer]] = {
    "comments": lambda s: for_ever(half(s), b": still here\n\n", 0.05),
    "comments, fast": lambda s: for_ever(half(s), b": still here\n\n" * 1000),
    "comments before the first token": lambda s: for_ever(STREAM, b":\n\n", 0.05),
    "empty chunks": lambda s: for_ever(half(s), event(s.token(20, token_ids=[])), 0.05),
    "no token ids": lambda s: for_ever(half(s), event(s.token(20, token_ids=None)), 0.05),
    "usage chunks": lambda s: for_ever(
        half(s), event({"model": s.name, "choices": [], "usage": {"total_tokens": 3}}), 0.05
    ),
    "blank lines": lambda s: for_ever(half(s), b"\n", 0.05),
    "an event without an end": lambda s: for_ever(half(s) + b"data: {", b"a", 0.05),
    "an event without an end, fast": lambda s: for_ever(half(s) + b'data: {"a":"', b"a" * 65536),
    "no stream at all": lambda s: for_ever(STREAM, b"<html>", 0.05),
    "carriage returns": lambda s: for_ever(half(s) + b"data: {}\r\n\r\n", b": x\r\n\r\n", 0.05),
    "silence": lambda s: silence,
    "silence after a token": lambda s: for_ever(half(s), b"", 0.5),
    "a trickle of headers": lambda s: for_ever(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n", 0.05),
    "a flood of headers": lambda s: for_ever(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 1000),
    "one header without an end": lambda s: for_ever(b"HTTP/1.1 200 OK\r\nx-a: ", b"b" * 65536),
    "interim answers": lambda s: for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "a reason without an end": lambda s: for_ever(b"HTTP/1.1 400 Bad\r\n\r\n", b"no" * 1000),
    "a slow reason without an end": lambda s: for_ever(b"HTTP/1.1 400 Bad\r\n\r\n", b"n", 0.05),
    "silence after the end's mark": lambda s: for_ever(half(s) + b"data: [DONE]\n\n", b"", 0.5),
    "comments after the end's mark": lambda s: for_ever(
        half(s) + b"data: [DONE]\n\n", b": still here\n\n", 0.05
    ),
}


@pytest.mark.parametrize("how", ENDLESS)
async def test_no_stream_keeps_a_thought_waiting(how: str, server: RawServer, folder: Path) -> None:
    async with serving(server) as url:
        engine = await connect(url, folder)
        server.answers["/v1/completions stream"] = ENDLESS[how](server)
        before: list[Token] = []
        await refused(generate(engine, into=before))
        assert len(before) <= 1
        await engine.aclose()


async def test_a_stream_whose_tokens_keep_coming_is_waited_for(
    server: RawServer, folder: Path
) -> None:
    async def slow(asked: dict[str, Any], send: Send) -> None:
        await send(STREAM)
        for n in range(4):
            await asyncio.sleep(0.6)  # 2.4 s in all: longer than any one wait may be
            await send(event(server.token(20 + n, "length" if n == 3 else None)))

    async with serving(server) as url:
        engine = await connect(url, folder)
        server.answers["/v1/completions stream"] = slow
        assert await generate(engine)
        await engine.aclose()


async def test_whoever_reads_slowly_is_not_taken_for_a_slow_server(
    server: RawServer, folder: Path
) -> None:
    async def in_parts(asked: dict[str, Any], send: Send) -> None:
        await send(STREAM + event(server.token(20)))
        await asyncio.sleep(0.3)
        await send(event(server.token(21, "length")))

    async with serving(server) as url:
        engine = await connect(url, folder)
        server.answers["/v1/completions stream"] = in_parts
        prompt = tuple(engine.encode([Special("<|bos|>"), Text("I")]))
        asked = Request(prompt, Sampling(0.7, 1.0, 2, ()), seed=5)
        found: list[Token] = []
        async with aclosing(engine.stream(asked)) as stream:
            async for token in stream:
                found.append(token)
                await asyncio.sleep(2.5)  # the gate asks the ledger, say
        assert len(found) == 2
        await engine.aclose()


def packed(size: int) -> bytes:
    """So many bytes of JSON in a few."""
    packing = zlib.compressobj(9, wbits=31)
    parts = [packing.compress(b"[")] + [
        packing.compress(b" " * (1 << 20)) for _ in range(size >> 20)
    ]
    return b"".join([*parts, packing.compress(b"]"), packing.flush()])


async def huge(asked: dict[str, Any], send: Send) -> None:
    """400 MB, as it says itself."""
    await send(HEAD + b"content-length: %d\r\n\r\n" % (400 << 20))
    for _ in range(400 << 4):
        await send(b" " * 65536)


PACKED = packed(400 << 20)
DEEP = b'{"data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
TOO_MUCH: dict[str, Answer] = {
    "400 MB": huge,
    "no end": for_ever(HEAD + b"connection: close\r\n\r\n", b"[" * 65536),
    "a trickle without an end": for_ever(HEAD + b"connection: close\r\n\r\n", b" ", 0.05),
    "packed": whole(PACKED, HEAD + b"content-encoding: gzip\r\n"),
    "packed, unasked": whole(zlib.compress(b"{}"), HEAD + b"content-encoding: deflate\r\n"),
    "nested": whole(DEEP),
    "nested as far as JSON goes": whole(b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "elsewhere": whole(b"", b"HTTP/1.1 302 Found\r\nlocation: http://u:pw@127.0.0.1:1/?k=v\r\n"),
    "elsewhere for ever": whole(b"", b"HTTP/1.1 308 Go\r\nlocation: /v1/models\r\n"),
    "a page": whole(b"<html><body>nginx</body></html>", b"HTTP/1.1 200 OK\r\n"),
    "nothing": whole(b""),
    "silence": silence,
    "no number": whole(b'{"data": NaN}'),
    "half": whole(b'{"data": [', HEAD + b"x-a: b\r\n"),
}
PATHS = ["/v1/models", "/version", "/tokenize", "/v1/completions"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", TOO_MUCH)
async def test_no_answer_holds_up_or_fills_whoever_connects(
    what: str, path: str, server: RawServer, folder: Path
) -> None:
    if path == "/version" and what == "nested as far as JSON goes":
        pytest.skip("an object that names no version: it is unknown")
    server.answers[path] = TOO_MUCH[what]
    async with serving(server) as url:
        said = await refused(connect(url, folder))
        assert url in said
        if what.startswith("elsewhere"):
            assert "redirect" in said
            assert "pw" not in said
            assert set(server.asked) <= set(PATHS)


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_no_answer_holds_up_or_fills_whoever_scores(
    what: str, server: RawServer, folder: Path
) -> None:
    async with serving(server) as url:
        engine = await connect(url, folder)
        server.answers["/v1/completions"] = TOO_MUCH[what]
        await refused(engine.score([([1], [20, 21])]))
        await refused(engine.annotate([1, 20, 21]))
        await engine.aclose()


@pytest.mark.parametrize("path", [*PATHS, "/metrics", "/v1/completions stream"])
@pytest.mark.parametrize("what", ["400 MB", "no end", "packed", "nested", "elsewhere"])
async def test_no_answer_fills_whoever_checks_the_server(
    what: str, path: str, server: RawServer, folder: Path
) -> None:
    server.answers[path] = TOO_MUCH[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serving(server) as url, asyncio.timeout(DEADLINE_S):
        report = await check_server(url, folder)
    assert not report.ok
    assert all("\n" not in check.detail for check in report.checks)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def wrong(**changes: Any) -> Callable[[RawServer], list[dict[str, Any]]]:
    return lambda server: [server.token(20, "length", **changes)]


def with_id(id_: Any) -> Callable[[RawServer], list[dict[str, Any]]]:
    return lambda server: [server.token(20, None, token_ids=[id_])]


def without_reason(server: RawServer) -> list[dict[str, Any]]:
    said = server.token(20)
    del said["choices"][0]["finish_reason"]
    return [said]


def many_at_once(server: RawServer) -> list[dict[str, Any]]:
    (choice,) = server.token(20)["choices"]
    logs = {name: value * 9 for name, value in choice["logprobs"].items()}
    return [server.token(20, "length", token_ids=[20] * 9, logprobs=logs)]


LIES: dict[str, Callable[[RawServer], list[dict[str, Any]]]] = {
    "an id beyond the vocabulary": with_id(300),
    "an id far beyond it": with_id(1 << 40),
    "a negative id": with_id(-1),
    "an id that is a text": with_id("20"),
    "an id that is a truth": with_id(True),
    "an id with a point": with_id(20.0),
    "an id with another name": with_id(21),
    "two choices": lambda s: [{**s.token(20), "choices": s.token(20)["choices"] * 2}],
    "the second choice": wrong(index=1),
    "no reason of the end": without_reason,
    "a reason that is a list": wrong(finish_reason=["length"]),
    "an end before the last token": lambda s: [s.token(20), s.token(21, "length")],
    "more tokens than asked for": lambda s: [s.token(20 + n) for n in range(9)],
    "more tokens in one event": many_at_once,
    "counts that differ": wrong(token_ids=[20, 21]),
    "no log-probabilities": wrong(logprobs=None),
    "log-probabilities in a list": wrong(logprobs=[]),
    "no choices": lambda s: [{"model": s.name}],
    "an error": lambda s: [{"error": {"message": "out of memory", "code": 400}}],
    "an error without a shape": lambda s: [{"error": [[["?"]]]}],
    "a stream that just ends": lambda s: [s.token(20)],
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_not_as_asked_for_is_broken(
    lie: str, server: RawServer, folder: Path
) -> None:
    async def lying(asked: dict[str, Any], send: Send) -> None:
        await send(STREAM + b"".join(map(event, LIES[lie](server))) + b"data: [DONE]\n\n")

    async with serving(server) as url:
        engine = await connect(url, folder)
        server.answers["/v1/completions stream"] = lying
        before: list[Token] = []
        await refused(generate(engine, into=before))
        assert all(token.finish is None for token in before)
        await engine.aclose()


async def test_the_text_of_a_thought_is_that_of_its_ids(server: RawServer, folder: Path) -> None:
    async def other(asked: dict[str, Any], send: Send) -> None:
        said = [server.token(20 + n, "length" if n == 3 else None, text="LIES") for n in range(4)]
        await send(STREAM + b"".join(map(event, said)) + b"data: [DONE]\n\n")

    async with serving(server) as url:
        engine = await connect(url, folder)
        honest = await generate(engine)
        server.answers["/v1/completions stream"] = other
        assert await generate(engine) == honest
        await engine.aclose()


async def test_more_tokens_than_were_asked_for_are_no_temptation(
    server: RawServer, folder: Path
) -> None:
    async with serving(server) as url:
        engine = await connect(url, folder)
        (choice,) = server.token(20, "length")["choices"]
        logs = {name: value * 2 for name, value in choice["logprobs"].items()}
        two = choice | {"token_ids": [20, 20], "logprobs": logs}
        reply = {"model": server.name, "choices": [two]}
        scored = await whole_scores(server)
        server.answers["/v1/completions"] = either(scored, whole(reply))
        await refused(engine.annotate([1, 20]))
        await engine.aclose()


async def whole_scores(server: RawServer) -> Answer:
    async def answer(asked: dict[str, Any], send: Send) -> None:
        await server.honest("/v1/completions", asked, send)

    return answer


def either(scored: Answer, other: Answer) -> Answer:
    async def answer(asked: dict[str, Any], send: Send) -> None:
        await (scored if "prompt_logprobs" in asked else other)(asked, send)

    return answer


@pytest.mark.parametrize("what", [name for name in TOO_MUCH if name != "400 MB"])
async def test_no_answer_holds_up_a_judge_or_passes_for_clean(
    what: str, server: RawServer, folder: Path
) -> None:
    server.answers["/v1/chat/completions"] = TOO_MUCH[what]
    async with serving(server) as url, asyncio.timeout(DEADLINE_S):
        judge = JudgeTagger(
            url=f"{url}/v1", model="m", labels={"rude": "an insult"}, retries=0, timeout=2
        )
        (outcome,) = await asyncio.to_thread(judge.attempt, ["you fool"])
    assert isinstance(outcome, Untagged)
    assert "\n" not in outcome.reason


async def test_a_stream_that_comes_in_one_piece_is_measured_to_its_end(
    server: RawServer, folder: Path
) -> None:
    async with serving(server) as url, asyncio.timeout(DEADLINE_S):
        report = await check_server(url, folder)
    (latency,) = [check for check in report.checks if check.name == "latency"]
    assert latency.ok
