"""Drawing tokens for a batch of rows, and what is read from their logits before any control."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ....agents.prompt import Sampling
from ....gates.evidence import LOG_FLOOR

__all__ = ["Draw", "Knobs", "draw", "free_log_probs"]


class Draw(NamedTuple):
    """One row's drawn token, and its readings before controls; natural logarithms, K columns."""

    id: int
    chosen: float
    """log p of the drawn token under the free model, temperature 1."""
    belief: list[float]
    """[K] log p of every column at temperature 1."""
    sampler: list[float] | None
    """[K] the same at the row's temperature and top-p; None for T = 1 and top-p 1, and T = 0."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """The rows' controls and sampling parameters as tensors; made anew when rows or bans change."""

    bias: torch.Tensor
    """[B, V] nats added to the logits; -inf for what may not be drawn."""
    temperature: torch.Tensor
    """[B, 1]; 1 where the row is greedy."""
    top_p: torch.Tensor
    """[B, 1]"""
    greedy: torch.Tensor
    """[B] bool"""
    tempered: list[bool]
    """[B] whether the row's sampler differs from its belief."""
    nucleus: bool
    """Whether any row has a top-p below 1."""

    @classmethod
    def of(
        cls,
        sampling: Sequence[Sampling],
        biases: Sequence[dict[int, float]],
        width: int,
        device: torch.device,
    ) -> "Knobs":
        """The knobs of B rows over ``width`` logits."""
        bias = torch.zeros(len(sampling), width, dtype=torch.float64)
        rows = [row for row, entries in enumerate(biases) for _ in entries]
        ids = [id_ for entries in biases for id_ in entries]
        if ids:
            nats = [value for entries in biases for value in entries.values()]
            bias[rows, ids] = torch.tensor(nats, dtype=torch.float64)
        warmth = [s.temperature for s in sampling]
        top_p = [s.top_p for s in sampling]
        return cls(
            bias=bias.to(device),
            temperature=torch.tensor(
                [[t or 1.0] for t in warmth], dtype=torch.float64, device=device
            ),
            top_p=torch.tensor([[p] for p in top_p], dtype=torch.float64, device=device),
            greedy=torch.tensor([t == 0 for t in warmth], device=device),
            tempered=[t != 0 and (t != 1 or p < 1) for t, p in zip(warmth, top_p, strict=True)],
            nucleus=any(p < 1 for p in top_p),
        )


def free_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Log-softmax in float64: what the free model believes at temperature 1."""
    return torch.log_softmax(logits.double(), dim=-1)


def draw(
    logits: torch.Tensor, knobs: Knobs, uniforms: Sequence[float], columns: torch.Tensor
) -> list[Draw]:
    """Draw one token per row by inverse CDF: one uniform in [0, 1) decides a row, and nothing else
    in the batch does.

    ``logits`` [B, V] are the model's own; ``columns`` [K] the token ids to read. Controls are
    added before the temperature, as servers do. Numbers that are not finite stay so: a row of NaN
    yields NaN readings, which the gate calls broken.
    """
    free = free_log_probs(logits)
    steered = logits.double() + knobs.bias
    cdf = _probabilities(steered, knobs).cumsum(dim=-1)
    total = cdf[:, -1:]
    # At least one step below the total, so that no token of probability zero can be reached.
    target = torch.tensor(uniforms, dtype=torch.float64, device=cdf.device)[:, None] * total
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cdf, target, right=True).squeeze(1)
    best = torch.nan_to_num(steered, nan=-torch.inf).argmax(dim=-1)
    ids = torch.where(knobs.greedy | ~torch.isfinite(total.squeeze(1)), best, drawn)
    parts = [ids[:, None].double(), free.gather(1, ids[:, None]), free[:, columns]]
    if any(knobs.tempered):
        # Through probabilities, so that tokens outside the nucleus read log 0.
        parts.append(_probabilities(logits.double(), knobs).log()[:, columns])
    # One transfer a step, whatever the number of rows and columns.
    numbers = torch.cat(parts, dim=1).cpu().numpy()
    readings = _floored(numbers[:, 1:]).tolist()
    width = 1 + len(columns)
    return [
        Draw(int(id_), row[0], row[1:width], row[width:] if tempered else None)
        for id_, row, tempered in zip(numbers[:, 0], readings, knobs.tempered, strict=True)
    ]


def _probabilities(logits: torch.Tensor, knobs: Knobs) -> torch.Tensor:
    """Softmax at each row's temperature, cut to its nucleus and renormalised (float64)."""
    p = torch.softmax(logits / knobs.temperature, dim=-1)
    if not knobs.nucleus:
        return p
    ranked, order = torch.sort(p, dim=-1, descending=True, stable=True)
    # A token stays while the mass before it is below top-p; the likeliest always stays.
    outside = (ranked.cumsum(dim=-1) - ranked >= knobs.top_p) & (knobs.top_p < 1)
    outside[:, 0] = False
    kept = p.masked_fill(outside.scatter(1, order, outside), 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _floored(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log 0 becomes the floor; NaN stays NaN."""
    return np.maximum(log_p, LOG_FLOOR)
