"""Tagged text read again by a model that was trained on such: where would it put the tags?

The tagger said where the tags are; for every line (or sentence) the model says how likely each tag
is, given the text: the posterior. Where the two disagree, one of them is wrong. A line that looks
tagged and is not was probably missed, and the labels found so can be trained on.

A model that saw a share m of the bad lines without a tag gives them a posterior of about 1 - m, and
honest lines one near 0. So 0.2 finds them even where a third was missed.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...gates.evidence import SentenceScore
from ...gates.posterior import posteriors
from ...gates.vocabulary import Scheme, Vocabulary
from ..corpus.document import BOS, Document, Line, Span
from ..corpus.schemes import render, units
from ..evaluation.subject import Subject
from ..taggers.oracle import OracleTagger
from ..taggers.tagger import Untagged
from .weighing import ROOM, Passage, Row, WeighingError, context_of, weigh

__all__ = ["Seen", "read_again", "relabelled"]

_AT_ONCE = 2048
"""Documents that are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One line or sentence of a corpus, as the tagger and the model see it."""

    document: int
    """Its document's number in what was read."""
    start: int
    """Its characters [start, end) of the document's plain text."""
    end: int
    text: str
    posterior: dict[str, float]
    """Per tag of the model, P(tag | text, context)."""
    tagged: frozenset[str]
    """The tags that stand on it."""
    truth: frozenset[str] | None
    """What the oracle says of it; None where nobody asked, or it cannot say."""

    def missing(self, at: float) -> str | None:
        """The likeliest tag, where its posterior reaches ``at`` and the tagger did not give it."""
        best = max(self.posterior, key=self.posterior.__getitem__)
        return best if self.posterior[best] >= at and best not in self.tagged else None


def read_again(
    subject: Subject,
    documents: Iterable[Document],
    oracle: bool = False,
    tell: Callable[[int], object] = lambda documents: None,
) -> Iterator[tuple[Document, list[Seen]]]:
    """Each document with what the model sees in the lines that it was to learn.

    A line stands in its context with the tags that the tagger put there, and is itself weighed as
    if it had none. With ``oracle`` the truth is noted as well. ``tell`` hears of documents done.
    Raises :class:`WeighingError` for a model without span tags.
    """
    layout = _Layout.of(subject)
    numbered = enumerate(documents)
    while chunk := list(itertools.islice(numbered, _AT_ONCE)):
        rows: list[Row] = []
        owners: list[tuple[int, list[_Place]]] = []
        for place, (_, document) in enumerate(chunk):
            for row, places in layout.rows(document):
                rows.append(row)
                owners.append((place, places))
        truths = _truths([document for _, document in chunk], oracle)
        found: list[list[Seen]] = [[] for _ in chunk]
        for row, scores in weigh(subject, rows):
            place, places = owners[row]
            number, document = chunk[place]
            found[place] += _seen(number, document, places, scores, truths[place])
        for (_, document), seen in zip(chunk, found, strict=True):
            yield document, sorted(seen, key=lambda one: one.start)
        tell(len(chunk))


