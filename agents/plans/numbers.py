"""Reads the grade or the vote that an answer ends with; what can be read in two ways is none."""

import math
import re
from itertools import pairwise

__all__ = ["read_number", "read_vote"]

_NUMBER = re.compile(
    r"""
    (?<![\w.,])                               # not inside a word, nor behind another number
    (?P<sign>[-−+])?
    (?P<digits>\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?)
    (?![.,]?\d|\s*[¼-¾⅐-⅞])
    (?P<of>[*_]*\s*(?:points?\s+)?\(?(?:/|⁄|(?:out\s+)?of)\s*[*_]*(?P<whole>\d+(?:[.,]\d+)?(?![.,]?\d)))?
    """,
    re.VERBOSE,
)
_DIGIT = re.compile(r"\d")
_RANGE = re.compile(
    r"[ \t*_]*(?:-|−|–|—|~|…|\.\.+|:(?!\s)|/|⁄|\+/-|±|\+|\^|to|or|and)?[ \t*_]*", re.IGNORECASE
)
"""What joins two numbers, so that neither stands for itself."""


def read_number(text: str) -> float:
    """The last number in an answer: models reason first, and say what comes of it at the end.

    ``7/10`` and ``7 out of 10`` are 7, ``8,5`` is 8.5. Raises ValueError where there is no number,
    or where it is not clear which one is meant: ``7-8``, ``1,000``, ``7/10, with 2 errors``.
    """
    found = list(_NUMBER.finditer(text))
    if not found:
        if _DIGIT.search(text):
            raise ValueError("it is not clear which number is meant")
        raise ValueError("there is no number in the answer")
    last = found[-1]
    if _DIGIT.search(text, last.end()):
        raise ValueError(f"it is not clear which number is meant at the end: {last[0]!r} …")
    if len(found) > 1 and _RANGE.fullmatch(text, found[-2].end(), last.start()):
        both = text[found[-2].start() : last.end()]
        raise ValueError(f"it is not clear which number is meant: {both!r}")
    for before, after in pairwise(found):
        if before["of"] and not after["of"] and before["digits"] != after["digits"]:
            raise ValueError(f"it is not clear which is meant: {before[0]!r} or {after[0]!r}")
    number = _plain(last["digits"])
    if last["whole"] is not None and number > _plain(last["whole"]):
        raise ValueError(f"{last[0]!r} is more than the whole")
    return -number if last["sign"] in ("-", "−") else number


def read_vote(text: str) -> int:
    """The last number in an answer, which must be a whole one."""
    number = read_number(text)
    if not number.is_integer():
        raise ValueError(f"the vote is {number:g}, and candidates have whole numbers")
    return int(number)


def _plain(digits: str) -> float:
    """A number without separators of thousands; a comma may stand for the point."""
    parts = re.split(r"[.,]", digits)
    thousands = "," in digits and len(parts) == 2 and len(parts[1]) == 3 and parts[0].strip("0")
    if len(parts) > 2 or thousands:
        raise ValueError(f"{digits!r} can be read in two ways")
    number = float(digits.replace(",", "."))
    if not math.isfinite(number):
        raise ValueError(f"{digits!r} is too large")
    return number
