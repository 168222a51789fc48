"""What is searched for, and how words are spelt for it: the same for both databases.

A word is a run of letters and digits; everything else separates words. In scripts that put no
blanks between words (Chinese, Japanese, Thai, Khmer, …; and Korean, where a part of a word is
looked for as often as a word), each sign is spelt together with the sign after it. So any part of
such a text is found, by the pairs that it is made of.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSQUERY

from ..errors import LedgerError

__all__ = ["Field", "Passage", "Words", "plain", "vector"]

Field = Literal["text", "prompt"]
"""Where to look: in what was written, or in what was asked."""

_LONGEST = 100_000
"""Characters of a text that are indexed."""
_MOST_BYTES = 500_000
"""Bytes that the words of one text may take in a tsvector: half of what PostgreSQL allows."""
_WORD_LENGTH = 500
"""Characters of a word that PostgreSQL is given; it refuses those beyond 2 kB."""
_PLACES = 16_383
"""The last place in a text that a tsvector can name."""
_MOST_PLACES = 127
"""So many places of one word in one field; a tsvector holds twice as many."""
_CLIPPED = "CLIPPED"
"""In a tsvector: some places were left out. No word is spelt so: they are in lower case."""

_SIGNS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59"  # Thai
    "\u0e81-\u0edf"  # Lao
    "\u1000-\u1049\u1050-\u109d\ua9e0-\ua9fe\uaa60-\uaa7f"  # Burmese, Shan
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Korean
    "\u1780-\u17d3\u17d7\u17dc-\u17e9"  # Khmer
    "\u1950-\u19df\u1a20-\u1a99\uaa80-\uaadf"  # Tai
    "\u1b00-\u1b59\ua980-\ua9c0\ua9cf-\ua9d9"  # Balinese, Javanese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f\u3038-\u303c\u3400-\u4dbf\u4e00-\u9fff"  # Chinese
    "\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Japanese
    "\U0001aff0-\U0001b16f"
    "\u3105-\u312f\u31a0-\u31bf\ua000-\ua48c"  # Bopomofo, Yi
)
"""Letters, vowel signs and digits of scripts without blanks between words, as a regular
expression's ranges."""
_SIGN = re.compile(f"[{_SIGNS}]")
_BETWEEN = r"[\s\u00ad\u200b-\u200d\u2060\ufeff]*"
"""What may stand between two signs that belong together: a line's end, or a mark nobody sees."""
_WORD = re.compile(rf"(?P<signs>[{_SIGNS}](?:{_BETWEEN}[{_SIGNS}])*)|[^\W_{_SIGNS}]+")
_JOINING = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")
"""Korean letters that are written into the sign before them."""
_ASCII = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
)
_ASKED = re.compile(r'"([^"]*)"|([^\s"]+)')

Token = tuple[str, int, int]
"""A word as it is spelt, and from where to where it stands."""


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

    Case and accents do not count.
    """

    phrases: tuple[tuple[str, ...], ...]
    """As they are spelt; a word that ends in ``*`` may go on."""
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
            if (words := _phrase(_folded(quoted or bare)))
        )
        if not phrases:
            raise LedgerError(f"there is no word to look for in {asked!r}: write letters or digits")
        return cls(phrases, field)

    @property
    def fts5(self) -> str:
        """As SQLite's FTS5 reads it; letters and digits alone, so it is always well formed."""
        query = " AND ".join(_quoted(" ".join(phrase), '"') for phrase in self.phrases)
        return query if self.field is None else f"{self.field} : ({query})"

    @property
    def tsquery(self) -> sa.ColumnElement[Any]:
        """As PostgreSQL reads it."""
        label = {None: "", "text": "A", "prompt": "B"}[self.field]
        spelt: list[str] = []
        for phrase in self.phrases:
            words = [_lexeme(word, label) for word in phrase]
            near = " <-> ".join(words)
            if len(words) > 1:  # where places were left out, they need only all be there
                near = f"({near}) | ({' & '.join([*words, _lexeme(_CLIPPED, label)])})"
            spelt.append(f"({near})")
        return sa.cast(" & ".join(spelt), TSQUERY)

    def match(self, passage: Passage) -> bool:
        """Whether they all are in a passage; what the index would say of it."""
        fields = (passage.text, passage.prompt)
        chosen = {None: fields, "text": fields[:1], "prompt": fields[1:]}[self.field]
        spelt = [f" {' '.join(plain(text).split())} " for text in chosen]
        return all(
            any(f" {' '.join(phrase)} ".removesuffix("* ") in text for text in spelt)
            for phrase in self.phrases
        )

    def first(self, text: str) -> tuple[int, int] | None:
        """From where to where the first phrase that is in a text stands there."""
        tokens = list(_placed(text))
        for phrase in self.phrases:
            *whole, last = phrase
            ends = len(whole)
            for at in range(len(tokens) - ends):
                word, _, end = tokens[at + ends]
                part = last.endswith("*") and word.startswith(last[:-1])
                if (part or word == last) and [t[0] for t in tokens[at : at + ends]] == whole:
                    return tokens[at][1], tokens[at + ends][1] + 1 if part else end
        return None


