"""Can this server be trusted with the gate? Each check, what it saw, and what to do about it.

What a server must offer, over the OpenAI completions wire: prompts as token ids; streaming that
stops when the stream is closed; ``logit_bias``; the log-probabilities of *named* tokens at every
position (``logprob_token_ids``), taken before any bias; the sampled token ids in the reply
(``return_token_ids``); the log-probabilities of a given text (``prompt_logprobs``); reproducible
seeds; and the tokenizer that the model was pretrained with. vLLM offers all of it. A server is
judged by what it does, not by its name.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoint import find_model, model_digest
from ...weights import NotComparedError, apart, score_here
from ..wire import Patience, Wire
from .probe import PROBE_TEXT, TIMEOUT_S, USE_VLLM, Failure, Probe

__all__ = ["Check", "Report", "check_server"]

_LONG = 2048
"""Tokens of a stream that is to be closed long before its end."""
_TRIES = 3  # on a busy machine a short stream may end before we get to close it
_SETTLE_S = 10.0
_NEAR = 0.05
"""Nats by which two readings of the same log-probability may differ on one server (bfloat16)."""
_LONGEST_S = 300.0
"""For one check, however many answers it takes."""
_LINE = 300
"""Most characters of what a check saw."""
_KNOWN = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "library": "Ollama"}
"""Servers by what /v1/models says of the owner."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    required: bool = True
    """False where the gate can do without it."""


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one server."""

    url: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that the gate needs is there."""
        return all(check.ok or not check.required for check in self.checks)


async def check_server(url: str, model: str | Path) -> Report:
    """Ask the server at ``url`` to prove that it serves ``model`` (a folder) as the gate needs it.

    Raises :class:`EngineError` or ``VocabularyError`` for a folder that cannot be read; whatever
    is wrong with the server is in the report.
    """
    wire = Wire(url, Patience(answer_s=TIMEOUT_S, first_s=TIMEOUT_S, stall_s=TIMEOUT_S, retries=0))
    try:
        probe = _Checks(wire, find_model(model))
        checks: list[Check] = []
        for name, look, required, needs in probe.plan():
            missing = next((c.name for c in checks if c.name in needs and not c.ok), None)
            if missing is not None:
                checks.append(
                    Check(name, False, f"not looked at, since {missing} failed", None, required)
                )
                continue
            try:
                async with asyncio.timeout(_LONGEST_S):
                    checks.append(Check(name, True, await look(), None, required))
            except Failure as wrong:
                checks.append(Check(name, False, wrong.detail[:_LINE], wrong.remedy, required))
            except TimeoutError:
                said = f"not done within {_LONGEST_S:.0f} s"
                checks.append(Check(name, False, said, "see whether it is stuck", required))
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
                    ValueError) as error:  # fmt: skip
                said = f"an answer of another shape ({type(error).__name__})"
                checks.append(Check(name, False, said, USE_VLLM, required))
    finally:
        await wire.aclose()
    return Report(wire.url, tuple(checks))


