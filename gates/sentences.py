"""Where sentences, lines and spans start, token by token: where a ``prefix`` tag can stand, and
where a thought that is tried again goes back to."""

import re
from collections.abc import Container, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

__all__ = ["Boundary", "Place", "SentenceStarts", "Start", "boundary_before", "ends_line"]

Boundary = Literal["thought", "line", "sentence", "span"]
"""Where a retry may begin: at the thought's start, after a newline, where a sentence or line
starts, or where a span tag opens or has closed."""

Start = Literal["line", "sentence"]
"""What starts: a line, and with it a sentence, or a sentence within a line."""

_ENDS = re.compile(r"[.!?][\"')\]]*$")


class Place(NamedTuple):
    """A token's place where a sentence or line starts."""

    start: Start
    tagged: bool
    """Whether tags stand there already, so that the sentence began before this token."""


class SentenceStarts:
    """Told every token in order, says which ones stand where a sentence or a line starts.

    The first token does; so does the first after a newline, and the first after a full stop,
    question or exclamation mark that white space or a tag follows (``3.5`` is one sentence). A
    newline there ends the line and begins no sentence. What follows a tag at such a place is still
    there, since tags may stand side by side.
    """

    def __init__(self, tag_ids: Container[int]) -> None:
        self._tag_ids = tag_ids
        self._due: Place | None = Place("line", tagged=False)
        self._tail = ""

    def step(self, token: int, text: str) -> Place | None:
        """Where this token stands, if a sentence or line starts there."""
        tag = token in self._tag_ids
        place = self._due
        if place is None and _ENDS.search(self._tail) and (tag or text[:1].isspace()):
            place = Place("sentence", tagged=False)
        if tag:
            self._due, self._tail = None if place is None else place._replace(tagged=True), ""
            return place
        blanks = text[: len(text) - len(text.lstrip())]
        if place is not None and place.start == "sentence" and "\n" in blanks:
            place = None
        tail = (self._tail if place is None else "") + text
        stripped = tail.rstrip()
        self._due = None
        if "\n" in tail[len(stripped) :]:
            self._due = Place("line", tagged=False)
        elif stripped != tail and _ENDS.search(stripped) is not None:
            self._due = Place("sentence", tagged=False)
        self._tail = tail[-8:]
        return place


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
        there = starts.step(ids[place], texts[place])
        begins = there is not None and not there.tagged
        if place == 0 or kind == "thought":
            continue
        before, after = texts[place - 1], texts[place]
        line = ends_line(before) or "\n" in after.rstrip(" \t").rstrip("\n")
        tag = ids[place] in opens or ids[place - 1] in closes
        reached = {"line": line, "sentence": begins or line, "span": tag}[kind]
        if reached and (before or ids[place - 1] in opens | closes):
            found = place
    return found
