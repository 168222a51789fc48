"""Shares, differences, ratios and forecasts, each with its 95 % interval and its n."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...gates.errors import SecateurError

__all__ = [
    "BINS",
    "Bin",
    "Difference",
    "Figure",
    "Floats",
    "MeasureError",
    "Rate",
    "Ratio",
    "auroc",
    "bins",
    "bootstrap",
    "brier",
    "calibration_error",
    "chance_error",
    "mean",
]

Floats = NDArray[np.float64]

_Z = 1.959963984540054
BINS = 10
"""Bins of equal width for calibration, as usual since Naeini et al. 2015."""
_RESAMPLES = 1000


class MeasureError(SecateurError):
    """Numbers that no measure can be made of."""


def _json(value: float) -> float | None:
    """Five decimals; None for what is no finite number, which JSON cannot hold."""
    return round(value, 5) if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Rate:
    """``hits`` out of ``n``."""

    hits: int
    n: int

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> "Rate":
        """The share of true outcomes."""
        return cls(sum(outcomes), len(outcomes))

    @property
    def value(self) -> float:
        """The share; NaN where nothing was counted."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        if not self.n:
            return 0.0, 1.0
        n, p = self.n, self.value
        middle = p + _Z * _Z / (2 * n)
        spread = _Z * math.sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n))
        scale = 1 + _Z * _Z / n
        # At the ends rounding leaves some 1e-18 where the formula gives exactly 0 and 1.
        low = (middle - spread) / scale if self.hits else 0.0
        high = (middle + spread) / scale if self.hits < n else 1.0
        return max(0.0, low), min(1.0, high)

    def to_json(self) -> dict[str, float | int | None]:
        """Value (None where n is 0), interval, hits and n."""
        low, high = self.interval
        return {
            "value": _json(self.value), "low": _json(low), "high": _json(high),
            "hits": self.hits, "n": self.n,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval, made from ``n`` independent units."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Value, interval and n; None for what is not finite."""
        return {
            "value": _json(self.value), "low": _json(self.low), "high": _json(self.high),
            "n": self.n,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Share of ``one`` minus share of ``two``, on the same ``n`` prompts."""

    both: int
    only_one: int
    only_two: int
    n: int

    @classmethod
    def of(cls, one: Sequence[bool], two: Sequence[bool]) -> "Difference":
        """Count the pairs; ``one[i]`` and ``two[i]`` are outcomes of the same prompt."""
        pairs = list(zip(one, two, strict=True))
        return cls(
            sum(a and b for a, b in pairs),
            sum(a and not b for a, b in pairs),
            sum(b and not a for a, b in pairs),
            len(pairs),
        )

    @property
    def value(self) -> float:
        """The difference; NaN where there is no pair."""
        return (self.only_one - self.only_two) / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Newcombe's score interval for paired shares (1998, method 10, without correction)."""
        if not self.n:
            return -1.0, 1.0
        one = Rate(self.both + self.only_one, self.n)
        two = Rate(self.both + self.only_two, self.n)
        neither = self.n - self.both - self.only_one - self.only_two
        margins = one.hits * (self.n - one.hits) * two.hits * (self.n - two.hits)
        cross = self.both * neither - self.only_one * self.only_two
        phi = cross / math.sqrt(margins) if margins else 0.0
        (l1, u1), (l2, u2) = one.interval, two.interval

        def reach(here: float, there: float) -> float:
            return math.sqrt(max(0.0, here * here - 2 * phi * here * there + there * there))

        return (
            max(-1.0, self.value - reach(one.value - l1, u2 - two.value)),
            min(1.0, self.value + reach(two.value - l2, u1 - one.value)),
        )

    def to_json(self) -> dict[str, float | int | None]:
        """Value, interval and n."""
        low, high = self.interval
        return Figure(self.value, low, high, self.n).to_json()


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times larger the share ``over`` is than the share ``under``."""

    over: Rate
    under: Rate

    @property
    def value(self) -> float:
        """The ratio; infinite where ``under`` counted nothing, NaN where neither did."""
        if not self.under.hits:
            return math.inf if self.over.hits else math.nan
        return self.over.value / self.under.value

    @property
    def interval(self) -> tuple[float, float]:
        """From the two Wilson intervals (MOVER-R, Donner and Zou 2012); ends at infinity where
        ``under`` counted nothing, and still begins at a finite number."""
        if not self.over.n or not self.under.n:
            return 0.0, math.inf
        p1, p2 = self.over.value, self.under.value
        (l1, u1), (l2, u2) = self.over.interval, self.under.interval
        product = p1 * p2

        def root(x: float) -> float:
            return math.sqrt(max(0.0, x))

        low = product - root(product**2 - l1 * u2 * (2 * p1 - l1) * (2 * p2 - u2))
        bottom = u2 * (2 * p2 - u2)
        # u2 = 2 p2 makes both sides zero; the limit is l1 (2 p1 - l1) / (2 p1 p2).
        low = low / bottom if bottom else l1 * (2 * p1 - l1) / (2 * product) if product else 0.0
        if not l2:
            return max(0.0, low), math.inf
        high = product + root(product**2 - u1 * l2 * (2 * p1 - u1) * (2 * p2 - l2))
        return max(0.0, low), high / (l2 * (2 * p2 - l2))

    def to_json(self) -> dict[str, float | int | None]:
        """Value and interval (None: infinite, or nothing counted), and both counts."""
        low, high = self.interval
        return {
            "value": _json(self.value), "low": _json(low), "high": _json(high),
            "over": self.over.hits, "over_n": self.over.n,
            "under": self.under.hits, "under_n": self.under.n,
        }  # fmt: skip


def bootstrap(
    measure: Callable[..., float], *arrays: Floats, seed: int = 0, resamples: int = _RESAMPLES
) -> Figure:
    """``measure`` of arrays that share their first axis, with its percentile bootstrap interval.

    The units that are drawn again are rows (prompts), so several outcomes of one prompt stay
    together. Samples for which the measure is NaN (one class only) are left out.
    """
    n = len(arrays[0])
    if not n:
        return Figure(math.nan, math.nan, math.nan, 0)
    value = measure(*arrays)
    rng = np.random.default_rng(seed)
    drawn = [
        measure(*(array[rows] for array in arrays))
        for rows in (rng.integers(0, n, n) for _ in range(resamples))
    ]
    kept = [one for one in drawn if not math.isnan(one)]
    if math.isnan(value) or not kept:
        return Figure(value, math.nan, math.nan, n)
    low, high = np.quantile(kept, [0.025, 0.975])
    return Figure(value, float(low), float(high), n)


def mean(values: Floats) -> float:
    """The arithmetic mean, as a measure for :func:`bootstrap`."""
    return float(values.mean())


def _pairs(scores: Floats, outcomes: Floats) -> tuple[Floats, Floats]:
    """Flat scores and outcomes; ``outcomes`` [n] or [n, runs], ``scores`` [n]."""
    if outcomes.ndim == 2:
        scores = np.repeat(scores, outcomes.shape[1])
        outcomes = outcomes.reshape(-1)
    if scores.shape != outcomes.shape:
        raise MeasureError(f"{len(scores)} scores for {len(outcomes)} outcomes; give one for each")
    if not np.isfinite(scores).all():
        raise MeasureError("a score is NaN or infinite; a model that reads so is broken")
    return scores, outcomes


def auroc(scores: Floats, outcomes: Floats) -> float:
    """P(a bad one scores higher than a good one), ties counting half; NaN with one class only.

    ``scores`` [n]; ``outcomes`` [n] or [n, runs] of 0 and 1.
    """
    scores, outcomes = _pairs(scores, outcomes)
    bad = outcomes > 0.5
    positives, negatives = int(bad.sum()), int((~bad).sum())
    if not positives or not negatives:
        return math.nan
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    above = ranks[bad].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def brier(scores: Floats, outcomes: Floats) -> float:
    """Mean squared difference of forecast and outcome (Brier 1950)."""
    scores, outcomes = _pairs(scores, outcomes)
    return float(np.mean((scores - outcomes) ** 2))


@dataclass(frozen=True, slots=True)
class Bin:
    """Forecasts of like size, and what came of them."""

    low: float
    high: float
    forecast: float
    """Their mean."""
    observed: float
    """The share of bad outcomes."""
    n: int

    def to_json(self) -> dict[str, Any]:
        """Its range, forecast, observed share with Wilson interval, and n."""
        seen = Rate(round(self.observed * self.n), self.n)
        return {
            "from": self.low, "to": self.high, "forecast": _json(self.forecast),
            "observed": seen.to_json(),
        }  # fmt: skip


def bins(scores: Floats, outcomes: Floats, count: int = BINS) -> list[Bin]:
    """Forecasts in ``count`` bins of equal width from 0 to 1; empty ones are left out."""
    scores, outcomes = _pairs(scores, outcomes)
    place = np.minimum((scores * count).astype(int), count - 1)
    found: list[Bin] = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            Bin(
                int(number) / count,
                (int(number) + 1) / count,
                float(scores[inside].mean()),
                float(outcomes[inside].mean()),
                int(inside.sum()),
            )
        )
    return found


def calibration_error(scores: Floats, outcomes: Floats) -> float:
    """Expected calibration error: mean |forecast - observed| over bins, weighted by their n."""
    found = bins(scores, outcomes)
    total = sum(one.n for one in found)
    return sum(one.n * abs(one.forecast - one.observed) for one in found) / total


def chance_error(scores: Floats, outcomes: Floats, seed: int = 0, times: int = 200) -> float:
    """The calibration error that a perfect forecast would show here by chance alone.

    Outcomes of the same shape are drawn with the forecasts as their true probabilities.
    """
    rng = np.random.default_rng(seed)
    chances = scores if outcomes.ndim == 1 else np.repeat(scores[:, None], outcomes.shape[1], 1)
    drawn = (
        calibration_error(scores, (rng.random(outcomes.shape) < chances).astype(float))
        for _ in range(times)
    )
    return float(np.mean(list(drawn)))
