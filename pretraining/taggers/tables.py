"""What tagging did and how well, as tables for a terminal."""

from collections.abc import Mapping

from rich.table import Table

from ..evaluation.measures import Rate
from .apply import Tally
from .compare import Comparison
from .learned import CrossValidation

__all__ = ["compared", "disagreements", "spans", "validated"]


def spans(tally: Tally) -> Table:
    """Spans and share of documents, for each tag and band."""
    table = Table("tag", "band", "spans", "documents", "share of documents")
    for tag, band in sorted(tally.spans, key=lambda kind: (kind[0], kind[1] or 0)):
        bearing = tally.bearing[tag, band]
        level = "" if band is None else str(band)
        share = Rate(bearing, tally.documents - tally.failed).value
        table.add_row(tag, level, str(tally.spans[tag, band]), str(bearing), f"{share:.2%}")
    return table


def disagreements(tally: Tally) -> Table:
    """Lines tagged otherwise than the corpus's own labels had it."""
    table = Table(
        "tag", "as before", "added", "removed", "other band",
        title=f"against the labels that {tally.labelled} documents brought along, in lines",
    )  # fmt: skip
    for tag in sorted({*tally.kept, *tally.added, *tally.removed, *tally.moved}):
        counts = (tally.kept, tally.added, tally.removed, tally.moved)
        table.add_row(tag, *(str(count[tag]) for count in counts))
    return table


def compared(found: Mapping[str, Comparison]) -> Table:
    """Precision and recall of each tagger, for the tags that it gave at least once."""
    table = Table("tagger", "tag", "precision", "recall", "audits tagged", "untagged")
    for name, comparison in found.items():
        given = [tag for tag, rate in comparison.precision.items() if rate.n]
        if not given:
            table.add_row(name, "none", "", "", _rate(comparison.mentions), str(comparison.failed))
        for place, tag in enumerate(given):
            table.add_row(
                name if place == 0 else "", tag,
                _rate(comparison.precision[tag]), _rate(comparison.recall[tag]),
                _rate(comparison.mentions) if place == 0 else "",
                str(comparison.failed) if place == 0 else "",
            )  # fmt: skip
    return table


def validated(found: CrossValidation) -> Table:
    """Cross-validated precision and recall of each label."""
    table = Table("label", "precision", "recall")
    for label in found.precision:
        table.add_row(label, _rate(found.precision[label]), _rate(found.recall[label]))
    return table


def _rate(rate: Rate) -> str:
    if not rate.n:
        return "none"
    low, high = rate.interval
    return f"{rate.value:.3f} ({low:.3f} to {high:.3f}), n={rate.n}"
