"""Batched decoding for the evaluation: many rows at once, tags read before they are banned.

The runtime's engine streams and gates; this one only measures, on thousands of rows.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, LlamaForCausalLM

__all__ = ["Sampling", "Written", "write"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens: ``temperature`` 0 is greedy; ``banned`` ids are never chosen."""

    temperature: float = 0.0
    banned: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """The tokens of one row (the stop token included), and ``log_closed``: the sum of
    log(1 - p) over its tokens, p being the probability of any watched id before the ban."""

    ids: tuple[int, ...]
    log_closed: float


@torch.inference_mode()
def write(
    model: LlamaForCausalLM,
    contexts: Sequence[Sequence[int]],
    stops: Collection[int],
    limit: int,
    sampling: Sampling,
    watched: Sequence[int] = (),
    pad: int = 0,
    rows: int = 128,
    tell: Callable[[int], object] = lambda done: None,
) -> list[Written]:
    """Continue each context to one of ``stops`` or ``limit`` tokens, ``rows`` at a time."""
    order = sorted(range(len(contexts)), key=lambda number: len(contexts[number]))
    found: dict[int, Written] = {}
    generator = torch.Generator().manual_seed(sampling.seed)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        made = _write_rows(
            model, [contexts[i] for i in chosen], stops, limit, sampling, watched, pad, generator
        )
        found.update(zip(chosen, made, strict=True))
        tell(len(chosen))
    return [found[number] for number in range(len(contexts))]


def _write_rows(
    model: LlamaForCausalLM,
    contexts: Sequence[Sequence[int]],
    stops: Collection[int],
    limit: int,
    sampling: Sampling,
    watched: Sequence[int],
    pad: int,
    generator: torch.Generator,
) -> list[Written]:
    longest = max(len(ids) for ids in contexts)
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in contexts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in contexts])
    cache = DynamicCache()
    written: list[list[int]] = [[] for _ in contexts]
    closed = [0.0] * len(contexts)
    live = list(range(len(contexts)))
    for _ in range(limit):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].float()
        scaled = logits / (sampling.temperature or 1.0)
        if watched:
            free = torch.log1p(-scaled.softmax(-1)[:, list(watched)].sum(-1).clamp(max=1 - 1e-7))
            for row, value in zip(live, free.tolist(), strict=True):
                closed[row] += value
        if sampling.banned:
            scaled[:, list(sampling.banned)] = -torch.inf
        if sampling.temperature:
            new = torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0]
        else:
            new = scaled.argmax(-1)
        going: list[int] = []
        for place, (row, token) in enumerate(zip(live, new.tolist(), strict=True)):
            written[row].append(token)
            if token not in stops:
                going.append(place)
        if not going:
            break
        if len(going) < len(live):
            kept = torch.tensor(going)
            cache.batch_select_indices(kept)
            mask, new = mask[kept], new[kept]
            live = [live[place] for place in going]
        mask = torch.cat([mask, torch.ones(len(live), 1, dtype=mask.dtype)], dim=1)
        ids = new[:, None]
    return [Written(tuple(row), value) for row, value in zip(written, closed, strict=True)]
