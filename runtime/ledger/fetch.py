"""From the tables to rows: the SQL behind the audit log, one question a function."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from ...gates.evidence import Evidence
from ...gates.policy import Policy
from ...gates.vocabulary import BoundVocabulary, Vocabulary
from . import tables
from .chain import blob_digest, event_hash, from_text
from .errors import LedgerError
from .events import EventKind
from .judgements import judgement_from_json
from .replay import Stored
from .rows import EventRow, PrunedRow, RunRow, ThoughtRow

__all__ = [
    "content",
    "damaged",
    "events",
    "policy",
    "prompt",
    "pruned",
    "run_id",
    "runs",
    "runs_with",
    "stored",
    "thoughts",
]

_LAST = "z" * 64
"""Sorts after the rest of every id, in any collation: ids are lower-case letters and digits."""


def run_id(connection: Connection, start: str) -> str:
    """The one run whose id starts so. Raises :class:`LedgerError`."""
    found = _starting(connection, tables.run.c.id, start)
    if not found:
        raise LedgerError(f"no run starts with {start!r}: `secateur audit runs` lists them")
    if len(found) > 1:
        raise LedgerError(f"several runs start with {start!r} ({', '.join(found)} …): write more")
    return found[0]


def runs_with(connection: Connection, start: str, run: str | None) -> tuple[str, list[str]]:
    """The one thought whose id starts so, and the runs it is in: cut before kept, then newest."""
    ids = _starting(connection, tables.thought.c.id, start, run)
    if not ids:
        where = "" if run is None else f" of run {run}"
        raise LedgerError(
            f"no thought{where} starts with {start!r}: `secateur audit pruned` lists what was "
            "cut, `secateur audit tree RUN` everything"
        )
    if len(ids) > 1:
        raise LedgerError(f"several thoughts start with {start!r} ({', '.join(ids)} …): write more")
    table = tables.thought.c
    query = sa.select(table.run_id).where(table.id == ids[0])
    if run is not None:
        query = query.where(table.run_id == run)
    cut = sa.case((table.status == Status.PRUNED.value, 0), else_=1)
    return ids[0], list(connection.execute(query.order_by(cut, table.at.desc())).scalars())


def _starting(
    connection: Connection, column: sa.Column[str], start: str, run: str | None = None
) -> list[str]:
    """Up to three different ids that start so; just the one that is so."""
    start = start.strip().lower()
    query = sa.select(column).distinct().where(column.between(start, start + _LAST))
    if run is not None:
        query = query.where(tables.thought.c.run_id == run)
    found = list(connection.execute(query.order_by(column).limit(3)).scalars())
    return [start] if start in found else found if start else []


def runs(connection: Connection, ids: Sequence[str] | None, limit: int | None) -> list[RunRow]:
    """Runs with how they went, newest first."""
    run, event, thought, policy = tables.run.c, tables.event, tables.thought.c, tables.policy.c
    count = (
        sa.select(
            thought.run_id,
            sa.func.count().label("thoughts"),
            sa.func.sum(sa.case((thought.status == Status.PRUNED.value, 1), else_=0)).label(
                "pruned"
            ),
            sa.func.sum(thought.tokens).label("tokens"),
        )
        .group_by(thought.run_id)
        .subquery()
    )
    end = sa.and_(event.c.run_id == run.id, sa.text("event.kind = 'run_finished'"))
    query = (
        sa.select(
            tables.run,
            policy.name.label("policy_name"),
            tables.blob.c.bytes.label("task_bytes"),
            event.c.at.label("finished_at"),
            event.c.body.label("end"),
            event.c.blobs.label("end_blobs"),
            count.c.thoughts,
            count.c.pruned,
            count.c.tokens,
        )
        .join(tables.policy, policy.digest == run.policy)
        .join(tables.blob, tables.blob.c.digest == run.task)
        .outerjoin(event, end)
        .outerjoin(count, count.c.run_id == run.id)
        .order_by(run.started_at.desc(), run.id.desc())
        .limit(limit)
    )
    if ids is not None:
        query = query.where(run.id.in_(ids))
    return [_run_row(connection, row) for row in connection.execute(query).mappings().all()]


def _run_row(connection: Connection, row: Mapping[Any, Any]) -> RunRow:
    result = from_text(row["end_blobs"] or "{}").get("result")
    return RunRow(
        run=row["id"],
        agent=row["agent"],
        task=row["task_bytes"].decode(),
        context=row["context"],
        status=from_text(row["end"])["status"] if row["end"] else "unfinished",
        result=None if result is None else content(connection, result).decode(),
        seed=row["seed"],
        policy=row["policy_name"],
        policy_digest=row["policy"],
        engine=row["engine"],
        model=row["model"],
        digests=from_text(row["digests"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        thoughts=row["thoughts"] or 0,
        pruned=row["pruned"] or 0,
        tokens=row["tokens"] or 0,
    )


def events(connection: Connection, run: str) -> list[EventRow]:
    """A run's chain, in order."""
    table = tables.event
    query = sa.select(table).where(table.c.run_id == run).order_by(table.c.seq)
    return [
        EventRow(
            run=row["run_id"],
            seq=row["seq"],
            kind=row["kind"],
            at=row["at"],
            actor=row["actor"],
            thought=row["thought_id"],
            attempt=row["attempt"],
            latency_s=row["latency_s"],
            body=from_text(row["body"]),
            hash=row["hash"],
        )
        for row in connection.execute(query).mappings()
    ]


