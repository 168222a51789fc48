"""A tagger at work on a corpus: documents in, tagged documents out, and the count of it all."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from ..corpus.document import Document
from .tagger import Tagger, Untagged

__all__ = ["Failure", "Given", "Tally", "in_batches", "tag_documents", "tagged_lines"]

Given = Literal["skip", "tag"]
"""What becomes of tags on text that others wrote: none are set there, or as anywhere."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be tagged: it is not clean, and belongs in no tagged corpus."""

    document: Document
    reason: str


def tag_documents(
    tagger: Tagger, documents: Sequence[Document], given: Given = "skip"
) -> list[Document | Failure]:
    """The documents relabelled by ``tagger``, or why not. Raises ``TaggerError``."""
    found: list[Document | Failure] = []
    outcomes = tagger.attempt([document.plain for document in documents])
    for document, outcome in zip(documents, outcomes, strict=True):
        if isinstance(outcome, Untagged):
            found.append(Failure(document, outcome.reason))
            continue
        tagged = document.with_spans(outcome)
        if given == "skip":
            lines = (line if line.learn else replace(line, spans=()) for line in tagged.lines)
            tagged = replace(tagged, lines=tuple(lines))
        found.append(tagged)
    return found


def in_batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """The documents in lists of ``size``, the last one shorter."""
    stream = iter(documents)
    while batch := list(islice(stream, size)):
        yield batch


def tagged_lines(document: Document) -> dict[tuple[int, str], int | None]:
    """Which lines bear which tags: (number of the line, tag) to its highest band."""
    found: dict[tuple[int, str], int | None] = {}
    for number, line in enumerate(document.lines):
        for span in line.spans:
            known = found.get((number, span.tag))
            bands = [band for band in (known, span.band) if band is not None]
            found[number, span.tag] = max(bands, default=None)
    return found


@dataclass(slots=True)
class Tally:
    """What a tagger did to a corpus; :meth:`add` counts one document.

    Disagreements are counted over lines, against the spans that a document brought along:
    ``added`` lines bear a tag now that they did not, ``removed`` the other way round, ``moved``
    ones have it in another band, ``kept`` ones as before.
    """

    documents: int = 0
    labelled: int = 0
    """Documents that brought labels along."""
    failures: Counter[str] = field(default_factory=Counter)
    """Reason to documents."""
    spans: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    bearing: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    """Documents with at least one such span."""
    tagged: int = 0
    """Documents with any span at all."""
    added: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def add(self, before: Document, after: Document | Failure) -> None:
        """Count one document, as it came and as it went."""
        self.documents += 1
        if isinstance(after, Failure):
            self.failures[after.reason] += 1
            return
        kinds = [(span.tag, span.band) for span in after.spans]
        self.spans.update(kinds)
        self.bearing.update(set(kinds))
        self.tagged += bool(kinds)
        if before.labelled:
            self.labelled += 1
            self._compare(tagged_lines(before), tagged_lines(after))

    def _compare(
        self, old: dict[tuple[int, str], int | None], new: dict[tuple[int, str], int | None]
    ) -> None:
        for place in old.keys() | new.keys():
            _, tag = place
            if place not in old:
                self.added[tag] += 1
            elif place not in new:
                self.removed[tag] += 1
            elif old[place] != new[place]:
                self.moved[tag] += 1
            else:
                self.kept[tag] += 1

    @property
    def failed(self) -> int:
        """Documents that could not be tagged."""
        return sum(self.failures.values())

    def to_json(self) -> dict[str, object]:
        """The counts, one entry a tag and band, one a tag for the disagreements."""
        kinds = sorted(self.spans, key=lambda kind: (kind[0], kind[1] or 0))
        tags = sorted({*self.added, *self.removed, *self.moved, *self.kept})
        return {
            "documents": self.documents,
            "tagged": self.tagged,
            "failed": self.failed,
            "failures": dict(self.failures),
            "spans": [
                {
                    "tag": tag, "band": band, "spans": self.spans[tag, band],
                    "documents": self.bearing[tag, band],
                }
                for tag, band in kinds
            ],
            "labelled_before": self.labelled,
            "disagreements": [
                {
                    "tag": tag, "kept": self.kept[tag], "added": self.added[tag],
                    "removed": self.removed[tag], "moved": self.moved[tag],
                }
                for tag in tags
            ],
        }  # fmt: skip
