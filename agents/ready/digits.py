"""Lists of digits: reading any usual spelling, and how far an answer is from the sorted list."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

__all__ = [
    "count_error",
    "is_sorted_permutation",
    "merge",
    "order_error",
    "parse_digits",
    "runs",
    "sorting_errors",
    "spell",
]

_ALLOWED = re.compile(r"[\s0-9,;\[\]()]*")


def parse_digits(text: str) -> tuple[int, ...]:
    """Read a list of digits in any usual spelling: ``[3, 1, 2]``, ``3 1 2``, ``3,1,2``, ``312``.

    Raises ``ValueError`` where something else than digits, spaces, commas and brackets stands.
    """
    if not _ALLOWED.fullmatch(text):
        raise ValueError(
            f"{text.strip()[:60]!r} is no list of digits; write it like [3, 1, 2] or 312"
        )
    return tuple(int(char) for char in text if char in "0123456789")


def spell(digits: Sequence[int]) -> str:
    """Spell digits as the model reads them: ``(3, 1, 2)`` -> ``312``."""
    return "".join(str(digit) for digit in digits)


def runs(digits: Sequence[int]) -> str:
    """Spell digits as the model answers, a space where the digit changes: ``00 111 2``.

    The spaces let the model settle *which* digit comes next apart from *how many* are left.
    """
    pieces: list[str] = []
    previous: int | None = None
    for digit in digits:
        if previous is not None and digit != previous:
            pieces.append(" ")
        pieces.append(str(digit))
        previous = digit
    return "".join(pieces)


def merge(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Merge two sorted lists into one sorted list."""
    return tuple(sorted((*left, *right)))


def count_error(given: Sequence[int], answer: Sequence[int]) -> int:
    """Sum over the digits 0..9 of the difference between their counts (0 for a permutation)."""
    wanted, found = Counter(given), Counter(answer)
    return sum(abs(wanted[digit] - found[digit]) for digit in range(10))


def order_error(answer: Sequence[int]) -> int:
    """How many adjacent pairs stand in the wrong order."""
    return sum(left > right for left, right in pairwise(answer))


def sorting_errors(given: Sequence[int], answer: Sequence[int]) -> int:
    """Errors of ``answer`` as the sorted ``given``: wrong counts plus adjacent inversions.

    The metric of Besta et al. 2024, *Graph of Thoughts*, section 5.1; 0 means exactly right.
    """
    return count_error(given, answer) + order_error(answer)


def is_sorted_permutation(given: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether ``answer`` is ``given``, sorted."""
    return sorting_errors(given, answer) == 0
