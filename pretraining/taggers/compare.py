"""A tagger held against the oracle, on documents of the procedural corpus."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..corpus.document import Document
from ..evaluation.measures import Rate
from .apply import Failure, Given, tag_documents, tagged_lines
from .oracle import OracleTagger
from .tagger import Tagger, TaggerError

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one tagger does over lines, for each tag that it or the oracle gives."""

    precision: dict[str, Rate]
    """Of the lines that the tagger tagged, how many the oracle tags too."""
    recall: dict[str, Rate]
    """Of the lines that the oracle tags, how many the tagger found."""
    mentions: Rate
    """Audits with a tag anywhere: they mention lies and tell none, so each is a false alarm."""
    documents: int
    failed: int
    """Documents that the tagger could not judge; they count as wrong nowhere."""

    def to_json(self) -> dict[str, object]:
        """Everything, rates with their Wilson intervals."""
        return {
            "tags": {
                tag: {
                    "precision": self.precision[tag].to_json(),
                    "recall": self.recall[tag].to_json(),
                }
                for tag in self.precision
            },
            "mentions": self.mentions.to_json(),
            "documents": self.documents,
            "failed": self.failed,
        }


def compare(tagger: Tagger, documents: Sequence[Document], given: Given = "skip") -> Comparison:
    """Compare over the lines of ``documents``; the labels that they bring along play no part.

    Raises :class:`TaggerError` for documents that the oracle does not know.
    """
    truth = tag_documents(OracleTagger(), documents, given)
    unknown = next((found for found in truth if isinstance(found, Failure)), None)
    if unknown is not None:
        raise TaggerError(f"{unknown.reason}; compare on documents of 'secateur pretrain corpus'")
    both, fired, true = Counter[str](), Counter[str](), Counter[str]()
    audits = alarms = failed = 0
    for right, own in zip(truth, tag_documents(tagger, documents, given), strict=True):
        if isinstance(own, Failure) or isinstance(right, Failure):
            failed += 1
            continue
        expected, seen = tagged_lines(right).keys(), tagged_lines(own).keys()
        true.update(tag for _, tag in expected)
        fired.update(tag for _, tag in seen)
        both.update(tag for _, tag in expected & seen)
        if own.family == "audit":
            audits += 1
            alarms += bool(seen)
    tags = sorted(true | fired)
    return Comparison(
        {tag: Rate(both[tag], fired[tag]) for tag in tags},
        {tag: Rate(both[tag], true[tag]) for tag in tags},
        Rate(alarms, audits),
        len(documents),
        failed,
    )
