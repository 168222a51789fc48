"""Temptations at the sampler's own temperature and top-p, from those at temperature 1.

A server reports the free model's log-probabilities of the tokens it is asked for. What temperature
makes of them needs all tokens: p_T(k) = p(k)^(1/T) / Z with Z = sum_v p(v)^(1/T). But Z is bounded
from below by what is known: the tags, the drawn token, and the mass r that is left for the others,
whose share of Z is least where it is spread evenly (T < 1) or lies on one of them (T > 1). Top-p
divides what it keeps by at least p. So every value is at most this, and exactly this where the
tags and the drawn token hold all the mass, which is the usual case.
"""

import math
from collections.abc import Callable, Container, Sequence

from ....agents.prompt import Sampling
from ....gates.evidence import LOG_FLOOR

__all__ = ["Tempering", "tempering"]

Tempering = Callable[[int, float, Sequence[float]], list[float]]
"""From a drawn token's id, its log p and the tags' log p at temperature 1, the tags' highest
possible log p at the sampler's temperature and top-p."""

_ROUNDING = 1e-5
"""Mass that a server's float32 may have lost or gained."""


def tempering(sampling: Sampling, columns: Container[int], width: int) -> Tempering | None:
    """How ``sampling`` changes the temptations in ``columns``; ``width`` tokens there are.

    None where it does not: at temperature 1 without top-p, and for temperature 0, whose
    distribution is a single token.
    """
    temperature, top_p = sampling.temperature, sampling.top_p
    if temperature == 0 or (temperature == 1 and top_p == 1):
        return None
    power = 1 / temperature
    log_top_p = math.log(top_p)
    exp = math.exp

    def temper(drawn: int, chosen: float, belief: Sequence[float]) -> list[float]:
        known = belief if drawn in columns else (*belief, chosen)
        left = max(0.0, 1 - sum(map(exp, known)) - _ROUNDING)
        others = max(1, width - len(known)) if temperature < 1 else 1
        least = sum([exp(power * log) for log in known]) + others * (left / others) ** power
        # Whatever is no number reads as certain here, and as broken where the gate reads belief.
        most = math.log(least) + log_top_p if least else 0.0
        return [max(LOG_FLOOR, min(0.0, power * log - most)) for log in belief]

    return temper
