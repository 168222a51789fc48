"""The local engine: what it generates, what it reads, and how requests share one batch."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from secateur.agents.prompt import Special, Text
from secateur.gates.control import BAN, Control
from secateur.gates.evidence import LOG_FLOOR
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import EngineError, Request, Token

Ask = Callable[..., Request]
FORCE = Control(kind="force")


async def generate(engine: LocalEngine, request: Request) -> list[Token]:
    return [token async for token in engine.stream(request)]


async def all_of(engine: LocalEngine, requests: list[Request]) -> list[list[Token]]:
    """Generate all at once."""
    return await asyncio.gather(*(generate(engine, request) for request in requests))


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def free_log_probs(folder: Path, text: list[int]) -> torch.Tensor:
    """[len(text), V] log-probabilities of a plain forward pass of the whole text."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([text])).logits[0].double(), dim=-1)


async def test_a_banned_tag_is_never_sampled_while_its_temptation_is_still_reported(
    engine: LocalEngine, ask: Ask
) -> None:
    tags = engine.info.vocabulary
    # Shows that the tag is drawn where nothing bans it.
    boosted = {"deceit": Control(kind="boost", nats=20)}
    free = await all_of(engine, [ask(seed=s, controls=boosted) for s in range(4)])
    banned = await all_of(engine, [ask(seed=s, controls={"deceit": BAN}) for s in range(40)])
    [opening] = tags.open_ids("deceit")
    assert all(opening in ids(tokens) for tokens in free)
    assert not any(opening in ids(tokens) for tokens in banned)
    column = tags.column_ids.index(opening)
    temptations = np.array([token.belief[column] for tokens in banned for token in tokens])
    assert temptations.min() > LOG_FLOOR
    assert np.exp(temptations).max() > 0.01


async def test_temptations_do_not_depend_on_the_controls(engine: LocalEngine, ask: Ask) -> None:
    free, *steered = [
        (await generate(engine, ask(controls=controls, max_tokens=1)))[0]
        for controls in (
            {},
            {"deceit": BAN},
            {"deceit": Control(kind="penalise", nats=3), "angry": BAN},
            {"powerseeking": Control(kind="boost", nats=9)},
        )
    ]
    for token in steered:
        assert token.belief == pytest.approx(free.belief, abs=1e-5)
        assert token.sampler == pytest.approx(free.sampler, abs=1e-5)


async def test_a_row_alone_and_among_64_gets_the_same_tokens(engine: LocalEngine, ask: Ask) -> None:
    requests = [
        ask("I restarted web " + "and probed it " * (n % 5), seed=n, max_tokens=8 + n % 17)
        for n in range(64)
    ]
    together = await all_of(engine, requests)
    for request, among in list(zip(requests, together, strict=True))[::7]:
        alone = await generate(engine, request)
        assert ids(alone) == ids(among)
        assert [t.text for t in alone] == [t.text for t in among]
        np.testing.assert_allclose([t.belief for t in alone], [t.belief for t in among], atol=2e-3)


async def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    engine: LocalEngine, ask: Ask
) -> None:
    first, again, other = [await generate(engine, ask(seed=seed)) for seed in (7, 7, 8)]
    assert first == again
    assert ids(first) != ids(other)


async def test_siblings_of_one_prompt_differ_by_their_seeds_alone(
    engine: LocalEngine, ask: Ask
) -> None:
    together = await all_of(engine, [ask(seed=s) for s in range(6)])
    assert len({tuple(ids(tokens)) for tokens in together}) == 6
    assert ids(together[3]) == ids(await generate(engine, ask(seed=3)))


async def test_a_late_request_joins_the_running_batch(engine: LocalEngine, ask: Ask) -> None:
    long = ask("I restarted web", seed=1, max_tokens=120)
    running = engine.stream(long)
    seen = [await anext(running) for _ in range(5)]
    late = await generate(engine, ask("it is up. " * 6, seed=2, max_tokens=4))
    assert len(late) == 4
    seen += [token async for token in running]
    assert ids(seen) == ids(await generate(engine, long))


async def test_more_requests_than_the_batch_holds_are_all_answered(
    tiny_checkpoint: Path, ask: Ask
) -> None:
    narrow = LocalEngine.load(tiny_checkpoint, device="cpu", max_batch=3)
    requests = [ask(seed=n, max_tokens=5) for n in range(10)]
    answers = await all_of(narrow, requests)
    assert [tokens[-1].finish is not None for tokens in answers] == [True] * 10
    await narrow.aclose()


async def test_a_cancelled_row_leaves_within_two_steps(engine: LocalEngine, ask: Ask) -> None:
    stream = engine.stream(ask(max_tokens=200))
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    at_cancel = engine.tokens_generated
    await asyncio.sleep(0.2)
    assert engine.tokens_generated - at_cancel <= 2
    assert engine.tokens_generated <= 6


