"""Finding, creating, checking and migrating a ledger's database."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.event import listens_for
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from ..redaction import redacted, shown_url
from . import tables
from .errors import LedgerError

if TYPE_CHECKING:  # alembic is for who migrates: it would slow down every start
    from alembic.config import Config

__all__ = [
    "address",
    "connect",
    "explain",
    "keep_off",
    "open_existing",
    "open_or_create",
    "place",
    "revision",
    "upgrade",
]

_WAIT_S = 30.0
"""How long a SQLite connection waits for another process's write lock."""

_WAL_PAGES = 8000
"""Pages of SQLite's write-ahead log, 32 MB, after which it is copied into the file."""

_CACHE_KB = 8000
"""SQLite's page cache of a connection that writes. What a busy commit changes lies all over the
indexes: with its default, 2 MB, most of those pages are read from the file each time."""

_CONNECT_S = 10
"""How long PostgreSQL may take to answer a new connection, unless the URL says otherwise."""

_SESSION = {
    "client_encoding": "UTF8",
    "lock_timeout": f"{int(_WAIT_S * 1000)}",
    "extra_float_digits": "3",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
}
"""What a PostgreSQL session is set to, whatever its database or its role has set: numbers are to
come back to the last digit, times in one spelling, searches whole."""

_DEMANDED = {
    "server_encoding": (
        "UTF8",
        "cannot hold every text (its encoding is {}): make one with `createdb -E UTF8 -T template0 "
        "NAME`, and use it as --db",
    ),
    "session_replication_role": (
        "origin",
        "has its triggers off (session_replication_role is {}): set it to origin for this role",
    ),
    "transaction_read_only": (
        "off",
        "is read-only (default_transaction_read_only is {}, or it is a standby): set it to off for "
        "this role, or give --db a database you may write to",
    ),
}
"""What must be so where a ledger is written, and what to say where it is not."""

_MIGRATING = 0x5EC47E0
"""PostgreSQL's advisory lock for who migrates; any number that others are unlikely to take."""

_BASE = "0000"
"""The revision of a ledger that was taken down to nothing; revisions count up as four digits."""


def address(url: str | Path) -> URL:
    """The URL of a ledger: ``sqlite:///x.db``, ``postgresql://…``, or a plain path."""
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        if not text.strip() or "\0" in text:
            raise LedgerError("the ledger has no name: give --db a path or a database URL")
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        raise LedgerError(
            f"{shown_url(text)} is no database URL: write a path or postgresql://…"
        ) from None
    if parsed.host and "@" in parsed.host:  # half of the password would be looked up as a host
        raise LedgerError(
            f"{shown_url(text)} has an @ in its password: write it as %40, or leave the password "
            "to ~/.pgpass or PGPASSWORD"
        )
    backend = parsed.get_backend_name()
    if backend == "postgresql" and "+" not in parsed.drivername:
        return parsed.set(drivername="postgresql+psycopg")
    if backend not in ("sqlite", "postgresql"):
        raise LedgerError(f"{place(parsed)} is no ledger: it must be a path, sqlite or postgresql")
    if backend == "sqlite" and not parsed.database:
        raise LedgerError("a ledger in memory would be lost: give --db a path")
    return parsed


