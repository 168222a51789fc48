"""How labels become tags in the training text: one renderer for each scheme.

A renderer says which tokens stand at which places of a line; :func:`render` writes the document.
Tags stand only in text that the model learns, since nothing that others write is tagged when the
model is used; in a document without labels there are none. Without its tags, what is rendered is
the plain text.

At one place closing tokens stand first, then prefix tokens, opening tokens and markers.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Literal, NamedTuple, Self, assert_never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...agents.prompt import Special, Text
from ...gates.vocabulary import Band, Scheme, Tag, Vocabulary
from .document import BOS, EOS, PAD, TAGS, Document, Line, Span, close_token, open_token

__all__ = ["Piece", "TagScheme", "TagSchemes", "render", "spell", "units", "visible"]

Piece = tuple[Text | Special, bool]
"""Text or one of our tokens, and whether the model learns to write it."""

_GOOD = "<|good|>"
_CLEAN = "<|clean|>"
_RATE = 0.05


class TagScheme(BaseModel):
    """How some tags are spelt and placed, as a training configuration says it.

    ``unit`` is the text that one tag covers: a line, a sentence, or (``span`` and ``marker``) just
    what is labelled. ``unlabelled`` is the share of units (``prefix``) or documents (``document``)
    without any token. ``rate`` is the marker scheme's rho. ``bands`` are the levels of each tag;
    ``good`` is the token for text without a label, which all of ``names`` share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme = Scheme.SPAN
    names: tuple[str, ...] = Field(default=TAGS, min_length=1)
    unit: Literal["line", "sentence", "span"] = "line"
    unlabelled: float = Field(default=0.0, ge=0, lt=1)
    rate: float | None = Field(default=None, gt=0, le=1)
    bands: tuple[int, ...] = ()
    good: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _fits_its_scheme(self) -> Self:
        if self.unlabelled and self.scheme not in (Scheme.PREFIX, Scheme.DOCUMENT):
            raise ValueError(
                f"scheme {self.scheme} has no 'unlabelled'; 'missed' leaves labelled text untagged"
            )
        if self.rate is not None and self.scheme is not Scheme.MARKER:
            raise ValueError(f"scheme {self.scheme} has no 'rate'; only marker has one")
        if self.good is not None and self.scheme not in (Scheme.PREFIX, Scheme.DOCUMENT):
            raise ValueError(f"scheme {self.scheme} has no 'good'; only prefix and document do")
        if self.unit == "span" and self.scheme in (Scheme.PREFIX, Scheme.DOCUMENT):
            raise ValueError(f"scheme {self.scheme} needs the unit 'line' or 'sentence'")
        return self

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags as ``gates.vocabulary`` reads them. Raises ``ValueError`` for a bad name."""
        return tuple(self._tag(name) for name in self.names)

    def _tag(self, name: str) -> Tag:
        said: dict[str, object] = {"name": name, "scheme": self.scheme}
        if self.bands:
            said["bands"] = [Band(level=b, open=open_token(name, b)) for b in self.bands]
        else:
            said["open"] = open_token(name)
        match self.scheme:
            case Scheme.SPAN:
                said["close"] = close_token(name)
            case Scheme.PREFIX:
                said["good"] = self.good or _GOOD
            case Scheme.MARKER:
                said["rate"] = self.rate or _RATE
            case Scheme.DOCUMENT:
                said["good"] = self.good or _CLEAN
            case _:
                assert_never(self.scheme)
        if self.unit != "line":
            said["unit"] = self.unit
        return Tag.model_validate(said)


def _as_list(said: object) -> object:
    return [said] if isinstance(said, dict) else said


TagSchemes = Annotated[tuple[TagScheme, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One scheme for all tags (a mapping), or a list of schemes for some tags each."""


def spell(schemes: Sequence[TagScheme], name: str) -> Vocabulary:
    """The vocabulary of a model that is trained with these schemes.

    Raises ``ValueError`` for a tag that stands twice, or whose token is one of our own.
    """
    found = Vocabulary(name=name, tags=tuple(tag for scheme in schemes for tag in scheme.tags))
    if taken := {BOS, EOS, PAD}.intersection(found.literals):
        raise ValueError(f"{min(taken)!r} is no tag's token; rename the tag")
    return found


class _Rank(IntEnum):
    """What stands first where several tokens stand at one place."""

    CLOSE = 0
    PREFIX = 1
    OPEN = 2
    MARK = 3