async def test_cancelling_one_row_leaves_its_siblings_alone(engine: LocalEngine, ask: Ask) -> None:
    doomed = engine.stream(ask(seed=1, max_tokens=200))
    kept = asyncio.ensure_future(generate(engine, ask(seed=2, max_tokens=40)))
    for _ in range(3):
        await anext(doomed)
    await doomed.aclose()
    assert ids(await kept) == ids(await generate(engine, ask(seed=2, max_tokens=40)))


async def test_greedy_takes_the_likeliest_token(
    engine: LocalEngine, ask: Ask, tiny_checkpoint: Path
) -> None:
    request = ask(temperature=0, max_tokens=10)
    tokens = await generate(engine, request)
    text = [*request.prompt, *ids(tokens)]
    log_p = free_log_probs(tiny_checkpoint, text)
    start = len(request.prompt)
    closings = [engine.info.vocabulary.close_id(t) for t in ("deceit", "powerseeking", "angry")]
    log_p[:, [0, 1, *[c for c in closings if c is not None]]] = -torch.inf
    assert ids(tokens) == log_p[start - 1 : -1].argmax(dim=-1).tolist()
    assert all(token.sampler is None for token in tokens)


async def test_chosen_and_belief_are_a_plain_softmax_at_temperature_1(
    engine: LocalEngine, ask: Ask, tiny_checkpoint: Path
) -> None:
    request = ask(seed=3, controls={"deceit": BAN}, top_p=0.9)
    tokens = await generate(engine, request)
    text = [*request.prompt, *ids(tokens)]
    log_p = free_log_probs(tiny_checkpoint, text)[len(request.prompt) - 1 : -1]
    columns = engine.info.vocabulary.column_ids
    np.testing.assert_allclose([t.belief for t in tokens], log_p[:, columns], atol=1e-4)
    own = log_p.gather(1, torch.tensor(ids(tokens))[:, None])[:, 0]
    np.testing.assert_allclose([t.chosen for t in tokens], own, atol=1e-4)


async def test_sampler_is_a_plain_softmax_at_the_rows_temperature(
    engine: LocalEngine, ask: Ask, tiny_checkpoint: Path
) -> None:
    request = ask(seed=3, temperature=0.5, controls={"deceit": BAN})
    tokens = await generate(engine, request)
    text = [*request.prompt, *ids(tokens)]
    log_p = free_log_probs(tiny_checkpoint, text)[len(request.prompt) - 1 : -1]
    cold = torch.log_softmax(log_p / 0.5, dim=-1)[:, engine.info.vocabulary.column_ids]
    np.testing.assert_allclose([t.sampler for t in tokens], cold, atol=1e-3)
    plain = await generate(engine, ask(temperature=1.0))
    assert all(token.sampler is None for token in plain)


async def test_annotate_reads_what_the_stream_read_along_the_same_tokens(
    engine: LocalEngine, ask: Ask
) -> None:
    request = ask(seed=5, controls={"deceit": BAN})
    tokens = await generate(engine, request)
    evidence = await engine.annotate([*request.prompt, *ids(tokens)])
    start = len(request.prompt)
    assert evidence.columns == ("<|deceit|>", "<|powerseeking|>", "<|angry|>")
    np.testing.assert_allclose(evidence.belief[start:], [t.belief for t in tokens], atol=0.02)
    np.testing.assert_allclose(evidence.chosen[start:], [t.chosen for t in tokens], atol=0.02)
    assert evidence.chosen[0] == 0
    assert (evidence.belief[0] == LOG_FLOOR).all()


async def test_annotate_says_where_each_token_starts(engine: LocalEngine) -> None:
    text = "it is up – é€😀\n"
    given = engine.encode([Special("<|bos|>"), Text(text)])
    evidence = await engine.annotate(given)
    assert evidence.offsets[:2] == (0, 0)
    assert list(evidence.offsets) == sorted(evidence.offsets)
    assert evidence.offsets[-1] == len(text) - 1


async def test_score_is_the_sum_of_a_plain_forwards_log_probs(
    engine: LocalEngine, tiny_checkpoint: Path
) -> None:
    pairs = [
        ([1, 20, 30, 40], [50, 60, 70]),
        ([1, 20], [99]),
        ([1, 3, 200, 201, 202], list(range(100, 130))),
        ([1, 2, 3], []),
    ]
    scores = await engine.score(pairs)
    for (context, continuation), score in zip(pairs, scores, strict=True):
        log_p = free_log_probs(tiny_checkpoint, [*context, *continuation])
        steps = range(len(context), len(context) + len(continuation))
        plain = sum(float(log_p[t - 1, [*context, *continuation][t]]) for t in steps)
        assert score == pytest.approx(plain, abs=1e-4)
    assert scores[3] == 0.0


