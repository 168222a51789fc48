"""Which behaviour tags a model was pretrained with, and which tokens spell them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .canonical import digest
from .errors import VocabularyError

__all__ = ["Band", "BoundVocabulary", "Column", "Scheme", "Tag", "Vocabulary"]


class Scheme(StrEnum):
    """How a model spells and places a tag."""

    SPAN = "span"
    """Open and close tokens around the text."""
    PREFIX = "prefix"
    """A token before each sentence or line, with a good twin (Korbak et al. 2023)."""
    MARKER = "marker"
    """A token sprinkled into bad text at a known rate (SafeLM, Maini et al. 2025)."""
    DOCUMENT = "document"
    """A conditioning label at the start of a document, where it may have a good twin."""


_SPELLING: dict[Scheme, tuple[frozenset[str], frozenset[str]]] = {
    Scheme.SPAN: (frozenset({"close"}), frozenset()),
    Scheme.PREFIX: (frozenset({"good"}), frozenset()),
    Scheme.MARKER: (frozenset({"rate"}), frozenset()),
    Scheme.DOCUMENT: (frozenset(), frozenset({"good"})),
}
"""What a tag of each scheme must have besides its opening tokens, and what it may have."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Band(_Frozen):
    """One intensity level of a tag; levels are ordered, and each is a token of its own."""

    level: int = Field(ge=1)
    open: str = Field(min_length=1)


class Tag(_Frozen):
    """One behaviour or context label and the literal strings that spell it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    scheme: Scheme = Scheme.SPAN
    open: str | None = None
    close: str | None = None
    good: str | None = None
    rate: float | None = Field(default=None, gt=0, le=1)
    bands: tuple[Band, ...] = ()
    unit: Literal["line", "sentence", "span"] = "line"
    """How much text one tag covers where the corpus placed it: whole lines, whole sentences, or
    (``span`` and ``marker``) just the words that were labelled."""

    @model_validator(mode="after")
    def _fits_its_scheme(self) -> Self:
        if (self.open is None) == (not self.bands):
            raise ValueError(f"tag {self.name!r} needs either 'open' or 'bands', not both")
        wanted, welcome = _SPELLING[self.scheme]
        for field in ("close", "good", "rate"):
            given = getattr(self, field) is not None
            if given and field not in wanted | welcome:
                raise ValueError(f"tag {self.name!r}: scheme {self.scheme} has no {field!r}")
            if not given and field in wanted:
                raise ValueError(f"tag {self.name!r}: scheme {self.scheme} needs {field!r}")
        if self.unit == "span" and self.scheme in (Scheme.PREFIX, Scheme.DOCUMENT):
            raise ValueError(
                f"tag {self.name!r}: scheme {self.scheme} has no unit 'span'; "
                "say 'line' or 'sentence'"
            )
        levels = [band.level for band in self.bands]
        if levels != sorted(set(levels)):
            raise ValueError(f"tag {self.name!r}: band levels must rise, each once")
        return self


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the evidence array: a token whose probability is read at every position."""

    tag: str
    token: str
    band: int | None
    role: Literal["open", "good"]


