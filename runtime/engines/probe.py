"""Questions to a server under suspicion: what it answers, or why that is no answer."""

import json
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp

from ...agents.prompt import Text
from .checkpoint import load_tokenizer, read_config, roles_of

__all__ = ["PROBE_TEXT", "TIMEOUT_S", "USE_VLLM", "Failure", "Probe"]

PROBE_TEXT = (
    "Restart web at 10:45; the totals are 0123456789 and 3.14 [3, 1, 2].\nIt's up – a naïve café?"
)
"""Digits, punctuation, a line end and letters that byte-level tokenizers split."""
TIMEOUT_S = 60.0
"""For one answer."""
USE_VLLM = "serve the model with vLLM (secateur engine serve MODEL)"


class Failure(Exception):  # noqa: N818 - it is an answer
    """A check that failed."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class Probe:
    """One server and one model folder, with what is known so far."""

    def __init__(self, url: str, session: aiohttp.ClientSession, folder: Path) -> None:
        self.url = url
        self.session = session
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
        try:
            async with self.session.post(f"{self.url}/v1/completions", json=body) as reply:
                if reply.status >= 400:
                    raise _refused(reply.status, await reply.text(errors="replace"))
                async for line in reply.content:
                    if line.startswith(b"data: {"):
                        yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.url, error) from None

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
            async with self.session.get(f"{self.url}/metrics") as reply:
                return await reply.text(errors="replace") if reply.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.url, error) from None

    async def json(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The JSON object that a path answers."""
        try:
            async with self.session.request(method, self.url + path, json=body) as reply:
                text = await reply.text(errors="replace")
                if reply.status >= 400:
                    raise _refused(reply.status, text, path)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.url, error) from None
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Failure(
                f"{path} does not answer with a JSON object", f"check the URL, or {USE_VLLM}"
            )
        return found


def _refused(status: int, text: str, path: str = "/v1/completions") -> Failure:
    try:
        said = json.loads(text)
        said = said.get("error", said)
        said = said.get("message", said) if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        said = text
    line = " ".join(str(said).split())[:200]
    if status in (401, 403):
        return Failure(f"{path} wants a key ({status})", "set VLLM_API_KEY to the server's key")
    if "logprob" in line and "max allowed" in line:
        return Failure(line, "start vLLM with a higher --max-logprobs, or keep fewer tags")
    if status == 404:
        return Failure(f"there is no {path} ({status}: {line})", USE_VLLM)
    return Failure(f"{path} refused ({status}): {line}", f"read the server's log, or {USE_VLLM}")


def _unreachable(url: str, error: Exception) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(f"no answer within {TIMEOUT_S:.0f} s", "see whether the server is stuck")
    line = " ".join(str(error).split()) or type(error).__name__
    return Failure(line, f"start a server (secateur engine serve MODEL), or correct the URL {url}")
