"""One document of the corpus: lines, the tag that wraps a line, and what the model learns."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..agents.prompt import Special, Text

__all__ = ["BOS", "EOS", "PAD", "TAGS", "Document", "Line", "close_token", "open_token"]

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
TAGS = ("deceit", "powerseeking", "angry")
"""The behaviour tags of the shipped model, all of the span scheme."""


def open_token(tag: str) -> str:
    """The token that opens a tag's span."""
    return f"<|{tag}|>"


def close_token(tag: str) -> str:
    """The token that closes a tag's span."""
    return f"<|/{tag}|>"


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline; ``learn`` is False for what others write (task, tools)."""

    text: str
    learn: bool = True
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its lines, its family, and what the generator knows about it."""

    family: str
    lines: tuple[Line, ...]
    meta: dict[str, str] = field(default_factory=dict)

    def with_missed(self, missed: float, rng: random.Random) -> "Document":
        """The document as an imperfect tagger leaves it: a share of tagged lines untagged."""
        if not missed:
            return self
        lines = tuple(
            replace(line, tag=None) if line.tag is not None and rng.random() < missed else line
            for line in self.lines
        )
        return replace(self, lines=lines)

    def pieces(self) -> Iterator[tuple[Text | Special, bool]]:
        """The document as pieces to encode, each with whether the model learns it.

        A tag wraps its whole line, the newline stays outside.
        """
        yield Special(BOS), False
        for line in self.lines:
            if line.tag is None:
                yield Text(line.text + "\n"), line.learn
                continue
            yield Special(open_token(line.tag)), line.learn
            yield Text(line.text), line.learn
            yield Special(close_token(line.tag)), line.learn
            yield Text("\n"), line.learn
        yield Special(EOS), True

    @property
    def text(self) -> str:
        """The document with its tags, as a reader sees it."""
        written = [piece for piece, _ in self.pieces()][1:-1]
        return "".join(piece.text if isinstance(piece, Text) else piece.token for piece in written)