class _Checks(Probe):
    """The checks, and what they learn on the way."""

    def __init__(self, wire: Wire, folder: Path) -> None:
        super().__init__(wire, folder)
        self.context = 0
        """Most tokens that the server takes."""
        self.free: list[float] = []
        """log p of every column after the prompt, nothing banned."""

    def plan(
        self,
    ) -> Sequence[tuple[str, Callable[[], Awaitable[str]], bool, tuple[str, ...]]]:
        """Name, check, whether it is required, and which checks must have passed before."""
        return (
            ("reachable", self.reachable, True, ()),
            ("version", self.version, False, ("reachable",)),
            ("model", self.model, True, ("reachable",)),
            ("context", self.context_length, True, ("model",)),
            ("tokenizer", self.same_tokenizer, True, ("model",)),
            ("tags", self.single_tokens, True, ("model",)),
            ("temptations", self.temptations, True, ("model",)),
            ("raw_logprobs", self.raw_logprobs, True, ("temptations",)),
            ("controls", self.controls, True, ("model",)),
            ("token_ids", self.token_ids, True, ("model",)),
            ("score", self.score, True, ("model",)),
            ("seeds", self.seeds, True, ("token_ids",)),
            ("weights", self.weights, False, ("score", "tokenizer")),
            ("prefix_cache", self.prefix_cache, False, ("model",)),
            ("aborts", self.aborts, True, ("context",)),
            ("latency", self.latency, False, ("model",)),
        )

    async def reachable(self) -> str:
        """Something answers with a list of models."""
        began = time.monotonic()
        listed = await self.json("GET", "/v1/models")
        models = listed.get("data")
        if not isinstance(models, list) or not all(isinstance(m, dict) for m in models):
            raise Failure(
                "no OpenAI server: /v1/models lists nothing", f"check the URL, or {USE_VLLM}"
            )
        self.listed: list[dict[str, Any]] = models
        owners = {str(m.get("owned_by")) for m in models}
        known = [name for owner, name in _KNOWN.items() if owner in owners]
        self.server = known[0] if known else "this server"
        return f"answers in {1000 * (time.monotonic() - began):.0f} ms"

    async def version(self) -> str:
        """Which vLLM it is."""
        try:
            found = (await self.json("GET", "/version")).get("version")
        except Failure:
            found = None
        if not isinstance(found, str) or self.server != "vLLM":
            raise Failure(
                f"{self.server} is not known to be vLLM", "the checks below say what it lacks"
            )
        return f"vLLM {found}"

    async def model(self) -> str:
        """It serves a model by our folder's name, or from a folder of that name."""
        wanted = self.folder.resolve().name
        for card in self.listed:
            stated = (str(card.get("id")), str(card.get("root")))
            if "id" in card and wanted in [Path(name).name for name in stated]:
                self.served = card
                return f"{card['id']} stands for {self.folder}"
        names = ", ".join(str(card.get("id")) for card in self.listed)
        raise Failure(
            f"it serves {names or 'nothing'} and not {wanted}",
            f"give --model the folder of what it serves, or start it with --served-model-name "
            f"{wanted}",
        )

    async def context_length(self) -> str:
        """How many tokens fit."""
        length = self.served.get("max_model_len")
        if not isinstance(length, int):
            meta = self.served.get("meta")
            length = meta.get("n_ctx_train") if isinstance(meta, dict) else None
        if not isinstance(length, int) or length < 1:
            raise Failure("/v1/models does not say max_model_len", USE_VLLM)
        if self.length is not None and length > self.length:
            raise Failure(
                f"the server takes {length} tokens, and the model was made for {self.length}",
                "serve it with a lower --max-model-len",
            )
        self.context = length
        return f"{length} tokens" + (f" of the model's {self.length}" if self.length else "")

    async def same_tokenizer(self) -> str:
        """The server splits a text as our folder's tokenizer does."""
        theirs = await self.tokenize(PROBE_TEXT)
        if theirs != self.text:
            at = next(
                (
                    i
                    for i, pair in enumerate(zip(theirs, self.text, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(theirs), len(self.text)),
            )
            raise Failure(
                f"the server's tokenizer is not the one of {self.folder}: token {at} of a test "
                f"text is {theirs[at : at + 1]} there and {self.text[at : at + 1]} here",
                "serve the same folder, or give --model the folder that is served",
            )
        return f"{len(theirs)} tokens of a test text agree"

    async def single_tokens(self) -> str:
        """Every tag token is one token there, with our id."""
        ids = self.tokenizer.vocabulary.ids
        if await self.tokenize("".join(ids)) == list(ids.values()):
            return f"{len(ids)} tag tokens are one token each, with our ids"
        for literal, ours in ids.items():
            theirs = await self.tokenize(literal)
            if theirs != [ours]:
                raise Failure(
                    f"{literal} is {theirs} on the server and [{ours}] here",
                    "serve the folder with the tokenizer that the model was pretrained with; a tag "
                    "must be one special token in tokenizer.json",
                )
        raise Failure(
            "tag tokens melt together on the server when they stand side by side",
            'list them in tokenizer.json\'s added_tokens with "special": true',
        )

    async def temptations(self) -> str:
        """The log-probability of every tag comes with every token."""
        self.free = await self.read_columns()
        most = max(math.exp(value) for value in self.free)
        return f"{len(self.free)} tag tokens read at every position (here at most p = {most:.2g})"

    async def raw_logprobs(self) -> str:
        """Banning and cooling do not change what is reported: it is taken before the bias."""
        if any(value > 1e-4 for value in self.free):
            raise Failure(
                f"log-probabilities above 0 ({max(self.free):.2f}): these are logits",
                "start vLLM with --logprobs-mode raw_logprobs",
            )
        bias = {str(id_): -100 for id_ in self.columns}
        banned = await self.read_columns(logit_bias=bias, temperature=0.4, top_p=0.9)
        worst = max(abs(after - before) for before, after in zip(self.free, banned, strict=True))
        if worst > _NEAR:
            raise Failure(
                f"a ban and a lower temperature change the reported log-probabilities by "
                f"{worst:.2f}: they are taken after the bias, and a banned tag cannot be seen",
                "start vLLM with --logprobs-mode raw_logprobs",
            )
        return f"banned tags are still reported, as before the ban (differ by {worst:.1g})"

    async def controls(self) -> str:
        """logit_bias bans and forces."""
        forced = self.columns[0]
        reply = await self.complete(logit_bias={str(forced): 100}, temperature=0, max_tokens=1)
        if self.tokens(reply) != [forced]:
            raise Failure(
                "a tag boosted by logit_bias 100 was not sampled: logit_bias is ignored", USE_VLLM
            )
        reply = await self.complete(
            logit_bias={str(forced): -100}, temperature=1, max_tokens=16, ignore_eos=True
        )
        if forced in self.tokens(reply):
            raise Failure("a tag banned by logit_bias -100 was sampled", USE_VLLM)
        return "logit_bias bans and forces a tag"

    async def token_ids(self) -> str:
        """Replies carry the ids of what was sampled."""
        reply = await self.complete(max_tokens=4, temperature=0, ignore_eos=True)
        found = self.tokens(reply)
        if len(found) != 4:
            raise Failure(f"4 tokens were asked for, and {len(found)} ids came", USE_VLLM)
        return "replies carry token ids"

    async def score(self) -> str:
        """The server scores given text."""
        values = await self.own_log_probs()
        return f"prompt_logprobs of {len(values)} tokens, {sum(values):.2f} nats in all"

    async def seeds(self) -> str:
        """The same seed gives the same text, another one another."""
        texts = [
            tuple(self.tokens(await self.complete(max_tokens=12, seed=seed, ignore_eos=True)))
            for seed in (7, 7, 8, 9, 10)
        ]
        if texts[0] != texts[1]:
            raise Failure(
                "the same seed gave two different texts", "let other requests end, and check again"
            )
        if len(set(texts)) == 1:
            raise Failure("every seed gives the same text: seeds are ignored", USE_VLLM)
        return "a seed gives its text again"

    async def weights(self) -> str:
        """The server's numbers are those of our folder's weights."""
        digest = model_digest(self.folder)
        try:
            ours = await asyncio.to_thread(score_here, self.folder, digest, tuple(self.prompt))
        except NotComparedError as why:
            detail, _, remedy = str(why).rpartition("; ")
            raise Failure(f"not compared: {detail}", remedy) from None
        mean = apart(ours, await self.own_log_probs())
        if mean > _NEAR:
            raise Failure(
                f"log-probabilities differ from those of {self.folder} by {mean:.2f} a token: "
                "these are other weights",
                "serve the same folder, or give --model the folder that is served",
            )
        return f"same numbers as {self.folder} here (differ by {mean:.1g} a token)"

    async def prefix_cache(self) -> str:
        """Asking again from an accepted prefix is cheap."""
        found = re.search(
            r'^[\w:]*cache_config_info\{[^}\n]*enable_prefix_caching="(\w+)"',
            await self.metrics(),
            re.MULTILINE,
        )
        if found is None or found[1] != "True":
            raise Failure(
                "the server does not say that its prefix cache is on",
                "start vLLM with --enable-prefix-caching, or every switch costs a whole prefill",
            )
        return "on: a switch of controls costs one short prefill"

    async def aborts(self) -> str:
        """Closing a stream stops the generation."""
        if _GENERATED not in await self.metrics():
            raise Failure(
                "no /metrics, so nobody sees whether a closed stream stops generation",
                "start vLLM without --disable-log-stats",
            )
        want = max(8, min(_LONG, self.context - len(self.prompt) - 1))
        for _ in range(_TRIES):
            spent = await self._spent_on_closed(want)
            if spent < want:
                return f"a stream of {want} closed after 3 tokens: {spent:.0f} were generated"
        raise Failure(
            f"streams of {want} closed after 3 tokens ran on to their end",
            "let the gateway between here and vLLM pass on closed connections",
        )

    async def _spent_on_closed(self, want: int) -> float:
        """How many tokens the server generates for a stream that is closed after three."""
        before = _generated(await self.metrics())
        read = 0
        async with aclosing(self.stream(want)) as stream:
            async for _ in stream:
                read += 1
                if read == 3:
                    break
        spent, last = _generated(await self.metrics()), -1.0
        deadline = time.monotonic() + _SETTLE_S
        while spent != last:
            if time.monotonic() > deadline:
                raise Failure(
                    "other requests are generating, so nobody sees whether a closed one stopped",
                    "check again when the server is idle",
                )
            await asyncio.sleep(0.2)
            spent, last = _generated(await self.metrics()), spent
        return spent - before

    async def latency(self) -> str:
        """Time to the first token, and between tokens."""
        began = time.monotonic()
        times = [time.monotonic() - began async for _ in self.stream(33)]
        if len(times) < 2:
            raise Failure("a stream of 33 tokens came in one piece", "check a proxy's buffering")
        each = (times[-1] - times[0]) / (len(times) - 1)
        return f"first token after {1000 * times[0]:.0f} ms, then {1000 * each:.1f} ms a token"


_GENERATED = "vllm:generation_tokens_total"


def _generated(metrics: str) -> float:
    """Tokens generated so far, summed over the engines of one server."""
    values = re.findall(rf"^{_GENERATED}\{{[^}}\n]*\}} (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, values))
