"""One run, one thought, one blob: the SQL behind the audit log's answers about a single thing."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....agents.thought import Status
from ....gates.errors import PolicyError
from ....gates.evidence import Evidence
from ....gates.policy import Policy
from ....gates.unicode import well_formed
from ....gates.vocabulary import BoundVocabulary, Vocabulary
from .. import tables
from ..chain import as_text, blob_digest, event_hash, from_text
from ..derive import told
from ..errors import LedgerError
from ..events import EventKind
from ..integrity.derived import Derivation, read_body
from ..integrity.links import Link, link_hash
from ..judgements import approvals_from_json, judgement_from_json
from ..text import text_of
from .answers import RunRow, ThoughtRow
from .replay import Bound, Stored

__all__ = [
    "bodies",
    "bound",
    "by_index",
    "confirmed",
    "content",
    "contents",
    "damaged",
    "each_thought",
    "judged",
    "named_in_events",
    "policy",
    "prompts",
    "run_id",
    "run_rows",
    "runs_with",
    "stored",
    "thought_rows",
    "thoughts",
]

_LAST = "z" * 64
"""Sorts after the rest of every id, in any collation: ids are lower-case letters and digits."""
_ROWS = 200
_ALSO = 50
"""Other runs with the same thought that are named at most."""


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
    id = _one(_starting(connection, tables.thought.c.id, start, run), start, run)
    table = tables.thought.c
    query = sa.select(table.run_id).where(table.id == id)
    if run is not None:
        query = query.where(table.run_id == run)
    cut = sa.case((table.status == Status.PRUNED.value, 0), else_=1)
    query = query.order_by(cut, table.at.desc()).limit(1 + _ALSO)
    return id, list(connection.execute(query).scalars())


def named_in_events(connection: Connection, start: str, run: str | None) -> tuple[str, list[str]]:
    """The one thought whose id starts so, and every run whose events name it, whatever the rows
    say that are derived from them. Reads an index of all events, where no run is given."""
    event = tables.event.c
    id = _one(_starting(connection, event.thought_id, start, run), start, run)
    if run is not None:
        return id, [run]
    query = sa.select(event.run_id).distinct().where(event.thought_id == id)
    return id, sorted(connection.execute(query).scalars())


def _one(ids: Sequence[str], start: str, run: str | None) -> str:
    if not ids:
        where = "" if run is None else f" of run {run}"
        raise LedgerError(
            f"no thought{where} starts with {start!r}: `secateur audit pruned` lists what was "
            "cut, `secateur audit tree RUN` everything"
        )
    if len(ids) > 1:
        raise LedgerError(f"several thoughts start with {start!r} ({', '.join(ids)} …): write more")
    return ids[0]


def _starting(
    connection: Connection, column: sa.Column[Any], start: str, run: str | None = None
) -> list[str]:
    """Up to three different ids that start so; just the one that is so."""
    start = start.strip().lower()
    if not start:
        return []
    within = [] if run is None else [column.table.c.run_id == run]
    if connection.execute(sa.select(column).where(column == start, *within).limit(1)).first():
        return [start]
    query = sa.select(column).distinct().where(column.between(start, start + _LAST), *within)
    return list(connection.execute(query.order_by(column).limit(3)).scalars())


def run_rows(connection: Connection, ids: Sequence[str]) -> list[RunRow]:
    """These runs with how they went, in this order."""
    run, policy = tables.run.c, tables.policy.c
    query = (
        sa.select(
            tables.run,
            policy.name.label("policy_name"),
            tables.blob.c.bytes.label("task_bytes"),
        )
        .join(tables.policy, policy.digest == run.policy)
        .join(tables.blob, tables.blob.c.digest == run.task)
        .where(run.id.in_(ids))
    )
    rows = {row["id"]: row for row in connection.execute(query).mappings()}
    if len(rows) < len(ids):
        raise LedgerError(damaged(f"run {next(id for id in ids if id not in rows)}"))
    ends, counts = _ends(connection, ids), _counts(connection, ids)
    results = _results(connection, ends)
    return [
        _run_row(rows[id], ends.get(id), counts.get(id, (0, 0, 0)), results.get(id)) for id in ids
    ]


def _run_row(
    row: Mapping[Any, Any], end: Any, counts: tuple[int, int, int], result: str | None
) -> RunRow:
    thoughts, pruned, tokens = counts
    return RunRow(
        run=row["id"],
        agent=row["agent"],
        task=well_formed(text_of(row["task_bytes"])),
        context=row["context"],
        status="unfinished" if end is None else from_text(end.body)["status"],
        result=result,
        seed=row["seed"],
        policy=row["policy_name"],
        policy_digest=row["policy"],
        engine=row["engine"],
        model=row["model"],
        digests=from_text(row["digests"]),
        started_at=row["started_at"],
        finished_at=None if end is None else end.at,
        thoughts=thoughts,
        pruned=pruned,
        tokens=tokens,
    )


def _ends(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """The last ``run_finished`` of each run that was not resumed after it."""
    those = sa.bindparam("ids", expanding=True)
    asked = {"ids": list(ids)}
    finished = connection.execute(
        sa.text(
            f"SELECT run_id, seq, at, body, blobs FROM event {by_index(connection, 'finished')} "
            "WHERE kind = 'run_finished' AND run_id IN :ids ORDER BY seq"
        ).bindparams(those),
        asked,
    )
    ends = {row.run_id: row for row in finished}
    resumed = connection.execute(
        sa.text(
            f"SELECT run_id, seq FROM event {by_index(connection, 'resumed')} "
            "WHERE kind = 'resumed' AND run_id IN :ids"
        ).bindparams(those),
        asked,
    )
    for row in resumed:
        if row.run_id in ends and row.seq > ends[row.run_id].seq:
            del ends[row.run_id]
    return ends


def by_index(connection: Connection, kind: str) -> str:
    """Which index leads to the few events of a kind; without being told, SQLite would walk through
    all events of a run."""
    return f"INDEXED BY ix_event_{kind}" if connection.dialect.name == "sqlite" else ""


def _counts(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """How many thoughts, how many of them cut, and their tokens, by run."""
    row = tables.thought.c
    cut = sa.case((row.status == Status.PRUNED.value, 1), else_=0)
    query = sa.select(row.run_id, sa.func.count(), sa.func.sum(cut), sa.func.sum(row.tokens))
    query = query.where(row.run_id.in_(ids)).group_by(row.run_id)
    return {
        run: (thoughts, int(pruned), int(tokens))
        for run, thoughts, pruned, tokens in connection.execute(query)
    }


def _results(connection: Connection, ends: Mapping[str, Any]) -> dict[str, str]:
    named = {run: from_text(end.blobs).get("result") for run, end in ends.items()}
    found = contents(connection, [digest for digest in named.values() if digest])
    return {
        run: well_formed(text_of(content))
        for run, digest in named.items()
        if digest and (content := found[digest]) is not None
    }


def thoughts(connection: Connection, run: str, id: str | None = None) -> list[ThoughtRow]:
    """A run's graph in the order in which it was recorded, or one thought of it."""
    wanted = [] if id is None else [tables.thought.c.id == id]
    return thought_rows(connection, run, *wanted)


