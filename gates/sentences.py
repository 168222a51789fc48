"""Where sentences, lines and spans start, token by token: where a ``prefix`` tag can stand, and
where a thought that is tried again goes back to."""

import re
from collections.abc import Container, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

__all__ = ["Boundary", "SentenceStarts", "boundary_before", "ends_line"]

Boundary = Literal["thought", "line", "sentence", "span"]
"""Where a retry may begin: at the thought's start, after a newline, where a sentence or line
starts, or where a span tag opens or has closed."""

_ENDS = re.compile(r"[.!?][\"')\]]*$")


class SentenceStarts:
    """Told every token in order, says which ones begin a sentence or a line.

    The first token does; so does the first after a newline, and the first after a full stop,
    question or exclamation mark that white space or a tag follows (``3.5`` is one sentence).
    """

    def __init__(self, tag_ids: Container[int]) -> None:
        self._tag_ids = tag_ids
        self._fresh = True
        self._tail = ""

    def step(self, token: int, text: str) -> bool:
        """Whether this token begins a sentence or line."""
        tag = token in self._tag_ids
        starts = self._fresh or (
            _ENDS.search(self._tail) is not None and (tag or text[:1].isspace())
        )
        if tag:
            # The tag stands for the sentence that it opens: the next token is inside.
            self._fresh, self._tail = False, ""
            return starts
        tail = (self._tail if not starts else "") + text
        stripped = tail.rstrip()
        self._fresh = "\n" in tail[len(stripped) :] or (
            stripped != tail and _ENDS.search(stripped) is not None
        )
        self._tail = tail[-8:]
        return starts


def ends_line(text: str) -> bool:
    """Whether the next token begins a line: nothing but blanks after the last newline."""
    return text.rstrip(" \t").endswith("\n")


def boundary_before(
    kind: Boundary,
    latest: int,
    ids: Sequence[int],
    texts: Sequence[str],
    opens: AbstractSet[int],
    closes: AbstractSet[int],
) -> int:
    """The last boundary of this kind at or before token ``latest``: how many tokens may stay.

    ``opens`` and ``closes`` are the tags' token ids. A newline in the middle of a token makes no
    boundary there, but before the token. Where a character is spread over tokens, none of them is
    one.
    """
    starts = SentenceStarts(opens | closes)
    found = 0
    for place in range(min(latest, len(ids) - 1) + 1):
        begins = starts.step(ids[place], texts[place])
        if place == 0 or kind == "thought":
            continue
        before, after = texts[place - 1], texts[place]
        line = ends_line(before) or "\n" in after.rstrip(" \t").rstrip("\n")
        tag = ids[place] in opens or ids[place - 1] in closes
        reached = {"line": line, "sentence": begins or line, "span": tag}[kind]
        if reached and (before or ids[place - 1] in opens | closes):
            found = place
    return found
