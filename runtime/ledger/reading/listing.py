"""Lists, newest first: runs, what was cut, what a search finds, a run's events.

Every list is ordered by time, run and thought, and goes on below the last of these that was seen,
so that what is recorded meanwhile neither repeats a row nor hides one.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....agents.thought import Status
from .. import tables
from ..chain import from_text
from ..errors import LedgerError
from ..events import EventKind, RunStatus
from ..search import finding as searching
from ..search.words import Words
from . import fetch
from .answers import EventRow, FoundRow, PrunedRow, RunRow
from .filters import Meaning, Narrow, one_of
from .page import Cursor

__all__ = ["events", "found", "pruned", "run_ids", "runs"]

_UNFINISHED = "unfinished"
_CHUNK = 500
"""Rows in one query: within what every database takes as parameters."""


def runs(
    connection: Connection, narrow: Narrow, limit: int | None, after: Cursor | None
) -> list[RunRow]:
    """Runs with how they went."""
    ids = run_ids(connection, narrow, limit, after)
    if not ids:
        _must_know(connection, narrow)
    return [row for some in _chunks(ids) for row in fetch.run_rows(connection, some)]


def run_ids(
    connection: Connection, narrow: Narrow, limit: int | None, after: Cursor | None
) -> list[str]:
    """The ids of runs."""
    run = tables.run.c
    wanted = narrow.of_run()
    if narrow.since is not None:
        wanted.append(run.started_at >= narrow.since)
    if narrow.until is not None:
        wanted.append(run.started_at <= narrow.until)
    if narrow.status is not None:
        wanted.append(_status(connection) == _run_status(narrow.status))
    if after is not None:
        wanted.append(sa.tuple_(run.started_at, run.id) < sa.tuple_(*after))
    query = sa.select(run.id).where(*wanted).order_by(run.started_at.desc(), run.id.desc())
    return list(connection.execute(query.limit(limit)).scalars())


def pruned(
    connection: Connection, narrow: Narrow, limit: int | None, after: Cursor | None
) -> list[PrunedRow]:
    """Branches that were cut."""
    rows = _thoughts(connection, narrow, "decided", limit, after)
    return [
        PrunedRow(
            margin=None if row.reached is None else row.reached - row.threshold,
            run=row.run_id,
            thought=row.id,
            agent=row.agent,
            operation=row.operation,
            tag=row.tag,
            reading=row.reading,
            score=row.reached,
            threshold=row.threshold,
            action=row.action,
            at=row.at,
            text=row.text,
            reason=row.reason,
        )
        for row in rows
    ]


def found(
    connection: Connection, narrow: Narrow, limit: int | None, after: Cursor | None
) -> list[FoundRow]:
    """Thoughts of any fate."""
    rows = _thoughts(connection, narrow, "recorded", limit, after)
    words = None if narrow.text is None else Words.of(narrow.text, narrow.field)
    excerpts = searching.excerpts(connection, words, rows)
    return [
        FoundRow(
            run=row.run_id,
            thought=row.id,
            agent=row.agent,
            context=row.context,
            model=row.model,
            policy=row.policy,
            operation=row.operation,
            status=Status(row.status),
            tag=row.tag,
            reading=row.reading,
            score=row.reached,
            threshold=row.threshold,
            action=row.action,
            tokens=row.tokens,
            at=row.at,
            text=row.text,
            reason=row.reason,
            excerpt=excerpts.get((row.run_id, row.id)),
        )
        for row in rows
    ]


def _thoughts(
    connection: Connection,
    narrow: Narrow,
    meaning: Meaning,
    limit: int | None,
    after: Cursor | None,
) -> Sequence[Any]:
    if narrow.text is not None:
        words = Words.of(narrow.text, narrow.field)
        rows = searching.search(connection, words, narrow, meaning, limit, after)
    else:
        row = tables.thought.c
        query = searching.thoughts().where(*narrow.of_thought(meaning))
        if after is not None:
            # The time by itself too, so that an index on it serves.
            query = query.where(
                row.at <= after[0],
                sa.tuple_(row.at, row.run_id, row.id) < sa.tuple_(*after),
            )
        query = query.order_by(row.at.desc(), row.run_id.desc(), row.id.desc()).limit(limit)
        rows = connection.execute(query).all()
    if not rows:
        _must_know(connection, narrow)
    return rows


def events(
    connection: Connection,
    run: str,
    *,
    kind: str | None,
    actor: str | None,
    thought: str | None,
    since: str | None,
    until: str | None,
    after: int | None,
    limit: int | None,
) -> list[EventRow]:
    """A run's chain, in order."""
    event = tables.event
    wanted = [event.c.run_id == run]
    if kind is not None:
        wanted.append(event.c.kind == one_of(EventKind, kind, "kind of event").value)
    if actor is not None:
        wanted.append(event.c.actor == actor)
    if thought is not None:
        id, _ = fetch.runs_with(connection, thought, run)
        wanted.append(event.c.thought_id == id)
    if since is not None:
        wanted.append(event.c.at >= since)
    if until is not None:
        wanted.append(event.c.at <= until)
    if after is not None:
        wanted.append(event.c.seq > after)
    query = sa.select(event).where(*wanted).order_by(event.c.seq).limit(limit)
    rows = connection.execute(query).mappings().all()
    bodies = [
        body
        for some in range(0, len(rows), _CHUNK)
        for body in fetch.bodies(connection, rows[some : some + _CHUNK])
    ]
    return [_event_row(row, body) for row, body in zip(rows, bodies, strict=True)]


