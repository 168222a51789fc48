"""The stream of batches: documents are read in pools, sorted by length, and dealt in any order.

A pool's batches depend on the recipe and on the pool's number alone, so every process makes the
same ones, and a run goes on where it stopped.
"""

import itertools
import random
from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset

from ..corpus.document import BOS, PAD
from ..corpus.stream import Corpus
from ..errors import TrainingError
from .batches import Batch, Row, TagIds, cut, grouped
from .bpe import Encoder
from .recipe import Place, TrainConfig

__all__ = ["batches", "stream"]


class _Pools(Dataset[list[Row]]):
    """The rows of each pool of documents, by the pool's number."""

    def __init__(self, config: TrainConfig, encoder: Encoder) -> None:
        self._config = config
        self._encoder = encoder
        self._corpus = Corpus(config.corpus)
        self._tags = TagIds.of(config.vocabulary, encoder)

    def __getitem__(self, pool: int) -> list[Row]:
        size, context = self._config.pool, self._config.architecture.context
        bos = self._encoder.special(BOS)
        rows: list[Row] = []
        for _, pieces in self._corpus.rendered(pool * size, size):
            row = Row(*self._encoder.pieces(pieces))
            rows += cut(row, context, self._tags, bos)
        return rows


def batches(config: TrainConfig, encoder: Encoder, pool: int) -> list[Batch]:
    """The batches of one pool of documents, in the order in which they are trained on."""
    groups = _groups(config, pool, _Pools(config, encoder)[pool])
    return [Batch.padded(group, encoder.special(PAD)) for group in groups]


def _groups(config: TrainConfig, pool: int, rows: list[Row]) -> list[list[Row]]:
    groups = grouped(rows, config.tokens_per_batch, random.Random(f"order/{config.seed}/{pool}"))
    if not groups:
        raise TrainingError(
            f"documents {pool * config.pool} to {(pool + 1) * config.pool} of the corpus teach "
            f"nothing: all of their text is given by others, or left out by the objective "
            f"{config.corpus.objective}; leave some of it to learn"
        )
    return groups


def stream(config: TrainConfig, encoder: Encoder, place: Place) -> Iterator[tuple[Batch, Place]]:
    """Batches from ``place`` on, each with the place after it (step and tokens not counted)."""
    pools = DataLoader(
        _Pools(config, encoder),
        sampler=itertools.count(place.pool),
        batch_size=None,
        collate_fn=list,
        num_workers=config.loaders,
        # A fork takes the encoder along as it is; started anew, a loader would have to import all.
        multiprocessing_context="fork" if config.loaders else None,
    )
    pad, start = encoder.special(PAD), place.batch
    for pool, rows in enumerate(pools, place.pool):
        groups = _groups(config, pool, rows)
        for number in range(start, len(groups)):
            last = number + 1 == len(groups)
            following = Place(0, pool + last, 0 if last else number + 1)
            yield Batch.padded(groups[number], pad), following
        start = 0
