"""One forward pass over rows of unequal length that are aligned to the right.

A short row has empty columns to its left, which the attention mask hides and positions skip.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from ..checkpoint import Checkpoint
from .key_values import RoomyLayer

__all__ = ["forward", "read_prompts"]


def read_prompts(
    checkpoint: Checkpoint, prompts: Sequence[tuple[int, ...]]
) -> tuple[Any, torch.Tensor]:
    """A cache that holds R prompts, and the logits [R, V] after each.

    Equal prompts (siblings of one thought, contexts of several scores) are read once.
    """
    lines = {prompt: line for line, prompt in enumerate(dict.fromkeys(prompts))}
    longest = max(map(len, lines))
    ids = np.zeros((len(lines), longest), dtype=np.int64)
    for line, prompt in zip(ids, lines, strict=True):
        line[longest - len(prompt) :] = prompt
    cache: Any = Cache(layer_class_to_replicate=RoomyLayer)
    logits = forward(checkpoint, torch.from_numpy(ids), [len(p) for p in lines], cache)[:, -1]
    if len(lines) < len(prompts):
        index = torch.tensor([lines[prompt] for prompt in prompts], device=logits.device)
        for layer in cache.layers:
            layer.keep(index, longest)
        logits = logits[index]
    return cache, logits


def forward(
    checkpoint: Checkpoint,
    ids: torch.Tensor,
    lengths: Sequence[int],
    cache: Any,
    *,
    keep: int = 1,
) -> torch.Tensor:
    """Logits [R, keep, V] of the last columns of ``ids`` [R, T], which the cache takes up.

    ``lengths`` [R] count each row's tokens, those in the cache and those of ``ids``.
    """
    model: Any = checkpoint.model
    device = next(checkpoint.model.parameters()).device
    columns = cache.get_seq_length() + ids.shape[1]
    position = torch.arange(columns)[None, :] - (columns - torch.tensor(lengths)[:, None])
    return model(
        input_ids=ids.to(device),
        # None where no row has empty columns: the faster kernels take no mask.
        attention_mask=(position >= 0).to(device) if min(lengths) < columns else None,
        position_ids=position[:, -ids.shape[1] :].clamp(min=0).to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
