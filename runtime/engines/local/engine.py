"""The local engine: a causal LM in this process, on CPU or CUDA, through transformers."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....agents.prompt import Piece
from ....gates.evidence import LOG_FLOOR, Evidence
from ..checkpoint import Checkpoint, Precision, load_checkpoint
from ..limits import check_ids, check_length, check_request
from ..protocol import EngineError, EngineInfo, Request, Token
from ..tokenizer import TextStream

__all__ = ["LocalEngine"]


class LocalEngine:
    """Generates in one running batch that requests join and leave at every step.

    Besides the controls of a request, tokens that make no sense are never generated: padding, the
    beginning of a document, and a closing tag whose tag is not open. Readings are taken from the
    model's own logits, before all of that.

    A generation depends on its prompt, sampling, controls and seed; the rest of the batch reaches
    it only through rounding. Use :meth:`load`, and :meth:`aclose` when done.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_batch: int = 64) -> None:
        if max_batch < 1:
            raise EngineError(f"max_batch is {max_batch}; it must be at least 1")
        # Imported here: these modules need torch, and importing the engine's name should not.
        from .worker import Worker

        self._checkpoint = checkpoint
        self._worker = Worker(checkpoint, max_batch)
        weakref.finalize(self, self._worker.end)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: Precision = "float32",
        max_batch: int = 64,
        vocabulary: Path | None = None,
    ) -> "LocalEngine":
        """Load a shipped model by name (``seedling``), or a checkpoint folder.

        ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; at most ``max_batch`` requests
        generate at once, others wait; ``vocabulary`` is a file that stands in for the folder's
        ``vocabulary.json``. Raises :class:`EngineError` or ``VocabularyError``, one line that
        names what is missing and the remedy.
        """
        checkpoint = load_checkpoint(model, device=device, dtype=dtype, vocabulary=vocabulary)
        return cls(checkpoint, max_batch=max_batch)

    @property
    def info(self) -> EngineInfo:
        """Which model answers, and its digests."""
        return self._checkpoint.info

    @property
    def tokens_generated(self) -> int:
        """How many tokens have been drawn since the engine was loaded."""
        return self._worker.tokens_generated

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt; nothing is added, so a prompt starts with ``Special(info.bos)``.

        Raises :class:`EngineError` for a ``Special`` that is no special token of the model.
        """
        return self._checkpoint.tokenizer.encode(pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self._checkpoint.tokenizer.decode(ids)

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        """Generate after the prompt and the tokens that ``force`` controls append to it.

        ``sampler`` is None for temperature 0, whose distribution is a single token, and where
        temperature and top-p are 1. Closing the iterator takes the row out at the next step.
        Raises :class:`EngineError`.
        """
        from .batching import Row
        from .worker import Generation, Mailbox

        check_request(request, self.info.vocabulary, self._checkpoint.width)
        row = Row(request, self._checkpoint)
        check_length(self.info, len(row.prompt), request.sampling.max_tokens)
        arrived: asyncio.Queue[Token | EngineError] = asyncio.Queue()
        mailbox = Mailbox(asyncio.get_running_loop(), arrived.put_nowait)
        self._worker.submit([Generation(row, mailbox)])
        try:
            while True:
                token = await arrived.get()
                if isinstance(token, EngineError):
                    raise token
                yield token
                if token.finish is not None:
                    return
        finally:
            row.cancelled = True

    async def annotate(self, ids: Sequence[int]) -> Evidence:
        """Temptations along given text, one row per token.

        The first token is given and not predicted: its row says log 1 for the token and log 0 for
        every tag.
        """
        check_ids(ids, self._checkpoint.width)
        check_length(self.info, len(ids), 0)
        columns = self.info.vocabulary.vocabulary.columns
        numbers = np.full((len(ids), 1 + len(columns)), LOG_FLOOR)
        numbers[:1, 0] = 0.0
        if len(ids) > 1:
            [numbers[1:]] = await self._read([(tuple(ids), 1)])
        text = TextStream(self._checkpoint.tokenizer)
        ends = np.cumsum([0, *(len(text.push(id_)) for id_ in ids)])
        return Evidence(
            columns=tuple(column.token for column in columns),
            token_ids=tuple(ids),
            offsets=tuple(ends[:-1].tolist()),
            chosen=numbers[:, 0].astype(np.float16),
            belief=numbers[:, 1:].astype(np.float16),
        )

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """log P(continuation | context) for each pair, at temperature 1; 0 for an empty one.

        Calls that wait at the same time share their forward passes. Raises :class:`EngineError`.
        """
        texts: list[tuple[tuple[int, ...], int]] = []
        for context, continuation in batch:
            whole = (*context, *continuation)
            check_ids(whole, self._checkpoint.width)
            if not context:
                raise EngineError(
                    "an empty context predicts nothing; start it with the model's bos token"
                )
            check_length(self.info, len(whole), 0)
            texts.append((whole, len(context)))
        asked = [text for text in texts if text[1] < len(text[0])]
        scores = iter([float(own[:, 0].sum()) for own in await self._read(asked)])
        return [next(scores) if start < len(ids) else 0.0 for ids, start in texts]

    async def aclose(self) -> None:
        """End the worker; generations under way raise :class:`EngineError`."""
        self._worker.close()
        await asyncio.to_thread(self._worker.join)

    async def _read(self, texts: Sequence[tuple[tuple[int, ...], int]]) -> list[Any]:
        from .worker import Mailbox, ReadAlong

        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in texts]
        self._worker.submit(
            [
                ReadAlong(
                    ids, start, Mailbox(loop, lambda item, answer=answer: _settle(answer, item))
                )
                for (ids, start), answer in zip(texts, answers, strict=True)
            ]
        )
        return list(await asyncio.gather(*answers))


def _settle(answer: asyncio.Future[Any], item: Any) -> None:
    """Resolve an answer, unless whoever waited for it is gone."""
    if answer.done():
        return
    if isinstance(item, EngineError):
        answer.set_exception(item)
    else:
        answer.set_result(item)
