"""Reading along given texts: what the free model thought of every token, without generating."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from ....gates.evidence import LOG_FLOOR
from ..checkpoint import Checkpoint
from .forward import forward, read_prompts
from .key_values import RoomyLayer
from .sampling import free_log_probs

__all__ = ["read_along"]


def read_along(
    checkpoint: Checkpoint, texts: Sequence[tuple[tuple[int, ...], int]]
) -> list[NDArray[np.float64]]:
    """For each (ids, start), an array [len(ids) - start, 1 + K]; ``start`` is at least 1.

    Column 0 is log P(ids[t] | ids[:t]), the others the temptations at t; temperature 1, natural
    logarithms. A context that several texts share up to the token before ``start`` is read once:
    the tags of one posterior differ in that token, and siblings in what follows it.
    """
    contexts = [ids[: start - 1] for ids, start in texts]
    times = Counter(contexts)
    shared = [i for i, context in enumerate(contexts) if context and times[context] > 1]
    alone = sorted(set(range(len(texts))) - set(shared))
    answers: dict[int, NDArray[np.float64]] = {}
    for group, cut in ((shared, True), (alone, False)):
        if group:
            heads = [contexts[i] if cut else () for i in group]
            tails = [texts[i][0][len(head) :] for i, head in zip(group, heads, strict=True)]
            starts = [texts[i][1] - len(head) for i, head in zip(group, heads, strict=True)]
            read = _read_tails(checkpoint, heads, tails, starts)
            answers |= zip(group, read, strict=True)
    return [answers[i] for i in range(len(texts))]


def _read_tails(
    checkpoint: Checkpoint,
    heads: Sequence[tuple[int, ...]],
    tails: Sequence[tuple[int, ...]],
    starts: Sequence[int],
) -> list[NDArray[np.float64]]:
    """Read tails after their heads: all heads are empty, or none is; starts count in the tail."""
    width = max(map(len, tails)) - 1  # the last token predicts nothing that is asked for
    earliest = min(starts)
    table = np.zeros((len(tails), width + 1), dtype=np.int64)
    for line, tail in zip(table, tails, strict=True):
        # Padded on the right, where causal attention never looks.
        line[: len(tail)] = tail
    whole = torch.from_numpy(table)
    cache = (
        read_prompts(checkpoint, heads)[0]
        if heads[0]
        else Cache(layer_class_to_replicate=RoomyLayer)
    )
    lengths = [len(head) + width for head in heads]
    logits = forward(checkpoint, whole[:, :-1], lengths, cache, keep=width + 1 - earliest)
    columns = torch.tensor(checkpoint.info.vocabulary.column_ids, device=logits.device)
    free = free_log_probs(logits)
    own = free.gather(2, whole[:, earliest:, None].to(logits.device))
    numbers = torch.cat([own, free[:, :, columns]], dim=2).clamp(min=LOG_FLOOR).cpu().numpy()
    return [
        lines[start - earliest : len(tail) - earliest]
        for lines, tail, start in zip(numbers, tails, starts, strict=True)
    ]
