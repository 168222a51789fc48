"""One thread that writes, with group commit: what waits together is made durable together."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from ...logs import get_logger
from .. import tables
from ..connect import explain, place
from ..derive import Change
from ..errors import LedgerError
from ..search.index import index_some, take_turn
from .insertion import Inserter, MovedError, Rows, inserter

__all__ = ["Append", "Lane", "Writer"]

_log = get_logger(__name__)

_BATCH: Final = 512
"""Most appends in one transaction: enough for the disk, few enough to wait for."""

_MOST_APPENDS: Final = 4096
_MOST_BYTES: Final = 64 << 20
"""What may wait to be written; beyond either, whoever appends waits first."""

_FURTHEST_BEHIND: Final = 20_000
"""Events by which the full-text index may lag while there is no idle moment."""

_CLOSING_S: Final = 1.0
"""How long a writer that is closed goes on indexing."""

_PREV_HASH: Final = list(tables.event.c.keys()).index("prev_hash")

_SHARE: Final = 0.2
"""Of the newest measurement in a running mean."""

_LONGEST_ROUND_S: Final = 0.1
"""How long the writer waits at most for those to come back whom it has just woken."""

_LINGER_S: Final = 0.05
"""How long an append that nobody waits for may lie before it is written."""


@dataclass(slots=True)
class Lane:
    """One run's way through the writer. Once an append is lost, nothing behind it is written:
    an event after a lost one would leave a gap."""

    run: str
    failure: str | None = None
    told: bool = False
    """Whether somebody has heard of the failure."""
    inserter: Inserter | None = None
    """The connection through which its end was last seen."""

    def check(self) -> None:
        """Raises the :class:`LedgerError` that stopped this lane."""
        if self.failure is not None:
            self.told = True
            raise LedgerError(self.failure)


@dataclass(slots=True)
class Append:
    """The rows of one event; all of them become durable, or none."""

    lane: Lane
    event: tuple[Any, ...]
    """With the columns of its table, in order."""
    rows: Mapping[sa.Table, Sequence[tuple[Any, ...]]]
    """What else it adds, by table."""
    size: int
    """Bytes, nearly."""
    changes: Sequence[Change] = ()
    emptied: Sequence[str] = ()
    """Digests of the blobs whose bytes and salts go."""
    done: "asyncio.Future[None] | None" = field(default=None, init=False)
    """What somebody waits for; None where it rides along."""
    lost: bool = field(default=False, init=False)
    """Whether it was not written, as its lane's failure says."""

    @property
    def seq(self) -> int:
        """The event's number."""
        return self.event[1]


