"""What a prompt is made of: outside text and our own tokens, kept apart until they are ids."""

from dataclasses import dataclass

__all__ = ["Ids", "Piece", "Special", "Text"]


@dataclass(frozen=True, slots=True)
class Text:
    """Outside text (task, tool result, template): encoded with special tokens disabled, so that
    a tag's literal string in it stays plain characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """One of our own special tokens, by its literal string; exactly one id."""

    token: str


@dataclass(frozen=True, slots=True)
class Ids:
    """Tokens the model itself wrote, carried as they are."""

    ids: tuple[int, ...]


Piece = Text | Special | Ids
