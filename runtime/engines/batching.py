"""The model side of the local engine: rows that join and leave one running batch at every step.

Rows are aligned to the right: a short row has empty columns to its left, which the attention mask
hides. Nothing here knows of threads or asyncio; one thread at a time may use a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers.cache_utils import Cache

from ...gates.control import BAN_BIAS, forced_ids, logit_bias
from ...gates.evidence import LOG_FLOOR
from .checkpoint import Checkpoint
from .key_values import RoomyLayer
from .protocol import Request, Token
from .sampling import Draw, Knobs, draw, free_log_probs
from .tokenizer import TextStream

__all__ = ["Batch", "Row", "read_along"]


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
        sampling = self.request.sampling
        ended, full = id_ in self._checkpoint.eos, self._count >= sampling.max_tokens
        text = self._text.push(id_, last=ended or full)
        self._tail += text
        finish: Literal["stop", "length"] | None = None
        if ended or any(stop in self._tail for stop in sampling.stop):
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
        self._model: Any = checkpoint.model
        self._width = checkpoint.width
        self._device = next(checkpoint.model.parameters()).device
        self._columns = torch.tensor(
            checkpoint.info.vocabulary.column_ids, dtype=torch.long, device=self._device
        )
        self._cache: Any = None
        self._lengths: list[int] = []  # cached tokens per row
        self._knobs: Knobs | None = None

    def read(self, rows: Sequence[Row]) -> "_Prompts":
        """Read the prompts of new rows in one pass; the batch stays as it is.

        Equal prompts (siblings of one thought) are read once.
        """
        prompts = {prompt: line for line, prompt in enumerate({row.prompt: 0 for row in rows})}
        longest = max(map(len, prompts))
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        for line, prompt in zip(ids, prompts, strict=True):
            line[longest - len(prompt) :] = prompt
        cache: Any = Cache(layer_class_to_replicate=RoomyLayer)
        logits = self._forward(torch.from_numpy(ids), [len(prompt) for prompt in prompts], cache)
        if len(prompts) < len(rows):
            lines = torch.tensor([prompts[row.prompt] for row in rows], device=self._device)
            for layer in cache.layers:
                layer.keep(lines, longest)
            logits = logits[lines]
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
        logits = self._forward(last, self._lengths, self._cache)
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

    def _forward(self, ids: torch.Tensor, lengths: list[int], cache: Cache) -> torch.Tensor:
        """Logits [B, V] after the last column of ids [B, T]; ``lengths`` count the row's tokens."""
        columns = cache.get_seq_length() + ids.shape[1]
        length = torch.tensor(lengths)[:, None]
        position = torch.arange(columns)[None, :] - (columns - length)
        output = self._model(
            input_ids=ids.to(self._device),
            # None where no row has empty columns: the faster kernels take no mask.
            attention_mask=((position >= 0).to(self._device) if min(lengths) < columns else None),
            position_ids=position[:, -ids.shape[1] :].clamp(min=0).to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _knobs_of(self, rows: Sequence[Row]) -> Knobs:
        return Knobs.of(
            [row.request.sampling for row in rows],
            [row.bias() for row in rows],
            self._width,
            self._device,
        )

    def _draw(self, rows: Sequence[Row], logits: torch.Tensor, knobs: Knobs) -> list[Token]:
        draws = draw(logits, knobs, [row.uniform() for row in rows], self._columns)
        taken = [row.accept(drawn) for row, drawn in zip(rows, draws, strict=True)]
        if any(changed for _, changed in taken):
            self._knobs = None
        return [token for token, _ in taken]


def read_along(
    checkpoint: Checkpoint, texts: Sequence[tuple[Sequence[int], int]]
) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Read given texts in one pass: for each (ids, start), an array [len(ids) - start, 1 + K].

    Column 0 is log P(ids[t] | ids[:t]), the others the temptations at t; temperature 1, natural
    logarithms, ``start`` at least 1. Texts are padded on the right, where causal attention never
    looks, so no mask is needed.
    """
    model: Any = checkpoint.model
    device = next(checkpoint.model.parameters()).device
    longest = max(len(ids) for ids, _ in texts)
    earliest = min(start for _, start in texts)
    table = np.zeros((len(texts), longest), dtype=np.int64)
    for line, (ids, _) in zip(table, texts, strict=True):
        line[: len(ids)] = ids
    whole = torch.from_numpy(table).to(device)
    # The last token predicts nothing that is asked for, so it is not read.
    logits = model(
        input_ids=whole[:, :-1], use_cache=False, logits_to_keep=longest - earliest
    ).logits
    columns = torch.tensor(checkpoint.info.vocabulary.column_ids, dtype=torch.long, device=device)
    free = free_log_probs(logits)
    own = free.gather(2, whole[:, earliest:, None])
    numbers = torch.cat([own, free[:, :, columns]], dim=2).clamp(min=LOG_FLOOR).cpu().numpy()
    return [
        numbers[row, start - earliest : len(ids) - earliest]
        for row, (ids, start) in enumerate(texts)
    ]
