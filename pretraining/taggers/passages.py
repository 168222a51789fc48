"""What a scoring tagger reads of a text: each unit, with what stands before it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..corpus.document import Span
from .mention import Mention
from .scale import Scale
from .tagger import Outcome, Untagged
from .units import Range, Unit, ranges

__all__ = ["Passage", "outcomes", "passages"]


@dataclass(frozen=True, slots=True)
class Passage:
    """One line or sentence of text ``number``, its mentions masked, and the units before it."""

    number: int
    place: Range
    inside: str
    before: str = ""


def passages(texts: Sequence[str], unit: Unit, context: int, mention: Mention) -> list[Passage]:
    """The units of all texts that say anything of their own, with ``context`` units before each.

    What stands before is not masked: what others said is what a claim is to be held against.
    """
    found: list[Passage] = []
    for number, text in enumerate(texts):
        masked = mention.masked(text)
        units = ranges(text, unit)
        for position, (start, end) in enumerate(units):
            inside = masked[start:end].strip()
            if not inside:
                continue
            first = units[max(0, position - context)][0]
            found.append(Passage(number, (start, end), inside, text[first:start].rstrip()))
    return found


def outcomes(
    count: int,
    read: Sequence[Passage],
    scores: Iterable[Mapping[str, float]],
    labels: Mapping[str, Scale],
) -> list[Outcome]:
    """The spans that the labels' scores earn in ``count`` texts; with a NaN a text is unknown."""
    found: list[Outcome] = [()] * count
    for passage, given in zip(read, scores, strict=True):
        known = found[passage.number]
        if isinstance(known, Untagged):
            continue
        try:
            spans = [
                scale.span(passage.place, given[label], default=0.5)
                for label, scale in labels.items()
            ]
        except ValueError as error:
            found[passage.number] = Untagged(str(error))
            continue
        # Of one tag's bands in one place, the highest stands.
        best: dict[str, Span] = {}
        for span in spans:
            if span is not None and (span.band or 0) >= (best.get(span.tag, span).band or 0):
                best[span.tag] = span
        found[passage.number] = (*known, *best.values())
    return found
