"""The model side of the local engine: rows that join and leave one running batch at every step.

Nothing here knows of threads or asyncio; one thread at a time may use a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....gates.control import BAN_BIAS, forced_ids, logit_bias
from ..checkpoint import Checkpoint
from ..protocol import Request, Token
from ..spans import OpenSpans
from .forward import forward, read_prompts
from .sampling import Draw, Knobs, draw
from .text import Writing

__all__ = ["Batch", "Row"]


class Row:
    """One generation: what was asked, and how far it has come."""

    __slots__ = (
        "_bias",
        "_checkpoint",
        "_random",
        "_spans",
        "_writing",
        "cancelled",
        "finished",
        "last",
        "prompt",
        "request",
    )

    def __init__(self, request: Request, checkpoint: Checkpoint) -> None:
        vocabulary = checkpoint.info.vocabulary
        self.request = request
        self.prompt = (*request.prompt, *forced_ids(request.controls, vocabulary))
        self.cancelled = False
        self.finished = False
        self.last: int = self.prompt[-1]
        """The token that the next forward pass reads."""
        self._checkpoint = checkpoint
        self._writing = Writing(checkpoint.tokenizer, request.sampling, checkpoint.eos)
        # Counter-based and keyed by the seed alone, so a row's draws don't depend on its batch.
        self._random = np.random.Generator(np.random.Philox(key=request.seed % 2**128))
        self._bias = {
            id_: -np.inf if nats <= BAN_BIAS else nats
            for id_, nats in logit_bias(request.controls, vocabulary).items()
        }
        self._spans = OpenSpans(vocabulary, self.prompt)

    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token."""
        return self._random.random()

    def bias(self) -> dict[int, float]:
        """Nats per token id: the request's controls, and -inf for what may never be generated.

        Padding and the beginning of a document never, and a closing tag only where its tag is
        open in the prompt or the generated text.
        """
        never = (*self._checkpoint.never, *self._spans.forbidden)
        return self._bias | dict.fromkeys(never, -np.inf)

    def accept(self, drawn: Draw) -> tuple[Token, bool]:
        """The token drawn for this row, and whether its bias changed (a tag opened or closed)."""
        id_ = self.last = drawn.id
        self.request.usage.generated += 1
        text, finish = self._writing.take(id_)
        self.finished = finish is not None
        token = Token(id_, text, drawn.chosen, drawn.belief, drawn.sampler, finish)
        return token, self._spans.follow(id_)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """New rows with their prompts read: what joins a batch."""

    rows: list[Row]
    cache: Any
    logits: torch.Tensor
    knobs: Knobs


class Batch:
    """The rows that are being generated, with the cache of their keys and values."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.rows: list[Row] = []
        self._checkpoint = checkpoint
        self._device = next(checkpoint.model.parameters()).device
        self._columns = torch.tensor(
            checkpoint.info.vocabulary.column_ids, dtype=torch.long, device=self._device
        )
        self._cache: Any = None
        self._lengths: list[int] = []  # cached tokens per row
        self._knobs: Knobs | None = None

    def read(self, rows: Sequence[Row]) -> "_Prompts":
        """Read the prompts of new rows in one pass; the batch stays as it is."""
        cache, logits = read_prompts(self._checkpoint, [row.prompt for row in rows])
        return _Prompts(list(rows), cache, logits, self._knobs_of(rows))

    def admit(self, prompts: "_Prompts") -> list[Token]:
        """Join rows whose prompts were read, and draw their first tokens."""
        if self.rows:
            for mine, theirs in zip(self._cache.layers, prompts.cache.layers, strict=True):
                mine.join(theirs)
        else:
            self._cache = prompts.cache
        self.rows += prompts.rows
        self._lengths += [len(row.prompt) for row in prompts.rows]
        self._knobs = None
        return self._draw(prompts.rows, prompts.logits, prompts.knobs)

    def step(self) -> list[Token]:
        """One more token for every row, in order."""
        last = torch.tensor([[row.last] for row in self.rows])
        self._lengths = [length + 1 for length in self._lengths]
        logits = forward(self._checkpoint, last, self._lengths, self._cache)[:, -1]
        if self._knobs is None:
            self._knobs = self._knobs_of(self.rows)
        return self._draw(self.rows, logits, self._knobs)

    def keep(self, kept: Sequence[int]) -> None:
        """Keep the rows at these positions; the others leave."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        self._lengths = [self._lengths[i] for i in kept]
        self._knobs = None
        if not kept:
            self._cache = None
            return
        index = torch.tensor(kept, device=self._device)
        for layer in self._cache.layers:
            layer.keep(index, max(self._lengths))

    def _knobs_of(self, rows: Sequence[Row]) -> Knobs:
        return Knobs.of(
            [row.request.sampling for row in rows],
            [row.bias() for row in rows],
            self._checkpoint.width,
            self._device,
        )

    def _draw(self, rows: Sequence[Row], logits: torch.Tensor, knobs: Knobs) -> list[Token]:
        draws = draw(logits, knobs, [row.uniform() for row in rows], self._columns)
        taken = [row.accept(drawn) for row, drawn in zip(rows, draws, strict=True)]
        if any(changed for _, changed in taken):
            self._knobs = None
        return [token for token, _ in taken]
