"""The read side: what ran, what was cut and why. Opens the ledger read-only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, NoResultFound

from ...gates.policy import Policy
from ...gates.verdict import Judgement
from . import connect, explain, fetch, integrity
from .checkpoints import Checkpoint, checkpoints, stored_checkpoint
from .errors import LedgerError
from .rows import EventRow, Explanation, Flip, PrunedRow, RunRow, ThoughtRow

__all__ = ["AuditLog"]

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

    def runs(self, limit: int | None = None) -> list[RunRow]:
        """All runs, newest first."""
        with self._asking() as connection:
            return fetch.runs(connection, None, limit)

    def run(self, run: str) -> RunRow:
        """One run, and how it went."""
        with self._asking() as connection:
            return fetch.runs(connection, [fetch.run_id(connection, run)], None)[0]

    def events(self, run: str) -> list[EventRow]:
        """A run's chain, in order."""
        with self._asking() as connection:
            return fetch.events(connection, fetch.run_id(connection, run))

    def thoughts(self, run: str) -> list[ThoughtRow]:
        """A run's graph, in the order in which it was recorded."""
        with self._asking() as connection:
            return fetch.thoughts(connection, fetch.run_id(connection, run))

    def pruned(
        self,
        *,
        tag: str | None = None,
        since: datetime | None = None,
        min_score: float | None = None,
        agent: str | None = None,
        run: str | None = None,
        limit: int | None = 50,
    ) -> list[PrunedRow]:
        """Branches that were cut, newest first; ``since`` is a time with its zone."""
        with self._asking() as connection:
            return fetch.pruned(
                connection,
                tag=tag,
                since=since,
                min_score=min_score,
                agent=agent,
                run=None if run is None else fetch.run_id(connection, run),
                limit=limit,
            )

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
            stored = fetch.stored(connection, fetch.thoughts(connection, within, id)[0])
        if stored is None:
            raise LedgerError(f"thought {id} was not judged: it has no evidence to judge again")
        return stored.judge()

    def replay(self, run: str, policy: Policy | None = None) -> list[Flip]:
        """The verdicts whose action another policy turns.

        Without a policy, those that the run's own does not give again to the last digit: none, in
        a whole ledger. Raises :class:`PolicyError` where the policy does not fit the run's tags.
        """
        flips: list[Flip] = []
        with self._asking() as connection:
            for thought in fetch.thoughts(connection, fetch.run_id(connection, run)):
                stored = fetch.stored(connection, thought)
                if stored is None or thought.judgement is None:
                    continue
                if policy is not None:
                    policy.check(stored.vocabulary.vocabulary)
                before, after = thought.judgement, stored.judge(policy)
                same = before == after if policy is None else before.action is after.action
                if not same:
                    flips.append(Flip(thought.run, thought.id, before, after, thought.text))
        return flips

    def verify(
        self,
        run: str | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        key: str | None = None,
        processes: int = 1,
        progress: Callable[[int, int], object] | None = None,
    ) -> integrity.Verification:
        """Whether one run, or the whole ledger, is as it was written.

        ``checkpoint`` is one that was kept elsewhere (:func:`.read_checkpoint`), ``key`` the public
        key that checkpoints must be signed with; ``progress`` is told of events done, and of all.
        More than one process needs the ``if __name__ == "__main__"`` of :mod:`multiprocessing`.
        """
        within = None
        if run is not None:
            with self._asking() as connection:
                within = fetch.run_id(connection, run)
        return integrity.verify(
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
                yield connection
        except DBAPIError as error:
            name = connect.place(self._engine.url)
            raise LedgerError(connect.explain(error, name)) from None
        except _UNREADABLE as error:
            raise LedgerError(fetch.damaged(connect.place(self._engine.url))) from error
