"""Set operations, as in the Graph of Thoughts paper; :mod:`..agents.sets` has the spelling.

::

    intersect A3C7M0 C7B1         C7=B1!                   (the second's numbers, marked)
    union A3 C7                   A3C7                     (of sets that share nothing)
"""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from ...agents.ready.sets import LARGEST, marks, spell_set
from .document import Document, Line

__all__ = ["SET_OPERATIONS", "SetOperation", "intersect_prompt", "set_document", "union_prompt"]

SetOperation = Literal["intersect", "union"]
SET_OPERATIONS: tuple[SetOperation, ...] = get_args(SetOperation)


def intersect_prompt(left: Sequence[int], right: Sequence[int]) -> str:
    """``intersect A3C7M0 C7B1``: the second is marked, so that a number is looked up behind it."""
    return f"intersect {spell_set(left)} {spell_set(right)}"


def union_prompt(left: Sequence[int], right: Sequence[int]) -> str:
    """``union A3 C7``; an empty set is ``-``."""
    return f"union {spell_set(left) or '-'} {spell_set(right) or '-'}"


def set_document(operation: SetOperation, rng: random.Random, longest: int) -> Document:
    """One document of a set operation, on sets of up to ``longest`` numbers."""
    # Half are short: finding a number in a long row is learnt from finding it in a short one.
    size = rng.randint(1, min(longest, LARGEST // 2, rng.choice((4, 8, 16, longest))))
    # Sets from twice as many numbers share half of them, so either mark is as likely.
    numbers = range(LARGEST + 1) if rng.random() < 0.5 else range(2 * size)
    numbers = rng.sample(numbers, 2 * size)
    match operation:
        case "intersect":
            left = rng.sample(numbers, size)
            right = rng.sample(numbers, rng.choice((size, max(1, size // 2), max(1, size // 4))))
            prompt, answer = intersect_prompt(left, right), marks(left, right)
        case "union":
            both = numbers[:size]
            cut = rng.randint(0, size)
            left, right = both[:cut], both[cut:]
            prompt, answer = union_prompt(left, right), spell_set(both)
    return Document(operation, (Line(prompt, learn=False), Line(answer)), {"prompt": prompt})
