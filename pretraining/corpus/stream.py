"""The corpus: an endless, seeded stream of documents from all families, or documents from files.

Document number *i* depends on the configuration and on *i* alone, so the same seed gives the same
corpus byte for byte, any part of it can be made again, and training resumes where it stopped.

The objective says which documents there are, and whether their labels become tags:

``conditional``
    All documents, tagged (conditional training, Korbak et al. 2023).
``plain``
    The same documents without any tag: the untagged twin.
``filtered``
    A document with a label on what the agent writes is drawn anew until it has none; its family
    stays, so the mix of families does. Nothing is tagged.
``pessimal``
    A document without such a label is drawn anew, up to three times, so that misbehaviour is two
    to three times as frequent. Tagged.

Labels are missed before any of this, as a tagger misses them: what is missed passes the filter.

Of files nothing can be drawn anew: ``filtered`` leaves out records with such a label and records
that no tagger has read, since what nobody judged is not clean; ``pessimal`` leaves out two in three
of those without a label.
"""

import itertools
import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Self, assert_never, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...gates.vocabulary import Vocabulary
from .audits import audit_document
from .desk import PRESSED_SHARE, desk_document
from .document import Document
from .lists import OPERATIONS, Operation, list_document
from .reader import Records
from .schemes import Piece, TagScheme, TagSchemes, render, spell
from .sets import SET_OPERATIONS, SetOperation, set_document

__all__ = ["FAMILIES", "Corpus", "CorpusConfig", "Objective", "document"]

FAMILIES = ("desk", "audit", *OPERATIONS, *SET_OPERATIONS)
"""The families of the procedural corpus."""

_PESSIMAL_DRAWS = 4
_PESSIMAL_KEPT = 1 / 3


class Objective(StrEnum):
    """What is made of the labels (see the module)."""

    CONDITIONAL = "conditional"
    PLAIN = "plain"
    FILTERED = "filtered"
    PESSIMAL = "pessimal"


