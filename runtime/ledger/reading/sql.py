"""Somebody's own SELECT, on a connection that cannot write.

What refuses is the database, never a look at the text. SQLite: the file is opened read-only, the
connection is told ``query_only``, and an authorizer allows reading alone (no ATTACH, no PRAGMA).
PostgreSQL: the query is the body of ``DECLARE … CURSOR`` in a read-only transaction, where its
grammar takes nothing but one SELECT or VALUES; a superuser's connection becomes
``pg_read_all_data`` for its duration. What a role may do by calling functions remains its own: ask
as a reader.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine

from ..errors import LedgerError
from .page import frame, table

if TYPE_CHECKING:
    import pandas
    import pyarrow

__all__ = ["Answer", "ask"]

_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
"""What SQLite's authorizer is asked for a query that only reads."""
_FORBIDDEN = {"load_extension", "fts3_tokenizer", "writefile", "edit"}
"""Functions that reach beyond the database, where they are there at all."""
_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answered."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    cut: bool
    """Whether there were more rows than asked for."""

    def plain(self) -> list[list[Any]]:
        """The rows in values that JSON has; bytes as hexadecimal digits."""
        return [[_plain(value) for value in row] for row in self.rows]

    def as_json(self) -> list[dict[str, Any]]:
        """An object for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.plain()]

    def to_pandas(self) -> "pandas.DataFrame":
        """As a pandas data frame. Raises :class:`LedgerError` without pandas."""
        return frame(self.as_json())

    def to_arrow(self) -> "pyarrow.Table":
        """As an Arrow table. Raises :class:`LedgerError` without pyarrow."""
        return table(self.as_json())


def ask(engine: Engine, query: str, limit: int | None, timeout_s: float) -> Answer:
    """What one SELECT answers, ``limit`` rows at most; ``engine`` is read-only.

    Raises :class:`LedgerError`, in one line, for what is no query, what would write, and what takes
    longer than ``timeout_s``.
    """
    query = query.removeprefix("\ufeff")  # of a file that was pasted
    if not query.strip():
        raise LedgerError('there is no query: write one, such as "SELECT * FROM pruned_branch"')
    if "\0" in query:
        raise LedgerError("a query cannot hold a NUL character")
    connection = engine.raw_connection()
    try:
        if engine.dialect.name == "postgresql":
            return _of_postgresql(connection.driver_connection, query, limit, timeout_s)
        return _of_sqlite(connection.driver_connection, query, limit, timeout_s)
    finally:
        connection.invalidate()  # nobody else is to get it as it is now


def _of_sqlite(connection: Any, query: str, limit: int | None, timeout_s: float) -> Answer:
    ends = time.monotonic() + timeout_s
    connection.execute("PRAGMA query_only = ON")
    # Views and full text read tables that the query does not name; that is reading as well.
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    try:
        cursor = connection.execute(query)
        columns = tuple(each[0] for each in cursor.description or ())
        rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise LedgerError(_refusal(str(error), timeout_s)) from None
    if not columns:
        raise LedgerError("that answers nothing: write one SELECT")
    return _answer(columns, rows, limit)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _READING:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _of_postgresql(connection: Any, query: str, limit: int | None, timeout_s: float) -> Answer:
    import psycopg

    connection.autocommit = True
    cursor = connection.cursor()
    try:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
        # The snapshot is taken here; from now on the transaction cannot be made to write.
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        row = cursor.fetchone()
        if row is not None and row[0]:
            cursor.execute("SET LOCAL ROLE pg_read_all_data")
        # Prepared, so that the server takes one statement and no second behind a semicolon.
        declared = f"DECLARE asked NO SCROLL CURSOR FOR\n{query}"
        cursor.execute(declared.encode(), prepare=True)
        cursor.execute(f"FETCH FORWARD {'ALL' if limit is None else limit + 1} FROM asked")
        columns = tuple(each.name for each in cursor.description or ())
        rows = cursor.fetchall()
    except psycopg.errors.QueryCanceled:
        raise LedgerError(_refusal("interrupted", timeout_s)) from None
    except psycopg.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LedgerError(_refusal(said, timeout_s)) from None
    return _answer(columns, rows, limit)


def _answer(columns: tuple[str, ...], rows: Sequence[Any], limit: int | None) -> Answer:
    cut = limit is not None and len(rows) > limit
    return Answer(columns, tuple(tuple(row) for row in rows[:limit]), cut)


def _refusal(said: str, timeout_s: float) -> str:
    line = " ".join(said.split())
    if "interrupted" in line:
        return f"the query took longer than {timeout_s:g} s: narrow it, or give --timeout"
    return f"the query was refused: {line}; write one SELECT"


def _plain(value: Any) -> Any:
    """As JSON can say it."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value if not isinstance(value, float) or value - value == 0 else str(value)
    return str(value)
