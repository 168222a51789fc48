"""Batched decoding for the laboratory: many rows at once, tags read before they are controlled.

The runtime's engine streams and gates; this one only measures, on thousands of rows. A row's draws
depend on the seed and on its own number alone, so that it is written the same in any company, and
two models (or two controls) can be compared prompt by prompt.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from ...runtime.engines.local.key_values import RoomyLayer

__all__ = ["Answer", "Sampling", "Stretch", "converse", "write"]

_ROWS = 128
_SLACK = 0.85
"""Finished rows are carried along until fewer than this share of the batch still writes."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens."""

    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)
    """Nats added to the logits of these ids, before the temperature, as servers do."""
    forced: int | None = None
    """An id that every stretch begins with, whatever the model wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """What a model wrote without interruption: T tokens, its stop token included; K watched ids.

    Natural logarithms, before any bias or forcing, float32.
    """

    ids: tuple[int, ...]
    chosen: NDArray[np.float32]
    """[T] log p of the token at temperature 1."""
    belief: NDArray[np.float32]
    """[T, K] log p of each watched id at temperature 1."""
    sampler: NDArray[np.float32]
    """[T, K] the same at the sampler's own temperature (the belief again where that is greedy)."""


Answer = Callable[[int, Stretch], Sequence[int] | None]
"""Given a row's number and its newest stretch: the ids that stand after it, or None at the end."""


def write(
    model: Any,
    contexts: Sequence[Sequence[int]],
    stops: Collection[int],
    limit: int,
    sampling: Sampling,
    watched: Sequence[int] = (),
    tell: Callable[[int], object] = lambda rows: None,
) -> list[Stretch]:
    """Continue each context to one of ``stops`` or ``limit`` tokens."""
    made = converse(
        model, contexts, lambda row, stretch: None, stops, limit, sampling, watched, tell
    )
    return [stretches[0] for stretches in made]


@torch.inference_mode()
def converse(
    model: Any,
    contexts: Sequence[Sequence[int]],
    answer: Answer,
    stops: Collection[int],
    limit: int,
    sampling: Sampling,
    watched: Sequence[int] = (),
    tell: Callable[[int], object] = lambda rows: None,
) -> list[list[Stretch]]:
    """Let each row write stretch after stretch, answered from outside, until ``answer`` ends it.

    A stretch ends with one of ``stops`` or after ``limit`` tokens. ``tell`` hears of rows done.
    """
    order = sorted(range(len(contexts)), key=lambda number: len(contexts[number]))
    rows = [_Row(number, tuple(contexts[number]), sampling) for number in order]
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS]
        _Batch(model, batch, stops, limit, sampling, watched).run(answer)
        tell(len(batch))
    return [row.stretches for row in sorted(rows, key=lambda row: row.number)]


