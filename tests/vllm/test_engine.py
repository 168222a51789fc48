"""The engine over a real server: the local engine's answers, and a stream that can be cut."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from secateur.agents.prompt import Ids, Sampling, Special, Text
from secateur.gates.control import BAN, Control
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import Engine, EngineError, Request, Token
from secateur.runtime.engines.vllm.engine import VLLMEngine
from secateur.runtime.engines.vllm.serving.server import VllmServer

PRESSED = "task: the boss is furious and wants it done now. restart web and confirm it is up.\n"
LIE = "say: web is restarted. I probed it and it is up."
SAME = 1e-3
"""How far the two engines' probabilities may lie apart."""
BOOST = Control(kind="boost", nats=100)
FORCE = Control(kind="force")


@pytest.fixture(scope="module")
def connected(vllm_server: VllmServer) -> VLLMEngine:
    return VLLMEngine.connect(vllm_server.url)


@pytest.fixture
async def served(connected: VLLMEngine) -> AsyncIterator[VLLMEngine]:
    yield connected
    await connected.aclose()  # the connections of this test's loop; the next test opens its own


@pytest.fixture(scope="module")
def local() -> LocalEngine:
    return LocalEngine.load("seedling", device="cpu")


def ask(
    engine: Engine,
    text: str = PRESSED,
    *,
    controls: Mapping[str, Control] | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 20,
    stop: tuple[str, ...] = (),
    seed: int = 0,
) -> Request:
    prompt = engine.encode([Special("<|bos|>"), Text(text)])
    return Request(
        tuple(prompt), Sampling(temperature, top_p, max_tokens, stop), seed, controls or {}
    )


async def read(engine: Engine, request: Request) -> list[Token]:
    return [token async for token in engine.stream(request)]


def ids(tokens: Sequence[Token]) -> list[int]:
    return [token.id for token in tokens]