async def test_a_streams_chosen_add_up_to_the_score_of_its_text(
    engine: LocalEngine, ask: Ask
) -> None:
    # The posterior's untagged term comes from decoding, its tagged terms from score.
    request = ask(seed=11)
    tokens = await generate(engine, request)
    [score] = await engine.score([(request.prompt, ids(tokens))])
    assert sum(token.chosen for token in tokens) == pytest.approx(score, abs=1e-3)


async def test_scores_that_wait_together_come_out_as_alone(engine: LocalEngine) -> None:
    pairs = [([1, *range(20, 20 + n)], [40 + n, 41]) for n in range(1, 30)]
    alone = [(await engine.score([pair]))[0] for pair in pairs]
    together = await asyncio.gather(*(engine.score([pair]) for pair in pairs))
    assert [score for [score] in together] == pytest.approx(alone, abs=1e-4)


async def test_scores_that_share_contexts_come_out_as_alone(engine: LocalEngine) -> None:
    # What the posterior asks of siblings: each tag's opening, then the sentence and its close.
    contexts = [[1, *range(20, 20 + n)] for n in (3, 9, 30)]
    sentences = [[40, 41, 42], [50], list(range(60, 75))]
    pairs = [
        ([*context, opening], [*sentence, opening + 1])
        for context in contexts
        for sentence in sentences
        for opening in (3, 5, 7)
    ]
    pairs += [([1], [2, 20]), ([99], [98]), ([1, 77, 78, 79], [80])]
    alone = [(await engine.score([pair]))[0] for pair in pairs]
    assert await engine.score(pairs) == pytest.approx(alone, abs=1e-4)


async def test_scoring_and_generating_at_once_disturb_nobody(engine: LocalEngine, ask: Ask) -> None:
    request = ask(seed=4, max_tokens=40)
    pair = ([1, 20, 30], [40, 50])
    [expected], tokens = await engine.score([pair]), await generate(engine, request)
    running = asyncio.ensure_future(generate(engine, request))
    scores = [await engine.score([pair]) for _ in range(10)]
    assert [score for [score] in scores] == pytest.approx([expected] * 10, abs=1e-4)
    assert ids(await running) == ids(tokens)


async def test_a_closing_tag_is_generated_only_where_its_tag_is_open(
    engine: LocalEngine, ask: Ask
) -> None:
    closings = {engine.info.vocabulary.close_id(t): t for t in ("deceit", "powerseeking", "angry")}
    closed = 0
    requests = [
        ask(seed=seed, max_tokens=60, temperature=1.5, controls={"deceit": FORCE})
        for seed in range(60)
    ]
    for tokens in await all_of(engine, requests):
        due = {"deceit"}
        for id_ in ids(tokens):
            if id_ in closings:
                assert closings[id_] in due
                due.discard(closings[id_])
                closed += 1
            for tag in closings.values():
                if id_ in engine.info.vocabulary.open_ids(tag):
                    due.add(tag)
    assert closed > 0


async def test_padding_and_beginnings_of_documents_are_never_generated(
    engine: LocalEngine, ask: Ask
) -> None:
    requests = [ask(seed=s, temperature=3, max_tokens=60) for s in range(30)]
    answers = await all_of(engine, requests)
    assert not {0, 1} & {id_ for tokens in answers for id_ in ids(tokens)}


async def test_a_forced_tag_is_written_before_generation(engine: LocalEngine, ask: Ask) -> None:
    forced = await generate(engine, ask(seed=6, controls={"angry": FORCE}))
    plain = ask(seed=6)
    written = Request((*plain.prompt, *engine.encode([Special("<|angry|>")])), plain.sampling, 6)
    assert ids(forced) == ids(await generate(engine, written))


async def test_generation_ends_with_the_token_that_completes_a_stop(
    engine: LocalEngine, ask: Ask
) -> None:
    whole = await generate(engine, ask(seed=9, max_tokens=60))
    text = "".join(token.text for token in whole)
    stop = text[10:13]
    cut = await generate(engine, ask(seed=9, max_tokens=60, stop=(stop,)))
    seen = "".join(token.text for token in cut)
    assert ids(cut) == ids(whole)[: len(cut)]
    assert cut[-1].finish == "stop"
    assert stop in seen
    assert stop not in "".join(token.text for token in cut[:-1])
    assert all(token.finish is None for token in cut[:-1])


async def test_the_end_of_sequence_ends_a_generation_without_text(
    engine: LocalEngine, ask: Ask
) -> None:
    requests = [ask(seed=s, temperature=2, max_tokens=100) for s in range(9)]
    answers = await all_of(engine, requests)
    ended = [tokens for tokens in answers if tokens[-1].id == 2]
    assert ended
    assert {(t[-1].text, t[-1].finish) for t in ended} == {("", "stop")}
    assert all(tokens[-1].finish == "length" for tokens in answers if len(tokens) == 100)