class Writer:
    """Writes appends in the order in which they were put.

    What fails stops the lanes that had rows in it, and no other: when the database is back, other
    lanes go on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.url = engine.url
        self._inserter: Inserter | None = None
        self._state = threading.Condition()
        self._queue: deque[Append] = deque()
        self._bytes = 0
        self._hurry = False
        """Whether somebody waits for what is in the queue."""
        self._in_flight = 0
        self._asleep = False
        self._closed = False
        self._rounds = 0
        """Event loops that have not yet let run everybody whom the last commit woke."""
        self._expected = 0
        """So many of whom it woke have not appended again and waited."""
        self._round_s = 0.0
        """How long that takes, and what a commit takes: running means."""
        self._commit_s = 0.0
        self._behind = 1
        """Events that the full-text index may still have to take, at a guess."""
        self._room: list[asyncio.Future[None]] = []
        self._untold: list[Lane] = []
        # A daemon: what was awaited is durable, and a crash must not wait for a broken disk.
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether too much waits already."""
        return len(self._queue) >= _MOST_APPENDS or self._bytes >= _MOST_BYTES

    async def room(self) -> None:
        """Returns when there is room for another append."""
        while True:
            with self._state:
                if not self.full or self._closed:
                    return
                freed = asyncio.get_running_loop().create_future()
                self._room.append(freed)
            await freed

    def put(self, append: Append, *, wait: bool) -> "asyncio.Future[None] | None":
        """Queue one append. With ``wait``, the future is done when it is durable.

        Raises :class:`LedgerError` at once when its lane has failed or the writer is closed.
        """
        append.lane.check()
        if wait:
            append.done = asyncio.get_running_loop().create_future()
        with self._state:
            if self._closed:
                raise LedgerError("the ledger is closed: open it again to write to it")
            self._queue.append(append)
            self._bytes += append.size
            self._hurry = self._hurry or wait
            if wait:
                self._expected -= 1
            # Once for what comes together, and once for the first that nobody waits for.
            if self._asleep and (self._complete if wait else len(self._queue) == 1):
                self._asleep = False
                self._state.notify()
        return append.done

    async def flush(self) -> None:
        """Returns when nothing waits to be written any more."""
        while True:
            with self._state:
                if not self._queue and not self._in_flight:
                    return
                settled = asyncio.get_running_loop().create_future()
                self._room.append(settled)
                self._hurry = bool(self._queue)
                self._state.notify()
            await settled

    async def aclose(self) -> None:
        """Write what waits, then let go of the database.

        Raises :class:`LedgerError` where something was lost that nobody was told of.
        """
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify()
        await asyncio.to_thread(self._thread.join)
        self._engine.dispose()
        for lane in self._untold:
            if not lane.told:
                lane.check()

    def _work(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                if self._closed:
                    break
                self._index()
                continue
            self._settle(batch)
            with self._state:
                self._in_flight = 0
                rooms, self._room = self._room, []
            self._wake(batch, rooms)
            self._behind += len(batch)
            if self._behind > _FURTHEST_BEHIND:
                self._index()
        until = time.monotonic() + _CLOSING_S
        while self._behind and time.monotonic() < until:
            self._index()
        if self._inserter is not None:
            self._inserter.close()

    def _take(self) -> list[Append]:
        """All that waits, as soon as somebody waits for it; nothing when closed or idle."""
        with self._state:
            until = time.monotonic() + min(self._commit_s, _LONGEST_ROUND_S)
            while not (self._hurry and self._complete) and not self._closed:
                if self._rounds:
                    left = until - time.monotonic()
                    if left <= 0 or not self._sleep(left):
                        self._rounds = 0  # a loop that is busy, or closed for good
                elif not self._sleep(_LINGER_S if self._queue or self._behind else None):
                    break
            batch: list[Append] = []
            while self._queue and len(batch) < _BATCH:
                batch.append(self._queue.popleft())
            self._bytes -= sum(append.size for append in batch)
            self._hurry = self._hurry and bool(self._queue)
            self._in_flight = len(batch)
            return batch

    def _sleep(self, seconds: float | None) -> bool:
        """Whether somebody woke this thread before so many seconds had passed."""
        self._asleep = True
        timely = self._state.wait(seconds)
        self._asleep = False
        return timely

    @property
    def _complete(self) -> bool:
        """Whether nobody is worth waiting for.

        Who was just woken will soon be back. Where a commit takes longer than their round, it pays
        to take them along; where not, they had better work while this one is made.
        """
        return (
            not self._rounds
            or self._expected <= 0
            or self._commit_s <= self._round_s
            or len(self._queue) >= _BATCH
        )

    def _index(self) -> None:
        """Bring the full-text index a little nearer to what was committed."""
        try:
            with self._engine.begin() as connection:
                # Nothing, where another process is at it.
                indexed = index_some(connection) if take_turn(connection) else 0
        except DBAPIError as error:
            # Searches read what is not indexed by themselves; the next events try again.
            _log.warning("full text not indexed", why=explain(error, place(self.url)))
            indexed = 0
        self._behind = max(1, self._behind - indexed) if indexed else 0

    def _settle(self, batch: Sequence[Append]) -> None:
        """Make the batch durable; where that fails, stop the lanes concerned."""
        going: list[Append] = []
        for append in batch:
            append.lost = append.lane.failure is not None
            if not append.lost:
                going.append(append)
        if not going:
            return
        try:
            self._write(going)
        except self._trouble as error:
            self._stop(going, explain(error, place(self.url)))
        except Exception as error:
            lanes = {id(append.lane): append.lane for append in going}
            if len(lanes) == 1:
                self._stop(going, _fault(error, going))
                return
            # One of them brought a row that the database refuses; the others did nothing wrong.
            for lane in lanes.values():
                self._settle([append for append in going if append.lane is lane])

    @property
    def _trouble(self) -> tuple[type[Exception], ...]:
        """What the driver raises when the database, not a row, is at fault."""
        driver = self._engine.dialect.loaded_dbapi
        return (driver.OperationalError, OperationalError, MovedError, OSError)

    def _stop(self, appends: Iterable[Append], why: str) -> None:
        for append in appends:
            lane = append.lane
            append.lost = True
            if lane.failure is None:
                lane.failure = (
                    f"{why}; run {lane.run} stops before event {append.seq}, what was "
                    f"acknowledged is kept: resume it with `secateur run --resume {lane.run}`"
                    if append.seq
                    else f"{why}; run {lane.run} was not begun, and nothing of it is kept: run it "
                    "again"
                )
                self._untold.append(lane)

    def _write(self, appends: Sequence[Append]) -> None:
        """One transaction. A connection that was lost is made anew, once."""
        fresh = self._inserter is None
        committing = False
        try:
            opened = self._open()
            opened.begin()
            _check_ends(opened, appends)
            _insert(opened, appends)
            committing = True
            began = time.perf_counter()
            opened.commit()
            self._commit_s += _SHARE * (time.perf_counter() - began - self._commit_s)
        except BaseException as error:
            if isinstance(error, MovedError):
                self._leave()
                raise
            if self._undo() or fresh:
                raise
            # The connection is gone, so the transaction is undone, or it is done and nobody could
            # say so; then the last event is there.
            if not (committing and self._landed(appends[-1])):
                self._write(appends)

    def _wake(self, batch: Iterable[Append], rooms: Iterable["asyncio.Future[None]"]) -> None:
        """Let go of who waits: one call into each event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[_End]] = {}
        for append in batch:
            if append.done is not None:
                end = (append.done, append.lane if append.lost else None)
                loops.setdefault(append.done.get_loop(), []).append(end)
        for room in rooms:
            loops.setdefault(room.get_loop(), []).append((room, None))
        with self._state:
            self._rounds += len(loops)
            self._expected = sum(map(len, loops.values()))
        for loop, ends in loops.items():
            try:
                loop.call_soon_threadsafe(self._begin_round, loop, ends, time.perf_counter())
            except RuntimeError:  # that loop is closed, so nobody waits there any more
                with self._state:
                    self._rounds -= 1

    def _begin_round(
        self, loop: asyncio.AbstractEventLoop, ends: Iterable["_End"], began: float
    ) -> None:
        for future, stopped in ends:
            if future.done():  # its task was cancelled; the event is written all the same
                continue
            if stopped is None:
                future.set_result(None)
            else:
                stopped.told = True
                future.set_exception(LedgerError(stopped.failure))
        loop.call_soon(self._end_round, began)  # after all whom this has woken

    def _end_round(self, began: float) -> None:
        with self._state:
            self._rounds = max(0, self._rounds - 1)
            self._round_s += _SHARE * (time.perf_counter() - began - self._round_s)
            if not self._rounds and self._hurry and self._asleep:
                self._asleep = False
                self._state.notify()

    def _open(self) -> Inserter:
        if self._inserter is None:
            self._inserter = inserter(self._engine)
        return self._inserter

    def _undo(self) -> bool:
        """Whether the transaction could be undone; without that the inserter is let go."""
        if self._inserter is None:
            return False
        try:
            self._inserter.rollback()
        except Exception:
            self._leave()
            return False
        return True

    def _leave(self) -> None:
        if self._inserter is not None:
            self._inserter.close()
            self._inserter = None

    def _landed(self, append: Append) -> bool:
        found = self._open().first(
            "SELECT hash FROM event WHERE run_id = ? AND seq = ?", append.event[:2]
        )
        return found is not None and found[0] == append.event[-1]


_End = tuple["asyncio.Future[None]", Lane | None]
"""Whom to wake, and the lane that stopped where the append was lost."""


def _fault(error: Exception, appends: Sequence[Append]) -> str:
    """What is wrong with the rows of one run."""
    if isinstance(error, LedgerError):
        return str(error)
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "pk_event" in said or "event is append-only" in said:
        return (
            f"run {appends[0].lane.run} has such an event already: another writer appends to "
            "this run, and one of the two must end"
        )
    return f"the database refuses a row: {said}"


def _check_ends(opened: Inserter, appends: Iterable[Append]) -> None:
    """See once through each connection that it leads to what was acknowledged before: not to a
    restored backup, nor to a standby that had not heard of everything."""
    for append in appends:
        lane = append.lane
        if lane.inserter is not opened and append.seq:
            query = "SELECT hash FROM event WHERE run_id = ? AND seq = ?"
            found = opened.first(query, (lane.run, append.seq - 1))
            if found is None or found[0] != append.event[_PREV_HASH]:
                raise LedgerError(
                    f"event {append.seq - 1} of run {lane.run} is not in the database any more: "
                    "it lost what it had acknowledged, or is another one"
                )
        lane.inserter = opened


def _insert(opened: Inserter, appends: Sequence[Append]) -> None:
    rows: Rows = {tables.event: [append.event for append in appends]}
    for append in appends:
        for table, several in append.rows.items():
            rows.setdefault(table, []).extend(several)
    if tables.policy in rows:
        rows[tables.policy] = list({row[0]: row for row in rows[tables.policy]}.values())
    opened.insert(rows)
    changes = [(append.lane.run, change) for append in appends for change in append.changes]
    for run, change in changes:
        statement, values = _update(change)
        if change.table == "decision":
            which, given = "seq = ?", (change.seq,)
        elif change.seq is None:
            which, given = "id = ?", (change.thought,)
        else:  # by the event itself: what the row says of it could have been changed
            which = "id = (SELECT thought_id FROM event WHERE run_id = ? AND seq = ?)"
            given = (run, change.seq)
        opened.execute(f"{statement} WHERE run_id = ? AND {which}", [(*values, run, *given)])
    emptied = [(b"", b"", digest) for append in appends for digest in append.emptied]
    if emptied:
        opened.execute("UPDATE blob SET bytes = ?, salt = ? WHERE digest = ?", emptied)


def _update(change: Change) -> tuple[str, list[Any]]:
    names = ", ".join(f"{name} = ?" for name in change.columns)
    return f"UPDATE {change.table} SET {names}", list(change.columns.values())
