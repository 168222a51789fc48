"""Named points at which a process can be made to die, installed from outside by wrapping.

The ledger's own code knows nothing of them: its queue, the drivers' cursors and connections are
wrapped in the process that is going to die.
"""

import os
import re
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from secateur.benchmarks.breaking.journal import Journal, appending
from secateur.runtime.ledger.writing.writer import Writer

__all__ = ["Points", "Trap", "install"]

Phase = Literal["opening", "writing", "closing"]

_LABEL = re.compile(
    r"\s*(INSERT INTO|REPLACE INTO|UPDATE|DELETE FROM|COPY|BEGIN|COMMIT|SELECT|PRAGMA)\b"
    r"(?:\s+(\w+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trap:
    """Where to die."""

    point: str
    times: int = 1
    """On the so-manieth time there."""


@dataclass(slots=True)
class Points:
    """Counts the named points a process passes, and kills it at the one that is trapped."""

    journal: Journal
    trap: Trap | None = None
    phase: Phase = "opening"
    passed: Counter[str] = field(default_factory=Counter)
    _asked: bool = False

    def reach(self, point: str) -> None:
        """The process stands at this point."""
        self.passed[point] += 1
        if self.trap and self.trap.point == point and self.passed[point] == self.trap.times:
            self.journal.write("point", point)
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, when: Literal["before", "after"], sql: str) -> None:
        """A statement is about to begin, or has ended."""
        if self.phase == "writing":
            if threading.current_thread().name == "ledger":  # others only read
                self.reach(f"{when} {_label(sql)}")
        elif self.phase == "opening" and when == "before":
            self.reach("opening: before a statement")
        elif self.phase == "closing":
            self.reach(f"closing: {when} a statement")

    def commit(self, ask: Callable[[], Any]) -> None:
        """The writer is about to commit: note, once, whether that waits for the disk."""
        if self._asked or self.phase != "writing" or threading.current_thread().name != "ledger":
            return
        self._asked = True
        self.journal.write("waits", str(ask()))

    def part(self, when: Literal["before", "after"]) -> None:
        """A connection is about to be let go, or has been."""
        if self.phase == "closing":
            self.reach(f"closing: {when} a connection is let go")

    def between(self, sql: str) -> None:
        """One row of several went in."""
        if self.phase == "writing":
            self.reach(f"between two rows of {_label(sql)}")


def _label(sql: str) -> str:
    found = _LABEL.match(sql)
    if found is None:
        return " ".join(sql.split()[:2])
    verb, table = found[1].upper(), found[2]
    return verb if table is None or verb in ("BEGIN", "COMMIT", "SELECT") else f"{verb} {table}"


def install(points: Points, *, keep_log: bool = False) -> None:
    """Wrap the writer's queue and the drivers of this process.

    With ``keep_log`` SQLite's log is never copied into the file, and so never begins anew.
    """
    writers: Any = Writer
    put = writers.put

    def watched(writer: Writer, *given: Any, **named: Any) -> Any:
        kind = appending.get()
        points.reach(f"before {kind} is queued")
        result = put(writer, *given, **named)
        points.reach(f"after {kind} is queued")
        return result

    writers.put = watched
    _install_sqlite(points, keep_log)
    _install_psycopg(points)


def _install_sqlite(points: Points, keep_log: bool) -> None:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *given: Any) -> Any:
            if sql == "COMMIT":
                ask = super().execute
                points.commit(lambda: ask("PRAGMA synchronous").fetchone()[0])
            points.around("before", sql)
            result = super().execute(sql, *given)
            points.around("after", sql)
            return result

        def executemany(self, sql: str, *given: Any) -> Any:
            points.around("before", sql)
            rows = 0

            def row(_: str) -> None:
                nonlocal rows
                rows += 1
                if rows > 1:
                    points.between(sql)

            self.connection.set_trace_callback(row)
            result = super().executemany(sql, *given)
            self.connection.set_trace_callback(None)
            points.around("after", sql)
            return result

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, *given: Any) -> Any:
            return self.cursor().execute(sql, *given)

        def executemany(self, sql: str, *given: Any) -> Any:
            return self.cursor().executemany(sql, *given)

        def commit(self) -> None:
            if not self.in_transaction:
                return
            points.around("before", "COMMIT")
            super().commit()
            points.around("after", "COMMIT")

        def close(self) -> None:
            points.part("before")
            super().close()
            points.part("after")

    connect = sqlite3.connect

    def open_watched(*given: Any, **named: Any) -> Any:
        connection = connect(*given, **({"factory": Connection} | named))
        if keep_log:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    sqlite3.connect = open_watched


def _install_psycopg(points: Points) -> None:
    try:
        import psycopg
    except ImportError:
        return
    cursors: Any = psycopg.Cursor
    copies: Any = psycopg.Copy
    connections: Any = psycopg.Connection
    execute, executemany, copy = cursors.execute, cursors.executemany, cursors.copy
    write_row, leave = copies.write_row, copies.__exit__
    commit, close = connections.commit, connections.close

    def watched_execute(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        if query == "COMMIT":
            points.commit(lambda: execute(cursor, "SHOW synchronous_commit").fetchone()[0])
        points.around("before", str(query))
        result = execute(cursor, query, *given, **named)
        points.around("after", str(query))
        return result

    def watched_executemany(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        points.around("before", str(query))
        result = executemany(cursor, query, *given, **named)
        points.around("after", str(query))
        return result

    copying = ""
    rows = 0

    def watched_copy(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        nonlocal copying, rows
        copying, rows = str(query), 0
        points.around("before", copying)
        return copy(cursor, query, *given, **named)

    def watched_row(copied: Any, row: Any) -> None:
        nonlocal rows
        rows += 1
        if rows > 1:
            points.between(copying)
        write_row(copied, row)

    def watched_exit(copied: Any, *error: Any) -> None:
        leave(copied, *error)
        points.around("after", copying)

    def watched_commit(connection: Any) -> None:
        points.around("before", "COMMIT")
        commit(connection)
        points.around("after", "COMMIT")

    def watched_close(connection: Any) -> None:
        points.part("before")
        close(connection)
        points.part("after")

    cursors.execute = watched_execute
    cursors.executemany = watched_executemany
    cursors.copy = watched_copy
    copies.write_row = watched_row
    copies.__exit__ = watched_exit
    connections.commit = watched_commit
    connections.close = watched_close