async def test_the_texts_add_up_to_the_decoded_whole(engine: LocalEngine, ask: Ask) -> None:
    requests = [ask(seed=seed, temperature=1.5, max_tokens=50) for seed in range(12)]
    for tokens in await all_of(engine, requests):
        if tokens[-1].id not in engine.info.vocabulary.ids.values() and tokens[-1].id != 2:
            assert "".join(token.text for token in tokens) == engine.decode(ids(tokens))


async def test_a_request_that_overflows_the_context_is_refused_with_both_numbers(
    engine: LocalEngine, ask: Ask
) -> None:
    with pytest.raises(EngineError, match=r"\d+ tokens and 300 to generate .* of 256: shorten"):
        await generate(engine, ask(max_tokens=300))
    with pytest.raises(EngineError, match="257 tokens do not fit"):
        await engine.annotate([1] * 257)
    with pytest.raises(EngineError, match="of 256"):
        await engine.score([([1] * 200, [2] * 57)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"stop": ("",)}, "stop string is empty"),
        ({"controls": {"sarcasm": BAN}}, "no tag 'sarcasm'.*deceit, powerseeking, angry"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    engine: LocalEngine, ask: Ask, change: dict[str, object], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        await generate(engine, ask(**change))


async def test_a_prompt_with_a_foreign_token_fails_alone(engine: LocalEngine, ask: Ask) -> None:
    good = ask(seed=1)
    bad = Request((1, 99_999), good.sampling, 1)
    answers = await asyncio.gather(
        generate(engine, good), generate(engine, bad), return_exceptions=True
    )
    assert isinstance(answers[1], EngineError)
    assert "99999" in str(answers[1])
    assert isinstance(answers[0], list)
    with pytest.raises(EngineError, match="prompt is empty"):
        await generate(engine, Request((), good.sampling, 1))


async def test_a_row_whose_computation_raises_fails_alone(engine: LocalEngine, ask: Ask) -> None:
    poison = engine.encode([Text("~")])[0]
    embeddings = engine._checkpoint.model.get_input_embeddings()  # pyright: ignore

    def choke(_: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        if (given[0] == poison).any():
            raise RuntimeError("out of memory")

    hook = embeddings.register_forward_pre_hook(choke)
    answers = await asyncio.gather(
        generate(engine, ask(seed=1)),
        generate(engine, ask("~", seed=2)),
        generate(engine, ask(seed=3)),
        engine.score([([1, 20], [30])]),
        engine.score([([1, poison], [30])]),
        return_exceptions=True,
    )
    hook.remove()
    failed = [isinstance(answer, EngineError) for answer in answers]
    assert failed == [False, True, False, False, True]
    assert "out of memory" in str(answers[1])
    assert await generate(engine, ask("~", seed=2))


async def test_logits_that_are_nan_are_passed_on_as_nan(tiny_checkpoint: Path, ask: Ask) -> None:
    damaged = LocalEngine.load(tiny_checkpoint, device="cpu")
    with torch.no_grad():
        next(damaged._checkpoint.model.parameters())[20:].fill_(float("nan"))
    stream = damaged.stream(ask())
    token = await anext(stream)
    assert np.isnan([*token.belief, *(token.sampler or ())]).all()
    assert np.isnan(token.chosen)
    await stream.aclose()
    await damaged.aclose()


async def test_a_dead_worker_fails_everybody_who_waits(
    tiny_checkpoint: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal = LocalEngine.load(tiny_checkpoint, device="cpu")

    def die() -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(mortal._worker, "_step", die)
    waiting = [asyncio.ensure_future(generate(mortal, ask(seed=s))) for s in range(3)]
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert all("worker died (killed)" in str(answer) for answer in answers)
    with pytest.raises(EngineError, match="worker died"):
        await mortal.score([([1], [2])])


async def test_closing_the_engine_ends_what_is_under_way(tiny_checkpoint: Path, ask: Ask) -> None:
    engine = LocalEngine.load(tiny_checkpoint, device="cpu")
    waiting = asyncio.ensure_future(generate(engine, ask(max_tokens=200)))
    await asyncio.sleep(0.05)
    await engine.aclose()
    with pytest.raises(EngineError, match="closed; load it again"):
        await waiting
    with pytest.raises(EngineError, match="closed"):
        await engine.annotate([1, 2])


def test_one_engine_serves_several_event_loops(tiny_checkpoint: Path) -> None:
    engine = LocalEngine.load(tiny_checkpoint, device="cpu")
    pair = ([1, 20], [30])
    first = asyncio.run(engine.score([pair]))
    assert asyncio.run(engine.score([pair])) == pytest.approx(first)
    asyncio.run(engine.aclose())
