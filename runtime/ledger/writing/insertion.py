"""How rows go into each kind of database, a whole batch in one durable transaction.

Plain driver calls on a connection that stays open: what SQLAlchemy does for each statement costs
more than the database does for the row.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import PoolProxiedConnection

from .. import tables
from ..errors import LedgerError

__all__ = ["ORDER", "Inserter", "MovedError", "Rows", "inserter"]

Rows = dict[sa.Table, list[tuple[Any, ...]]]
"""What one batch adds to each table; a row has the table's columns, in its order."""

ORDER: Final = (
    tables.policy,
    tables.blob,
    tables.run,
    tables.event,
    tables.thought,
    tables.tag_score,
    tables.decision,
    tables.erasure,
)
"""Parents before children, for the foreign keys."""


class MovedError(LedgerError):
    """The ledger's file is not where it was opened any more."""


class Inserter(Protocol):
    """One open connection that a batch goes through."""

    def begin(self) -> None:
        """Start a transaction that will be durable when :meth:`commit` returns.

        Raises :class:`MovedError` where what is written would be found by nobody.
        """
        ...

    def insert(self, rows: Rows) -> None:
        """Add the rows; a policy that is there already is passed over."""
        ...

    def execute(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement with ``?`` for its parameters, once for each row of them."""
        ...

    def first(self, query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a query with ``?`` for its parameters."""
        ...

    def commit(self) -> None:
        """Make the transaction durable."""
        ...

    def rollback(self) -> None:
        """Undo the transaction. Raises where the connection is gone."""
        ...

    def close(self) -> None:
        """Let go of the connection, whatever state it is in."""
        ...


def inserter(engine: Engine) -> Inserter:
    """A connection of its own to the database behind ``engine``."""
    connection = engine.raw_connection()
    if engine.dialect.name == "postgresql":
        return _PostgreSQL(connection)
    return _SQLite(connection, Path(str(engine.url.database)).absolute())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _columns(table: sa.Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.c)


def _marks(table: sa.Table) -> str:
    return ", ".join(f"?{place}" for place in range(1, len(table.c) + 1))


class _SQLite:
    def __init__(self, connection: PoolProxiedConnection, path: Path) -> None:
        self._path = path
        self._file = _identity(path)
        self._connection = connection
        self._cursor: sqlite3.Cursor = connection.cursor()  # pyright: ignore[reportAttributeAccessIssue]
        self._inserts = {
            table: f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({_marks(table)})"
            for table in ORDER
        }
        # Not "ON CONFLICT": the trigger against REPLACE would speak first.
        self._inserts[tables.policy] = (
            f"INSERT INTO policy ({_columns(tables.policy)}) SELECT {_marks(tables.policy)} "
            "WHERE NOT EXISTS (SELECT 1 FROM policy WHERE digest = ?1)"
        )

    def begin(self) -> None:
        # SQLite itself goes on writing to a file that was removed, and nobody will read it.
        if _identity(self._path) != self._file:
            raise MovedError(f"{self._path} was moved, removed or replaced while it was written")
        # At once for writing: a transaction that reads first could not wait for a lock later.
        self._cursor.execute("BEGIN IMMEDIATE")

    def insert(self, rows: Rows) -> None:
        # Row by row, for SQLite is slower with many in one statement.
        for table in ORDER:
            if table in rows:
                self._cursor.executemany(self._inserts[table], rows[table])

    def execute(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._cursor.executemany(statement, rows)

    def first(self, query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        return self._cursor.execute(query, parameters).fetchone()

    def commit(self) -> None:
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.invalidate()


class _PostgreSQL:
    """COPY for what comes in numbers; begin and its settings in one message."""

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection
        self._driver: Any = connection.driver_connection
        self._driver.autocommit = True  # transactions begin and end by our own statements
        self._cursor: Any = self._driver.cursor()
        self._copies = {
            table: f"COPY {table.name} ({_columns(table)}) FROM STDIN" for table in ORDER
        }
        marks = ", ".join("%s" for _ in tables.policy.c)
        self._policy = f"INSERT INTO policy VALUES ({marks}) ON CONFLICT DO NOTHING"

    def begin(self) -> None:
        # LOCAL, so that it holds behind a pooler that hands out another session each time.
        self._cursor.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on"
        )

    def insert(self, rows: Rows) -> None:
        for table in ORDER:
            several = rows.get(table)
            if not several:
                continue
            if table is tables.policy:
                for row in several:
                    self._cursor.execute(self._policy, row)
                continue
            with self._cursor.copy(self._copies[table]) as copy:
                for row in several:
                    copy.write_row(row)

    def execute(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._cursor.executemany(statement.replace("?", "%s"), rows)

    def first(self, query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        return self._cursor.execute(query.replace("?", "%s"), parameters).fetchone()

    def commit(self) -> None:
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.invalidate()
