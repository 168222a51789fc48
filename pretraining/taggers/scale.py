"""From a score to a tag and its band: one threshold, or one for each band."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..corpus.document import Span
from .units import Range

__all__ = ["TAG_NAME", "Scale"]

TAG_NAME = r"^[a-z][a-z0-9_]*$"
"""A tag's name, as a vocabulary spells it."""


def _check_bands(bands: dict[int, float]) -> dict[int, float]:
    """``bands`` by level. Raises ValueError unless thresholds rise with the levels from 1 on."""
    ordered = dict(sorted(bands.items()))
    if ordered and min(ordered) < 1:
        raise ValueError(f"band {min(ordered)}: levels start at 1")
    if not all(map(math.isfinite, ordered.values())):
        raise ValueError("a band's threshold is no finite number")
    if list(ordered.values()) != sorted(set(ordered.values())):
        raise ValueError("the thresholds of the bands must rise with their levels")
    return ordered


class Scale(BaseModel):
    """Which tag a score stands for, and from where on.

    ``bands`` maps each level to the least score that reaches it; without bands, ``at`` is the
    least score that counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str = Field(pattern=TAG_NAME)
    at: float | None = Field(default=None, allow_inf_nan=False)
    bands: dict[int, float] = {}

    _ordered = field_validator("bands")(_check_bands)

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if self.at is not None and self.bands:
            raise ValueError(
                f"tag {self.tag!r}: give 'at' or 'bands', not both; the lowest band is the least "
                "score that counts"
            )
        return self

    def span(self, place: Range, score: float, default: float) -> Span | None:
        """The span that ``score`` earns, None below the threshold (``default`` where none is set).

        Raises ValueError for a score that is not a number, which would pass every comparison.
        """
        if math.isnan(score):
            raise ValueError(f"the score for {self.tag!r} is not a number")
        if not self.bands:
            least = default if self.at is None else self.at
            return Span(*place, self.tag) if score >= least else None
        reached = [level for level, least in self.bands.items() if score >= least]
        return Span(*place, self.tag, reached[-1]) if reached else None
