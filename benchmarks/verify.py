"""How fast a ledger is verified, against reading the same rows and hashing the same bytes.

    python benchmarks/verify.py [--quick] [--thoughts N] [--processes N] [--sqlite-only]
                                [--postgres URL] [--folder DIR] [--json FILE]

The ledger is made by ``million.py``: intents, verdicts, evidence, salts, chains, two events a
thought. The raw limit reads every event in the order of its chain and every blob, plain tuples in
the driver's own loop, and takes SHA-256 of the very bytes that verification hashes; what it does
not do is spell those bytes, look up an event's blobs, follow a chain, or compare anything.

``chain`` is hash chain, digests bound, blobs, run rows and policies; ``complete`` adds every row
derived from the events (thoughts, tag scores, decisions), made anew and compared. What is compared
takes turns in one run; figures are medians over the rounds, ratios medians over the rounds' own.
The stand-alone verifier does what ``chain`` does, in pure Python, start-up included.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from ledger import server
from million import make
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.engine import make_url

from secateur.gates.canonical import canonical_json
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.integrity.links import COLUMNS
from secateur.runtime.ledger.integrity.verification import verify

CHUNK = 20_000

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """All events, once."""

    events: int
    seconds: float
    cpu: float
    """Of this process and those that it started."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


@dataclass(frozen=True, slots=True)
class Line:
    """One way to verify, over all rounds."""

    store: str
    way: str
    events_s: float
    cpu_us: float
    """Per event."""
    of_raw: float
    """Of the raw limit of the same round."""
    of_one: float | None
    """Of the same work in one process; None where it is that."""


def timed(events: int, work: Callable[[], object]) -> Timing:
    """How long it takes, and how much of the processors."""
    began, cpu = time.perf_counter(), _cpu()
    work()
    return Timing(events, time.perf_counter() - began, _cpu() - cpu)


def _cpu() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Stopwatch:
    """Adds up the time of what is called through it."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __call__(self, work: Callable[[A], T], given: A) -> T:
        began, spent = time.perf_counter(), time.process_time()
        done = work(given)
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - spent
        return done


def hash_all(contents: list[bytes]) -> None:
    """SHA-256 of each, and nothing else."""
    for content in contents:
        hashlib.sha256(content).hexdigest()


def raw(url: str) -> Timing:
    """Read, and hash; making the bytes ready for it is not counted."""
    engine = connect.connect(url, read_only=True)
    watch = Stopwatch()
    events = 0
    queries = (
        f"SELECT {', '.join(COLUMNS)} FROM event ORDER BY run_id, seq",
        "SELECT salt, bytes FROM blob",
    )
    with engine.connect() as connection, connection.begin():
        driver = connection.connection.driver_connection
        assert driver is not None
        for query in queries:
            if engine.dialect.name == "postgresql":
                cursor = driver.cursor("raw")
                cursor.itersize = CHUNK
                cursor.execute(query, binary=True)
            else:
                cursor = driver.execute(query)
            while rows := watch(cursor.fetchmany, CHUNK):
                if query is queries[0]:
                    events += len(rows)
                    ready = [
                        canonical_json(dict(zip(COLUMNS[:-1], row[:-1], strict=True)))
                        for row in rows
                    ]
                else:
                    ready = [salt + content for salt, content in rows]
                watch(hash_all, ready)
            cursor.close()
    engine.dispose()
    return Timing(events, watch.seconds, watch.cpu)


def ours(url: str, events: int, *, processes: int, derived: bool) -> Timing:
    """Verify; it must be whole."""
    engine = connect.open_existing(url)

    def work() -> None:
        found = verify(engine, processes=processes, derived=derived)
        assert (found.ok, found.events) == (True, events), found.first_bad

    try:
        return timed(events, work)
    finally:
        engine.dispose()


def alone(path: str, events: int) -> Timing:
    """The stand-alone verifier, as an auditor runs it."""
    command = [sys.executable, "-I", str(verifier.__file__), path]
    return timed(events, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def measure(store: str, url: str, rounds: int, processes: int) -> list[Line]:
    """Every way in turn, round by round."""
    events = raw(url).events  # once for nothing, so that all find the same caches
    ways: dict[str, Callable[[], Timing]] = {
        "raw: read, SHA-256": lambda: raw(url),
        "chain, 1 process": lambda: ours(url, events, processes=1, derived=False),
        f"chain, {processes} processes": lambda: ours(
            url, events, processes=processes, derived=False
        ),
        "complete, 1 process": lambda: ours(url, events, processes=1, derived=True),
        f"complete, {processes} processes": lambda: ours(
            url, events, processes=processes, derived=True
        ),
    }
    if "://" not in url:
        ways["stand-alone"] = lambda: alone(url, events)
    taken: dict[str, list[Timing]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            taken[way].append(run())
    limits = taken["raw: read, SHA-256"]
    lines: list[Line] = []
    for way, timings in taken.items():
        single = taken.get(f"{way.partition(',')[0]}, 1 process", [])
        several = way.endswith("processes")
        lines.append(
            Line(
                store,
                way,
                statistics.median(t.rate for t in timings),
                statistics.median(1e6 * t.cpu / t.events for t in timings),
                statistics.median(
                    t.rate / limit.rate for t, limit in zip(timings, limits, strict=True)
                ),
                statistics.median(t.rate / o.rate for t, o in zip(timings, single, strict=True))
                if several
                else None,
            )
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small size, to see that it works")
    parser.add_argument("--thoughts", type=int, default=200_000, help="two events each")
    parser.add_argument("--processes", type=int, default=max(2, os.cpu_count() or 1))
    parser.add_argument("--sqlite-only", action="store_true", help="leave PostgreSQL out")
    parser.add_argument("--postgres", help="URL of a server that may make databases")
    parser.add_argument("--folder", type=Path, help="where to write; a real disk")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    thoughts, rounds = (16_000, 1) if given.quick else (given.thoughts, 3)
    lines: list[Line] = []
    events = 0
    with tempfile.TemporaryDirectory(dir=given.folder) as name, Progress() as progress:
        task = progress.add_task("making ledgers", total=thoughts * (2 - given.sqlite_only))
        folder = Path(name)
        path = str(folder / "verify.db")
        events = make(path, thoughts, lambda some: progress.advance(task, some)).events
        lines += measure("SQLite", path, rounds, given.processes)
        if not given.sqlite_only:
            with server(given.postgres, folder) as base:
                url = _database(base)
                make(url, thoughts, lambda some: progress.advance(task, some))
                lines += measure("PostgreSQL", url, rounds, given.processes)
                _database(base, drop=True)
    drawn = Table("", "", "events/s", "CPU us/event", "of raw", "of 1 process", box=None)
    for line in lines:
        drawn.add_row(
            line.store,
            line.way,
            f"{line.events_s:,.0f}",
            f"{line.cpu_us:.1f}",
            f"{line.of_raw:.0%}",
            "" if line.of_one is None else f"{line.of_one:.2f}x",
        )
    console = Console(width=110)
    console.print(drawn)
    console.print(f"{events:,} events, {os.cpu_count()} cores, rounds: {rounds}")
    if given.json is not None:
        figures = {"events": events, "rounds": rounds, "lines": [asdict(line) for line in lines]}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


def _database(base: str, *, drop: bool = False) -> str:
    """A new database of this server, or its end."""
    import psycopg

    plain = make_url(base).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS secateur_verify WITH (FORCE)")
        if not drop:
            connection.execute("CREATE DATABASE secateur_verify")
    url = make_url(base).set(database="secateur_verify")
    return url.render_as_string(hide_password=False)


if __name__ == "__main__":
    main()
