"""Maps a raw reading to the share of held-out text with that reading that was really bad."""

from bisect import bisect_right
from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from .frozen import FrozenModel
from .reading import Reading

__all__ = ["Calibration"]


class Calibration(FrozenModel):
    """An isotonic map, as data: piecewise linear between knots, flat outside them.

    ``knots`` are (raw reading, calibrated probability) pairs, both rising; a fit by isotonic
    regression on retagged held-out text writes them (pool adjacent violators, Barlow et al. 1972).
    """

    of: Reading
    """The reading that is mapped."""
    knots: tuple[tuple[float, float], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.of is Reading.CALIBRATED or self.of is Reading.EMITTED:
            raise ValueError(f"{self.of} cannot be calibrated; choose peak, opened or posterior")
        raws = [raw for raw, _ in self.knots]
        mapped = [probability for _, probability in self.knots]
        if not all(low < high for low, high in pairwise(raws)):
            raise ValueError("the raw readings of the knots must rise strictly")
        if mapped != sorted(mapped) or not all(0 <= p <= 1 for p in mapped):
            raise ValueError("the calibrated values of the knots must rise within 0 to 1")
        return self

    @property
    def top(self) -> float:
        """The largest value the map can give."""
        return self.knots[-1][1]

    def apply(self, raw: float) -> float:
        """The calibrated probability of one raw reading."""
        right = bisect_right(self.knots, raw, key=lambda knot: knot[0])
        if right == 0:
            return self.knots[0][1]
        if right == len(self.knots):
            return self.top
        (x0, y0), (x1, y1) = self.knots[right - 1], self.knots[right]
        # Rounding may not break monotony: a branch that was cut early stays cut on replay.
        return min(y1, y0 + (y1 - y0) * (raw - x0) / (x1 - x0))
