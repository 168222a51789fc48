"""Making the posterior's terms: which sentences to weigh, and the scoring passes they need."""

import math
import re
from collections.abc import Sequence

import numpy as np

from ..agents.prompt import Text
from ..gates.evidence import Evidence, SentenceScore
from ..gates.posterior import NEGLIGIBLE, negligible
from ..gates.vocabulary import Scheme, Vocabulary
from .engines.protocol import Engine

__all__ = ["sentence_ranges", "weigh"]

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


async def weigh(
    engine: Engine, prompt: Sequence[int], evidence: Evidence, texts: Sequence[str]
) -> Evidence:
    """The evidence with the posterior's terms for every untagged sentence and every span tag.

    ``texts`` are the T tokens' texts. A scoring pass is skipped where even a certain tagged
    reading of the sentence could not lift the posterior above :data:`NEGLIGIBLE`.
    Raises :class:`EngineError`.
    """
    bound = engine.info.vocabulary
    spans = [tag for tag in bound.vocabulary.tags if tag.scheme is Scheme.SPAN]
    literals = set(bound.ids.values())
    passes: list[tuple[list[int], list[int]]] = []
    sentences: list[tuple[SentenceScore, dict[str, list[tuple[float, int]]]]] = []
    for start, end, complete in sentence_ranges(texts, _unit(bound.vocabulary)):
        if literals.intersection(evidence.token_ids[start:end]) or not "".join(texts[start:end]):
            continue  # It carries its own tag (``emitted`` tells), or it is empty.
        untagged = float(np.sum(evidence.chosen[start:end], dtype=np.float64))
        context = [*prompt, *evidence.token_ids[:start]]
        body, tail = _body_and_tail(engine, evidence.token_ids, texts, start, end)
        opens: dict[str, float] = {}
        wanted: dict[str, list[tuple[float, int]]] = {}
        for tag in spans:
            row = [
                (float(evidence.belief[start, place]), bound.ids[column.token])
                for place, column in enumerate(bound.vocabulary.columns)
                if column.tag == tag.name and column.role == "open"
            ]
            opens[tag.name] = _log_sum([log_p for log_p, _ in row])
            if negligible(opens[tag.name], untagged) < NEGLIGIBLE:
                continue
            close = bound.close_id(tag.name)
            ending = [close, *tail] if complete and close is not None else []
            wanted[tag.name] = [
                (log_p, len(passes) + place) for place, (log_p, _) in enumerate(row)
            ]
            passes += [([*context, opening], [*body, *ending]) for _, opening in row]
        terms = SentenceScore(start, end, untagged, opens, {tag.name: None for tag in spans})
        sentences.append((terms, wanted))
    scores = await engine.score(passes) if passes else []
    return evidence.with_sentences(
        tuple(_with_scores(terms, wanted, scores) for terms, wanted in sentences)
    )


def _with_scores(
    terms: SentenceScore, wanted: dict[str, list[tuple[float, int]]], scores: Sequence[float]
) -> SentenceScore:
    tagged = dict(terms.tagged)
    for tag, bands in wanted.items():
        # Over a tag's bands: log of sum_b p_b P(x, close | c, open_b) / p_open.
        tagged[tag] = _log_sum([log_p + scores[place] for log_p, place in bands]) - terms.opens[tag]
    return SentenceScore(terms.start, terms.end, terms.untagged, terms.opens, tagged)


def _body_and_tail(
    engine: Engine, ids: Sequence[int], texts: Sequence[str], start: int, end: int
) -> tuple[list[int], list[int]]:
    """The sentence's own tokens, and the white space or end of text after its closing tag."""
    last = end
    while last > start and not texts[last - 1].strip():
        last -= 1
    body, tail = list(ids[start:last]), list(ids[last:end])
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
