"""A generation as text: what each token adds to it, and which token ends it."""

from collections.abc import Container
from typing import Literal

from ....agents.prompt import Sampling
from ..tokenizer import TagTokenizer, TextStream

__all__ = ["Writing"]


class Writing:
    """Takes the tokens of one generation in order."""

    __slots__ = ("_eos", "_keep", "_left", "_stops", "_tail", "_text")

    def __init__(self, tokenizer: TagTokenizer, sampling: Sampling, eos: Container[int]) -> None:
        self._text = TextStream(tokenizer)
        self._eos = eos
        self._left = sampling.max_tokens
        self._stops = sampling.stop
        self._tail = ""
        # What is kept can begin a stop string, and can't hold one.
        self._keep = max(map(len, sampling.stop), default=1) - 1

    @property
    def left(self) -> int:
        """How many tokens may still be drawn."""
        return self._left

    def take(self, token: int) -> tuple[str, Literal["stop", "length"] | None]:
        """What ``token`` adds to the text, and why the generation ends with it, if it does."""
        self._left -= 1
        full = self._left <= 0
        text = self._text.push(token, last=full)
        if token in self._eos:
            return text, "stop"
        if self._stops:
            self._tail += text
            if any(stop in self._tail for stop in self._stops):
                return text, "stop"
            self._tail = self._tail[-self._keep :] if self._keep else ""
        return text, "length" if full else None
