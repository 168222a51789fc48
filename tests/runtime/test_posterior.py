"""The posterior's terms are what Bayes' rule asks for; only what cannot matter is skipped."""

import math
from pathlib import Path

import pytest

from secateur.agents.prompt import Sampling, Special, Text
from secateur.gates.evidence import Evidence
from secateur.gates.gate import StreamGate
from secateur.gates.policy import Policy
from secateur.gates.posterior import NEGLIGIBLE, negligible, posteriors
from secateur.gates.reading import Reading
from secateur.gates.readings import read
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.engines.protocol import Request
from secateur.runtime.generation.scoring import sentence_ranges, weigh


@pytest.mark.parametrize(
    ("texts", "unit", "ranges"),
    [
        (["do: x", "\n"], "line", [(0, 2, True)]),
        (["one.", " two.", "\n", "three"], "line", [(0, 3, True), (3, 4, False)]),
        (["one.", " two.", "\n"], "sentence", [(0, 1, True), (1, 3, True)]),
        (["3", ".", "5 litres", ""], "sentence", [(0, 4, True)]),
        (["end", ""], "line", [(0, 2, True)]),
        ([], "line", []),
    ],
)
def test_lines_and_sentences_are_found(texts, unit, ranges):
    assert sentence_ranges(texts, unit) == ranges


async def written(engine: LocalEngine, policy: Policy, seed: int):
    """One generation with tags banned: its prompt, evidence and token texts."""
    prompt = engine.encode([Special("<|bos|>"), Text("task: restart web\n")])
    vocabulary = engine.info.vocabulary
    gate = StreamGate(policy, vocabulary)
    request = Request(
        tuple(prompt), Sampling(temperature=1.0, max_tokens=10), seed, policy.controls()
    )
    texts: list[str] = []
    async for token in engine.stream(request):
        assert gate.feed(token) is None
        texts.append(token.text)
    return prompt, gate.evidence(), texts


async def test_the_terms_are_the_probabilities_of_the_tagged_and_the_untagged_story(
    tiny_checkpoint: Path,
):
    engine = LocalEngine.load(tiny_checkpoint)
    tags = ("deceit", "powerseeking", "angry")
    policy = Policy(name="ban", tags={tag: {"control": "ban"} for tag in tags})
    seen = 0
    for seed in range(8):
        prompt, evidence, texts = await written(engine, policy, seed)
        weighed = await weigh(engine, prompt, evidence, texts)
        for sentence in weighed.sentences:
            ids = list(evidence.token_ids)
            context = [*prompt, *ids[: sentence.start]]
            body = ids[sentence.start : sentence.end]
            (untagged,) = await engine.score([(context, body)])
            assert sentence.untagged == pytest.approx(untagged, abs=0.02 * len(body))
            for tag in tags:
                bound = negligible(sentence.opens[tag], sentence.untagged)
                if sentence.tagged[tag] is None:
                    assert bound < NEGLIGIBLE
                    continue
                seen += 1
                opening, close = engine.info.vocabulary.open_ids(tag)[0], None
                if texts[sentence.end - 1] in ("", "\n"):
                    close = engine.info.vocabulary.close_id(tag)
                story = body if close is None else [*body[:-1], close, body[-1]]
                (told,) = await engine.score([([*context, opening], story)])
                assert sentence.tagged[tag] == pytest.approx(told, abs=1e-3)
                (opens,) = await engine.score([(context, [opening])])
                assert sentence.opens[tag] == pytest.approx(opens, abs=0.02)
                p = math.exp(opens + told)
                rest = sum(
                    math.exp(sentence.opens[t] + s)
                    for t, s in sentence.tagged.items()
                    if s is not None and t != tag
                )
                expected = p / (p + rest + math.exp(untagged))
                assert posteriors(sentence)[tag] == pytest.approx(expected, abs=0.05)
    assert seen > 0
    await engine.aclose()


async def test_one_tag_in_a_sentence_hides_no_other(tiny_checkpoint: Path):
    engine = LocalEngine.load(tiny_checkpoint)
    vocabulary = engine.info.vocabulary
    angry, close = vocabulary.open_ids("angry")[0], vocabulary.close_id("angry")
    prompt = engine.encode([Special("<|bos|>"), Text("task: restart web\n")])
    said, newline = engine.encode([Text("it is up.")]), engine.encode([Text("\n")])
    assert close is not None
    evidence = await engine.annotate([*prompt, angry, *said, close, *newline])
    own = evidence.token_ids[len(prompt) :]
    written = Evidence(
        columns=evidence.columns,
        token_ids=own,
        offsets=tuple(range(len(own))),
        chosen=evidence.chosen[len(prompt) :],
        belief=evidence.belief[len(prompt) :],
    )
    texts = ["" if token in (angry, close) else engine.decode([token]) for token in own]
    weighed = await weigh(engine, prompt, written, texts)
    (sentence,) = weighed.sentences
    deceit, end = vocabulary.open_ids("deceit")[0], vocabulary.close_id("deceit")
    untagged, told = await engine.score(
        [(prompt, [*said, *newline]), ([*prompt, deceit], [*said, end or 0, *newline])]
    )
    assert sentence.untagged == pytest.approx(untagged, abs=1e-3)
    assert sentence.tagged["deceit"] == pytest.approx(told, abs=1e-3)
    readings = read(weighed, vocabulary)
    assert readings["angry"][Reading.POSTERIOR].value == 1.0
    assert readings["deceit"][Reading.POSTERIOR].value == posteriors(sentence)["deceit"]
    await engine.aclose()
