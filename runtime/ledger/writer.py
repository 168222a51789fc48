"""One thread that writes, with group commit: what waits together is made durable together."""

import asyncio
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from . import tables
from .connect import explain, place
from .derive import Change
from .errors import LedgerError

__all__ = ["Append", "Writer"]

_BATCH = 512
"""Most appends in one transaction: enough for the disk, few enough to wait for."""

_ORDER = (tables.blob, tables.run, tables.event, tables.thought, tables.tag_score)
"""Parents before children, for the foreign keys."""

_CHANGE = (
    sa.update(tables.thought)
    .where(
        tables.thought.c.run_id == sa.bindparam("in_run"),
        tables.thought.c.id == sa.bindparam("thought"),
    )
    .values(
        status=sa.func.coalesce(sa.bindparam("new_status", type_=sa.Text), tables.thought.c.status),
        reason=sa.func.coalesce(sa.bindparam("new_reason", type_=sa.Text), tables.thought.c.reason),
        score=sa.func.coalesce(sa.bindparam("new_score", type_=sa.Double), tables.thought.c.score),
    )
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Append:
    """The rows of one event; all of them become durable, or none."""

    run: str
    rows: Sequence[tuple[sa.Table, Row]]
    changes: Sequence[Change] = ()
    policy: Row | None = None
    """A policy that the ledger may have already."""


@dataclass(slots=True)
class _Waiting:
    append: Append
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None] = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.loop.create_future()


class Writer:
    """Writes appends in the order in which they were put.

    A write that fails is final: what waits and whatever comes later fails with the same
    :class:`LedgerError`, because an event after a lost one would leave a gap.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._failure: LedgerError | None = None
        self._closed = False
        # A daemon: what was awaited is durable, and a crash must not wait for a broken disk.
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def put(self, append: Append) -> asyncio.Future[None]:
        """Queue one append; the future is done when it is durable.

        Raises :class:`LedgerError` at once after a failure or when closed.
        """
        if self._failure is not None:
            raise LedgerError(str(self._failure))
        if self._closed:
            raise LedgerError("the ledger is closed: open it again to write to it")
        waiting = _Waiting(append, asyncio.get_running_loop())
        self._queue.put(waiting)
        return waiting.done

    async def aclose(self) -> None:
        """Write what waits, then let go of the database."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._engine.dispose()

    def _work(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, last = self._gather(first)
            self._settle(batch)
            if last:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """All that waits now, and whether the writer was closed behind it."""
        batch = [first]
        while len(batch) < _BATCH:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _settle(self, batch: list[_Waiting]) -> None:
        if self._failure is None:
            try:
                with self._engine.begin() as connection:
                    _write(connection, [waiting.append for waiting in batch])
            except DBAPIError as error:
                name = place(self._engine.url)
                self._failure = LedgerError(f"{explain(error, name)}; nothing more was recorded")
            except Exception as error:
                # Whatever it was, the rows are not there: the runs that wait must hear of it.
                self._failure = LedgerError(f"the ledger cannot be written: {error!r}")
        for loop in {waiting.loop for waiting in batch}:
            ours = [waiting.done for waiting in batch if waiting.loop is loop]
            try:
                loop.call_soon_threadsafe(_wake, ours, self._failure)
            except RuntimeError:
                continue  # that loop is closed, so nobody waits there any more


def _wake(futures: Iterable[asyncio.Future[None]], failure: LedgerError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled; the event is written all the same
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(LedgerError(str(failure)))


def _write(connection: Connection, appends: Sequence[Append]) -> None:
    for policy in (append.policy for append in appends if append.policy is not None):
        connection.execute(_insert_new_policy(connection.dialect.name), policy)
    by_table: dict[sa.Table, list[Row]] = {table: [] for table in _ORDER}
    for append in appends:
        for table, row in append.rows:
            by_table[table].append(row)
    for table, rows in by_table.items():
        if rows:
            connection.execute(sa.insert(table), rows)
    changed = [
        {"in_run": append.run, **_renamed(change)}
        for append in appends
        for change in append.changes
    ]
    if changed:
        connection.execute(_CHANGE, changed)


def _renamed(change: Change) -> Row:
    values = asdict(change)
    return {"thought": values.pop("thought"), **{f"new_{k}": v for k, v in values.items()}}


def _insert_new_policy(dialect: str) -> sa.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(tables.policy).on_conflict_do_nothing()
