"""From documents to batches: a document is a row, cut to the context with its tags balanced.

Rows of like length stand together, so that little of a batch is padding, and a document never
shares a row with another: none can attend to what it is no part of.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...gates.vocabulary import Scheme, Vocabulary
from ..errors import TrainingError
from .bpe import Encoder

__all__ = ["Batch", "Row", "TagIds", "cut", "grouped"]

_UNLEARNT = -100


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, and for each whether the model learns to write it."""

    ids: Sequence[int]
    learn: Sequence[bool]


@dataclass(frozen=True, slots=True)
class TagIds:
    """The ids that a cut has to repeat, so that each part of a document stands by itself."""

    closes: Mapping[int, int]
    """Of a span scheme: the id that opens a tag to the one that closes it."""
    units: frozenset[int]
    """Of a prefix scheme: the ids that stand before a line or sentence, for as far as it goes."""
    labels: frozenset[int]
    """Of a document scheme: the ids that label all that follows."""
    newlines: frozenset[int]
    """Ordinary ids whose text has a line end in it."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, encoder: Encoder) -> "TagIds":
        """Look the tokens of ``vocabulary`` up."""
        closes: dict[int, int] = {}
        units: set[int] = set()
        labels: set[int] = set()
        for tag in vocabulary.tags:
            literals = [tag.open, *(band.open for band in tag.bands), tag.good]
            ids = [encoder.special(literal) for literal in literals if literal is not None]
            match tag.scheme:
                case Scheme.SPAN:
                    assert tag.close is not None  # the vocabulary checks it
                    closes |= dict.fromkeys(ids, encoder.special(tag.close))
                case Scheme.PREFIX:
                    units |= set(ids)
                case Scheme.DOCUMENT:
                    labels |= set(ids)
                case Scheme.MARKER:
                    pass  # sprinkled at a rate: the next part has markers of its own
        return cls(closes, frozenset(units), frozenset(labels), encoder.newlines())


def cut(row: Row, context: int, tags: TagIds, bos: int) -> list[Row]:
    """The row in parts of at most ``context`` tokens, each with its tags balanced.

    A part after the first begins with ``bos`` and with the tags that hold there (document labels,
    the prefix of the line or sentence, open spans), and a part before the last closes its open
    spans. None of these repeated tokens is learnt: the text did not put them there. Raises
    :class:`TrainingError` for a context that the repeated tokens alone would fill.
    """
    ids, learn = row.ids, row.learn
    if len(ids) <= context:
        return [row]
    parts: list[Row] = []
    held = _Held(tags)
    start = 0
    while start < len(ids):
        head = [bos, *held.tokens()] if start else []
        stop = start
        while stop < len(ids) and len(head) + stop - start + held.after(ids[stop]) < context:
            held.read(ids[stop])
            stop += 1
        if stop == start:
            raise TrainingError(
                f"context {context} is too short for {len(head)} tokens that a cut repeats; give "
                "architecture.context more"
            )
        tail = held.closing() if stop < len(ids) else []
        repeated = [False] * len(head), [False] * len(tail)
        parts.append(
            Row([*head, *ids[start:stop], *tail], [*repeated[0], *learn[start:stop], *repeated[1]])
        )
        start = stop
    return parts


class _Held:
    """What holds at a place in a row: document labels, the line's prefix, open spans."""

    def __init__(self, tags: TagIds) -> None:
        self._tags = tags
        self._labels: list[int] = []
        self._unit: list[int] = []
        self._open: list[int] = []
        self._side_by_side = False
        """Whether the last token was a prefix token, beside which more may stand."""

    def read(self, token: int) -> None:
        """Go past ``token``."""
        beside, self._side_by_side = self._side_by_side, token in self._tags.units
        if token in self._tags.closes:
            self._open.append(token)
        elif self._open and token == self._tags.closes[self._open[-1]]:
            self._open.pop()
        elif token in self._tags.units:
            self._unit = [*self._unit, token] if beside else [token]
        elif token in self._tags.labels:
            self._labels.append(token)
        elif token in self._tags.newlines:
            self._unit = []

    def after(self, token: int) -> int:
        """How many spans would be open past ``token``."""
        if token in self._tags.closes:
            return len(self._open) + 1
        if self._open and token == self._tags.closes[self._open[-1]]:
            return len(self._open) - 1
        return len(self._open)

    def tokens(self) -> list[int]:
        """What a new part repeats at its beginning."""
        return [*self._labels, *self._unit, *self._open]

    def closing(self) -> list[int]:
        """What a part appends at its end."""
        return [self._tags.closes[token] for token in reversed(self._open)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows: ``ids`` and ``labels``, both [rows x tokens]; a label of -100 is not learnt.

    ``tokens`` and ``learnt`` count the *global* batch, of which this may be one process's share.
    """

    ids: Tensor
    labels: Tensor
    tokens: int
    learnt: int

    @classmethod
    def padded(cls, rows: Sequence[Row], pad: int) -> "Batch":
        """All of ``rows``, filled up with ``pad``."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), pad)
        labels = torch.full((len(rows), longest), _UNLEARNT)
        for number, row in enumerate(rows):
            length = len(row.ids)
            ids[number, :length] = torch.tensor(row.ids)
            labels[number, :length] = ids[number, :length].where(torch.tensor(row.learn), _UNLEARNT)
        learnt = int((labels[:, 1:] >= 0).sum())
        return cls(ids, labels, sum(len(row.ids) for row in rows), learnt)

    def share(self, rank: int, size: int) -> "Batch":
        """Every ``size``-th row from row ``rank``; without one, a row that teaches nothing."""
        if size == 1:
            return self
        ids, labels = self.ids[rank::size], self.labels[rank::size]
        if not len(ids):
            ids, labels = self.ids[:1], torch.full_like(self.labels[:1], _UNLEARNT)
        return Batch(ids, labels, self.tokens, self.learnt)

    def passes(self, tokens: int | None) -> Iterator["Batch"]:
        """The rows in groups of at most ``tokens`` padded tokens (of one row, if need be)."""
        rows = len(self.ids) if tokens is None else max(1, tokens // self.ids.shape[1])
        for start in range(0, len(self.ids), rows):
            yield Batch(
                self.ids[start : start + rows], self.labels[start : start + rows],
                self.tokens, self.learnt,
            )  # fmt: skip


def grouped(rows: Iterable[Row], tokens: int, order: random.Random) -> list[list[Row]]:
    """Rows of like length in groups of at most ``tokens`` padded tokens, in random order.

    Rows in which nothing is learnt are left out; a row longer than ``tokens`` stands alone.
    """
    # The first token of a row is predicted by nothing.
    kept = sorted((row for row in rows if any(row.learn[1:])), key=lambda row: len(row.ids))
    groups: list[list[Row]] = []
    for row in kept:
        if not groups or len(row.ids) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(row)
    order.shuffle(groups)
    return groups
