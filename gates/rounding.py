"""How far float16 moves a log-probability: what a stored number may have been before."""

import math
from collections.abc import Sequence

__all__ = ["UNIT", "half_step", "rounded_up"]

UNIT = 2.0**-11
"""The share of a number that float16 moves it at most."""

_LEAST, _MOST = -13, 16
"""Between these binary exponents the steps grow with the number; below they stay the same."""
_STEPS = {exponent: 2.0 ** (exponent - 12) for exponent in range(_LEAST, _MOST + 1)}


_TINY = 1e-9
"""Probabilities below this say nothing that rounding could change."""


def half_step(log: float) -> float:
    """Half the distance, in nats, from a negative log p to the next float16 above it: all that lie
    within it were rounded to this one. 0 for what is not negative."""
    if log >= 0:
        return 0.0
    mantissa, exponent = math.frexp(log)
    # Above a power of two the numbers lie closer together.
    exponent = exponent - 1 if mantissa == -0.5 else exponent
    return _STEPS[min(max(exponent, _LEAST), _MOST)]


def rounded_up(logs: Sequence[float], probabilities: Sequence[float]) -> list[float]:
    """The highest that each probability may have been before its log p was rounded."""
    steps = _STEPS
    found: list[float] = []
    for log, p in zip(logs, probabilities, strict=True):
        if p > _TINY and log < 0:
            mantissa, exponent = math.frexp(log)
            exponent = exponent - 1 if mantissa == -0.5 else exponent
            step = steps[exponent if exponent > _LEAST else _LEAST]
            p += p * step * (1 + step)
            found.append(p if p < 1 else 1.0)
        else:
            found.append(p)
    return found
