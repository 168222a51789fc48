"""Where sentences and lines start, token by token: the only places a ``prefix`` tag can stand."""

import re
from collections.abc import Container

__all__ = ["SentenceStarts"]

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
