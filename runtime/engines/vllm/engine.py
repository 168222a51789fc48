"""The engine over the OpenAI wire, as vLLM speaks it.

What a server must offer, vLLM (tested: 0.32) or another:

* ``POST /v1/completions`` with ``prompt`` as token ids (one list, or a list of lists), ``stream``
  as server-sent events, ``seed``, ``stop`` with ``include_stop_str_in_output``, ``stop_token_ids``,
  and ``logit_bias`` by token id down to -100;
* ``logprob_token_ids``: at each generated position the log-probabilities of the tokens asked for,
  of the model's own distribution at temperature 1, *before* ``logit_bias``, penalties and
  temperature (vLLM: the default ``--logprobs-mode raw_logprobs``), with ``return_token_ids`` and
  ``return_tokens_as_token_ids``; the reason of the end must come with the last token;
* ``prompt_logprobs``: the same for the tokens of a prompt;
* an aborted generation when a stream's connection is closed;
* ``GET /v1/models`` with ``max_model_len``, and ``POST /tokenize``. ``GET /version`` if it can.

A server that lacks one of these is refused when the engine connects, or by the first reply that
shows it: nothing is guessed. ``secateur engine check URL`` tries all of it and says what is wrong.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....agents.prompt import Piece
from ....gates.canonical import digest
from ....gates.control import BAN_BIAS, forced_ids, logit_bias
from ....gates.evidence import LOG_FLOOR, Evidence
from ....gates.sentences import SentenceStarts
from ...logs import get_logger
from ..checkpoint import find_model, load_tokenizer, read_config, roles_of
from ..digests import folder_digests
from ..limits import check_ids, check_length, check_request
from ..local.text import Writing
from ..protocol import Compared, EngineError, EngineInfo, Request, Token
from ..spans import OpenSpans
from ..tokenizer import TagTokenizer, TextStream
from ..weights import SAME_NATS, NotComparedError, apart, score_here
from .chat import ChatTemplate
from .identity import Identity, identify, probe_ids
from .replies import Questions, most_bytes, read_choices, read_chunk, read_scores
from .tempering import tempering
from .wire import COMPLETIONS, Patience, Wire, base_url

__all__ = ["VLLMEngine"]

_log = get_logger(__name__)

_MOST_COLUMNS = 128
"""Most ``logprob_token_ids`` of one vLLM request."""
_MOST_STOPS = 128
"""Most ``stop_token_ids`` of one vLLM request on a GPU."""
_SAME_FOR = 15.0
"""Seconds for which a server is taken for the one that answered before. None restarts faster."""
_GROUP_PROMPTS = 32
_GROUP_TOKENS = 8192
"""Most prompts and most tokens of one request that reads given texts."""
_GROUPS = 8
"""Such requests in flight."""


class VLLMEngine:
    """Generates on a server, and reads each token's temptations as it comes.

    Controls are ``logit_bias``; tokens that make no sense are forbidden as in the local engine:
    padding, the beginning of a document, and a closing tag whose tag is not open. When a tag opens
    or closes the server stops there, and is asked to go on from the accepted text.

    ``Token.sampler`` is the highest that a temptation can be at the sampler's temperature and
    top-p: the server does not say all that is needed for more (see :mod:`.tempering`). It is
    exact at temperature 1 without top-p, where it is None.

    Use :meth:`connect`, and :meth:`aclose` when done.
    """

    def __init__(
        self,
        wire: Wire,
        folder: Path,
        tokenizer: TagTokenizer,
        info: EngineInfo,
        identity: Identity,
        chat: ChatTemplate | None,
    ) -> None:
        """Made by :meth:`connect`, which has asked the server who it is."""
        config = read_config(folder)
        roles = roles_of(folder, tokenizer, config)
        self._wire = wire
        self._folder = folder
        self._tokenizer = tokenizer
        self._info = info
        self._identity = identity
        self._seen = time.monotonic()
        self._chat = chat
        self._eos = frozenset(roles["eos"])
        self._never = frozenset({*roles["bos"], *roles["pad"]} - self._eos)
        stated = config.get("vocab_size")
        self._width = max(tokenizer.size, stated if isinstance(stated, int) else 0)
        bound = info.vocabulary
        self._columns = tuple(
            (f"token_id:{id_}", column.token)
            for id_, column in zip(bound.column_ids, bound.vocabulary.columns, strict=True)
        )
        self._column_ids = bound.column_ids
        self._column_set = frozenset(bound.column_ids)

    @classmethod
    def connect(
        cls,
        url: str,
        model: str | Path = "seedling",
        *,
        chat: bool | None = None,
        patience: Patience | None = None,
        vocabulary: Path | None = None,
    ) -> "VLLMEngine":
        """Connect to the server at ``url``, which serves ``model``.

        ``model`` is a shipped name or a folder with the ``config.json``, ``tokenizer.json`` and
        ``vocabulary.json`` of what is served (the weights too, where the ledger is to bind them);
        ``vocabulary`` stands in for the last. ``chat`` says whether prompts go through the
        folder's chat template: by default where there is one.

        Raises :class:`EngineError` or ``VocabularyError`` in one line: nothing answers, another
        model or tokenizer is served, or there are more tags than the server reads.
        """
        folder = find_model(model)
        config = read_config(folder)
        tokenizer = load_tokenizer(folder, vocabulary)
        tags = tokenizer.vocabulary.vocabulary
        if len(tags.columns) > _MOST_COLUMNS:
            raise EngineError(
                f"vocabulary {tags.name!r} has {len(tags.columns)} tag tokens to read, and vLLM "
                f"reads at most {_MOST_COLUMNS} a request (logprob_token_ids): give a vocabulary "
                "file (vocabulary=) with the tags that your policy needs"
            )
        roles = roles_of(folder, tokenizer, config)
        bos = tokenizer.token(next(iter(roles["bos"]), None))
        template = None if chat is False else ChatTemplate.find(folder, tokenizer)
        if chat and template is None:
            raise EngineError(
                f"{folder}: no chat template; save it there (chat_template.jinja), or leave out "
                "chat=True"
            )
        patience = patience or Patience()

        async def ask() -> Identity:
            # Somebody waits, and a wrong address stays wrong: ask again once, not for seconds.
            wire = Wire(url, replace(patience, retries=min(patience.retries, 1)))
            try:
                return await identify(wire, folder, tokenizer, bos)
            finally:
                await wire.aclose()

        now, former = folder_digests(folder)

        def meet() -> tuple[Identity, Compared]:
            identity = asyncio.run(ask())
            ids = tuple(probe_ids(tokenizer, bos))
            try:
                ours = score_here(folder, now, ids, vocabulary)
            except NotComparedError as why:
                _log.info("weights not compared", reason=str(why))
                return identity, "name only"
            nats = apart(ours, identity.logs)
            if nats > SAME_NATS:
                raise EngineError(
                    f"the server at {base_url(url)} has other weights than {folder}: a fixed "
                    f"text's tokens are {nats:.2f} nats apart; serve that folder, or give --model "
                    "the folder that is served"
                )
            return identity, "probe compared"

        # In a thread with a loop of its own: engines are opened within running loops too.
        with ThreadPoolExecutor(1) as thread:
            identity, compared = thread.submit(meet).result()
        info = EngineInfo(
            engine="vllm",
            model=folder.resolve().name,
            model_digest=now,
            former_digest=former,
            compared=compared,
            probe=tuple(round(log, 4) for log in identity.logs),
            tokenizer_digest=tokenizer.digest,
            vocabulary=tokenizer.vocabulary,
            context_length=identity.context_length,
            bos=bos,
            eos=tokenizer.token(next(iter(roles["eos"]), None)),
        )
        return cls(Wire(url, patience), folder, tokenizer, info, identity, template)

    @property
    def info(self) -> EngineInfo:
        """Which model answers, and its digests; those of the files in the model's folder."""
        return self._info

    @property
    def identity(self) -> Identity:
        """What the server said of itself when the engine connected."""
        return self._identity

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt, in the chat template's frame where the model has one.

        Raises :class:`EngineError` for a ``Special`` that is no special token of the model.
        """
        if self._chat is not None:
            return self._chat.encode(pieces)
        return self._tokenizer.encode(pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self._tokenizer.decode(ids)

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        """Generate after the prompt and the tokens that ``force`` controls append to it.

        Several samples of one prompt are several requests: they share the server's prefix cache,
        and each can be cut alone. Closing the iterator closes the connection, and the server
        stops generating. Raises :class:`EngineError`.
        """
        check_request(request, self._info.vocabulary, self._width)
        text = [*request.prompt, *forced_ids(request.controls, self._info.vocabulary)]
        check_length(self._info, len(text), request.sampling.max_tokens)
        writing = Writing(self._tokenizer, request.sampling, self._eos)
        spans = OpenSpans(self._info.vocabulary, text)
        bias = logit_bias(request.controls, self._info.vocabulary)
        temper = tempering(request.sampling, self._column_set, self._width)
        segment = 0
        while True:
            await self._verify(_SAME_FOR)
            never = self._never | spans.forbidden
            never |= {id_ for id_, nats in bias.items() if nats <= BAN_BIAS}
            asked = self._questions(never)
            body = self._generation(request, text, writing.left, bias, never, spans, segment)
            async with self._wire.stream(body) as (feed, events):
                if self._wire.shaken:
                    await self._verify(0)
                ends = finish = None
                turned = False
                while ends is None and not turned:
                    arrived = [drawn for event in events for drawn in read_chunk(event, asked)]
                    request.usage.generated += len(arrived)
                    if arrived:
                        feed.progress()
                    if len(arrived) > writing.left:
                        most = request.sampling.max_tokens
                        raise self._wire.fault(f"sent more tokens than the {most} asked for")
                    for id_, chosen, belief, finish in arrived:
                        written, ends = writing.take(id_)
                        turned = spans.follow(id_)
                        if finish == "length" and ends is None:
                            raise self._wire.fault("ended the generation before max_tokens")
                        ends = ends or (None if turned else finish)
                        text.append(id_)
                        hazards = temper and temper(id_, chosen, belief)
                        try:
                            yield Token(id_, written, chosen, belief, hazards, ends)
                        except GeneratorExit:
                            request.usage.generated += _count(feed.arrived(), asked)
                            raise
                        if ends is not None or turned:
                            break
                    else:
                        events = await feed.read()
                if finish is not None:  # the server has ended too: the connection can live on
                    await feed.rest()
            if ends is not None:
                return
            segment += 1

    async def annotate(self, ids: Sequence[int], *, boundaries: bool = False) -> Evidence:
        """Temptations along given text, one row per token, or per sentence or line start.

        Each row is a request for one token after the text so far, which rides on the prefix
        cache. With ``boundaries`` only the tokens that start a sentence or line have one, where
        span and prefix tags open. The first token is given and not predicted: its row says log 1
        for the token and log 0 for every tag. Raises :class:`EngineError`.
        """
        check_ids(ids, self._width)
        check_length(self._info, len(ids), 1)
        text = TextStream(self._tokenizer)
        texts = [text.push(id_) for id_ in ids]
        places = list(range(len(ids)))
        if boundaries:
            starts = SentenceStarts(set(self._info.vocabulary.ids.values()))
            places = [p for p in places if starts.step(ids[p], texts[p])]
        asked = [p for p in places if p]
        chosen, rows = np.zeros(len(ids)), np.full((len(ids), len(self._columns)), LOG_FLOOR)
        if asked:
            logs, beliefs = await asyncio.gather(
                self._log_probs([list(ids)]), self._beliefs([ids[:p] for p in asked])
            )
            chosen[1:] = logs[0]
            rows[asked] = beliefs
        ends = np.cumsum([0, *map(len, texts)])
        return Evidence(
            columns=tuple(literal for _, literal in self._columns),
            token_ids=tuple(ids[p] for p in places),
            offsets=tuple(ends[:-1][places].tolist()),
            chosen=chosen[places].astype(np.float16),
            belief=rows[places].astype(np.float16),
        )

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """log P(continuation | context) for each pair, at temperature 1; 0 for an empty one.

        By ``prompt_logprobs``, which reads the whole text anew: the server's prefix cache holds
        no probabilities. Raises :class:`EngineError`.
        """
        texts: list[list[int]] = []
        for context, continuation in batch:
            if not context:
                raise EngineError(
                    "an empty context predicts nothing; start it with the model's bos token"
                )
            texts.append([*context, *continuation])
            check_ids(texts[-1], self._width)
            check_length(self._info, len(texts[-1]), 1)
        asked = [text for text, (_, continuation) in zip(texts, batch, strict=True) if continuation]
        logs = iter(await self._log_probs(asked))
        return [
            float(sum(next(logs)[len(context) - 1 :])) if continuation else 0.0
            for context, continuation in batch
        ]

    async def aclose(self) -> None:
        """Close the connections; generations under way break off."""
        await self._wire.aclose()

    def _generation(
        self,
        request: Request,
        text: list[int],
        left: int,
        bias: dict[int, float],
        never: frozenset[int],
        spans: OpenSpans,
        segment: int,
    ) -> dict[str, Any]:
        sampling = request.sampling
        closed = [(id_, BAN_BIAS) for id_ in never]
        # The first part of a generation has the seed as given, the parts after a tag one each.
        seed = request.seed if not segment else int(digest([request.seed, segment])[:15], 16)
        return self._question(text) | {
            "stream": True,
            "max_tokens": left,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % 2**63,
            "stop": sampling.stop,
            "include_stop_str_in_output": True,
            # Where there are more than the server takes, we stop at the others ourselves.
            "stop_token_ids": [*self._eos, *sorted(spans.turns - never)][:_MOST_STOPS],
            "logit_bias": {str(id_): nats for id_, nats in [*bias.items(), *closed]},
        }

    def _question(self, prompt: Any) -> dict[str, Any]:
        """What every request for tokens says; servers have defaults of their own for the rest."""
        return {
            "model": self._identity.name,
            "prompt": prompt,
            "logprobs": len(self._columns),
            "logprob_token_ids": self._column_ids,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }

    def _questions(self, never: frozenset[int] = frozenset()) -> Questions:
        identity = self._identity
        return Questions(
            identity.name,
            self._columns,
            never,
            self._wire.fault,
            identity.fingerprint,
            self._width,
        )

    async def _beliefs(self, prompts: list[Sequence[int]]) -> list[list[float]]:
        """Temptations after each prompt."""

        async def ask(group: list[Sequence[int]]) -> list[list[float]]:
            body = self._question(group) | {"max_tokens": 1, "temperature": 0.0}
            reply = await self._wire.json("POST", COMPLETIONS, body, most=most_bytes(group))
            choices = read_choices(reply, len(group), self._questions())
            return [list(belief) for _, _, belief, _ in choices]

        return await self._grouped(prompts, ask)

    async def _log_probs(self, texts: list[list[int]]) -> list[list[float]]:
        """log p of each text's tokens but the first."""

        async def ask(group: list[Sequence[int]]) -> list[list[float]]:
            body = {"model": self._identity.name, "prompt": group, "max_tokens": 1}
            body |= {"prompt_logprobs": 0}
            reply = await self._wire.json("POST", COMPLETIONS, body, most=most_bytes(group))
            return read_scores(reply, group, self._questions())

        return await self._grouped(texts, ask)

    async def _grouped(self, texts: Sequence[Sequence[int]], ask: Any) -> list[list[float]]:
        """Ask for many texts in requests of a fair size, a few of them at once."""
        await self._verify(_SAME_FOR)
        places = asyncio.Semaphore(_GROUPS)

        async def placed(group: list[Sequence[int]]) -> list[list[float]]:
            async with places:
                return await ask(group)

        found = await asyncio.gather(*(placed(group) for group in _groups(texts)))
        if self._wire.shaken:
            await self._verify(0)
        return [row for rows in found for row in rows]

    async def _verify(self, after: float) -> None:
        """Ask the server again who it is, when its last answer is older than ``after`` seconds.

        Raises :class:`EngineError` when it is another one than at :meth:`connect`.
        """
        if not self._wire.shaken and time.monotonic() - self._seen < after:
            return
        self._wire.shaken = False
        try:
            now = await identify(self._wire, self._folder, self._tokenizer, self._info.bos)
        except BaseException:  # cancelled or failed, the question stands, and the next asks it
            self._wire.shaken = True
            raise
        changed = self._identity.difference(now)
        if changed is not None:
            self._wire.shaken = True
            raise EngineError(
                f"the server at {self._wire.url} is not the one that the run began with: {changed}"
                "; serve the first model again, or start a new run"
            )
        self._seen = time.monotonic()


def _count(events: Iterable[bytes], asked: Questions) -> int:
    """How many tokens came in events that nobody will read."""
    with contextlib.suppress(EngineError):
        return sum(len(read_chunk(event, asked)) for event in events)
    return 0


def _groups(texts: Iterable[Sequence[int]]) -> list[list[Sequence[int]]]:
    groups: list[list[Sequence[int]]] = []
    tokens = 0
    for text in texts:
        tokens += len(text)
        if not groups or tokens > _GROUP_TOKENS or len(groups[-1]) == _GROUP_PROMPTS:
            groups.append([])
            tokens = len(text)
        groups[-1].append(text)
    return groups