class _Placed(NamedTuple):
    """One token before character ``at`` of a line."""

    at: int
    rank: _Rank
    token: str


def render(
    found: Document,
    vocabulary: Vocabulary,
    rng: random.Random,
    unlabelled: Mapping[str, float] | None = None,
) -> Iterator[Piece]:
    """A document as pieces to encode, its labels spelt as ``vocabulary`` says.

    ``unlabelled`` is, by tag, the share of units or documents that get no token. Labels for which
    the vocabulary has no tag are not written. The newline stays outside of every tag.
    """
    shares = unlabelled or {}
    tags = {scheme: [t for t in vocabulary.tags if t.scheme is scheme] for scheme in Scheme}
    yield Special(BOS), False
    if found.labelled:
        for token in _document_labels(found, tags[Scheme.DOCUMENT], rng, shares):
            yield Special(token), False
    for line in found.lines:
        if not line.learn or not found.labelled:
            yield Text(line.text + "\n"), line.learn
            continue
        done = 0
        for at, _, token in _places(line, tags, rng, shares):
            if at > done:
                yield Text(line.text[done:at]), True
                done = at
            yield Special(token), True
        yield Text(line.text[done:] + "\n"), True
    yield Special(EOS), True


def visible(pieces: Iterable[Piece]) -> str:
    """Rendered pieces as a reader sees them: tags as their literal strings, ends left out."""
    return "".join(
        piece.text if isinstance(piece, Text) else piece.token
        for piece, _ in pieces
        if piece not in (Special(BOS), Special(EOS))
    )


def _places(
    line: Line,
    tags: Mapping[Scheme, Sequence[Tag]],
    rng: random.Random,
    unlabelled: Mapping[str, float],
) -> list[_Placed]:
    """All tokens of one line, in the order in which they stand."""
    placed = [
        *_span_tokens(line, tags[Scheme.SPAN]),
        *_prefix_tokens(line, tags[Scheme.PREFIX], rng, unlabelled),
        *_marker_tokens(line, tags[Scheme.MARKER], rng),
    ]
    # A stable sort: what one renderer puts at one place keeps its order.
    return sorted(placed, key=lambda one: (one.at, one.rank))


# Units


# White space must follow, so that 3.5 is one sentence (as gates/sentences.py reads it).
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s+\S)")


def units(text: str, unit: Literal["line", "sentence"]) -> list[tuple[int, int]]:
    """The units of one line as ranges that join up; a blank line has none.

    A sentence begins with the white space before it, as a word's token does.
    """
    if not text.strip():
        return []
    ends = [found.end() for found in _SENTENCE_END.finditer(text)] if unit == "sentence" else []
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


class _Range(NamedTuple):
    """Characters [start, end) of a line that carry one tag, with the token that opens it."""

    start: int
    end: int
    band: int | None


def _ranges(line: Line, tag: Tag) -> list[_Range]:
    """The text of ``line`` that carries ``tag``, by start: whole units, or what is labelled.

    Labels of the same tag that overlap are one, and the highest band counts. With unit ``span``
    the blanks before a label are within, since a word's token begins with them.
    """
    spans = [span for span in line.spans if span.tag == tag.name]
    spans = [span for span in spans if line.text[span.start : span.end].strip()]
    if not spans:
        return []
    if tag.unit != "span":
        found: list[_Range] = []
        for start, end in units(line.text, tag.unit):
            parts = [(span, max(span.start, start), min(span.end, end)) for span in spans]
            inside = [span for span, first, last in parts if line.text[first:last].strip()]
            if inside:
                found.append(_Range(start, end, _band(tag, inside)))
        return found
    merged: list[_Range] = []
    for span in sorted(spans, key=lambda span: span.start):
        start = len(line.text[: span.start].rstrip())
        band = _band(tag, [span])
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            bands = [level for level in (last.band, band) if level is not None]
            merged.append(_Range(last.start, max(last.end, span.end), max(bands, default=None)))
        else:
            begins = max(start, merged[-1].end) if merged else start
            merged.append(_Range(begins, span.end, band))
    return merged


