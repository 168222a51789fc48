"""What is searched for, and how words are spelt for it: the same for both databases."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSQUERY

from .errors import LedgerError

__all__ = ["Field", "Passage", "Words", "plain", "vector"]

Field = Literal["text", "prompt"]
"""Where to look: in what was written, or in what was asked."""

_LONGEST = 100_000
"""Characters of a text that are indexed; PostgreSQL refuses a tsvector beyond 1 MB."""
_WORD_LENGTH = 500
"""Characters of a word that PostgreSQL is given; it refuses those beyond 2 kB."""
_PLACES = 16_383
"""The last place in a text that a tsvector can name; beyond it words are found, phrases are not."""

_WORD = re.compile(r"[^\W_]+")
_ASCII = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
)
_ASKED = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Passage:
    """What one thought said and was asked, to be searched."""

    run: str
    thought: str
    at: str
    text: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Words:
    """What is searched for: words and phrases, all of which must be there.

    Words are letters and digits; everything else separates them. Case and accents do not count.
    """

    phrases: tuple[tuple[str, ...], ...]
    field: Field | None
    """Only in what was written, or only in what was asked; else in either."""

    @classmethod
    def of(cls, asked: str, field: Field | None = None) -> "Words":
        """Read ``plain words`` and ``"quoted phrases"``; an open quote ends with the text.

        Raises :class:`LedgerError` where there is nothing to look for.
        """
        closed = asked + '"' * (asked.count('"') % 2)
        phrases = tuple(
            words
            for quoted, bare in _ASKED.findall(closed)
            if (words := tuple(plain(quoted or bare).split()))
        )
        if not phrases:
            raise LedgerError(f"there is no word to look for in {asked!r}: write letters or digits")
        return cls(phrases, field)

    @property
    def fts5(self) -> str:
        """As SQLite's FTS5 reads it; letters and digits alone, so it is always well formed."""
        query = " AND ".join(f'"{" ".join(phrase)}"' for phrase in self.phrases)
        return query if self.field is None else f"{self.field} : ({query})"

    @property
    def tsquery(self) -> sa.ColumnElement[Any]:
        """As PostgreSQL reads it."""
        label = {None: "", "text": ":A", "prompt": ":B"}[self.field]
        spelt = [
            " <-> ".join(f"'{word[:_WORD_LENGTH]}'{label}" for word in phrase)
            for phrase in self.phrases
        ]
        return sa.cast(" & ".join(f"({each})" for each in spelt), TSQUERY)

    def match(self, passage: Passage) -> bool:
        """Whether they all are in a passage; what the index would say of it."""
        fields = (passage.text, passage.prompt)
        chosen = {None: fields, "text": fields[:1], "prompt": fields[1:]}[self.field]
        spelt = [f" {' '.join(plain(text).split())} " for text in chosen]
        return all(
            any(f" {' '.join(phrase)} " in text for text in spelt) for phrase in self.phrases
        )


def plain(text: str) -> str:
    """Its words in lower case without accents, blanks between: what both databases index.

    Letters beyond ASCII are spelt by their numbers, so that neither database's own idea of what a
    letter is has a say.
    """
    text = text[:_LONGEST]
    if text.isascii():
        return text.translate(_ASCII)
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    words = _WORD.findall(bare.casefold())
    return " ".join(word if word.isascii() else _spelt(word) for word in words)


def _spelt(word: str) -> str:
    return "".join(sign if sign.isascii() else f"x{ord(sign):x}x" for sign in word)


def vector(passage: Passage) -> str:
    """As PostgreSQL reads a tsvector: each word with its place and its field, by no parser."""
    text, prompt = plain(passage.text).split(), plain(passage.prompt).split()
    apart = len(text) + 2  # so that no phrase goes from one field into the other
    spelt = [f"'{word[:_WORD_LENGTH]}':{min(at, _PLACES)}A" for at, word in enumerate(text, 1)]
    return " ".join(
        spelt
        + [f"'{word[:_WORD_LENGTH]}':{min(at, _PLACES)}B" for at, word in enumerate(prompt, apart)]
    )
