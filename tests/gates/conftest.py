"""A vocabulary of span tags, and generations made by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from secateur.gates.evidence import Evidence
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary


def bind(*tags: dict) -> BoundVocabulary:
    """Bind tags to ids 900, 901, … in the order of their literals."""
    vocabulary = Vocabulary.model_validate({"name": "test", "tags": tags})
    ids = {literal: 900 + index for index, literal in enumerate(vocabulary.literals)}
    return vocabulary.bind(lambda literal: [ids[literal]])


@pytest.fixture(scope="session")
def spans() -> BoundVocabulary:
    """deceit opens with 900, powerseeking with 901."""
    return bind(
        *({"name": n, "open": f"<|{n}|>", "close": f"<|/{n}|>"} for n in ("deceit", "powerseeking"))
    )


@pytest.fixture(scope="session")
def make_vocabulary():
    """``make_vocabulary(tag, tag, …)`` binds tags given as dicts."""
    return bind


@dataclass(frozen=True)
class Step:
    """One token as an engine would send it."""

    id: int
    belief: Sequence[float]
    sampler: Sequence[float] | None = None
    chosen: float = -1.0
    text: str = "a "


@pytest.fixture(scope="session")
def step():
    """``step(p_deceit, p_powerseeking, …)`` makes a token from probabilities."""

    def make(*ps: float, id: int = 7, sampler: Sequence[float] | None = None, **rest) -> Step:
        log = [math.log(p) if p else -60000.0 for p in ps]
        tempered = None if sampler is None else [math.log(p) if p else -60000.0 for p in sampler]
        return Step(id, log, tempered, **rest)

    return make


@pytest.fixture(scope="session")
def make_evidence():
    """``make_evidence(vocabulary, steps, starts=…)`` stores tokens as the gate would."""

    def make(
        vocabulary: BoundVocabulary, steps: Sequence[Step], starts: tuple[int, ...] = ()
    ) -> Evidence:
        width = len(vocabulary.vocabulary.columns)
        sampler = [s.sampler for s in steps if s.sampler is not None]
        return Evidence(
            columns=tuple(column.token for column in vocabulary.vocabulary.columns),
            token_ids=tuple(s.id for s in steps),
            offsets=tuple(2 * index for index in range(len(steps))),
            chosen=np.array([s.chosen for s in steps], dtype=np.float16),
            belief=np.array([s.belief for s in steps], dtype=np.float16).reshape(-1, width),
            sampler=np.array(sampler, dtype=np.float16) if sampler else None,
            starts=starts,
        )

    return make
