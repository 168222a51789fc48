"""The points that the laboratory measured: what they are called, and those of one place."""

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["WORDS", "places", "rows_at"]

WORDS = {
    "ban": "ban only",
    "opened": "ban, prune by opened",
    "posterior": "ban, prune by posterior",
    "resample": "ban, resample by posterior",
}
"""The defences as tables and pictures call them."""


def places(curve: Sequence[dict[str, Any]]) -> list[tuple[float, str]]:
    """The temperatures and contexts that were measured, in order."""
    found = [(row["temperature"], row["context"]) for point in curve for row in point["defences"]]
    return list(dict.fromkeys(found))


def rows_at(
    rows: Sequence[dict[str, Any]], temperature: float, context: str
) -> Iterator[dict[str, Any]]:
    """The rows of one temperature and context."""
    return (r for r in rows if r["temperature"] == temperature and r["context"] == context)
