"""Joins: which of its parents an operation waits for."""

from dataclasses import dataclass
from typing import Literal

from ..errors import PlanError

__all__ = ["AtLeast", "First", "Join", "at_least", "first"]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Wait for every branch; go on where at least ``k`` thoughts survived, fail otherwise."""

    k: int

    def __str__(self) -> str:
        return f"at least {self.k}"


@dataclass(frozen=True, slots=True)
class First:
    """Go on with the first ``k`` thoughts that are there; cancel what the others are doing."""

    k: int

    def __str__(self) -> str:
        return f"first {self.k}"


Join = Literal["each", "all"] | AtLeast | First
"""``each``: starts for every parent as soon as it is there. ``all``: once, when every branch above
has ended, with the parents that survived. :func:`at_least` and :func:`first`: once, with k of them.
"""


def at_least(k: int) -> AtLeast:
    """Join all that survive, and fail where that is fewer than ``k``: k of n, all waited for."""
    return AtLeast(_checked("at_least", k))


def first(k: int = 1) -> First:
    """Join the first ``k`` that are there, and cancel the rest: k of n, nobody waited for."""
    return First(_checked("first", k))


def _checked(name: str, k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise PlanError(f"{name}({k!r}): give a whole number of at least 1")
    return k
