"""The write side: open a ledger, start a run, go on with one."""

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from ...gates.canonical import digest
from . import connect
from .chain import GENESIS
from .errors import LedgerError
from .events import RunStart
from .provenance import run_digests
from .standing import read_chain
from .writing.appending import Clock, Known
from .writing.runlog import RunLog
from .writing.writer import Writer

if TYPE_CHECKING:
    from .integrity.checkpoints import Checkpoint
    from .integrity.signing import SigningKey

__all__ = ["Ledger", "new_run_id"]

T = TypeVar("T")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01; 40 bits of milliseconds last until 2059


def new_run_id(now: datetime | None = None) -> str:
    """Twelve base-32 characters that sort by time: 40 bits of milliseconds, 20 of chance."""
    stamp = int((now or datetime.now(UTC)).timestamp() * 1000) - _EPOCH_MS
    number = (stamp % (1 << 40)) << 20 | secrets.randbits(20)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(55, -1, -5))


class Ledger:
    """An open ledger; ``async with Ledger.open("secateur.db") as ledger``."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    @classmethod
    def open(cls, url: str | Path, *, clock: Clock | None = None) -> "Ledger":
        """Open ``x.db``, ``sqlite:///x.db`` or ``postgresql://…`` for writing; make it when new.

        Raises :class:`LedgerError`, in one line that names the remedy.
        """
        return cls(Writer(connect.open_or_create(url)), clock or Clock())

    async def start(self, start: RunStart) -> "RunLog":
        """Admit a run: its row, its policy, and the first event of its chain."""
        digests = run_digests(start)
        known = Known(start.run, start.agent, digests, digest(digests), 0, GENESIS, {})
        log = RunLog(known, self._writer, self._clock)
        await log.started(start)
        return log

    async def reopen(self, run: str) -> RunLog:
        """A run's record where it stands, to decide on it, to erase from it, or to resume it.

        Whoever appends first goes on: another writer of the run is refused from then on. Raises
        :class:`LedgerError` where the run is not there or its chain is damaged.
        """
        known = await self.ask(lambda connection: _known(connection, run))
        return RunLog(known, self._writer, self._clock)

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question, on one consistent view with all that was queued before.

        Raises :class:`LedgerError` where the database does not answer, and what ``question``
        raises.
        """
        await self._writer.flush()
        return await asyncio.to_thread(_asked, self._writer.url, question)

    async def checkpoint(self, key: "SigningKey") -> "Checkpoint":
        """Sign the last event of every run, all that was queued before included, and record it.

        Raises :class:`LedgerError` where the checkpoint before does not hold any more.
        """
        await self._writer.flush()
        return await asyncio.to_thread(_checkpoint, self._writer.url, key)

    async def aclose(self) -> None:
        """Finish writing and let go of the database."""
        await self._writer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _asked(url: URL, question: Callable[[Connection], T]) -> T:
    engine = connect.connect(url.render_as_string(hide_password=False), read_only=True)
    try:
        with engine.connect() as connection:
            return question(connection)
    except DBAPIError as error:
        raise LedgerError(connect.explain(error, connect.place(url))) from None
    finally:
        engine.dispose()


def _checkpoint(url: URL, key: "SigningKey") -> "Checkpoint":
    from .integrity.checkpoints import make_checkpoint

    engine = connect.connect(url.render_as_string(hide_password=False))
    try:
        return make_checkpoint(engine, key)
    finally:
        engine.dispose()


def _known(connection: Connection, run: str) -> Known:
    """Where the run stands, by its chain: what is derived from it could say anything."""
    chain = read_chain(connection, run)
    return Known(
        run=run,
        agent=chain.started["agent"],
        digests=chain.started["digests"],
        bound=chain.bound,
        seq=chain.events,
        head=chain.head,
        thoughts=chain.standing.status,
    )