class Vocabulary(_Frozen):
    """All tags of one model, as literal strings; :meth:`bind` checks them against a tokenizer."""

    name: str
    tags: tuple[Tag, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _spells_everything_once(self) -> Self:
        names = [tag.name for tag in self.tags]
        if doubled := _doubled(names):
            raise ValueError(f"tag {min(doubled)!r} stands twice")
        opens = [column.token for column in self.columns if column.role == "open"]
        if doubled := _doubled(opens):
            raise ValueError(f"token {min(doubled)!r} opens two tags")
        closes = {tag.close for tag in self.tags if tag.close is not None}
        twins: dict[str, Tag] = {}
        for tag in self.tags:
            if tag.good is None:
                continue
            first = twins.setdefault(tag.good, tag)
            if (tag.scheme, tag.unit) != (first.scheme, first.unit):
                raise ValueError(
                    f"tags {first.name!r} and {tag.name!r} share the good token {tag.good!r}, and "
                    "so need the same scheme and unit"
                )
        if doubled := (closes & {*opens}) | (closes & {*twins}) | ({*opens} & {*twins}):
            raise ValueError(
                f"token {min(doubled)!r} has two meanings; opening, closing and good tokens differ"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read ``vocabulary.json``. Raises :class:`VocabularyError` naming file and fault."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise VocabularyError(
                f"{path}: no tag vocabulary there; a tag-pretrained model folder has a "
                "vocabulary.json that names its tags"
            ) from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "file"
            raise VocabularyError(f"{path}: {where}: {fault['msg']}") from None

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The evidence columns in order: each tag's opening tokens, then its good twin."""
        found: list[Column] = []
        goods: set[str] = set()
        for tag in self.tags:
            if tag.open is not None:
                found.append(Column(tag.name, tag.open, None, "open"))
            found += [Column(tag.name, band.open, band.level, "open") for band in tag.bands]
            if tag.good is not None and tag.good not in goods:
                goods.add(tag.good)
                found.append(Column(tag.name, tag.good, None, "good"))
        return tuple(found)

    @cached_property
    def by_name(self) -> dict[str, Tag]:
        """The tags by name."""
        return {tag.name: tag for tag in self.tags}

    @cached_property
    def openings(self) -> dict[str, tuple[str, ...]]:
        """Per tag, the tokens that open it, by rising band."""
        return {
            tag.name: tuple(band.open for band in tag.bands) if tag.open is None else (tag.open,)
            for tag in self.tags
        }

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Every string that spells a tag (opening, closing, good), each once."""
        closes = [tag.close for tag in self.tags if tag.close is not None]
        return tuple(dict.fromkeys([column.token for column in self.columns] + closes))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return digest(self.model_dump(mode="json"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def bind(self, encode: Callable[[str], Sequence[int]]) -> "BoundVocabulary":
        """Resolve every tag to its token id with the tokenizer's ``encode`` (specials enabled).

        Raises :class:`VocabularyError` for a tag that is not exactly one token, by name.
        """
        ids: dict[str, int] = {}
        known: dict[int, str] = {}
        for literal in self.literals:
            found = list(encode(literal))
            if len(found) != 1:
                raise VocabularyError(
                    f"tag token {literal!r} of vocabulary {self.name!r} is {len(found)} tokens in "
                    "this tokenizer, and must be exactly one: use the tokenizer the model was "
                    "pretrained with, or correct vocabulary.json"
                )
            if found[0] in known:
                raise VocabularyError(
                    f"tag tokens {literal!r} and {known[found[0]]!r} are the same id {found[0]} in "
                    "this tokenizer: use the tokenizer the model was pretrained with"
                )
            ids[literal], known[found[0]] = found[0], literal
        return BoundVocabulary(self, ids)


@dataclass(frozen=True, slots=True)
class BoundVocabulary:
    """A vocabulary resolved against one tokenizer: literal string to token id."""

    vocabulary: Vocabulary
    ids: dict[str, int]

    def __hash__(self) -> int:
        return hash(self.vocabulary)

    @property
    def column_ids(self) -> list[int]:
        """Token ids of the evidence columns, in order; length K."""
        return [self.ids[column.token] for column in self.vocabulary.columns]

    def open_ids(self, tag: str) -> list[int]:
        """Token ids that open ``tag`` (one per band)."""
        return [self.ids[token] for token in self.vocabulary.openings.get(tag, ())]

    def close_id(self, tag: str) -> int | None:
        """The token id that closes ``tag``, where its scheme has one."""
        close = self.vocabulary.by_name[tag].close
        return None if close is None else self.ids[close]


def _doubled(words: Sequence[str]) -> set[str]:
    return {word for word, times in Counter(words).items() if times > 1}
