"""Budgets: what a run, or one branch of it, may spend."""

import math
from dataclasses import dataclass

from .errors import PlanError

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one run may spend; reserved before work is dispatched.

    ``each(plan, budget=Budget(...))`` gives every branch one of its own, within the run's.
    """

    tokens: int | None = 20_000
    """Generated tokens."""
    thoughts: int | None = 2_000
    seconds: float | None = 600.0
    in_flight: int | None = 64
    """Pieces of work at the same time."""
    depth: int | None = None
    """How many thoughts may stand below one another, the first one not counted."""
    breadth: int | None = None
    """How many thoughts may stand at the same depth."""

    def __post_init__(self) -> None:
        for name in ("tokens", "thoughts", "seconds", "in_flight", "depth", "breadth"):
            given = getattr(self, name)
            if given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
                raise PlanError(f"budget {name}={given!r}: give more than 0")
            if name != "seconds" and not isinstance(given, int):
                raise PlanError(f"budget {name}={given!r}: give a whole number")
            if math.isinf(given):
                raise PlanError(f"budget {name}={given!r}: give None for no limit")
