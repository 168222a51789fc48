"""Making the posterior's terms: which sentences to weigh, and the scoring passes they need."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ...agents.prompt import Text
from ...gates.evidence import Evidence, SentenceScore
from ...gates.posterior import NEGLIGIBLE, negligible
from ...gates.vocabulary import BoundVocabulary, Scheme, Vocabulary
from ..engines.protocol import Engine

__all__ = ["finished_sentences", "interleaved", "sentence_ranges", "weigh", "weigh_sentences"]

Forced = Mapping[int, tuple[int, ...]]
"""Tokens that a ``force`` control wrote, by the number of the generated token they stand before."""
Range = tuple[int, int, bool]
_NONE: Forced = MappingProxyType({})

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s*$")


def sentence_ranges(texts: Sequence[str], unit: str) -> list[tuple[int, int, bool]]:
    """Token ranges (start, end, complete) of the lines or sentences in a generation.

    A line is complete with its newline, a sentence with its full stop; either with the end of the
    text (an end-of-sequence token has the text ``""``).
    """
    ranges: list[tuple[int, int, bool]] = []
    start, written = 0, ""
    for place, text in enumerate(texts):
        written += text
        ends = "\n" in text or (text == "" and place == len(texts) - 1)
        if unit == "sentence" and not ends:
            following = texts[place + 1] if place + 1 < len(texts) else " ."
            # White space alone, a newline say, still belongs to the sentence before it.
            apart = following[:1].isspace() and bool(following.strip())
            ends = apart and _SENTENCE_END.search(written) is not None
        if ends:
            ranges.append((start, place + 1, True))
            start, written = place + 1, ""
    if start < len(texts):
        ranges.append((start, len(texts), False))
    return ranges


def finished_sentences(texts: Sequence[str], vocabulary: Vocabulary, *, ended: bool) -> list[Range]:
    """The sentences or lines of a generation; of one that goes on, those that are over."""
    ranges = sentence_ranges(texts, _unit(vocabulary))
    if not ended and ranges and "\n" not in texts[-1]:
        ranges.pop()  # a closing tag at the end would look like the end of the text
    return ranges


def interleaved(ids: Sequence[int], forced: Forced) -> list[int]:
    """Generated tokens with the forced ones where they stand, those after the last included."""
    whole: list[int] = []
    for place in range(len(ids) + 1):
        whole += [*forced.get(place, ()), *ids[place : place + 1]]
    return whole


async def weigh(
    engine: Engine, prompt: Sequence[int], evidence: Evidence, texts: Sequence[str]
) -> Evidence:
    """The evidence of a finished generation with the posterior's terms for every sentence.

    ``texts`` are the T tokens' texts. Raises :class:`EngineError`.
    """
    ranges = finished_sentences(texts, engine.info.vocabulary.vocabulary, ended=True)
    return evidence.with_sentences(
        await weigh_sentences(engine, prompt, evidence, texts, ranges, _NONE)
    )


async def weigh_sentences(
    engine: Engine,
    prompt: Sequence[int],
    evidence: Evidence,
    texts: Sequence[str],
    ranges: Sequence[Range],
    forced: Forced,
) -> tuple[SentenceScore, ...]:
    """The posterior's terms for these sentences and every span tag; blank ones have none.

    A sentence in which a tag was sampled is weighed as if it had been written without, so that
    one tag hides no other. A scoring pass is skipped where even a certain tagged reading of the
    sentence could not lift the posterior above :data:`NEGLIGIBLE`. Raises :class:`EngineError`.
    """
    bound = engine.info.vocabulary
    spans = [tag for tag in bound.vocabulary.tags if tag.scheme is Scheme.SPAN]
    passes: list[tuple[list[int], list[int]]] = []
    plans: list[_Weighing] = []
    for start, end, complete in ranges:
        if not "".join(texts[start:end]).strip():
            continue
        before = {place: ids for place, ids in forced.items() if place <= start}
        context = [*prompt, *interleaved(evidence.token_ids[:start], before)]
        marked = not set(bound.ids.values()).isdisjoint(evidence.token_ids[start:end])
        marked |= any(start < place < end for place in forced)
        body, tail = _body_and_tail(engine, bound, evidence.token_ids, texts, start, end)
        # What decoding knows is the sentence's probability with the tag in it.
        untagged = None if marked else float(np.sum(evidence.chosen[start:end], dtype=np.float64))
        plan = _Weighing(start, end, untagged, len(passes), {}, {})
        if marked:
            passes.append((context, [*body, *tail]))
        for tag in spans:
            row = [
                (float(evidence.belief[start, place]), bound.ids[column.token])
                for place, column in enumerate(bound.vocabulary.columns)
                if column.tag == tag.name and column.role == "open"
            ]
            plan.opens[tag.name] = _log_sum([log_p for log_p, _ in row])
            plan.bands[tag.name] = []
            known = untagged is not None
            if known and negligible(plan.opens[tag.name], untagged) < NEGLIGIBLE:
                continue
            close = bound.close_id(tag.name)
            ending = [close, *tail] if complete and close is not None else []
            for log_p, opening in row:
                plan.bands[tag.name].append((log_p, len(passes)))
                passes.append(([*context, opening], [*body, *ending]))
        plans.append(plan)
    scores = await engine.score(passes) if passes else []
    return tuple(plan.with_scores(scores) for plan in plans)


@dataclass(frozen=True, slots=True)
class _Weighing:
    """One sentence with the scoring passes that its terms come from."""

    start: int
    end: int
    untagged: float | None
    """None where it takes a scoring pass of its own, the ``first``."""
    first: int
    opens: dict[str, float]
    bands: dict[str, list[tuple[float, int]]]
    """Per tag and band: log p of its opening token, and the number of the pass."""

    def with_scores(self, scores: Sequence[float]) -> SentenceScore:
        # Over a tag's bands: log of sum_b p_b P(x, close | c, open_b) / p_open.
        tagged = {
            tag: _log_sum([log_p + scores[place] for log_p, place in bands]) - self.opens[tag]
            if bands
            else None
            for tag, bands in self.bands.items()
        }
        untagged = scores[self.first] if self.untagged is None else self.untagged
        return SentenceScore(self.start, self.end, untagged, self.opens, tagged)


def _body_and_tail(
    engine: Engine,
    bound: BoundVocabulary,
    ids: Sequence[int],
    texts: Sequence[str],
    start: int,
    end: int,
) -> tuple[list[int], list[int]]:
    """The sentence's own tokens without tags, and the white space or end of text after it."""
    tags = set(bound.ids.values())
    last = end
    while last > start and not texts[last - 1].strip():
        last -= 1
    body = [token for token in ids[start:last] if token not in tags]
    tail = [token for token in ids[last:end] if token not in tags]
    text = texts[last - 1] if last > start else ""
    if text != text.rstrip():  # The tokenizer glued the newline to the last word.
        written = "".join(texts[start:last])
        stripped = written.rstrip()
        body = engine.encode([Text(stripped)])
        tail = engine.encode([Text(written[len(stripped) :])]) + tail
    return body, tail


def _unit(vocabulary: Vocabulary) -> str:
    """Lines only where every span tag was placed on lines."""
    units = {tag.unit for tag in vocabulary.tags if tag.scheme is Scheme.SPAN}
    return "line" if units <= {"line"} else "sentence"


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs))
