"""Erasing what was said, for privacy: the bytes go, the chain stays, and says who did it and why.

An event names its blobs by a salted digest. Without salt and bytes that digest tells nothing, so
the chain need not change when they go. What is erased is taken out of the derived rows and the
full-text index too, and on SQLite out of the file's free pages and its write-ahead log.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from . import connect, tables
from .chain import from_text
from .errors import LedgerError
from .events import ErasedBlob, EventKind
from .folders import Folder, folder_of
from .ledger import Ledger
from .reading import fetch
from .search import index as passages

__all__ = ["WHAT", "Erasure", "Swept", "erase", "find", "sweep"]

WHAT: Final = (
    "prompt", "text", "value", "evidence", "discarded", "arguments", "result", "reason", "note",
    "task",
)  # fmt: skip
"""Everything that events name as a blob."""

_REWRITTEN: Final = ("blob", "thought", "decision", "passage", "passage_words")
"""PostgreSQL's tables that held what was erased."""

_QUOTING: Final = frozenset({EventKind.JUDGED, EventKind.PLACED, EventKind.DECIDED})
"""Events whose reason may quote a text; it lies in a blob now."""

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to be erased: blobs of one run, or of one thought in it."""

    run: str
    thought: str | None
    blobs: tuple[ErasedBlob, ...]
    bytes: int
    thoughts: tuple[str, ...]
    """Whose words may be in the full-text index."""
    finished: bool
    """Whether the run has ended; one that is still going stops when something is erased from it."""
    folder: Folder | None = None
    """Where its tools acted; only where the whole run is erased."""
    hashed: int = 0
    """Reasons and notes that stand in hashed events, where version 0.1 wrote them: they stay."""

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for blob in self.blobs:
            counts[blob.name] = counts.get(blob.name, 0) + 1
        named = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        whose = f"run {self.run}" if self.thought is None else f"thought {self.thought}"
        text = f"{whose}: {named or 'nothing that is left'} ({self.bytes:,} bytes)"
        if self.folder is not None:
            text += f"; {self.folder}"
        if self.hashed:
            one = self.hashed == 1
            said = (
                "1 reason of version 0.1 stands"
                if one
                else f"{self.hashed} reasons of version 0.1 stand"
            )
            stay = "stays" if one else "stay"
            text += f"; {said} in hashed events and {stay}"
        return text

    @property
    def empty(self) -> bool:
        """Whether nothing is left that could be erased."""
        return not self.blobs and (self.folder is None or self.folder.stays is not None)


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of the copies that a database keeps of what was deleted."""

    complete: bool
    remark: str


def find(
    connection: Connection, name: str, what: Collection[str] = WHAT, run: str | None = None
) -> list[Erasure]:
    """What there is to erase of a run, or of a thought in every run that has it (or in ``run``).

    ``name`` is an id or the start of one. Blobs that are erased already are left out. Raises
    :class:`LedgerError` where nothing, or more than one thing, is called so.
    """
    unknown = sorted(set(what) - set(WHAT))
    if unknown:
        raise LedgerError(f"{unknown[0]!r} is nothing that can be erased: say {', '.join(WHAT)}")
    if run is None:
        try:
            return [_of(connection, fetch.run_id(connection, name), None, what)]
        except LedgerError as none:
            if not str(none).startswith("no run"):
                raise
    within = None if run is None else fetch.run_id(connection, run)
    try:
        thought, wanted = fetch.named_in_events(connection, name, within)
    except LedgerError as none:
        if within is not None or not str(none).startswith("no thought"):
            raise
        raise LedgerError(
            f"neither a run nor a thought starts with {name!r}: `secateur audit runs` lists the "
            "runs, `secateur audit tree RUN` their thoughts"
        ) from None
    return [_of(connection, each, thought, what) for each in wanted]


async def erase(url: str | Path, erasure: Erasure, *, by: str, reason: str) -> str | None:
    """Make it so: the bytes and salts go in one transaction with the event that says it, then the
    folder of the run's tools; what of that is left, in words.

    The words leave the full-text index before, with none of the run left to index, and what is
    left of them comes back after. Raises
    :class:`LedgerError` where somebody else writes the run, or nothing is left to erase.
    """
    if erasure.blobs or erasure.empty:
        await _erase_blobs(url, erasure, by, reason)
    return None if erasure.folder is None else await asyncio.to_thread(erasure.folder.erase)


