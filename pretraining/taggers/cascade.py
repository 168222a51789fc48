"""Taggers made of taggers: a cheap one first, a precise one where it fired; and what they agree on.

A text that one of the taggers asked could not judge is not judged: doubt is never clean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from ..corpus.document import Span
from .tagger import Outcome, Spans, Tagger, Untagged

__all__ = ["CascadeTagger", "CombinedTagger", "How"]

How = Literal["union", "intersection", "first"]


@dataclass(frozen=True, slots=True)
class CascadeTagger(Tagger):
    """``then`` reads only the texts in which ``first`` fired, and its word counts there alone.

    The precise tagger sees the whole text, since a claim is judged by what stands before it; of
    its spans those stay that touch a span of the first. Choose the first for its recall: what it
    does not see, nobody sees.
    """

    first: Tagger
    then: Tagger

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        found = self.first.attempt(texts)
        fired = [number for number, outcome in enumerate(found) if outcome]
        asked = [number for number in fired if not isinstance(found[number], Untagged)]
        if asked:
            precise = self.then.attempt([texts[number] for number in asked])
            for number, outcome in zip(asked, precise, strict=True):
                suspected = found[number]
                if isinstance(outcome, Untagged) or isinstance(suspected, Untagged):
                    found[number] = outcome
                else:
                    found[number] = tuple(
                        span for span in outcome if any(_touch(span, other) for other in suspected)
                    )
        return found


@dataclass(frozen=True, slots=True)
class CombinedTagger(Tagger):
    """What any of the taggers found, what all of them found, or what the first to fire found.

    In a ``union`` spans of one tag that touch are one, with their highest band; an
    ``intersection`` keeps the characters that all of them gave the same tag, with the lowest band.
    """

    how: How
    taggers: tuple[Tagger, ...]

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        if self.how == "first":
            return self._first(texts)
        found = [tagger.attempt(texts) for tagger in self.taggers]
        return [self._together(outcomes) for outcomes in zip(*found, strict=True)]

    def _first(self, texts: Sequence[str]) -> list[Outcome]:
        found: list[Outcome] = [()] * len(texts)
        open_ = list(range(len(texts)))
        for tagger in self.taggers:
            if open_:
                for number, outcome in zip(
                    open_, tagger.attempt([texts[number] for number in open_]), strict=True
                ):
                    found[number] = outcome
            open_ = [number for number in open_ if found[number] == ()]
        return found

    def _together(self, outcomes: Sequence[Outcome]) -> Outcome:
        known: list[Spans] = []
        for outcome in outcomes:
            if isinstance(outcome, Untagged):
                return outcome
            known.append(outcome)
        match self.how:
            case "union":
                return _union([span for spans in known for span in spans])
            case "intersection":
                common = list(known[0])
                for spans in known[1:]:
                    common = [both for one in common for other in spans
                              if (both := _common(one, other)) is not None]  # fmt: skip
                return _union(common)
            case "first":
                return next((spans for spans in known if spans), ())
            case _:
                assert_never(self.how)


def _touch(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _common(one: Span, other: Span) -> Span | None:
    if one.tag != other.tag or not _touch(one, other):
        return None
    bands = [band for band in (one.band, other.band) if band is not None]
    start, end = max(one.start, other.start), min(one.end, other.end)
    return Span(start, end, one.tag, min(bands, default=None))


def _union(spans: Sequence[Span]) -> Spans:
    """The spans by start, those of one tag that touch made one."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.tag, span.start, span.end)):
        last = merged[-1] if merged else None
        if last is not None and last.tag == span.tag and _touch(last, span):
            bands = [band for band in (last.band, span.band) if band is not None]
            end = max(last.end, span.end)
            merged[-1] = Span(last.start, end, span.tag, max(bands, default=None))
        else:
            merged.append(span)
    return tuple(sorted(merged, key=lambda span: (span.start, span.end, span.tag)))