def _event_row(row: Mapping[Any, Any], body: Any) -> EventRow:
    return EventRow(
        run=row["run_id"],
        seq=row["seq"],
        kind=row["kind"],
        at=row["at"],
        actor=row["actor"],
        thought=row["thought_id"],
        attempt=row["attempt"],
        latency_s=row["latency_s"],
        body=body,
        hash=row["hash"],
    )


def _run_status(given: str) -> str:
    return given if given == _UNFINISHED else one_of(RunStatus, given, "status of a run").value


def _status(connection: Connection) -> sa.ColumnElement[str]:
    """The status of the run in the enclosing query, as :func:`.fetch.run_rows` finds it."""
    if connection.dialect.name == "postgresql":
        said = "e.body::json ->> 'status'"
    else:
        said = "json_extract(e.body, '$.status')"
    by = fetch.by_index(connection, "finished")
    return sa.literal_column(
        f"coalesce((SELECT {said} FROM event e {by} WHERE e.run_id = run.id "
        "AND e.kind = 'run_finished' AND NOT EXISTS (SELECT 1 FROM event a "
        "WHERE a.run_id = e.run_id AND a.kind = 'resumed' AND a.seq > e.seq) "
        f"ORDER BY e.seq DESC LIMIT 1), '{_UNFINISHED}')",
        sa.Text,
    )


def _must_know(connection: Connection, narrow: Narrow) -> None:
    """Refuse a word that no run could have been found by. Raises :class:`LedgerError`."""
    run, policy = tables.run.c, tables.policy.c
    known: dict[str, sa.Select[*tuple[Any, ...]]] = {
        "agent": sa.select(run.agent).distinct(),
        "context": sa.select(run.context).where(run.context.is_not(None)).distinct(),
        "model": sa.select(run.model).distinct(),
        "policy": sa.select(policy.name).distinct(),
    }
    for what, query in known.items():
        given = getattr(narrow, what)
        there = [] if given is None else connection.execute(query).scalars()
        _refuse_unknown(what, given, there)
    if narrow.tag is not None:
        _refuse_unknown("tag", narrow.tag, _tags(connection))


def _tags(connection: Connection) -> set[str]:
    """Every tag of the vocabularies that runs were bound to."""
    run, event = tables.run.c, tables.event.c
    alike = sa.select(sa.func.min(run.id)).group_by(run.digests)
    query = sa.select(event.body).where(event.seq == 0, event.run_id.in_(alike))
    return {
        tag["name"]
        for body in connection.execute(query).scalars()
        for tag in from_text(body)["vocabulary"]["tags"]
    }


def _refuse_unknown(what: str, given: str | None, there: Iterable[str]) -> None:
    known = set(there)
    if given is None or not known or given in known:
        return
    if what == "policy" and all(sign in "0123456789abcdef" for sign in given):
        return  # the start of a digest
    close = get_close_matches(given, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise LedgerError(f"no run has a {what} {given!r}: {meant}there are {', '.join(sorted(known))}")


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
