"""Sets of numbers: reading any usual spelling, the model's spelling, and errors of an answer.

The model reads a number from 0 to 129 as a letter for its tens and a digit: ``A3`` is 3, ``C7`` is
27, ``M0`` is 120. So every number is two tokens, and a set needs no commas. Which numbers two sets
share is answered for each number of the second, with its mark: ``C7=B1!``.
"""

import re
from collections import Counter
from collections.abc import Sequence

__all__ = [
    "LARGEST",
    "marks",
    "parse_marks",
    "parse_sets",
    "parse_union",
    "set_errors",
    "spell_set",
]

LARGEST = 129
"""The largest number that has a spelling."""

_NUMBER = re.compile(r"([A-M])(\d)")
_MARKED = re.compile(r"([A-M])(\d)([=!])")
_ALLOWED = re.compile(r"[\s0-9,;{}\[\]()&∩]*")
_LIST = re.compile(r"[\[{(]([^\[\]{}()]*)[\]})]")
_SIGN = re.compile("[&∩]")


def spell_set(numbers: Sequence[int]) -> str:
    """Spell numbers as the model reads them, in their order: ``(3, 27)`` -> ``A3C7``."""
    return "".join(f"{chr(ord('A') + number // 10)}{number % 10}" for number in numbers)


def marks(left: Sequence[int], right: Sequence[int]) -> str:
    """Each number of ``right`` with ``=`` where ``left`` has it too, else ``!``."""
    there = set(left)
    return "".join(f"{spell_set([number])}{'=' if number in there else '!'}" for number in right)


def parse_marks(answer: str) -> list[int]:
    """The numbers that an answer marks with ``=``. Raises ``ValueError`` for anything else."""
    found = _MARKED.findall(answer)
    if not found or len("".join(map("".join, found))) != len(answer.strip()):
        raise ValueError("the answer is no row of marked numbers, such as A3!C7=")
    return [_value(tens, ones) for tens, ones, mark in found if mark == "="]


def parse_union(answer: str) -> list[int]:
    """The numbers of an answer that spells a set. Raises ``ValueError`` for anything else."""
    found = _NUMBER.findall(answer)
    if 2 * len(found) != len(answer.strip()):
        raise ValueError("the answer is no row of numbers, such as A3C7")
    return [_value(tens, ones) for tens, ones in found]


def parse_sets(text: str) -> tuple[list[int], list[int]]:
    """Read two sets: ``[3, 27] [27, 5]``, ``{3, 27} & {27, 5}``, ``3 27 & 27 5``.

    Raises ``ValueError``, in words that a user understands, for anything else.
    """
    bracketed = re.search(r"[\[\](){}]", text) is not None
    lists = _LIST.findall(text) if bracketed else _SIGN.split(text)
    astray = bracketed and re.search(r"\d", _LIST.sub(" ", text))
    if not _ALLOWED.fullmatch(text) or len(lists) != 2 or astray:
        raise ValueError("give two sets of numbers, like [3, 27, 5] [27, 8]")
    left, right = ([int(number) for number in re.findall(r"\d+", part)] for part in lists)
    for numbers in (left, right):
        if not numbers:
            raise ValueError("a set is empty; give two sets of numbers, like [3, 27, 5] [27, 8]")
        if max(numbers) > LARGEST:
            raise ValueError(f"{max(numbers)} is too large; numbers go from 0 to {LARGEST}")
        twice = [number for number, count in Counter(numbers).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands twice in one set; leave one out")
    return left, right


def set_errors(wanted: Sequence[int], answer: Sequence[int]) -> int:
    """Errors of ``answer`` as the set ``wanted``: missing, and too many (doubles count).

    The metric of Besta et al. 2024, *Graph of Thoughts*, section 5.2; 0 means exactly right.
    """
    expected, found = Counter(wanted), Counter(answer)
    return sum(abs(expected[number] - found[number]) for number in expected | found)


def _value(tens: str, ones: str) -> int:
    return 10 * (ord(tens) - ord("A")) + int(ones)