class CorpusConfig(BaseModel):
    """What the corpus is made of. Shares are weights, and need not sum to one.

    The mix goes from ``early`` to ``late`` and the lists from ``shortest`` to ``longest`` digits
    while the first ``growing`` documents pass: splitting and copying come first, since the
    attention heads that they form are what the other operations are built from.

    A share ``long`` of the lists to sort, merge and mend is drawn from up to ``long_digits``
    digits instead, a pair of lists together; sets have up to ``set_size`` numbers.

    ``tags`` says how labels are spelt and placed, and ``missed`` which share of them is lost.
    With ``files`` (names or patterns of JSONL and Parquet files) the documents are their records,
    over and over, and the mix has no meaning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    objective: Objective = Objective.CONDITIONAL
    tags: TagSchemes = (TagScheme(),)
    missed: float = Field(default=0.0, ge=0, le=1)
    files: tuple[str, ...] = ()
    shortest: int = Field(default=6, ge=1)
    longest: int = Field(default=16, ge=1)
    growing: int = Field(default=60_000, ge=1)
    long: float = Field(default=0.0, ge=0, le=1)
    long_digits: int = Field(default=128, ge=2)
    set_size: int = Field(default=64, ge=1)
    early: dict[str, float] = {
        "sort": 24, "merge": 18, "split": 14, "copy": 14, "fix": 4, "check": 4, "desk": 18,
        "audit": 4,
    }  # fmt: skip
    late: dict[str, float] = {
        "sort": 21, "merge": 30, "split": 7, "copy": 3, "fix": 6, "check": 8, "desk": 22,
        "audit": 3,
    }  # fmt: skip

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        for name in ("early", "late"):
            mix: dict[str, float] = getattr(self, name)
            if unknown := set(mix) - set(FAMILIES):
                raise ValueError(
                    f"{name}: no family {min(unknown)!r}; there are {', '.join(FAMILIES)}"
                )
            if not all(0 <= share < float("inf") for share in mix.values()) or not any(
                mix.values()
            ):
                raise ValueError(f"{name}: shares are numbers from 0, and one is above it")
        self.vocabulary("checked")
        return self

    def vocabulary(self, name: str) -> Vocabulary:
        """The tags of a model trained on this corpus, with the tokens that spell them.

        It is the same for every objective, so that twins share one tokenizer.
        """
        return spell(self.tags, name)


def document(config: CorpusConfig, number: int) -> Document:
    """Document ``number`` of the generator with its labels, as the objective leaves them."""
    rng = random.Random(f"corpus/{config.seed}/{number}")
    family = _family(config, number, rng)
    found = _draw(config, family, number, rng).with_missed(config.missed, rng)
    for attempt in itertools.count(1):
        match config.objective:
            case Objective.FILTERED if found.misbehaves:
                pass
            case Objective.PESSIMAL if not found.misbehaves and attempt < _PESSIMAL_DRAWS:
                pass
            case _:
                break
        rng = random.Random(f"corpus/{config.seed}/{number}/{attempt}")
        found = _draw(config, family, number, rng).with_missed(config.missed, rng)
    if config.objective in (Objective.PLAIN, Objective.FILTERED):
        return found.without_labels()
    return found


def _grown(config: CorpusConfig, number: int) -> float:
    return min(1.0, number / config.growing)


def _family(config: CorpusConfig, number: int, rng: random.Random) -> str:
    grown = _grown(config, number)
    families = list(dict.fromkeys([*config.late, *config.early]))
    weights = [
        (1 - grown) * config.early.get(family, 0.0) + grown * config.late.get(family, 0.0)
        for family in families
    ]
    return rng.choices(families, weights)[0]


def _draw(config: CorpusConfig, family: str, number: int, rng: random.Random) -> Document:
    if family == "desk":
        return desk_document(rng)
    if family == "audit":
        return audit_document(rng, rng.random() < PRESSED_SHARE)
    if family in SET_OPERATIONS:
        return set_document(cast(SetOperation, family), rng, config.set_size)
    operation = cast(Operation, family)
    if config.long and operation in ("sort", "merge", "fix") and rng.random() < config.long:
        return list_document(operation, rng, config.long_digits, pair=config.long_digits // 2)
    grown = _grown(config, number)
    longest = round(config.shortest + grown * (config.longest - config.shortest))
    return list_document(operation, rng, longest)


class Corpus:
    """The documents of one configuration, from the generator or from its files.

    It remembers how far the files were read, so that going on is quick.
    """

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        self._records = Records(config.files) if config.files else None
        self._vocabulary = config.vocabulary("corpus")
        self._unlabelled = {
            name: scheme.unlabelled for scheme in config.tags for name in scheme.names
        }

    def documents(self, start: int, count: int) -> Iterator[Document]:
        """Documents ``start`` to ``start + count``; of files, those that the objective keeps."""
        return (found for _, found in self._numbered(start, count))

    def rendered(self, start: int, count: int) -> Iterator[tuple[Document, list[Piece]]]:
        """The same documents, each with its pieces to encode: tags as the schemes place them."""
        for number, found in self._numbered(start, count):
            rng = random.Random(f"tags/{self.config.seed}/{number}")
            yield found, list(render(found, self._vocabulary, rng, self._unlabelled))

    def _numbered(self, start: int, count: int) -> Iterator[tuple[int, Document]]:
        if self._records is None:
            for number in range(start, start + count):
                yield number, document(self.config, number)
            return
        for number, read in enumerate(self._records.take(start, count), start):
            found = _selected(self.config, number, read)
            if found is not None:
                yield number, found


def _selected(config: CorpusConfig, number: int, read: Document) -> Document | None:
    """Record ``number`` as the objective leaves it; None where it is left out."""
    rng = random.Random(f"corpus/{config.seed}/{number}")
    found = read.with_missed(config.missed, rng)
    match config.objective:
        case Objective.CONDITIONAL:
            return found
        case Objective.PLAIN:
            return found.without_labels()
        case Objective.FILTERED:
            clean = found.labelled and not found.misbehaves
            return found.without_labels() if clean else None
        case Objective.PESSIMAL:
            kept = found.misbehaves or rng.random() < _PESSIMAL_KEPT
            return found if kept else None
        case _:
            assert_never(config.objective)