async def _erase_blobs(url: str | Path, erasure: Erasure, by: str, reason: str) -> None:
    engine = connect.open_existing(url, read_only=False)
    try:
        async with Ledger.open(url) as ledger:
            log = await ledger.reopen(erasure.run)
            await asyncio.to_thread(_index, engine, erasure, passages.forget)
            await log.erased(erasure.blobs, by=by, reason=reason)
        await asyncio.to_thread(_index, engine, erasure, passages.remember)
    except DBAPIError as error:
        raise LedgerError(connect.explain(error, connect.place(engine.url))) from None
    finally:
        engine.dispose()


def sweep(engine: Engine) -> Swept:
    """Write the database anew without what was deleted, where its pages and logs still hold it.

    SQLite: ``VACUUM``, then the write-ahead log is cut; it needs the file's size again, and the
    file for itself. PostgreSQL: ``VACUUM FULL`` of the tables concerned, which locks them
    meanwhile. Copies that somebody made (backups, replicas, archived logs) are out of reach.
    """
    postgresql = engine.dialect.name == "postgresql"
    connection = engine.raw_connection()
    try:
        driver: Any = connection.driver_connection
        if postgresql:
            driver.autocommit = True
            refused: list[str] = []  # who may not is told in a notice, not in an error
            driver.add_notice_handler(lambda said: refused.append(said.message_primary))
            # ANALYZE, for a column's commonest values stand in the statistics too.
            for table in _REWRITTEN:
                driver.execute(f"VACUUM (FULL, ANALYZE) {table}")
            if not refused:
                # Of an empty table it leaves the old ones; a column's type takes its own along.
                driver.execute("ALTER TABLE passage_words ALTER COLUMN words TYPE tsvector")
                driver.execute("VACUUM FULL pg_catalog.pg_statistic")
            if refused:
                return Swept(False, f"{refused[0]}: run VACUUM FULL as the owner of the tables")
            return Swept(True, f"the tables {', '.join(_REWRITTEN)} were written anew without them")
        driver.execute("VACUUM")
        busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except engine.dialect.loaded_dbapi.Error as error:
        return Swept(False, connect.explain(error, connect.place(engine.url)))
    finally:
        connection.invalidate()
    if busy:
        where = connect.place(engine.url)
        return Swept(False, f"{where} is open elsewhere: its write-ahead log may still have them")
    return Swept(True, "the file was written anew without them")


def _of(connection: Connection, run: str, thought: str | None, what: Collection[str]) -> Erasure:
    event, erased = tables.event.c, tables.erasure.c
    gone = connection.execute(sa.select(erased.digest).where(erased.run_id == run)).scalars()
    known = set(gone)
    query = sa.select(event.seq, event.kind, event.thought_id, event.blobs, event.body)
    query = query.where(event.run_id == run)
    if thought is not None:
        query = query.where(event.thought_id == thought)
    blobs: list[ErasedBlob] = []
    thoughts: dict[str, None] = {}
    hashed = 0
    for row in connection.execute(query.order_by(event.seq)):
        for name, digest in from_text(row.blobs).items():
            if name in what and digest not in known:
                blobs.append(ErasedBlob(digest, row.seq, name, row.thought_id))
                if row.thought_id is not None:
                    thoughts[row.thought_id] = None
        hashed += row.kind in _QUOTING and from_text(row.body).get("reason") is not None
    return Erasure(
        run=run,
        thought=thought,
        blobs=tuple(blobs),
        bytes=_size(connection, [blob.digest for blob in blobs]),
        thoughts=tuple(thoughts),
        finished=_finished(connection, run),
        folder=folder_of(connection, run) if thought is None and "task" in what else None,
        hashed=hashed,
    )


def _size(connection: Connection, digests: Sequence[str]) -> int:
    blob = tables.blob.c
    total = 0
    for start in range(0, len(digests), _AT_ONCE):
        query = sa.select(sa.func.sum(sa.func.length(blob.bytes)))
        some = query.where(blob.digest.in_(digests[start : start + _AT_ONCE]))
        total += connection.execute(some).scalar() or 0
    return total


def _finished(connection: Connection, run: str) -> bool:
    event = tables.event.c
    last = sa.select(sa.func.max(event.seq)).where(event.run_id == run)
    ended = connection.execute(last.where(event.kind == EventKind.RUN_FINISHED.value)).scalar()
    resumed = connection.execute(last.where(event.kind == EventKind.RESUMED.value)).scalar()
    return ended is not None and ended > (-1 if resumed is None else resumed)


def _index(
    engine: Engine, erasure: Erasure, change: Callable[[Connection, str, Sequence[str]], None]
) -> None:
    with engine.begin() as connection:
        passages.catch_up(connection, erasure.run)
        for start in range(0, len(erasure.thoughts), _AT_ONCE):
            change(connection, erasure.run, erasure.thoughts[start : start + _AT_ONCE])
