"""What a model is asked: outside text and our own tokens, kept apart until they are ids."""

from dataclasses import dataclass
from typing import Any

from ..gates.unicode import well_formed

__all__ = ["Ids", "Piece", "Sampling", "Special", "Text"]


@dataclass(frozen=True, slots=True)
class Text:
    """Outside text (task, tool result, template): encoded with special tokens disabled, so that
    a tag's literal string in it stays plain characters. A lone half of a surrogate pair, which no
    encoding has, becomes ``?``."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", well_formed(self.text))


@dataclass(frozen=True, slots=True)
class Special:
    """One of our own special tokens, by its literal string; exactly one id."""

    token: str


@dataclass(frozen=True, slots=True)
class Ids:
    """Tokens the model itself wrote, carried as they are."""

    ids: tuple[int, ...]


Piece = Text | Special | Ids


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    """Generation ends with the token that completes one of these; that token is yielded."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data, as thought ids are made of and the ledger records."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
        }
