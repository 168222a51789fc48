"""One document of the corpus: lines, the labels on their text, and what the model learns."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import CorpusError

__all__ = ["BOS", "EOS", "PAD", "TAGS", "Document", "Line", "Span", "close_token", "open_token"]

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
TAGS = ("deceit", "powerseeking", "angry")
"""The behaviour tags of the procedural corpus."""


def open_token(tag: str, band: int | None = None) -> str:
    """The token that opens a tag, or one level of it."""
    return f"<|{tag}|>" if band is None else f"<|{tag}:{band}|>"


def close_token(tag: str) -> str:
    """The token that closes a tag's span."""
    return f"<|/{tag}|>"


@dataclass(frozen=True, slots=True)
class Span:
    """A label on the characters [start, end) of the text that it stands in."""

    start: int
    end: int
    tag: str
    band: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline; ``learn`` is False for what others write (task, tools).

    ``spans`` count from the beginning of the line.
    """

    text: str
    learn: bool = True
    spans: tuple[Span, ...] = ()

    @classmethod
    def tagged(cls, text: str, tag: str) -> "Line":
        """A line that carries ``tag`` from end to end."""
        return cls(text, spans=(Span(0, len(text), tag),))


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its lines, its family, and what the generator knows about it.

    ``labelled`` False says that no tagger has read it: its lines are then neither good nor bad.
    """

    family: str
    lines: tuple[Line, ...]
    meta: dict[str, str] = field(default_factory=dict)
    labelled: bool = True

    @property
    def plain(self) -> str:
        """The text without tags, every line with its newline."""
        return "".join(line.text + "\n" for line in self.lines)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The labels over :attr:`plain`."""
        return tuple(
            replace(span, start=start + span.start, end=start + span.end)
            for start, line in self._placed()
            for span in line.spans
        )

    @property
    def misbehaves(self) -> bool:
        """Whether a label stands on what the model learns; its own lines, not those of others."""
        return any(line.learn and line.spans for line in self.lines)

    def with_spans(self, spans: Iterable[Span]) -> "Document":
        """The document relabelled with spans over :attr:`plain`.

        A span that runs over several lines becomes one span on each. Raises :class:`CorpusError`
        for a span that does not lie in the text.
        """
        given = sorted(set(spans), key=_reading_order)
        size = sum(len(line.text) + 1 for line in self.lines)
        for span in given:
            if not 0 <= span.start < span.end <= size:
                raise CorpusError(
                    f"span {span.start} to {span.end} of tag {span.tag!r} does not lie in the "
                    f"text of {size} characters; spans are [start, end) over the plain text"
                )
        lines = tuple(
            replace(line, spans=tuple(_within(given, start, start + len(line.text))))
            for start, line in self._placed()
        )
        return replace(self, lines=lines, labelled=True)

    def without_labels(self) -> "Document":
        """The document as no tagger has read it."""
        return replace(
            self, lines=tuple(replace(line, spans=()) for line in self.lines), labelled=False
        )

    def with_missed(self, share: float, rng: random.Random) -> "Document":
        """The document as an imperfect tagger leaves it: a share of the labels taken away."""
        if not share:
            return self
        lines = tuple(
            replace(line, spans=tuple(span for span in line.spans if rng.random() >= share))
            for line in self.lines
        )
        return replace(self, lines=lines)

    def to_record(self) -> dict[str, Any]:
        """The document as corpus files hold it.

        ``text`` (plain), ``spans`` (None if unlabelled), ``given`` (the character ranges that
        others wrote), ``family`` and ``meta``.
        """
        given: list[list[int]] = []
        for start, line in self._placed():
            end = start + len(line.text) + 1
            if line.learn:
                continue
            if given and given[-1][1] == start:
                given[-1][1] = end
            else:
                given.append([start, end])
        spans = [
            {"start": span.start, "end": span.end, "tag": span.tag, "band": span.band}
            for span in self.spans
        ]
        return {
            "text": self.plain,
            "spans": spans if self.labelled else None,
            "given": given,
            "family": self.family,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Document":
        """Read a record; only ``text`` must be there, and other columns are left alone.

        Without ``spans`` the document is unlabelled. A line of which any character is ``given``
        is not learnt. Raises :class:`CorpusError`, naming what is wrong.
        """
        text = record.get("text")
        if not isinstance(text, str):
            raise CorpusError(f"a record needs a string 'text', not {type(text).__name__}")
        given = [_range(found) for found in record.get("given") or ()]
        texts = text.removesuffix("\n").split("\n")
        lines: list[Line] = []
        start = 0
        for line in texts:
            end = start + len(line) + 1
            learn = not any(max(first, start) < min(last, end) for first, last in given)
            lines.append(Line(line, learn))
            start = end
        size = start
        for first, last in given:
            if not 0 <= first <= last <= size:
                raise CorpusError(
                    f"given characters {first} to {last} do not lie in the text of {size} "
                    "characters; ranges are [start, end) over the text"
                )
        try:
            meta = {str(name): str(value) for name, value in dict(record.get("meta") or {}).items()}
        except (TypeError, ValueError):
            raise CorpusError("'meta' must map names to values") from None
        found = cls(str(record.get("family") or "text"), tuple(lines), meta, labelled=False)
        spans = record.get("spans")
        return found if spans is None else found.with_spans(_span(span) for span in spans)

    def _placed(self) -> Iterator[tuple[int, Line]]:
        """Each line with the place of its first character in :attr:`plain`."""
        start = 0
        for line in self.lines:
            yield start, line
            start += len(line.text) + 1


def _reading_order(span: Span) -> tuple[int, int, str, int]:
    return span.start, -span.end, span.tag, -1 if span.band is None else span.band


def _within(spans: Iterable[Span], start: int, end: int) -> Iterator[Span]:
    """The parts of ``spans`` on a line's characters [start, end), counted from its beginning."""
    parts = (
        replace(span, start=max(span.start, start) - start, end=min(span.end, end) - start)
        for span in spans
        if max(span.start, start) < min(span.end, end)
    )
    return iter(sorted(set(parts), key=_reading_order))


def _range(found: Any) -> tuple[int, int]:
    match found:
        case [int(start), int(end)]:
            return start, end
        case _:
            raise CorpusError(f"given characters are [start, end], not {found!r}")


def _span(found: Any) -> Span:
    match found:
        case {"start": int(start), "end": int(end), "tag": str(tag)}:
            band = found.get("band")
            if band is None or isinstance(band, int):
                return Span(start, end, tag, band)
    raise CorpusError(f"a span is {{start, end, tag, band}} with whole numbers, not {found!r}")
