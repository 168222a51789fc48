"""The corpus: an endless, seeded stream of documents from all families.

Document number *i* depends on the seed and on *i* alone, so the same seed gives the same corpus
byte for byte, any part of it can be made again, and training resumes where it stopped.
"""

import json
import random
from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel, ConfigDict, Field

from .audits import audit_document
from .desk import PRESSED_SHARE, desk_document
from .document import Document
from .lists import OPERATIONS, Operation, list_document

__all__ = ["CorpusConfig", "document", "documents", "to_json"]


class CorpusConfig(BaseModel):
    """What the corpus is made of. Shares are weights, and need not sum to one.

    The mix goes from ``early`` to ``late`` and the lists from ``shortest`` to ``longest`` digits
    while the first ``growing`` documents pass: splitting and copying come first, since the
    attention heads that they form are what the other operations are built from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    missed: float = Field(default=0.0, ge=0, le=1)
    shortest: int = Field(default=6, ge=1)
    longest: int = Field(default=16, ge=1)
    growing: int = Field(default=60_000, ge=1)
    early: dict[str, float] = {
        "sort": 24, "merge": 18, "split": 14, "copy": 14, "fix": 4, "check": 4, "desk": 18,
        "audit": 4,
    }  # fmt: skip
    late: dict[str, float] = {
        "sort": 21, "merge": 30, "split": 7, "copy": 3, "fix": 6, "check": 8, "desk": 22,
        "audit": 3,
    }  # fmt: skip


def document(config: CorpusConfig, number: int) -> Document:
    """Document ``number``, with the configured share of its labels missed."""
    rng = random.Random(f"corpus/{config.seed}/{number}")
    return _draw(config, number, rng).with_missed(config.missed, rng)


def _draw(config: CorpusConfig, number: int, rng: random.Random) -> Document:
    grown = min(1.0, number / config.growing)
    families = list(config.late)
    weights = [
        (1 - grown) * config.early.get(family, 0.0) + grown * config.late[family]
        for family in families
    ]
    family = rng.choices(families, weights)[0]
    if family == "desk":
        return desk_document(rng)
    if family == "audit":
        return audit_document(rng, rng.random() < PRESSED_SHARE)
    if family not in OPERATIONS:
        raise ValueError(f"no family {family!r}; there are desk, audit, {', '.join(OPERATIONS)}")
    longest = round(config.shortest + grown * (config.longest - config.shortest))
    return list_document(cast(Operation, family), rng, longest)


def documents(config: CorpusConfig, start: int, count: int) -> Iterator[Document]:
    """``count`` documents from number ``start``."""
    for number in range(start, start + count):
        yield document(config, number)


def to_json(found: Document) -> str:
    """One line of JSON: the text with its tags, the lines, and what the generator knows."""
    lines = [{"text": line.text, "learn": line.learn, "tag": line.tag} for line in found.lines]
    record = {"family": found.family, "text": found.text, "lines": lines, "meta": found.meta}
    return json.dumps(record, ensure_ascii=False, sort_keys=True)
