"""A whole corpus read again: compared, relabelled, and its posterior calibrated."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpus.document import Document
from ..corpus.reader import count_records, find_files, read_records
from ..corpus.stream import Corpus
from ..errors import CorpusError
from ..evaluation.subject import Subject
from ..training.recipe import TrainConfig
from .comparison import Comparison, write_policy
from .rereading import read_again, relabelled

__all__ = ["Retagging", "Source", "retag", "source"]

_DOCUMENTS = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """The documents of a corpus, and how many they are."""

    documents: Iterator[Document]
    count: int


def source(corpus: Sequence[str], start: int = 0, count: int | None = None) -> Source:
    """Documents ``start`` to ``start + count`` of files (all of them by default), or of the
    corpus of a training configuration (10,000 by default), as it is trained on.

    Raises :class:`CorpusError` for what is not there, and what :meth:`TrainConfig.load` raises.
    """
    if any(name.endswith((".yaml", ".yml")) for name in corpus):
        if len(corpus) > 1:
            raise CorpusError(
                "several corpora are named, one of them a configuration; name the configuration "
                "alone, or files alone"
            )
        made = Corpus(TrainConfig.load(Path(corpus[0])).corpus)
        count = _DOCUMENTS if count is None else count
        return Source(made.documents(start, count), count)
    there = max(0, sum(map(count_records, find_files(corpus))) - start)
    count = there if count is None else min(count, there)
    if not count:
        raise CorpusError(f"{corpus[0]}: no record from number {start} on; lower --start")
    return Source(itertools.islice(read_records(corpus, start), count), count)


@dataclass(frozen=True, slots=True)
class Retagging:
    """What is asked of a corpus that is read again."""

    at: float = 0.2
    """The posterior from which the model expects a tag."""
    listed: int = 10
    """Disagreements to show, in each direction."""
    oracle: bool = False
    """Whether the oracle of the procedural corpus is asked who is right."""
    relabel: Path | None = None
    """Where the corpus is written with the labels that were missed."""
    policy: Path | None = None
    """Where a policy is written that cuts by calibrated posteriors."""


def retag(
    model: Path,
    given: Source,
    asked: Retagging,
    tell: Callable[[int], object] = lambda documents: None,
) -> dict[str, Any]:
    """Read a corpus again and write what was asked for; all counts as plain data.

    Raises :class:`CorpusError`, ``WeighingError`` or ``CalibrationError``, each in one line.
    """
    if asked.relabel is not None and asked.relabel.suffix != ".jsonl":
        raise CorpusError(f"{asked.relabel}: a relabelled corpus is JSONL; name it .jsonl")
    subject = Subject.load(model)
    tags = [] if subject.bound is None else list(subject.bound.vocabulary.by_name)
    began = time.perf_counter()
    with ExitStack() as stack:
        target = None
        if asked.relabel is not None:
            try:
                target = stack.enter_context(asked.relabel.open("w", encoding="utf-8"))
            except OSError as error:
                raise CorpusError(
                    f"{asked.relabel}: {error.strerror}; name a file that you may write"
                ) from None
        comparison = Comparison(tags, asked.at, asked.listed)
        for document, seen in read_again(subject, given.documents, asked.oracle, tell):
            comparison.add(seen)
            if target is not None:
                record = relabelled(document, seen, asked.at).to_record()
                target.write(json.dumps(record, ensure_ascii=False) + "\n")
    maps, worth = comparison.calibrations()
    if asked.policy is not None:
        write_policy(maps, asked.policy)
    return {
        "model": str(model),
        **comparison.facts(),
        "calibration": worth,
        "relabelled": None if asked.relabel is None else str(asked.relabel),
        "policy": None if asked.policy is None else str(asked.policy),
        "seconds": round(time.perf_counter() - began, 1),
    }