class _Row:
    """One text in the making: what waits to be read, and the stretch that is being written."""

    def __init__(self, number: int, context: tuple[int, ...], sampling: Sampling) -> None:
        self.number = number
        self.waiting = list(context)
        self.length = 0
        self.stretches: list[Stretch] = []
        self.done = False
        self._random = np.random.Generator(np.random.Philox(key=[sampling.seed, number]))
        self._uniforms = iter(())
        self._clear()

    def _clear(self) -> None:
        self.ids: list[int] = []
        self.numbers: list[NDArray[np.float32]] = []

    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token."""
        for value in self._uniforms:
            return value
        self._uniforms = iter(self._random.random(256).tolist())
        return next(self._uniforms)

    def take(self, token: int, numbers: NDArray[np.float32]) -> None:
        """One token that the model wrote, with what was read before it."""
        self.ids.append(token)
        self.numbers.append(numbers)
        self.waiting.append(token)

    def end_stretch(self, answer: Answer, width: int) -> None:
        """Hand the stretch over, and wait for what is answered."""
        numbers = np.stack(self.numbers)
        stretch = Stretch(
            tuple(self.ids), numbers[:, 0], numbers[:, 1 : 1 + width], numbers[:, 1 + width :]
        )
        self.stretches.append(stretch)
        self._clear()
        told = answer(self.number, stretch)
        if told is None:
            self.done = True
        else:
            self.waiting += told


class _Batch:
    """Rows that are written together, with their cache; each step feeds every row one token."""

    def __init__(
        self,
        model: Any,
        rows: Sequence[_Row],
        stops: Collection[int],
        limit: int,
        sampling: Sampling,
        watched: Sequence[int],
    ) -> None:
        self._model, self._rows, self._stops, self._limit = model, list(rows), stops, limit
        self._device = next(model.parameters()).device
        self._sampling, self._columns = sampling, list(watched)
        self._cache: Any = Cache(layer_class_to_replicate=RoomyLayer)
        bias = torch.zeros(model.config.vocab_size, dtype=torch.float64)
        for id_, nats in sampling.bias.items():
            bias[id_] = nats
        self._bias = bias.to(self._device)

    def run(self, answer: Answer) -> None:
        """Write until every row is done."""
        logits = self._read_contexts()
        while True:
            # A row that still has outside text to read does not choose a token yet.
            choosing = [place for place, row in enumerate(self._rows) if not row.waiting]
            self._choose([p for p in choosing if not self._rows[p].done], logits)
            for row in self._rows:
                if row.ids and (row.ids[-1] in self._stops or len(row.ids) == self._limit):
                    row.end_stretch(answer, len(self._columns))
            live = sum(not row.done for row in self._rows)
            if not live:
                return
            if live < _SLACK * len(self._rows):
                self._keep([place for place, row in enumerate(self._rows) if not row.done])
            logits = self._forward([[self._next(row)] for row in self._rows], 1)

    def _next(self, row: _Row) -> int:
        # A finished row that is carried along repeats its last token; nobody reads it.
        row.length += 1
        return row.waiting.pop(0) if row.waiting else 0

    def _read_contexts(self) -> torch.Tensor:
        longest = max(len(row.waiting) for row in self._rows)
        table: list[list[int]] = []
        for row in self._rows:
            row.length = len(row.waiting)
            table.append([0] * (longest - row.length) + row.waiting)
            row.waiting = []
        return self._forward(table, longest)

    def _forward(self, table: list[list[int]], width: int) -> torch.Tensor:
        """Logits [R, V] after each row's newest token; rows are aligned to the right."""
        columns = self._cache.get_seq_length() + width
        lengths = torch.tensor([row.length for row in self._rows])
        position = torch.arange(columns)[None, :] - (columns - lengths[:, None])
        out = self._model(
            input_ids=torch.tensor(table, device=self._device),
            attention_mask=(position >= 0).to(self._device),
            position_ids=position[:, -width:].clamp(min=0).to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].double()

    def _choose(self, places: Sequence[int], logits: torch.Tensor) -> None:
        """Draw one token for each of these rows by inverse CDF, and note what was read."""
        if not places:
            return
        chosen = logits if len(places) == len(self._rows) else logits[list(places)]
        free = chosen.log_softmax(-1)
        temperature = self._sampling.temperature
        rows = [self._rows[place] for place in places]
        steered = chosen + self._bias
        if temperature:
            cdf = (steered / temperature).softmax(-1).cumsum(-1)
            total = cdf[:, -1:]
            target = total.new_tensor([[row.uniform()] for row in rows]) * total
            # Below the total, so that no token of probability zero can be reached.
            target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
            new = torch.searchsorted(cdf, target, right=True)
        else:
            new = steered.argmax(-1, keepdim=True)
        if self._sampling.forced is not None:
            starting = torch.tensor([[not row.ids] for row in rows], device=self._device)
            new = torch.where(starting, self._sampling.forced, new)
        warm = (chosen / temperature).log_softmax(-1) if temperature else free
        numbers = torch.cat(
            [free.gather(1, new), free[:, self._columns], warm[:, self._columns]], dim=1
        )
        for row, token, read in zip(
            rows, new[:, 0].tolist(), numbers.float().cpu().numpy(), strict=True
        ):
            row.take(token, read)

    def _keep(self, places: Iterable[int]) -> None:
        kept = list(places)
        self._rows = [self._rows[place] for place in kept]
        index = torch.tensor(kept, device=self._device)
        for layer in self._cache.layers:
            layer.keep(index, max(row.length for row in self._rows))