def thoughts(connection: Connection, run: str, id: str | None = None) -> list[ThoughtRow]:
    """A run's graph in the order in which it was recorded, or one thought of it."""
    thought, event = tables.thought, tables.event.c
    query = (
        sa.select(thought, event.body)
        .join(tables.event, sa.and_(event.run_id == thought.c.run_id, event.seq == thought.c.seq))
        .where(thought.c.run_id == run)
        .order_by(thought.c.seq)
    )
    if id is not None:
        query = query.where(thought.c.id == id)
    return [_thought_row(row) for row in connection.execute(query).mappings()]


def _thought_row(row: Mapping[Any, Any]) -> ThoughtRow:
    body = from_text(row["body"])
    judgement = body["judgement"]
    return ThoughtRow(
        run=row["run_id"],
        id=row["id"],
        parents=tuple(from_text(row["parents"])),
        operation=row["operation"],
        kind=row["kind"],
        depth=row["depth"],
        index=row["child"],
        attempt=row["attempt"],
        status=Status(row["status"]),
        scope=row["scope"],
        text=row["text"],
        value=None if row["value"] is None else from_text(row["value"]),
        score=row["score"],
        tokens=row["tokens"],
        spent_after=body.get("spent_after", 0),  # absent in runs that were recorded before it
        accepted=body.get("accepted", 0),
        latency_s=row["latency_s"],
        acted=row["acted"],
        reason=row["reason"],
        at=row["at"],
        judgement=None if judgement is None else judgement_from_json(judgement),
    )


