"""The optimisers, and the learning rate along a run."""

from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

__all__ = ["factor", "optimizers", "set_rate"]


def factor(step: int, steps: int, warmup: int, decay: int) -> float:
    """The learning rate's factor at ``step``: warm-up, constant, linear decay to zero."""
    rising = min(1.0, (step + 1) / (warmup + 1))
    falling = min(1.0, (steps - step) / (decay + 1))
    return min(rising, falling)


def optimizers(kind: str, model: Any, rate: float, weight_decay: float) -> list[Optimizer]:
    """``adamw`` for everything, or ``muon`` for the matrices of the layers and AdamW for the rest.

    Matrices are the two-dimensional weights that are neither embeddings nor the output head;
    only they decay.
    """
    tables = {
        id(table.weight)
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
        if table is not None
    } | {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in tables]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    betas = (0.9, 0.98)
    if kind == "muon":
        return [
            Muon(matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            AdamW(rest, lr=rate, betas=betas, weight_decay=0.0),
        ]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [AdamW(groups, lr=rate, betas=betas, fused=True)]


def set_rate(optimizers: list[Optimizer], rate: float) -> None:
    """Set the learning rate of every group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