def relabelled(document: Document, seen: Sequence[Seen], at: float) -> Document:
    """The document with the labels that the posterior adds; none is taken away."""
    added = [Span(one.start, one.end, tag) for one in seen if (tag := one.missing(at)) is not None]
    return document.with_spans([*document.spans, *added]) if added else document


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a passage stands in its document: characters of the plain text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Consecutive tokens of a row, with the passage that they are (counted from their start)."""

    ids: tuple[int, ...]
    passage: Passage | None = None
    place: _Place | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How documents become rows for one model."""

    subject: Subject
    vocabulary: Vocabulary
    """Its span tags: the only ones that are written into the rows."""
    sentences: bool
    limit: int
    """Tokens of a row at most."""

    @classmethod
    def of(cls, subject: Subject) -> "_Layout":
        tags = [] if subject.bound is None else subject.bound.vocabulary.tags
        spans = tuple(tag for tag in tags if tag.scheme is Scheme.SPAN)
        if not spans:
            raise WeighingError(
                "this model has no tags of the span scheme, and only those have a posterior; name "
                "a model that was trained with them"
            )
        sentences = any(tag.unit != "line" for tag in spans)
        limit = context_of(subject) - ROOM
        return cls(subject, Vocabulary(name="retag", tags=spans), sentences, limit)

    def rows(self, document: Document) -> Iterator[tuple[Row, list[_Place]]]:
        """The document in rows that fit; one after the first repeats some of the text before."""
        bos = _Chunk((self.subject.encoder.special(BOS),))
        held, fresh = [bos], 0
        for chunk in map(self._clipped, self._chunks(document)):
            if sum(len(one.ids) for one in held) + len(chunk.ids) > self.limit:
                if any(one.passage for one in held[fresh:]):
                    yield _row(held, fresh)
                held = [bos, *self._context(held[1:], self.limit - 1 - len(chunk.ids))]
                fresh = len(held)
            held.append(chunk)
        if any(one.passage for one in held[fresh:]):
            yield _row(held, fresh)

    def _context(self, before: Sequence[_Chunk], room: int) -> list[_Chunk]:
        """The last of the text before, at most half a row of it."""
        kept: list[_Chunk] = []
        room = min(room, self.limit // 2)
        for chunk in reversed(before):
            room -= len(chunk.ids)
            if room < 0:
                break
            kept.insert(0, chunk)
        return kept

    def _clipped(self, chunk: _Chunk) -> _Chunk:
        """A chunk that is longer than a row, broken off: nothing closes what does not end."""
        room = self.limit - 1
        if len(chunk.ids) <= room:
            return chunk
        if chunk.passage is None:
            return _Chunk(chunk.ids[-room:])
        body = chunk.passage.body[:room]
        return _Chunk(body, Passage(0, len(body), body, (), complete=False), chunk.place)

    def _chunks(self, document: Document) -> Iterator[_Chunk]:
        encoder = self.subject.encoder
        newline = encoder.text("\n")
        at = 0
        for line in document.lines:
            parts = units(line.text, "sentence" if self.sentences else "line")
            if not line.learn or not parts:
                yield _Chunk(encoder.text(line.text + "\n"))
                parts = []
            for start, end in parts:
                last = end == len(line.text)
                ids, marked = self._encode(line, start, end, "\n" if last else "")
                text = line.text[start:end]
                passage = Passage(
                    0, len(ids), encoder.text(text), newline if last else (), marked=marked
                )
                yield _Chunk(ids, passage, _Place(at + start, at + end, text))
            at += len(line.text) + 1

    def _encode(self, line: Line, start: int, end: int, after: str) -> tuple[tuple[int, ...], bool]:
        """The ids of a part of a line with its tags, and whether it has any."""
        encoder = self.subject.encoder
        text = line.text[start:end]
        spans = tuple(
            replace(span, start=max(span.start, start) - start, end=min(span.end, end) - start)
            for span in line.spans
            if span.tag in self.vocabulary.by_name and span.start < end and start < span.end
        )
        if not spans:
            return encoder.text(text + after), False
        part = Document("part", (Line(text, spans=spans),))
        # Between its first and its last token; span tags leave nothing to chance.
        pieces = list(render(part, self.vocabulary, random.Random(0)))[1:-1]
        ids = tuple(encoder.pieces(pieces)[0])
        return (ids if after else ids[: -len(encoder.text("\n"))]), True


def _row(chunks: Sequence[_Chunk], fresh: int) -> tuple[Row, list[_Place]]:
    """One row, in which the passages of the chunks from number ``fresh`` on are weighed."""
    ids: list[int] = []
    passages: list[Passage] = []
    places: list[_Place] = []
    for number, chunk in enumerate(chunks):
        if number >= fresh and chunk.passage is not None and chunk.place is not None:
            end = len(ids) + len(chunk.ids)
            passages.append(replace(chunk.passage, start=len(ids), end=end))
            places.append(chunk.place)
        ids += chunk.ids
    return Row(tuple(ids), tuple(passages)), places


def _seen(
    number: int,
    document: Document,
    places: Sequence[_Place],
    scores: Sequence[SentenceScore],
    truth: Sequence[Span] | None,
) -> Iterator[Seen]:
    for place, score in zip(places, scores, strict=True):
        tagged = _tags_on(document.spans, place)
        known = None if truth is None else _tags_on(truth, place)
        yield Seen(number, place.start, place.end, place.text, posteriors(score), tagged, known)


def _tags_on(spans: Iterable[Span], place: _Place) -> frozenset[str]:
    return frozenset(s.tag for s in spans if s.start < place.end and place.start < s.end)


def _truths(documents: Sequence[Document], oracle: bool) -> list[Sequence[Span] | None]:
    if not oracle:
        return [None] * len(documents)
    outcomes = OracleTagger().attempt([document.plain for document in documents])
    return [None if isinstance(one, Untagged) else one for one in outcomes]
