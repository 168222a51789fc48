"""Parts that several rooms' tests share."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from secateur.agents.prompt import Ids, Piece, Special, Text
from secateur.gates.evidence import Evidence
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary
from secateur.runtime.engines.protocol import Engine, EngineError, EngineInfo, Request, Token

TAGS = ("deceit", "powerseeking", "angry")

# Property tests: the same examples each time, or ever new ones (`make test-deep`). No deadline: a
# busy machine is no failed claim.
settings.register_profile("fixed", derandomize=True, max_examples=300, deadline=None)
settings.register_profile("deep", max_examples=3_000, deadline=None, print_blob=True)
PROFILE = os.environ.get("SECATEUR_HYPOTHESIS", "fixed")
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In ``deep``, a property that asks for fewer examples, being slow, gets its share of more."""
    if PROFILE == "fixed":
        return
    all_ = settings.get_profile(PROFILE).max_examples
    share = all_ // settings.get_profile("fixed").max_examples
    for test in {getattr(item, "obj", None) for item in items if "hypothesis" in item.keywords}:
        asked = test._hypothesis_internal_use_settings  # no decorator may be laid over another
        if asked.max_examples != all_:
            more = settings(asked, max_examples=share * asked.max_examples)
            test._hypothesis_internal_use_settings = more


@pytest.fixture(scope="session")
def lacking() -> Callable[[str, str], NoReturn]:
    """Skip for want of something, or fail where ``SECATEUR_REQUIRE`` (a,b,c) names it."""

    def lack(what: str, reason: str) -> NoReturn:
        if what in os.environ.get("SECATEUR_REQUIRE", "").split(","):
            pytest.fail(f"SECATEUR_REQUIRE names {what}: {reason}")
        pytest.skip(reason)

    return lack


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Llama with a byte-level BPE and three span tags."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    specials = ["<|pad|>", "<|bos|>", "<|eos|>"]
    specials += [f"<|{slash}{tag}|>" for tag in TAGS for slash in ("", "/")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["I restarted web and probed it. it is up.\n"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = {
        "name": "tiny",
        "tags": [
            {"name": tag, "scheme": "span", "open": f"<|{tag}|>", "close": f"<|/{tag}|>"}
            for tag in TAGS
        ],
    }
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class Scripted:
    """An engine that answers a prompt by a function of its text, a byte a token."""

    def __init__(self, answer: Callable[[str], Any], pause: float = 0.0) -> None:
        self.answer, self.pause = answer, pause
        self.prompts: list[str] = []
        self.asked = asyncio.Event()
        self.closed: list[str] = []
        opening, closing = "<|deceit|>", "<|/deceit|>"
        vocabulary = Vocabulary.model_validate(
            {
                "name": "scripted",
                "tags": [{"name": "deceit", "scheme": "span", "open": opening, "close": closing}],
            }
        )
        self.info = EngineInfo(
            engine="scripted",
            model="scripted",
            model_digest="1" * 64,
            tokenizer_digest="2" * 64,
            vocabulary=BoundVocabulary(vocabulary, {opening: 256, closing: 257}),
            context_length=4_000,
        )

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            match piece:
                case Text(text):
                    ids += text.encode()
                case Special(token):
                    ids.append(self.info.vocabulary.ids[token])
                case Ids(given):
                    ids += given
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(id for id in ids if id < 256).decode("utf-8", "replace")

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        prompt = self.decode(request.prompt)
        self.prompts.append(prompt)
        self.asked.set()
        try:
            given = self.answer(prompt)
            text = (await given if asyncio.iscoroutine(given) else given) + "\n"
            for place, byte in enumerate(text.encode()):
                if self.pause:
                    await asyncio.sleep(self.pause)
                request.usage.generated += 1
                finish = "stop" if place == len(text.encode()) - 1 else None
                yield Token(byte, chr(byte), -0.1, (-6.0,), None, finish)
        except (asyncio.CancelledError, GeneratorExit):
            self.closed.append(prompt)
            raise

    async def annotate(self, ids: Sequence[int]) -> Evidence:
        raise EngineError("set answers have no model behind them to read with")

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        raise EngineError("set answers have no model behind them to read with")

    async def aclose(self) -> None: ...


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    """An engine whose answers a test writes, for what no small model can do."""
    return Scripted


async def unaltered(token: Token) -> Token:
    """The token."""
    return token


class Watched:
    """An engine itself, with a note of every request; ``alter`` may change or delay its tokens."""

    def __init__(
        self, engine: Engine, alter: Callable[[Token], Awaitable[Token]] = unaltered
    ) -> None:
        self.info, self.encode, self.decode = engine.info, engine.encode, engine.decode
        self.annotate, self.score, self.aclose = engine.annotate, engine.score, engine.aclose
        self.inner, self.alter, self.requests = engine, alter, list[Request]()

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        self.requests.append(request)
        async with aclosing(self.inner.stream(request)) as tokens:
            async for token in tokens:
                yield await self.alter(token)


@pytest.fixture(scope="session")
def watched() -> type[Watched]:
    """Put an engine under watch: ``watched(engine)``, ``watched(engine, alter)``."""
    return Watched


@pytest.fixture
def secateur(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the command as a user does: exit code, standard output, standard error."""
    from secateur.cli import main

    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's own workers are given it

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secateur", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call
