"""The model side of the local engine: rows that join and leave one running batch at every step.

Nothing here knows of threads or asyncio; one thread at a time may use a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ...gates.control import BAN_BIAS, forced_ids, logit_bias
from .checkpoint import Checkpoint
from .forward import forward, read_prompts
from .protocol import Request, Token
from .sampling import Draw, Knobs, draw
from .tokenizer import TextStream

__all__ = ["Batch", "Row"]


class Row:
    """One generation: what was asked, and how far it has come."""

    __slots__ = (
        "_bias",
        "_checkpoint",
        "_count",
        "_open",
        "_random",
        "_tail",
        "_text",
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
        self._count = 0
        self._text = TextStream(checkpoint.tokenizer)
        self._tail = ""
        # Counter-based and keyed by the seed alone, so a row's draws don't depend on its batch.
        self._random = np.random.Generator(np.random.Philox(key=request.seed % 2**128))
        self._bias = {
            id_: -np.inf if nats <= BAN_BIAS else nats
            for id_, nats in logit_bias(request.controls, vocabulary).items()
        }
        # Prompts hold tag tokens only where we or the model wrote them, so they tell what is open.
        self._open: set[int] = set()
        for token in self.prompt:
            self._follow_tags(token)

    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token."""
        return self._random.random()

    def bias(self) -> dict[int, float]:
        """Nats per token id: the request's controls, and -inf for what may never be generated.

        Padding and the beginning of a document never, and a closing tag only where its tag is
        open in the prompt or the generated text.
        """
        never = dict.fromkeys(self._checkpoint.never, -np.inf)
        for tag in self._checkpoint.info.vocabulary.vocabulary.tags:
            close = self._checkpoint.info.vocabulary.close_id(tag.name)
            if close is not None and close not in self._open:
                never[close] = -np.inf
        return self._bias | never

    def accept(self, drawn: Draw) -> tuple[Token, bool]:
        """The token drawn for this row, and whether its bias changed (a tag opened or closed)."""
        id_ = self.last = drawn.id
        self._count += 1
        self.request.usage.generated = self._count
        sampling = self.request.sampling
        full = self._count >= sampling.max_tokens
        text = self._text.push(id_, last=full)
        self._tail += text
        finish: Literal["stop", "length"] | None = None
        if id_ in self._checkpoint.eos or any(stop in self._tail for stop in sampling.stop):
            finish = "stop"
        elif full:
            finish = "length"
        self.finished = finish is not None
        # What is kept can begin a stop string, and can't hold one.
        longest = max(map(len, sampling.stop), default=1)
        self._tail = self._tail[-(longest - 1) :] if longest > 1 else ""
        token = Token(id_, text, drawn.chosen, drawn.belief, drawn.sampler, finish)
        return token, self._follow_tags(id_)

    def _follow_tags(self, token: int) -> bool:
        """Keep the set of closing tokens that are due; whether it changed."""
        vocabulary = self._checkpoint.info.vocabulary
        if token in self._open:
            self._open.discard(token)
            return True
        for tag in vocabulary.vocabulary.tags:
            close = vocabulary.close_id(tag.name)
            if close is not None and token in vocabulary.open_ids(tag.name):
                self._open.add(close)
                return True
        return False


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