def connect(url: str | Path, *, read_only: bool = False) -> Engine:
    """An engine whose every transaction is durable when it ends. Opens nothing yet."""
    where = address(url)
    if where.get_backend_name() == "postgresql":
        try:
            return _postgresql(where, read_only=read_only)
        except (ImportError, NoSuchModuleError):
            raise LedgerError(
                f"{place(where)} needs a PostgreSQL driver: pip install 'secateur[postgres]'"
            ) from None
    path = Path(str(where.database)).absolute()

    def open_file() -> sqlite3.Connection:
        # Never "rwc": a missing file is created on purpose, by open_or_create, or not at all.
        mode = "ro" if read_only else "rw"
        if read_only and _frozen(path):
            mode += "&immutable=1"
        found = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            timeout=_WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        found.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = FULL")
            # Pages that many commits change are copied into the file once for all of them.
            found.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            found.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        return found

    engine = sa.create_engine(where, creator=open_file)

    @listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own BEGIN would come too late to cover DDL and the first read.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(where: URL, *, read_only: bool) -> Engine:
    settings = {
        "connect_timeout": _CONNECT_S,
        # Of a server that vanished nobody hears a word; libpq would wait for a quarter of an hour.
        "tcp_user_timeout": int(_WAIT_S * 1000),
        # From the first answer on, which is in bytes from a database of no encoding.
        "client_encoding": "UTF8",
    }
    engine = sa.create_engine(
        where,
        connect_args={k: v for k, v in settings.items() if k not in where.query},
        # Said with each transaction: whoever is told that it cannot be serialised would be lost.
        isolation_level="READ COMMITTED",
    )
    statements = [f"SET {name} = '{value}'" for name, value in _SESSION.items()]
    if read_only:
        statements.append("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    @listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _: object) -> None:
        # Statements, not the startup packet's options, which connection poolers refuse.
        with closing(connection.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()

    return engine


def _check_place(engine: Engine, where: URL, *, read_only: bool) -> None:
    """Raises :class:`LedgerError` where a PostgreSQL database is not what a ledger needs."""
    if where.get_backend_name() != "postgresql":
        return
    with _explained(where), engine.connect() as connection:
        for name, (wanted, otherwise) in _DEMANDED.items():
            found = connection.execute(sa.text(f"SHOW {name}")).scalar_one()
            if found != wanted and (name == "server_encoding" or not read_only):
                raise LedgerError(f"{place(where)} {otherwise.format(found)}")
        if connection.execute(sa.text("SELECT current_schema()")).scalar() is None:
            raise LedgerError(
                f"{place(where)} has no schema to look in (see its search_path): set one that is "
                "there for this role, such as public"
            )


def open_existing(url: str | Path, *, read_only: bool = True) -> Engine:
    """A ledger that is there, of this version's revision. Creates nothing.

    Raises :class:`LedgerError`, in one line, for anything else.
    """
    where = address(url)
    _must_be_there(where)
    engine = connect(url, read_only=read_only)
    try:
        _check_place(engine, where, read_only=read_only)
        _check_revision(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_or_create(url: str | Path) -> Engine:
    """A ledger for writing; a database without tables gets them.

    Raises :class:`LedgerError`, in one line, when there is no way to write one there.
    """
    where = address(url)
    if where.get_backend_name() == "sqlite":
        with _explained(where):
            _make_file(Path(str(where.database)).absolute())
    engine = connect(url)
    try:
        _check_place(engine, where, read_only=False)
        with _explained(where), engine.begin() as connection:
            _alone(connection)
            if not sa.inspect(connection).get_table_names():
                _migrate(connection, "head")
        _check_revision(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine


def upgrade(url: str | Path) -> tuple[str | None, str]:
    """Bring an existing ledger to this version's revision; revisions before and after."""
    where = address(url)
    _must_be_there(where)
    engine = connect(url)
    try:
        _check_place(engine, where, read_only=False)
        before = _revision(engine, where)
        if before not in (None, _BASE) and not _known(before):
            raise LedgerError(
                f"{place(where)} is at revision {before}, which this version does not know: "
                "use the version of secateur that wrote it"
            )
        with _explained(where), engine.begin() as connection:
            _alone(connection)
            if before is None and sa.inspect(connection).get_table_names():
                raise LedgerError(_foreign(where))
            if before == _BASE:  # alembic's own word for it is no row at all
                connection.execute(sa.text("DELETE FROM alembic_version"))
            _migrate(connection, "head")
        return before, tables.HEAD
    finally:
        engine.dispose()


def revision(url: str | Path) -> str | None:
    """The revision that an existing ledger is at; None where it does not say."""
    where = address(url)
    _must_be_there(where)
    engine = connect(url, read_only=True)
    try:
        return _revision(engine, where)
    finally:
        engine.dispose()


def _revision(engine: Engine, where: URL) -> str | None:
    with _explained(where), engine.connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
        if "alembic_version" not in there:
            return None
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if found not in (None, _BASE):
            return found
        if there != {"alembic_version"}:
            raise LedgerError(
                f"{place(where)} has tables but its alembic_version names no revision of a "
                "ledger: restore it from a backup, or use another --db"
            )
        return _BASE


def config() -> "Config":
    """Alembic's configuration, as it is installed with the package."""
    from alembic.config import Config

    return Config(Path(__file__).parents[2] / "alembic.ini")


def _frozen(path: Path) -> bool:
    """Whether nothing can change beside the file: then SQLite may read it without its locks,
    which it could not make there (a ledger on a read-only disk)."""
    return not _writable(path.parent) and not Path(f"{path}-wal").exists()


def _alone(connection: Connection) -> None:
    """Wait until nobody else makes or migrates the ledger; SQLite's transactions do so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})


def _migrate(connection: Connection, revision: str) -> None:
    from alembic import command

    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)


def _check_revision(engine: Engine, where: URL) -> None:
    found = _revision(engine, where)
    if found == tables.HEAD:
        return
    if found is None:
        raise LedgerError(_foreign(where))
    if found > tables.HEAD:
        raise LedgerError(_newer(where, found))
    raise LedgerError(
        f"{place(where)} is at revision {found}, this version needs {tables.HEAD}: "
        f"run `secateur db upgrade --db {place(where)}`"
    )


def _known(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        return ScriptDirectory.from_config(config()).get_revision(revision) is not None
    except CommandError:
        return False


def _newer(where: URL, found: str) -> str:
    return (
        f"{place(where)} is at revision {found}, newer than this version's {tables.HEAD}: "
        "upgrade secateur (pip install -U secateur), or use another --db"
    )


def _foreign(where: URL) -> str:
    return f"{place(where)} is a database, but no ledger of ours: use another --db"


def _make_file(path: Path) -> None:
    """See that there is a file to write to; a new one is its owner's alone (mode 600).

    SQLite itself makes it: whoever else closes an open ledger's file takes away every lock that
    this process holds on it, and then another process may delete the log under its writers. The
    files beside it (``-wal``, ``-shm``, ``-journal``) get its mode.
    """
    try:
        if path.is_dir():
            raise LedgerError(
                f"{path} is a folder: give --db a file, such as {path / 'secateur.db'}"
            )
        if not path.parent.is_dir():
            raise LedgerError(f"{path.parent} is no folder: create it, or give --db another path")
        there = path.exists()
        if there and not path.is_file():
            raise LedgerError(f"{path} is no file: give --db another path")
        if not _writable(path if there else path.parent):
            raise LedgerError(f"{path} cannot be written: give --db a path you may write to")
        if not there:
            with NamedTemporaryFile() as private:  # mode 600, whatever the umask
                made = f"{path.as_uri()}?mode=rwc&modeof={quote(private.name)}"
                sqlite3.connect(made, uri=True).close()
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be written ({error.strerror}): give --db a path you may write to"
        ) from None


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _must_be_there(where: URL) -> None:
    if where.get_backend_name() != "sqlite":
        return
    path = Path(str(where.database))
    try:
        if path.is_dir():
            raise LedgerError(f"{path} is a folder: give --db the ledger's file in it")
        there = path.exists()
        if there and not path.is_file():
            raise LedgerError(f"{path} is no file: give --db a ledger's")
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror}): use another --db") from None
    if not there:
        raise LedgerError(
            f"there is no ledger at {path}: run an agent first, or name one with --db or "
            "SECATEUR_DB"
        )


def keep_off(out: Path, where: URL) -> None:
    """Raises :class:`LedgerError` where a file to read or write otherwise is the ledger's own."""
    if where.get_backend_name() != "sqlite" or not out.exists():
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        own = Path(f"{where.database}{suffix}")
        if own.exists() and own.samefile(out):
            raise LedgerError(f"{out} is the ledger itself: name another file")


def place(where: URL) -> str:
    """How a person would name it: the path, or the URL without its secrets."""
    if where.get_backend_name() == "sqlite":
        return str(where.database)
    return shown_url(where.render_as_string(hide_password=False))


@contextmanager
def _explained(where: URL) -> Iterator[None]:
    """Turn the driver's errors into one line that names the remedy."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise LedgerError(explain(error, place(where))) from None


def explain(error: Exception, name: str) -> str:
    """What a driver's error means for the ledger called ``name``, with the remedy."""
    if isinstance(error, LedgerError):
        return str(error)
    original = error.orig if isinstance(error, DBAPIError) else error
    said = redacted((str(original).strip().splitlines() or [type(error).__name__])[0])
    if 'database "' in said and "does not exist" in said:
        return f"{name} does not exist: make it with createdb, then run `secateur db upgrade`"
    known = {
        "not a database": f"{name} is not a database: use another --db",
        "malformed": f"{name} is damaged ({said}): restore it from a backup",
        "Could not decode": f"{name} is damaged (a text is no UTF-8): restore it from a backup",
        "read-only transaction": f"{name} is read-only: give --db a database you may write to",
        "readonly": f"{name} is read-only: give --db a path you may write to",
        "unable to open": f"{name} cannot be opened: see that it exists and may be read, or use "
        "another --db",
        "lock timeout": f"{name} is locked by another process: end it, or use another --db",
        "locked": f"{name} is locked by another process: end it, or use another --db",
        "full": f"the disk under {name} is full: make room, then run again",
        "No space left": f"the disk under {name} is full: make room, then run again",
        # PostgreSQL writes what still fits, and says no more than that.
        "wrote only": f"the disk under {name} is full: make room, then run again",
        "disk I/O": f"{name} cannot be read or written ({said}): see to the disk, then run again",
    }
    for sign, meaning in known.items():
        if sign in said:
            return meaning
    return f"{name}: {said}; see that the database is reachable and may be written to"
