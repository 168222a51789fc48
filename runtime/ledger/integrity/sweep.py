"""Reading a ledger from end to end: raw rows in long sweeps, for verification and rebuilding."""

import gc
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from .. import tables
from .links import COLUMNS

__all__ = ["Span", "Sweep", "sweeping"]

_AT_ONCE: Final = 2_000
"""Rows that PostgreSQL sends at a time."""

_CONTAINERS: Final = 200_000
"""New containers after which Python looks for cycles among them; 700 if nobody says."""

_CREDIT: Final = 20_000
"""Blobs that are read ahead of who asks for them, at most."""
_WORTH: Final = 4
"""Blobs that may be read for one that was asked for, before looking it up is cheaper."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of runs in the database's own order, or one run alone.

    From ``first`` (None: from the beginning) up to, not with, ``end`` (None: to the last). Spans
    that touch leave nothing out: a row whose run nobody knows lies in one of them too.
    """

    first: str | None
    end: str | None
    events: int
    """How many there were when it was made; for progress."""
    alone: bool = False
    """Whether it is the run ``first`` and nothing else."""


class Sweep:
    """One consistent view of a ledger, read through the driver: plain tuples, nothing mapped."""

    def __init__(self, connection: sa.Connection) -> None:
        # The transaction has begun: what follows sees one state, whatever is written meanwhile.
        self._driver: Any = connection.connection.driver_connection
        self.postgresql = connection.dialect.name == "postgresql"
        self._ahead = _Ahead(self._driver)
        if not self.postgresql:
            self._driver.execute("PRAGMA cache_size = -65536")  # 64 MiB: digests lie anywhere

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple]:
        """All rows of a query that has ``?`` for its parameters."""
        return self._cursor(query, parameters).fetchall()

    def execute(self, statement: str) -> None:
        """Run a statement that answers nothing, as it is spelt."""
        self._driver.execute(statement)

    def events(self, span: Span) -> Iterator[tuple]:
        """The events of a span by run and seq, in the columns' order."""
        where, parameters = self._within(span, "run_id")
        query = f"SELECT {', '.join(COLUMNS)} FROM event {where} ORDER BY run_id, seq"
        if not self.postgresql:
            return iter(self._driver.execute(query, parameters))
        return self._streamed(query, parameters)

    def of(self, table: sa.Table, span: Span) -> dict[str, list[tuple]]:
        """A table's rows of a span by their run, each in the columns' order."""
        run = "id" if table is tables.run else "run_id"
        names = [column.name for column in table.c]
        where, parameters = self._within(span, run)
        place = names.index(run)
        found: dict[str, list[tuple]] = {}
        query = f"SELECT {', '.join(names)} FROM {table.name} {where}"
        for row in self._cursor(query, parameters):
            found.setdefault(row[place], []).append(row)
        return found

    def blobs(self, digests: list[str]) -> dict[str, tuple[bytes, bytes]]:
        """Salt and bytes of those blobs that are there, by digest."""
        if not self.postgresql:
            return self._ahead.blobs(digests)
        # One text, because the driver would spell a list one by one.
        query = "SELECT digest, salt, bytes FROM blob WHERE digest = ANY(string_to_array(%s, ','))"
        found = self._cursor(query, (",".join(digests),)).fetchall()
        return {digest: (salt, held) for digest, salt, held in found}

    def hashes(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The hashes of those events that are there, by run and seq."""
        if self.postgresql:
            query = (
                "SELECT run_id, seq, hash FROM event JOIN unnest(%s::text[], %s::int[]) "
                "AS wanted (run, number) ON run_id = run AND seq = number"
            )
            given = ([run for run, _ in places], [seq for _, seq in places])
        else:
            query = (
                "SELECT run_id, seq, hash FROM json_each(?) j CROSS JOIN event "
                "ON run_id = json_extract(j.value, '$[0]') AND seq = json_extract(j.value, '$[1]')"
            )
            given = (orjson.dumps(places).decode(),)
        return {(run, seq): hash for run, seq, hash in self._cursor(query, given)}

    def spans(self, size: int) -> list[Span]:
        """The whole ledger in spans of some ``size`` events; a run is never divided."""
        spans: list[Span] = []
        first: str | None = None
        inside = 0
        counts = self._cursor(
            "SELECT run_id, count(*) FROM event GROUP BY run_id ORDER BY run_id", ()
        )
        for run, events in counts:
            if inside >= size:
                spans.append(Span(first, run, inside))
                first, inside = run, 0
            inside += events
        return [*spans, Span(first, None, inside)]

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Read text that is no UTF-8 as well, so that the event it stands in can be named."""
        if self.postgresql:  # which stores no such text
            yield
            return
        self._driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            yield
        finally:
            self._driver.text_factory = str

    @property
    def undecodable(self) -> type[Exception]:
        """What the driver raises for such text."""
        return UnicodeDecodeError if self.postgresql else sqlite3.OperationalError

    def _cursor(self, query: str, parameters: Sequence[Any]) -> Any:
        if self.postgresql:
            cursor = self._driver.cursor(binary=True)
            return cursor.execute(query.replace("?", "%s"), parameters or None)
        return self._driver.execute(query, parameters)

    def _streamed(self, query: str, parameters: Sequence[Any]) -> Iterator[tuple]:
        with self._driver.cursor("events") as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(query.replace("?", "%s"), parameters or None, binary=True)
            yield from cursor

    def _within(self, span: Span, column: str) -> tuple[str, list[str]]:
        if span.alone:
            return f"WHERE {column} = ?", [str(span.first)]
        given = [(f"{column} >= ?", span.first), (f"{column} < ?", span.end)]
        bounds = [(text, id) for text, id in given if id is not None]
        where = f"WHERE {' AND '.join(text for text, _ in bounds)}" if bounds else ""
        return where, [id for _, id in bounds]


class _Ahead:
    """Blobs of a SQLite file, read in the order in which they were written.

    Their digests lie anywhere in the index, which makes a blob that is looked up several times as
    dear as one that is read where the last one ended. Events and their blobs were written
    together, so what one run asks for lies in a row, or between what other runs will ask for soon.
    Where that is not so, credit runs out and the index serves.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._held: dict[str, tuple[bytes, bytes]] = {}
        """What was read and not asked for yet."""
        self._credit = _CREDIT

    def blobs(self, digests: list[str]) -> dict[str, tuple[bytes, bytes]]:
        """Salt and bytes of those that are there, by digest."""
        held = self._held
        found = {digest: held.pop(digest) for digest in digests if digest in held}
        left = [digest for digest in digests if digest not in found]
        size = 2 * len(left)
        while left and size <= self._credit:
            read = self._from(left[0], size)
            met = {digest: read.pop(digest) for digest in left if digest in read}
            if not met:
                break
            found.update(met)
            left = [digest for digest in left if digest not in met]
            self._credit = min(self._credit - size + _WORTH * len(met), _CREDIT)
            if len(held) > _CREDIT:
                held.clear()
            held.update(read)
            size *= 2
        if left:
            self._credit += len(left) // 8  # now and then it is tried again
            found.update(self._looked_up(left))
        return found

    def _from(self, digest: str, size: int) -> dict[str, tuple[bytes, bytes]]:
        """So many blobs from this one on, in the order of writing."""
        query = (
            "SELECT digest, salt, bytes FROM blob "
            "WHERE rowid >= (SELECT rowid FROM blob WHERE digest = ?) ORDER BY rowid LIMIT ?"
        )
        rows = self._driver.execute(query, (digest, size))
        return {digest: (salt, content) for digest, salt, content in rows}

    def _looked_up(self, digests: list[str]) -> dict[str, tuple[bytes, bytes]]:
        query = "SELECT digest, salt, bytes FROM json_each(?) j CROSS JOIN blob ON digest = j.value"
        rows = self._driver.execute(query, (orjson.dumps(digests).decode(),))
        return {digest: (salt, content) for digest, salt, content in rows}


@contextmanager
def sweeping(engine: Engine) -> Iterator[Sweep]:
    """A sweep in a transaction of its own, that sees the ledger as it is at its start."""
    with engine.connect() as connection, _seldom_collected():
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield Sweep(connection)


_sweeps: list[tuple[int, int, int]] = []
"""For each sweep that is going on, the collector's thresholds as they were before the first."""
_counting = Lock()


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Millions of rows are made and dropped, none of them in a cycle: left as it is, the collector
    of cycles takes a tenth of the time to visit them again and again."""
    with _counting:
        _sweeps.append(_sweeps[0] if _sweeps else gc.get_threshold())
        gc.set_threshold(_CONTAINERS)
    try:
        yield
    finally:
        with _counting:
            before = _sweeps.pop()
            if not _sweeps:
                gc.set_threshold(*before)
