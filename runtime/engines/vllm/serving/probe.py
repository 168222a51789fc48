"""Questions to a server under suspicion: what it answers, or why that is no answer."""

import json
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from .....agents.prompt import Text
from ...checkpoint import load_tokenizer, read_config, roles_of
from ...protocol import EngineError
from ..wire import COMPLETIONS, LostError, RefusedError, StalledError, Wire

__all__ = ["PROBE_TEXT", "TIMEOUT_S", "USE_VLLM", "Failure", "Probe"]

PROBE_TEXT = (
    "Restart web at 10:45; the totals are 0123456789 and 3.14 [3, 1, 2].\nIt's up – a naïve café?"
)
"""Digits, punctuation, a line end and letters that byte-level tokenizers split."""
TIMEOUT_S = 60.0
"""For one answer."""
_ASIDES = 8
"""Events of a stream that bring no token."""
USE_VLLM = "serve the model with vLLM (secateur engine serve MODEL)"


class Failure(Exception):  # noqa: N818 - it is an answer
    """A check that failed."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class Probe:
    """One server and one model folder, with what is known so far."""

    def __init__(self, wire: Wire, folder: Path) -> None:
        self.wire = wire
        self.folder = folder
        self.tokenizer = load_tokenizer(folder)
        self.columns = self.tokenizer.vocabulary.column_ids
        config = read_config(folder)
        self.length: int | None = config.get("max_position_embeddings")
        self.text = self.tokenizer.encode([Text(PROBE_TEXT)])
        self.prompt = [*roles_of(folder, self.tokenizer, config)["bos"][:1], *self.text]
        self.served: dict[str, Any] = {}
        """The card of the model, as /v1/models has it."""
        self.server = "this server"

    async def read_columns(self, **changes: Any) -> list[float]:
        """log p of every column after the prompt, as one reply says."""
        reply = await self.complete(
            max_tokens=1,
            logprobs=len(self.columns),
            logprob_token_ids=self.columns,
            return_tokens_as_token_ids=True,
            **changes,
        )
        lacks = (
            f"{self.server} does not answer logprob_token_ids (log-probabilities of named tokens)"
        )
        match reply:
            case {"logprobs": {"top_logprobs": [dict(top), *_]}}:
                pass
            case _:
                raise Failure(lacks, USE_VLLM)
        try:
            values = [float(top[f"token_id:{id_}"]) for id_ in self.columns]
        except (KeyError, TypeError, ValueError):
            raise Failure(lacks, USE_VLLM) from None
        if not all(math.isfinite(value) for value in values):
            raise Failure("a log-probability is not a finite number", "check the model's weights")
        return values

    async def own_log_probs(self) -> list[float]:
        """log p of every prompt token but the first."""
        reply = await self.complete(max_tokens=1, prompt_logprobs=0)
        rows = reply.get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(self.prompt):
            raise Failure(
                f"{self.server} does not answer prompt_logprobs, which the posterior reading needs",
                USE_VLLM,
            )
        try:
            values = [
                float(row[str(id_)]["logprob"])
                for row, id_ in zip(rows[1:], self.prompt[1:], strict=True)
            ]
        except (KeyError, TypeError, ValueError):
            raise Failure("prompt_logprobs do not name the prompt's tokens", USE_VLLM) from None
        if not all(math.isfinite(value) for value in values):
            raise Failure("a prompt log-probability is not finite", "check the model's weights")
        return values

    def tokens(self, reply: dict[str, Any]) -> list[int]:
        """The ids of what was sampled."""
        found = reply.get("token_ids")
        if not isinstance(found, list):
            raise Failure(
                f"{self.server} does not answer return_token_ids (the ids of what was sampled)",
                USE_VLLM,
            )
        return found

    async def complete(self, **changes: Any) -> dict[str, Any]:
        """One choice after the prompt."""
        reply = await self.json("POST", "/v1/completions", self.body(**changes))
        match reply:
            case {"choices": [dict(choice), *_]}:
                return choice
        raise Failure("a completion without choices", USE_VLLM)

    def body(self, **changes: Any) -> dict[str, Any]:
        """A request for tokens after the prompt; ``changes`` come first."""
        fixed = {"model": self.served["id"], "prompt": self.prompt, "return_token_ids": True}
        return {**fixed, "temperature": 1.0, "seed": 1, **changes}

    async def stream(self, tokens: int) -> AsyncGenerator[bytes, None]:
        """The events of a stream of exactly ``tokens`` tokens; closing it closes the connection."""
        body = self.body(max_tokens=tokens, ignore_eos=True, stream=True)
        left = tokens + _ASIDES
        try:
            async with self.wire.stream(body) as (feed, events):
                while events:
                    left -= len(events)
                    if left < 0:
                        raise Failure(f"a stream of {tokens} tokens does not end", USE_VLLM)
                    for event in events:
                        yield event
                    feed.progress()
                    events = [] if feed.ended else await feed.read()
        except EngineError as error:
            raise _failure(error, COMPLETIONS) from None

    async def tokenize(self, text: str) -> list[int]:
        """The server's token ids of a text, its special tokens read."""
        asked = {"model": self.served["id"], "prompt": text, "add_special_tokens": False}
        try:
            found = (await self.json("POST", "/tokenize", asked)).get("tokens")
        except Failure as wrong:
            raise Failure(
                f"{self.server} does not say how it splits text: {wrong.detail}", USE_VLLM
            ) from None
        if not isinstance(found, list):
            raise Failure(f"{self.server} does not say how it splits text (/tokenize)", USE_VLLM)
        return found

    async def metrics(self) -> str:
        """The page at /metrics; empty where there is none."""
        try:
            return (await self.wire.whole("GET", "/metrics")).decode("utf-8", "replace")
        except RefusedError:
            return ""
        except EngineError as error:
            raise _failure(error, "/metrics") from None

    async def json(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The JSON object that a path answers."""
        try:
            text = await self.wire.whole(method, path, body)
        except EngineError as error:
            raise _failure(error, path) from None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Failure(
                f"{path} does not answer with a JSON object", f"check the URL, or {USE_VLLM}"
            )
        return found


def _failure(error: EngineError, path: str) -> Failure:
    """What an error of the wire says of the server."""
    detail, _, remedy = str(error).rpartition("; ")
    match error:
        case RefusedError(status=401 | 403 as status):
            return Failure(f"{path} wants a key ({status})", remedy)
        case RefusedError(said=said) if "logprob" in said and "max allowed" in said:
            return Failure(said, "start vLLM with a higher --max-logprobs, or keep fewer tags")
        case RefusedError(status=404, said=said):
            return Failure(f"there is no {path} (404: {said})", USE_VLLM)
        case RefusedError(status=status, said=said):
            remedy = f"read the server's log, or {USE_VLLM}"
            return Failure(f"{path} refused ({status}): {said}", remedy)
        case StalledError():
            return Failure(detail, "see whether the server is stuck")
        case LostError():
            return Failure(detail, remedy)
        case _:
            return Failure(detail, f"check the URL, or {USE_VLLM}")