def each_thought(connection: Connection, run: str) -> Iterator[ThoughtRow]:
    """A run's graph in the same order, a few rows at a time."""
    query = _graph(run).order_by(tables.thought.c.seq)
    for row in connection.execute(query, execution_options={"yield_per": _ROWS}).mappings():
        yield _thought_row(row)


def thought_rows(
    connection: Connection,
    run: str,
    *wanted: sa.ColumnElement[bool],
    limit: int | None = None,
    by: sa.ColumnElement[Any] | None = None,
) -> list[ThoughtRow]:
    """Thoughts of a run that fit, in the order in which they were recorded or another."""
    query = _graph(run).where(*wanted).limit(limit)
    query = query.order_by(tables.thought.c.seq if by is None else by)
    return [_thought_row(row) for row in connection.execute(query).mappings()]


def _graph(run: str) -> sa.Select[*tuple[Any, ...]]:
    thought, event = tables.thought.c, tables.event.c
    return (
        sa.select(tables.thought, event.body)
        .join(tables.event, sa.and_(event.run_id == thought.run_id, event.seq == thought.seq))
        .where(thought.run_id == run)
    )


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
        retries=body.get("retries", row["attempt"]),  # one number, before runs were resumed
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
        evidence=row["evidence"],
        judgement=None if judgement is None else judgement_from_json(judgement),
        approved=approvals_from_json(body),
    )


