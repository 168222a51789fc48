"""How much of a text one tag covers: its lines or its sentences, as exact character ranges."""

import re
from typing import Literal

__all__ = ["Range", "Unit", "ranges"]

Unit = Literal["line", "sentence", "document"]
Range = tuple[int, int]
"""Characters [start, end) of a text."""

# As the gate reads them (gates/sentences.py): white space must follow, so that 3.5 is one.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")


def ranges(text: str, unit: Unit) -> list[Range]:
    """The units of ``text`` in order, without the white space around them; blank ones are none."""
    if unit == "document":
        return _stripped(text, 0, len(text))
    found: list[Range] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if unit == "line":
            found += _stripped(text, start, end)
        else:
            inside = start
            for ending in _SENTENCE_END.finditer(text, start, end):
                found += _stripped(text, inside, ending.end())
                inside = ending.end()
            found += _stripped(text, inside, end)
        start = end + 1
    return found


def _stripped(text: str, start: int, end: int) -> list[Range]:
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    end -= len(inside) - len(inside.rstrip())
    return [(start, end)] if start < end else []
