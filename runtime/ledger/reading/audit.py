"""The read side: what ran, what was cut and why. Opens the ledger read-only."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Self, TextIO, TypeVar, Unpack

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, NoResultFound

from ....gates.policy import Policy
from ....gates.verdict import Judgement
from ... import private
from .. import connect
from ..errors import LedgerError
from ..integrity import verification
from ..integrity.checkpoints import Checkpoint, checkpoints, stored_checkpoint
from . import diff, export, fetch, listing, parquet, rejudge
from . import sql as readonly
from . import why as explain
from .answers import EventRow, FoundRow, PrunedRow, RunRow, ThoughtRow
from .diff import Diff
from .explanation import Explanation
from .filters import CutFilters, Filters, Narrow, RunFilters
from .page import Cursor, Page, one_more, page
from .replay import Replay
from .sql import Answer
from .waiting import Waiting, waiting

__all__ = ["AuditLog"]

T = TypeVar("T", PrunedRow, FoundRow)

_UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    StopIteration,
    NoResultFound,
)
"""What reading raises when a row is not as the ledger writes it: no JSON, a name or row gone."""


class AuditLog:
    """Questions to a ledger: ``with AuditLog("secateur.db") as audit: audit.pruned(tag="deceit")``.

    Runs and thoughts are named by their id or the start of it. Raises :class:`LedgerError`, in
    one line, for a ledger that is not there or not of this version, and for a name that is not in
    it. Creates nothing.
    """

    def __init__(self, url: str | Path) -> None:
        self._engine = connect.open_existing(url)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def runs(
        self, limit: int | None = None, after: str | None = None, **filters: Unpack[RunFilters]
    ) -> Page[RunRow]:
        """Runs, newest first. ``after`` is a page's ``next``, or ``TIME,RUN`` of its last row."""
        return self._runs(Narrow.of(filters), limit, after)

    def _runs(self, narrow: Narrow, limit: int | None, after: str | None) -> Page[RunRow]:
        below = None if after is None else Cursor.read(after, 2)
        with self._asking() as connection:
            rows = listing.runs(connection, narrow, one_more(limit), below)
        return page(
            rows,
            limit,
            lambda row: f"{row.started_at},{row.run}",
            lambda next: self._runs(narrow, limit, next),
        )

    def run(self, run: str) -> RunRow:
        """One run, and how it went."""
        with self._asking() as connection:
            return fetch.run_rows(connection, [fetch.run_id(connection, run)])[0]

    def events(
        self,
        run: str,
        *,
        kind: str | None = None,
        actor: str | None = None,
        thought: str | None = None,
        since: date | str | None = None,
        until: date | str | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> Page[EventRow]:
        """A run's chain, in order; ``after`` is the ``seq`` that was seen last."""
        narrow = Narrow.of({"since": since, "until": until})

        def ask(next: int | None) -> Page[EventRow]:
            with self._asking() as connection:
                rows = listing.events(
                    connection,
                    fetch.run_id(connection, run),
                    kind=kind,
                    actor=actor,
                    thought=thought,
                    since=narrow.since,
                    until=narrow.until,
                    after=next,
                    limit=one_more(limit),
                )
            return page(rows, limit, lambda row: str(row.seq), lambda place: ask(int(place)))

        return ask(after)

    def thoughts(self, run: str) -> list[ThoughtRow]:
        """A run's graph, in the order in which it was recorded."""
        with self._asking() as connection:
            return fetch.thoughts(connection, fetch.run_id(connection, run))

    def pruned(
        self, limit: int | None = 50, after: str | None = None, **filters: Unpack[CutFilters]
    ) -> Page[PrunedRow]:
        """Branches that were cut, newest first; ``tag``, ``reading`` and the scores are those that
        decided. ``after`` is a page's ``next``, or ``TIME,RUN,THOUGHT`` of its last row.
        """
        if filters.get("status") is not None:
            raise LedgerError("what is pruned has one status: search() takes others")
        return self._thoughts(listing.pruned, {**filters, "status": "pruned"}, limit, after)

    def search(
        self,
        text: str | None = None,
        limit: int | None = 50,
        after: str | None = None,
        **filters: Unpack[Filters],
    ) -> Page[FoundRow]:
        """Thoughts of any fate, newest first, by words and filters.

        ``text`` is plain words and "quoted phrases", all of which must be there. With ``reading``
        the scores are those that were recorded for the ``tag`` (or any), whether they decided or
        not; without it, those that decided.
        """
        return self._thoughts(listing.found, {**filters, "text": text}, limit, after)

    def _thoughts(
        self,
        ask: Callable[[Connection, Narrow, int | None, Cursor | None], list[T]],
        filters: Mapping[str, Any],
        limit: int | None,
        after: str | None,
    ) -> Page[T]:
        with self._asking() as connection:
            run = filters.get("run")
            within = None if run is None else fetch.run_id(connection, run)
        narrow = Narrow.of(filters, run=within)

        def part(place: str | None) -> Page[T]:
            below = None if place is None else Cursor.read(place, 3)
            with self._asking() as connection:
                rows = ask(connection, narrow, one_more(limit), below)
            return page(rows, limit, lambda row: f"{row.at},{row.run},{row.thought}", part)

        return part(after)

    def waiting(self, run: str | None = None) -> list[Waiting]:
        """What a person has to decide on, oldest first."""
        with self._asking() as connection:
            return waiting(connection, None if run is None else fetch.run_id(connection, run))

    def why(self, thought: str, run: str | None = None) -> Explanation:
        """Everything about the verdict on one thought.

        The same task with the same seed makes the same thoughts: where several runs have it, the
        newest in which it was cut is explained, unless ``run`` names another.
        """
        with self._asking() as connection:
            within = None if run is None else fetch.run_id(connection, run)
            id, runs = fetch.runs_with(connection, thought, within)
            return explain.explain(connection, id, runs[0], runs[1:])

    def recompute(self, run: str, thought: str) -> Judgement:
        """A verdict again, from stored evidence and stored policy alone."""
        with self._asking() as connection:
            within = fetch.run_id(connection, run)
            id, _ = fetch.runs_with(connection, thought, within)
            fetch.confirmed(connection, within, [id])
            found = fetch.thoughts(connection, within, id)[0]
            digests = [] if found.evidence is None else [found.evidence]
            blobs = fetch.contents(connection, digests)
            stored = fetch.stored(found, fetch.bound(connection, within), blobs)
        if stored is None:
            raise LedgerError(f"thought {id} was not judged: it has no evidence to judge again")
        return stored.judge()

    def replay(self, run: str, policy: Policy | None = None) -> Replay:
        """The verdicts of one run whose action another policy turns.

        Without a policy, those that the run's own does not give again to the last digit: none, in
        a whole ledger. Raises :class:`PolicyError` where the policy does not fit the run's tags.
        """
        with self._asking() as connection:
            return rejudge.replay(connection, fetch.run_id(connection, run), policy)

    def replays(self, policy: Policy | None = None, processes: int = 1) -> Iterator[Replay]:
        """The same of every run, newest first, each as soon as it is judged; a run with other tags
        than the policy's is ``unfit``.
        """
        ids = self.run_ids()
        if processes == 1:
            for run in ids:
                with self._asking() as connection:
                    found = rejudge.replay_if_fit(connection, run, policy)
                yield found
        else:
            yield from rejudge.in_processes(self._engine.url, ids, policy, processes)

    def run_ids(self) -> list[str]:
        """The ids of all runs, newest first."""
        with self._asking() as connection:
            return listing.run_ids(connection, Narrow(), None, None)

    def diff(self, left: str, right: str) -> Diff:
        """Two runs compared, branch by branch."""
        with self._asking() as connection:
            ids = [fetch.run_id(connection, run) for run in (left, right)]
            return diff.compare(connection, *ids)

    def sql(self, query: str, limit: int | None = 1000, timeout_s: float = 60) -> Answer:
        """What one SELECT answers, on a connection that cannot write."""
        return readonly.ask(self._engine, query, limit, timeout_s)

    def to_jsonl(
        self, out: Path | TextIO, run: str | None = None, *, complete: bool = False
    ) -> Counter[str]:
        """Write one run, or all, as JSON lines; how many of each kind. The file is there whole or
        not at all; a new one is its owner's alone."""
        if isinstance(out, Path):
            connect.keep_off(out, self._engine.url)
            with private.written(out) as unfinished, unfinished.open("w", encoding="utf-8") as file:
                return self.to_jsonl(file, run, complete=complete)
        counts = Counter[str]()
        with self._asking() as connection:
            within = None if run is None else fetch.run_id(connection, run)
            if complete:
                lines = export.complete_lines(connection, within, counts)
            else:
                ids = listing.run_ids(connection, Narrow(), None, None)
                lines = export.lines(connection, ids if within is None else [within], counts)
            for line in lines:
                out.write(line)
        return counts

    def to_parquet(self, out: Path, run: str | None = None) -> Counter[str]:
        """Write one run, or all, as Parquet; how many rows of each kind. ``out`` is a file of
        steps where its name ends in ``.parquet``, else a folder with a file for each table.

        Raises :class:`LedgerError` without pyarrow.
        """
        connect.keep_off(out, self._engine.url)
        counts = Counter[str]()
        with self._asking() as connection:
            ids = listing.run_ids(connection, Narrow(), None, None)
            if run is not None:
                ids = [fetch.run_id(connection, run)]
            write = parquet.write_steps if out.suffix == ".parquet" else parquet.write_tables
            write(connection, ids, out, counts)
        return counts

    def verify(
        self,
        run: str | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        key: str | None = None,
        processes: int = 1,
        progress: Callable[[int, int], object] | None = None,
    ) -> verification.Verification:
        """Whether one run, or the whole ledger, is as it was written.

        ``checkpoint`` is one that was kept elsewhere (:func:`.read_checkpoint`), ``key`` the public
        key that checkpoints must be signed with; ``progress`` is told of events done, and of all.
        """
        within = None
        if run is not None:
            with self._asking() as connection:
                within = fetch.run_id(connection, run)
        return verification.verify(
            self._engine,
            within,
            checkpoint=checkpoint,
            key=key,
            processes=processes,
            progress=progress or (lambda done, events: None),
        )

    def checkpoints(self) -> list[Checkpoint]:
        """The signed checkpoints that the ledger holds, oldest first, without their heads."""
        with self._asking() as connection:
            return checkpoints(connection)

    def checkpoint(self, number: int | None = None) -> Checkpoint:
        """One checkpoint with its heads, which can prove a run; the newest, if no number."""
        with self._asking() as connection:
            return stored_checkpoint(connection, number)

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """One consistent view of the ledger."""
        try:
            with self._engine.connect() as connection:
                if connection.dialect.name == "postgresql":  # elsewhere, each statement has its own
                    connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection
        except DBAPIError as error:
            name = connect.place(self._engine.url)
            raise LedgerError(connect.explain(error, name)) from None
        except _UNREADABLE as error:
            raise LedgerError(fetch.damaged(connect.place(self._engine.url))) from error