def policy(connection: Connection, digest: str) -> Policy:
    """A stored policy, if it is the one that was stored. Raises :class:`LedgerError`."""
    table = tables.policy.c
    body = connection.execute(sa.select(table.body).where(table.digest == digest)).scalar_one()
    # A policy's digest is that of its canonical JSON, which is what the row holds.
    if blob_digest(b"", body.encode()) != digest:
        raise LedgerError(damaged(f"policy {digest[:12]}"))
    try:
        return _policy_of(body)
    except PolicyError as error:
        raise LedgerError(
            f"policy {digest[:12]} cannot be read ({error}): read it with the version of Secateur "
            "that wrote it"
        ) from None


@lru_cache(maxsize=64)
def _policy_of(body: str) -> Policy:
    return Policy.recorded(body)


@lru_cache(maxsize=64)
def _vocabulary_of(vocabulary: str, token_ids: str) -> BoundVocabulary:
    return BoundVocabulary(Vocabulary.model_validate_json(vocabulary), from_text(token_ids))


def prompts(
    connection: Connection, thoughts: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """What the model was asked, as text, by run and thought; nothing for a thought that no model
    was asked for, or where it was erased."""
    if not thoughts:
        return {}
    # By the driver: SQLAlchemy would compile so many values anew each time.
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    wanted = ", ".join([f"({mark}, {mark})"] * len(thoughts))
    query = (
        f"WITH wanted (run, thought) AS (VALUES {wanted}) "
        "SELECT e.run_id, e.thought_id, e.seq, e.blobs FROM wanted CROSS JOIN event e "
        "WHERE e.run_id = wanted.run AND e.thought_id = wanted.thought "
        "AND e.kind = 'model_intended'"
    )
    given = tuple(each for thought in thoughts for each in thought)
    # Sorted here: asked for in order, SQLite would walk through whole runs.
    rows = sorted(connection.exec_driver_sql(query, given).all(), key=lambda row: row.seq)
    named = {(row.run_id, row.thought_id): from_text(row.blobs)["prompt"] for row in rows}
    found = contents(connection, list(named.values()))
    return {
        thought: well_formed(from_text(asked.decode())["text"])
        for thought, digest in named.items()
        if (asked := found[digest]) is not None
    }


def bound(connection: Connection, run: str) -> Bound:
    """What all verdicts of a run were made by, from its first event."""
    event = tables.event.c
    query = sa.select(tables.event).where(event.run_id == run, event.seq == 0)
    first = connection.execute(query).mappings().one()
    if event_hash({str(name): value for name, value in first.items()}) != first["hash"]:
        raise LedgerError(damaged(f"event 0 of run {run}"))
    started = from_text(first["body"])
    return Bound(
        policy=policy(connection, started["policy"]),
        vocabulary=_vocabulary_of(as_text(started["vocabulary"]), as_text(started["token_ids"])),
        context=started["context"],
    )


def stored(thought: ThoughtRow, by: Bound, blobs: Mapping[str, bytes | None]) -> Stored | None:
    """All that a verdict was made from, its evidence among ``blobs``; None for a thought that was
    not judged on evidence, or whose evidence was erased."""
    evidence = blobs.get(thought.evidence or "")
    if evidence is None or thought.judgement is None:
        return None
    return Stored(
        by, Evidence.from_bytes(evidence), thought.scope, thought.retries, thought.approved
    )


def bodies(connection: Connection, events: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """The bodies of events, with the words that blobs keep for them; None where those were erased
    or never were."""
    named = [from_text(event["blobs"]) for event in events]
    wanted = {b[name] for b in named for name in ("reason", "note") if name in b}
    found = contents(connection, sorted(wanted))
    filled: list[Any] = []
    for event, blobs in zip(events, named, strict=True):
        words = {name: found[blobs[name]] for name in ("reason", "note") if name in blobs}
        said = {
            name: well_formed(text_of(held)) for name, held in words.items() if held is not None
        }
        filled.append(told(from_text(event["body"]), said))
    return filled


def judged(connection: Connection, run: str) -> Iterator[Mapping[Any, Any]]:
    """The events of a run that judged a thought on evidence, in order: from the chain, since a row
    that is derived from it may say anything."""
    event = tables.event.c
    query = sa.select(tables.event).where(event.run_id == run).order_by(event.seq)
    query = query.where(event.kind == EventKind.JUDGED.value, event.blobs.contains('"evidence"'))
    for row in connection.execute(query, execution_options={"yield_per": _ROWS}).mappings():
        if from_text(row["body"])["judgement"] is not None:
            yield row


def confirmed(connection: Connection, run: str, ids: Sequence[str]) -> None:
    """Raises :class:`LedgerError` where a derived row of these thoughts is not what the run's own
    events say."""
    event, thought = tables.event.c, tables.thought
    theirs = sa.or_(event.thought_id.in_(ids), event.thought_id.is_(None))
    query = sa.select(tables.event).where(event.run_id == run, theirs)
    rows = sorted(connection.execute(query).mappings(), key=lambda row: row["seq"])
    made: Derivation | None = None
    for row in rows:
        columns = Link._make(row.values())
        if link_hash(columns) != columns.hash:
            raise LedgerError(damaged(f"event {columns.seq} of run {run}"))
        body, named = read_body(columns.kind, columns.body), from_text(columns.blobs)
        if columns.kind == EventKind.RUN_STARTED:
            made = Derivation(from_text(columns.body)["agent"])
        elif made is not None and body is not None:
            told_by = ("text", "value", "reason", "note")
            wanted = [named[name] for name in told_by if name in named]
            held = {digest: held or b"" for digest, held in contents(connection, wanted).items()}
            made.take(columns, body, named, held)
    stands = sa.select(thought).where(thought.c.run_id == run, thought.c.id.in_(ids))
    there = {row.id: tuple(row) for row in connection.execute(stands)}
    said = {} if made is None else made.thoughts
    for id in ids:
        if there.get(id) != said.get(id):
            raise LedgerError(damaged(f"the row of thought {id} in run {run}"))


def damaged(what: str) -> str:
    """The message for what is not as it was written."""
    return f"{what} was damaged: run `secateur audit verify`"


def content(connection: Connection, digest: str) -> bytes | None:
    """A blob's bytes, if they are those that were stored; None where they were erased.

    Raises :class:`LedgerError` where they are missing or changed.
    """
    return contents(connection, [digest])[digest]


def contents(connection: Connection, digests: Sequence[str]) -> dict[str, bytes | None]:
    """The same of several blobs, by digest."""
    blob = tables.blob
    found: dict[str, bytes | None] = {}
    if digests:
        query = sa.select(blob).where(blob.c.digest.in_(digests))
        for row in connection.execute(query):
            whole = blob_digest(row.salt, row.bytes) == row.digest
            if not whole and (row.bytes or not _erased(connection, row.digest)):
                raise LedgerError(damaged(f"blob {row.digest[:12]}"))
            found[row.digest] = row.bytes if whole else None
    for digest in digests:
        if digest not in found:
            raise LedgerError(f"blob {digest[:12]} is missing: `secateur audit verify` says where")
    return found


def _erased(connection: Connection, digest: str) -> bool:
    query = sa.select(tables.erasure.c.seq).where(tables.erasure.c.digest == digest)
    return connection.execute(query).first() is not None