def pruned(
    connection: Connection,
    *,
    tag: str | None,
    since: datetime | None,
    min_score: float | None,
    agent: str | None,
    run: str | None,
    limit: int | None,
) -> list[PrunedRow]:
    """Branches that were cut, newest first."""
    row = tables.thought.c
    # The status is spelt out rather than bound, so that the partial indexes serve.
    query = sa.select(
        row.run_id.label("run"),
        row.id.label("thought"),
        row.agent,
        row.operation,
        row.tag,
        row.reading,
        row.reached.label("score"),
        row.threshold,
        (row.reached - row.threshold).label("margin"),
        row.action,
        row.at,
        row.text,
        row.reason,
    ).where(sa.text("thought.status = 'pruned'"))
    if tag is not None:
        query = query.where(row.tag == tag)
    if since is not None:
        query = query.where(row.at >= since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    if min_score is not None:
        query = query.where(row.reached >= min_score)
    if agent is not None:
        query = query.where(row.agent == agent)
    if run is not None:
        query = query.where(row.run_id == run)
    query = query.order_by(row.at.desc(), row.id).limit(limit)
    rows = [PrunedRow(**found) for found in connection.execute(query).mappings()]
    if tag is not None and not rows:
        _must_know(connection, tag)
    return rows


def _must_know(connection: Connection, tag: str) -> None:
    """Refuse a tag that no run could have been cut for. Raises :class:`LedgerError`."""
    event = tables.event.c
    query = sa.select(event.body).where(event.seq == 0)
    known = {
        each["name"]
        for body in connection.execute(query).scalars()
        for each in from_text(body)["vocabulary"]["tags"]
    }
    if known and tag not in known:
        close = get_close_matches(tag, known, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise LedgerError(f"no run has a tag {tag!r}: {meant}there are {', '.join(sorted(known))}")


def policy(connection: Connection, digest: str) -> Policy:
    """A stored policy, if it is the one that was stored. Raises :class:`LedgerError`."""
    table = tables.policy.c
    body = connection.execute(sa.select(table.body).where(table.digest == digest)).scalar_one()
    # A policy's digest is that of its canonical JSON, which is what the row holds.
    if blob_digest(b"", body.encode()) != digest:
        raise LedgerError(damaged(f"policy {digest[:12]}"))
    return Policy.model_validate_json(body)


def prompt(connection: Connection, run: str, thought: str) -> str | None:
    """What the model was asked for this thought, as text; None where no model was asked."""
    table = tables.event.c
    query = sa.select(table.blobs).where(
        table.run_id == run,
        table.thought_id == thought,
        table.kind == EventKind.MODEL_INTENDED.value,
    )
    named = connection.execute(query.order_by(table.seq.desc()).limit(1)).scalar()
    if named is None:
        return None
    return from_text(content(connection, from_text(named)["prompt"]).decode())["text"]


def stored(connection: Connection, thought: ThoughtRow) -> Stored | None:
    """All that a verdict was made from; None for a thought that was not judged on evidence."""
    table = tables.thought.c
    evidence = connection.execute(
        sa.select(table.evidence).where(table.run_id == thought.run, table.id == thought.id)
    ).scalar_one()
    if evidence is None or thought.judgement is None:
        return None
    event = tables.event.c
    first = (
        connection.execute(
            sa.select(tables.event).where(event.run_id == thought.run, event.seq == 0)
        )
        .mappings()
        .one()
    )
    if event_hash({str(name): value for name, value in first.items()}) != first["hash"]:
        raise LedgerError(damaged(f"event 0 of run {thought.run}"))
    started = from_text(first["body"])
    return Stored(
        policy=policy(connection, started["policy"]),
        evidence=Evidence.from_bytes(content(connection, evidence)),
        vocabulary=BoundVocabulary(
            Vocabulary.model_validate(started["vocabulary"]), started["token_ids"]
        ),
        context=started["context"],
        scope=thought.scope,
        attempt=thought.attempt,
    )


def damaged(what: str) -> str:
    """The message for what is not as it was written."""
    return f"{what} was damaged: run `secateur audit verify`"


def content(connection: Connection, digest: str) -> bytes:
    """A blob's bytes, if they are those that were stored. Raises :class:`LedgerError`."""
    table = tables.blob
    row = connection.execute(sa.select(table).where(table.c.digest == digest)).mappings().first()
    if row is None:
        raise LedgerError(f"blob {digest[:12]} is missing: `secateur audit verify` says where")
    if blob_digest(row["salt"], row["bytes"]) != digest:
        raise LedgerError(damaged(f"blob {digest[:12]}"))
    return row["bytes"]