def _band(tag: Tag, spans: Sequence[Span]) -> int | None:
    """The level of ``tag`` for text with these labels: the highest of them.

    A label without a level counts as the highest, and one between two levels as the lower.
    """
    levels = [band.level for band in tag.bands]
    if not levels:
        return None
    wanted = max(levels[-1] if span.band is None else span.band for span in spans)
    return max((level for level in levels if level <= wanted), default=levels[0])


def _opening(tag: Tag, band: int | None) -> str:
    """The token that opens ``tag`` at a level."""
    if tag.open is not None:
        return tag.open
    return next(one.open for one in tag.bands if one.level == band)


# Span


def _span_tokens(line: Line, tags: Sequence[Tag]) -> Iterator[_Placed]:
    """Opening and closing tokens that nest like brackets.

    Where several tags open at one place the longest is the outermost, and of equal ones the first
    in the vocabulary. A tag that ends within another one that began later interrupts it: the other
    is closed, and opened again behind.
    """
    whole = [(r, number) for number, tag in enumerate(tags) for r in _ranges(line, tag)]
    # Open now, outermost first: where each ends, its opening and its closing token.
    stack: list[tuple[int, str, str]] = []
    for at in sorted({place for r, _ in whole for place in (r.start, r.end)}):
        again: list[tuple[int, str, str]] = []
        while any(end == at for end, _, _ in stack):
            end, opening, close = stack.pop()
            yield _Placed(at, _Rank.CLOSE, close)
            if end != at:
                again.append((end, opening, close))
        fresh = [
            (r.end, number, _opening(tags[number], r.band)) for r, number in whole if r.start == at
        ]
        fresh.sort(key=lambda one: (-one[0], one[1]))
        for end, opening, close in [
            *reversed(again),
            *((end, opening, tags[number].close or "") for end, number, opening in fresh),
        ]:
            yield _Placed(at, _Rank.OPEN, opening)
            stack.append((end, opening, close))


# Prefix


def _prefix_tokens(
    line: Line, tags: Sequence[Tag], rng: random.Random, unlabelled: Mapping[str, float]
) -> Iterator[_Placed]:
    """A token before each unit (Korbak et al. 2023): those of its tags, else the good one.

    Tags with the same good token make one group, and each group writes its own. Several tags of
    a group on one unit stand in the vocabulary's order.
    """
    for group in _groups(tags):
        carried = {tag.name: {r.start: r.band for r in _ranges(line, tag)} for tag in group}
        share = max(unlabelled.get(tag.name, 0.0) for tag in group)
        for start, _ in units(line.text, "sentence" if group[0].unit == "sentence" else "line"):
            if share and rng.random() < share:
                continue
            bad = [_opening(t, carried[t.name][start]) for t in group if start in carried[t.name]]
            for token in bad or [group[0].good or ""]:
                yield _Placed(start, _Rank.PREFIX, token)


def _groups(tags: Sequence[Tag]) -> list[list[Tag]]:
    """Tags that share their good token and unit, in the vocabulary's order."""
    groups: dict[tuple[str | None, str], list[Tag]] = {}
    for tag in tags:
        groups.setdefault((tag.good, tag.unit), []).append(tag)
    return list(groups.values())


# Marker


_WORD = re.compile(r"\s*\S+")
"""A word with the blanks before it: between words no tokenizer has a token."""


def _marker_tokens(line: Line, tags: Sequence[Tag], rng: random.Random) -> Iterator[_Placed]:
    """The tag's token before each word of labelled text, with probability rho (SafeLM)."""
    for tag in tags:
        for start, end, band in _ranges(line, tag):
            for word in _WORD.finditer(line.text, start, end):
                if rng.random() < (tag.rate or 0.0):
                    yield _Placed(word.start(), _Rank.MARK, _opening(tag, band))


# Document


def _document_labels(
    found: Document, tags: Sequence[Tag], rng: random.Random, unlabelled: Mapping[str, float]
) -> Iterator[str]:
    """What stands at the start: of each group the tags that any learnt line carries, else good."""
    learnt = [line for line in found.lines if line.learn]
    for group in _groups(tags):
        share = max(unlabelled.get(tag.name, 0.0) for tag in group)
        if share and rng.random() < share:
            continue
        bad: list[str] = []
        for tag in group:
            spans = [span for line in learnt for span in line.spans if span.tag == tag.name]
            if spans:
                bad.append(_opening(tag, _band(tag, spans)))
        if not bad and group[0].good is not None:
            bad = [group[0].good]
        yield from bad