def plain(text: str) -> str:
    """Its words in lower case without accents, blanks between: what both databases index.

    Letters beyond ASCII are spelt by their numbers, so that neither database's own idea of what a
    letter is has a say.
    """
    text = text[:_LONGEST]
    if text.isascii():
        return text.translate(_ASCII)
    words = [word for word, _, _ in _tokens(_folded(text))]
    return " ".join(_fitting(words))


def _folded(text: str) -> str:
    """In lower case and without accents; signs of scripts without blanks keep their marks."""
    decomposed = unicodedata.normalize("NFKD", text)
    bare = (s for s in decomposed if not unicodedata.combining(s) or _SIGN.match(s))
    return unicodedata.normalize("NFC", "".join(bare)).casefold()


def _tokens(folded: str) -> Iterator[Token]:
    """The words of a text that was folded."""
    for found in _WORD.finditer(folded):
        start = found.start()
        if found["signs"] is None:
            yield _spelt(found[0]), start, found.end()
            continue
        places = [start + place.start() for place in _SIGN.finditer(found[0])]
        for place, following in pairwise(places):
            yield _spelt(folded[place] + folded[following]), place, following + 1
        yield _spelt(folded[places[-1]]), places[-1], places[-1] + 1


def _phrase(folded: str) -> tuple[str, ...]:
    """The words to look for: with signs at its end, a text may go on behind them."""
    tokens = list(_tokens(folded))
    if not tokens:
        return ()
    words = [word for word, _, _ in tokens]
    last, start, _ = tokens[-1]
    if not _SIGN.match(folded[start]):
        return tuple(words)
    paired = len(tokens) > 1 and tokens[-2][2] == start + 1  # the pair before has it already
    return tuple(words[:-1]) if paired else (*words[:-1], f"{last}*")


def _placed(text: str) -> Iterator[Token]:
    """The words of a text, with their places in the text itself."""
    whole = _folded(text)
    # Alike, character by character: nothing was composed, nothing takes more room than before.
    plain_so = unicodedata.is_normalized("NFKC", text) and len(text.casefold()) == len(text)
    if plain_so and len(whole) == len(text):
        yield from _tokens(whole)
        return
    folded: list[str] = []
    places: list[tuple[int, int]] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _leans(text[end]):
            continue
        folded.append(_folded(text[start:end]))
        places += [(start, end)] * len(folded[-1])
        start = end
    for word, first, last in _tokens("".join(folded)):
        yield word, places[first][0], places[last - 1][1]


def _leans(sign: str) -> bool:
    """Whether folding may take a character together with the one before it."""
    first = unicodedata.normalize("NFKD", sign)[0]
    return unicodedata.combining(first) != 0 or _JOINING.match(first) is not None


def _spelt(word: str) -> str:
    if word.isascii():
        return word
    return "".join(sign if sign.isascii() else f"x{ord(sign):x}x" for sign in word)


def _fitting(words: Sequence[str]) -> Sequence[str]:
    """The words, or the first of them that a tsvector has room for."""
    if sum(map(len, words)) + 5 * len(words) <= _MOST_BYTES:
        return words
    size, known = 0, set[str]()
    for place, word in enumerate(words):
        size += 2 if word in known else min(len(word), _WORD_LENGTH) + 5
        if size > _MOST_BYTES:
            return words[:place]
        known.add(word)
    return words


def _quoted(words: str, quote: str) -> str:
    """In quotes; the star of a word that may go on stands behind them."""
    bare = words.removesuffix("*")
    return f"{quote}{bare}{quote}{words[len(bare) :]}"


def _lexeme(word: str, label: str) -> str:
    """A word as a tsquery reads it: ``'word':*A``."""
    marks = ("*" if word.endswith("*") else "") + label
    return f"'{word.removesuffix('*')[:_WORD_LENGTH]}'" + (f":{marks}" if marks else "")


def vector(passage: Passage) -> str:
    """As PostgreSQL reads a tsvector: each word with its places and their field, by no parser."""
    text = plain(passage.text).split()
    # Their places are apart, so that no phrase goes from one field into the other.
    fields = (
        _places(text, 1, _PLACES // 2, "A"),
        _places(plain(passage.prompt).split(), min(len(text), _PLACES // 2) + 2, _PLACES, "B"),
    )
    words = dict.fromkeys(word for field in fields for word in field)
    spelt = (f"'{word}':{','.join(p for f in fields for p in f.get(word, ()))}" for word in words)
    return " ".join(spelt)


def _places(words: Iterable[str], first: int, last: int, label: str) -> dict[str, list[str]]:
    """By word, where it stands; at the last place whatever finds no other."""
    places: dict[str, list[str]] = {}
    beyond = [f"{last}{label}"]
    for at, word in enumerate(words, first):
        where = places.setdefault(word[:_WORD_LENGTH], [])
        if at < last - 1 and len(where) < _MOST_PLACES:
            where.append(f"{at}{label}")
        else:
            places[_CLIPPED] = beyond
            if not where:
                where += beyond
    return places