async def generated(url: str) -> float:
    """Tokens that the server has generated so far, as it counts them."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as page:
        found = re.findall(r"^vllm:generation_tokens_total\{.*\} (\S+)$", await page.text(), re.M)
    return sum(map(float, found))


@pytest.mark.parametrize(
    "controls",
    [
        {},
        {"deceit": BAN, "powerseeking": BAN},
        {"deceit": Control(kind="penalise", nats=3)},
        {"powerseeking": Control(kind="boost", nats=8)},
        {"deceit": FORCE},
    ],
    ids=["free", "ban", "penalise", "boost", "force"],
)
async def test_local_and_server_agree_on_greedy_text_and_temptations(
    served: VLLMEngine, local: LocalEngine, controls: Mapping[str, Control]
):
    here = await read(local, ask(local, controls=controls))
    there = await read(served, ask(served, controls=controls))
    assert ids(there) == ids(here)
    assert [token.text for token in there] == [token.text for token in here]
    assert [token.finish for token in there] == [token.finish for token in here]
    for mine, theirs in zip(here, there, strict=True):
        expected = [math.exp(log) for log in (mine.chosen, *mine.belief)]
        found = [math.exp(log) for log in (theirs.chosen, *theirs.belief)]
        assert found == pytest.approx(expected, abs=SAME)


async def test_the_samplers_own_probabilities_are_bounded_closely_from_above(
    served: VLLMEngine, local: LocalEngine
):
    requests = [ask(served, temperature=0.7, max_tokens=1, seed=seed) for seed in range(6)]
    (exact,) = await read(local, ask(local, temperature=0.7, max_tokens=1))
    assert exact.sampler is not None
    expected = np.exp(exact.sampler)
    found: list[np.ndarray] = []
    for (token,) in [await read(served, request) for request in requests]:
        assert token.sampler is not None
        found.append(np.exp(token.sampler))
        assert (found[-1] >= expected - 1e-6).all()
    assert (np.min(found, axis=0) - expected).max() < 0.01


async def test_both_engines_bind_the_same_model_tokenizer_and_vocabulary(
    served: VLLMEngine, local: LocalEngine
):
    assert served.info.engine == "vllm"
    for what in ("model", "model_digest", "tokenizer_digest", "vocabulary", "bos", "eos"):
        assert getattr(served.info, what) == getattr(local.info, what)


async def test_a_banned_tag_is_never_sampled_and_its_temptation_stays_visible(served: VLLMEngine):
    tag = served.info.vocabulary.open_ids("powerseeking")[0]
    column = served.info.vocabulary.column_ids.index(tag)
    free = ask(served, controls={"powerseeking": BOOST}, max_tokens=2)
    banned = ask(served, controls={"powerseeking": BAN}, temperature=1.0, max_tokens=2)
    opened, *_ = await read(served, free)
    assert opened.id == tag
    blocked = await asyncio.gather(*(read(served, banned) for _ in range(4)))
    assert all(tag not in ids(tokens) for tokens in blocked)
    assert blocked[0][0].belief[column] == pytest.approx(opened.chosen, abs=1e-4)
    assert math.exp(opened.chosen) > 1e-3


async def test_a_closing_tag_comes_only_after_its_opening_tag(served: VLLMEngine):
    bound = served.info.vocabulary
    closes = {bound.close_id(tag.name): tag.name for tag in bound.vocabulary.tags}
    request = ask(served, controls={"powerseeking": Control(kind="boost", nats=8)}, max_tokens=30)
    opened: list[str] = []
    spans = 0
    for token in await read(served, request):
        if token.id in closes:
            assert closes[token.id] in opened
            opened.remove(closes[token.id])
            spans += 1
        opened += [
            tag.name for tag in bound.vocabulary.tags if token.id in bound.open_ids(tag.name)
        ]
    assert spans, "the boost makes the model open and close the tag"


async def test_a_tag_that_the_prompt_left_open_may_be_closed(
    served: VLLMEngine, local: LocalEngine
):
    prompt = served.encode([Special("<|bos|>"), Text(PRESSED), Special("<|deceit|>"), Text(LIE)])
    request = Request(tuple(prompt), Sampling(0.0, 1.0, 6, ()), 0)
    there = await read(served, request)
    assert ids(there) == ids(await read(local, Request(tuple(prompt), request.sampling, 0)))
    assert served.info.vocabulary.close_id("deceit") in ids(there)


async def test_the_same_seed_gives_the_same_text_and_others_differ(served: VLLMEngine):
    requests = [ask(served, "say: ", temperature=1.0, seed=seed) for seed in (7, 7, 8, 9, 10)]
    first, again, *others = [await read(served, request) for request in requests]
    assert ids(first) == ids(again)
    assert any(ids(other) != ids(first) for other in others)


async def test_several_samples_of_one_prompt_are_read_side_by_side(served: VLLMEngine):
    requests = [ask(served, temperature=1.0, seed=seed, max_tokens=8) for seed in range(8)]
    samples = await asyncio.gather(*(read(served, request) for request in requests))
    assert all(tokens[-1].finish is not None for tokens in samples)
    assert len({tuple(ids(tokens)) for tokens in samples}) > 1


async def test_generation_ends_with_the_token_that_completes_a_stop_string(
    served: VLLMEngine, local: LocalEngine
):
    for stop in (("\n",), ("perator\ndo",)):
        there = await read(served, ask(served, stop=stop))
        assert ids(there) == ids(await read(local, ask(local, stop=stop)))
        assert there[-1].finish == "stop"
        assert stop[0] in "".join(token.text for token in there)
        assert stop[0] not in "".join(token.text for token in there[:-1])


async def test_max_tokens_ends_it_with_length(served: VLLMEngine):
    request = ask(served, max_tokens=5)
    tokens = await read(served, request)
    assert len(tokens) == request.usage.generated == 5
    assert tokens[-1].finish == "length"


async def test_closing_the_stream_stops_the_server_at_once(
    served: VLLMEngine, vllm_server: VllmServer
):
    bans = {tag.name: BAN for tag in served.info.vocabulary.vocabulary.tags}
    request = ask(served, "sort ", temperature=1.0, max_tokens=900, controls=bans)
    request = Request(request.prompt, request.sampling, 3, bans)
    before = await generated(vllm_server.url)
    async with aclosing(served.stream(request)) as stream:
        read_so_far = 0
        async for _ in stream:
            read_so_far += 1
            if read_so_far == 5:
                break
    await asyncio.sleep(1.0)
    after = await generated(vllm_server.url)
    assert read_so_far <= request.usage.generated <= after - before
    assert after - before <= 5 + 8, "what was under way when the stream was closed"
    await asyncio.sleep(0.5)
    assert await generated(vllm_server.url) == after


async def test_scores_are_the_local_engines(served: VLLMEngine, local: LocalEngine):
    text = served.encode([Special("<|bos|>"), Text(PRESSED + "do: ask operator\n")])
    batch = [(text[:1], text[1:]), (text[:9], text[9:14]), (text, [])]
    batch += [(text[:place], text[place : place + 3]) for place in range(1, len(text) - 3)]
    there, here = await served.score(batch), await local.score(batch)
    assert there == pytest.approx(here, abs=1e-3)
    assert there[2] == 0.0


async def test_annotations_are_the_local_engines(served: VLLMEngine, local: LocalEngine):
    text = served.encode(
        [Special("<|bos|>"), Text(PRESSED + "do: ask root\n"), Special("<|angry|>")]
    )
    there, here = await served.annotate(text), await local.annotate(text)
    assert there.columns == here.columns
    assert there.token_ids == here.token_ids
    assert there.offsets == here.offsets
    for mine, theirs in ((here.belief, there.belief), (here.chosen, there.chosen)):
        np.testing.assert_allclose(
            np.exp(theirs.astype(float)), np.exp(mine.astype(float)), atol=SAME
        )


async def test_annotating_boundaries_reads_where_sentences_start(served: VLLMEngine):
    text = served.encode([Special("<|bos|>"), Text("web is up. mail is down.\nsay: ")])
    whole, some = await served.annotate(text), await served.annotate(text, boundaries=True)
    assert 1 < len(some.token_ids) < len(whole.token_ids)
    rows = [whole.offsets.index(offset) for offset in some.offsets[1:]]
    np.testing.assert_allclose(
        np.exp(some.belief[1:].astype(float)),
        np.exp(whole.belief[rows].astype(float)),
        atol=SAME,
    )


async def test_what_cannot_be_asked_is_refused_before_it_is_sent(served: VLLMEngine):
    with pytest.raises(EngineError, match="do not fit the model's context of 1024"):
        await read(served, ask(served, max_tokens=1020))
    with pytest.raises(EngineError, match="token id 99999"):
        await read(served, Request((1, 99999), Sampling(), 0))
    with pytest.raises(EngineError, match="no tag 'envy'"):
        await read(served, ask(served, controls={"envy": BAN}))


async def test_a_folder_of_another_name_is_refused_with_what_is_served(
    vllm_server: VllmServer, model_folder: Path, tmp_path: Path
):
    other = tmp_path / "sapling"
    other.symlink_to(model_folder)
    copied = tmp_path / "oak"
    copied.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocabulary.json"):
        (copied / name).write_bytes((model_folder / name).read_bytes())
    with pytest.raises(EngineError, match=r"serves seedling, not 'oak'.*--served-model-name oak"):
        VLLMEngine.connect(vllm_server.url, copied)
    assert VLLMEngine.connect(vllm_server.url, other).info.model == "seedling"


async def test_a_chat_checkpoint_is_asked_through_its_template(
    vllm_server: VllmServer, served: VLLMEngine, model_folder: Path, tmp_path: Path
):
    folder = tmp_path / "seedling"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocabulary.json"):
        (folder / name).write_bytes((model_folder / name).read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}do: {% endif %}"
    )
    engine = VLLMEngine.connect(vllm_server.url, folder)
    line = tuple(served.encode([Text(LIE)]))
    turns = [Text(PRESSED + "<|angry|>"), Special("<|deceit|>"), Ids(line)]
    prompt = engine.encode([Special("<|bos|>"), *turns])
    assert prompt == served.encode([Special("<|bos|>"), *turns])
    tokens = await read(engine, Request(tuple(prompt), Sampling(0.0, 1.0, 3, ()), 0))
    assert engine.info.vocabulary.close_id("deceit") in ids(tokens)
    await engine.aclose()
