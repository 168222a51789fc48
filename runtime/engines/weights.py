"""Whether a server's weights are those of a folder: a fixed text scored by both."""

import asyncio
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ...gates.errors import SecateurError
from .checkpoint import load_checkpoint
from .digests import weights_of
from .protocol import EngineError

__all__ = ["SAME_NATS", "NotComparedError", "apart", "score_here"]

SAME_NATS = 0.1
"""Nats by which the same weights may differ on average in another kernel, batch or precision;
another checkpoint differs by more than ten times that."""
_MOST_BYTES = 2 << 30
"""Larger models are not loaded for a comparison."""


class NotComparedError(EngineError):
    """The folder's weights cannot score a text here; the message says what would change that."""


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many nats two scores of one text differ by, on average of its tokens; infinitely many
    where they are not of the same tokens, or one is no number."""
    if len(ours) != len(theirs) or not ours:
        return math.inf
    mean = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    return math.inf if math.isnan(mean) else mean


@lru_cache(maxsize=8)
def score_here(
    folder: Path, digest: str, ids: tuple[int, ...], vocabulary: Path | None = None
) -> tuple[float, ...]:
    """log p of each token but the first by the folder's weights, computed in this process.

    ``digest`` is that of the folder: the same weights are asked once. Needs an event loop of its
    own, so call it from a thread. Raises :class:`NotComparedError`.
    """
    weights = weights_of(folder)
    if not weights:
        raise NotComparedError(f"there are no weights in {folder}; give --model their folder")
    size = sum(path.stat().st_size for path in weights)
    if size > _MOST_BYTES:
        raise NotComparedError(
            f"the weights are {size / 2**30:.0f} GiB; compare their digest where they are served"
        )
    try:
        from .local.engine import LocalEngine

        checkpoint = load_checkpoint(folder, device="cpu", vocabulary=vocabulary)
    except SecateurError as error:
        raise NotComparedError(str(error)) from None
    if checkpoint.info.model_digest != digest:
        raise EngineError(f"the weights in {folder} are changing; start again when they are whole")

    async def score() -> tuple[float, ...]:
        engine = LocalEngine(checkpoint)
        try:
            return tuple((await engine.annotate(ids)).chosen[1:].tolist())
        finally:
            await engine.aclose()

    return asyncio.run(score())
