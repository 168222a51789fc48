"""What a reading is worth: the share of such text that was bad, and a threshold with a budget."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from .errors import SecateurError
from .frozen import FrozenModel
from .reading import Reading

__all__ = ["Calibration", "CalibrationError", "conformal_threshold"]


class CalibrationError(SecateurError):
    """Readings from which no threshold or map can be made."""


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
        if not all(map(math.isfinite, raws)):
            raise ValueError("the raw readings of the knots must be finite numbers")
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


def conformal_threshold(maxima_per_root: Sequence[float], alpha: float) -> float:
    """A threshold that at most the share ``alpha`` of benign tasks will exceed.

    ``maxima_per_root`` holds one number for each benign task: the largest reading on any path that
    grew from its root. Siblings resemble each other, so paths are not exchangeable, and tasks are.
    The threshold is the ceil((n + 1)(1 - alpha))-th smallest of them (split conformal prediction,
    Vovk et al. 2005): a new benign task's maximum lies *above* it with a probability of at most
    alpha. A rule is reached *at* its threshold: to spare ties, write the next number above,
    ``math.nextafter(threshold, math.inf)``.

    Raises :class:`CalibrationError` for too few tasks, and for what is no reading (NaN).
    """
    if not 0 < alpha < 1:
        raise CalibrationError(
            f"alpha is {alpha:g}; the share of benign tasks that may be cut lies between 0 and 1"
        )
    # As a fraction, because 1 - 0.1 is a little more than 0.9 in floating point.
    exact = Fraction(str(float(alpha)))
    count = len(maxima_per_root)
    rank = math.ceil((count + 1) * (1 - exact))
    if rank > count:
        raise CalibrationError(
            f"{count} benign tasks are too few for alpha = {alpha:g}: give at least "
            f"{math.ceil((1 - exact) / exact)}, or a larger alpha"
        )
    if bad := [value for value in maxima_per_root if not math.isfinite(value)]:
        raise CalibrationError(
            f"the maximum of a benign task is {bad[0]:g}; leave out no task, and read it again"
        )
    return sorted(maxima_per_root)[rank - 1]
