"""Whether a ledger is whole: the chain, the blobs, the policies, and the derived tables.

What a whole chain proves: no event of a run was changed, removed from the middle, or put in
between since it was written. What it does not prove: that the newest events, or whole runs, were
not cut off together with everything derived from them, or that nobody with write access made the
chain anew; for that, heads must be kept elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ...gates.canonical import digest
from . import tables
from .chain import GENESIS, blob_digest, event_hash, from_text
from .derive import Derivation
from .events import EventKind

__all__ = ["Damage", "Verification", "rebuild", "verify"]

_CHUNK = 500
Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """The first thing that is wrong with a run."""

    run: str
    seq: int | None
    """The event at fault; None where it is the run's row or its policy."""
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify` found."""

    events: int
    runs: int
    first_bad: Damage | None

    @property
    def ok(self) -> bool:
        """Whether everything was as it was written."""
        return self.first_bad is None


class _DamageError(Exception):
    def __init__(self, seq: int | None, reason: str) -> None:
        super().__init__(reason)
        self.seq, self.reason = seq, reason


def verify(connection: Connection, run: str | None = None) -> Verification:
    """Recompute every hash, digest and derived row of one run, or of all."""
    events = 0
    damage: Damage | None = None
    runs = [run] if run is not None else _all_runs(connection)
    for each in runs:
        events += _count(connection, each)
        if damage is None:
            try:
                _verify_run(connection, each)
            except _DamageError as bad:
                damage = Damage(each, bad.seq, bad.reason)
            except (KeyError, ValueError, TypeError) as error:
                damage = Damage(each, None, f"its rows cannot be read: {error!r}")
    return Verification(events, len(runs), damage)


def rebuild(engine: Engine, run: str | None = None) -> int:
    """Make the derived tables anew from the events; how many thoughts there are.

    ``engine`` must be open for writing.
    """
    made = 0
    with engine.begin() as connection:
        for each in [run] if run is not None else _all_runs(connection):
            agent = connection.execute(
                sa.select(tables.run.c.agent).where(tables.run.c.id == each)
            ).scalar_one()
            derived = Derivation(agent)
            for event, blobs in _events(connection, each):
                derived.take(event, blobs)
            for table in (tables.tag_score, tables.thought):
                connection.execute(sa.delete(table).where(table.c.run_id == each))
            if derived.thoughts:
                connection.execute(sa.insert(tables.thought), list(derived.thoughts.values()))
            if derived.scores:
                connection.execute(sa.insert(tables.tag_score), list(derived.scores.values()))
            made += len(derived.thoughts)
    return made


def _all_runs(connection: Connection) -> list[str]:
    """Runs in the order of their start, and after them any whose row is gone."""
    known = connection.execute(
        sa.select(tables.run.c.id).order_by(tables.run.c.started_at, tables.run.c.id)
    ).scalars()
    seen = dict.fromkeys(known)
    orphans = connection.execute(sa.select(tables.event.c.run_id).distinct()).scalars()
    return list(seen | dict.fromkeys(sorted(orphans)))


def _count(connection: Connection, run: str) -> int:
    return connection.execute(
        sa.select(sa.func.count()).where(tables.event.c.run_id == run)
    ).scalar_one()


def _events(connection: Connection, run: str) -> Iterator[tuple[Row, dict[str, bytes]]]:
    """A run's events in order, each with the blobs of its chunk; raises :class:`_DamageError`."""
    query = sa.select(tables.event).where(tables.event.c.run_id == run).order_by(tables.event.c.seq)
    found = connection.execute(query).mappings()
    while chunk := found.fetchmany(_CHUNK):
        blobs = _blobs(connection, chunk)
        for event in chunk:
            yield event, blobs


def _blobs(connection: Connection, events: Sequence[Row]) -> dict[str, bytes]:
    """The bytes of all blobs that these events name, where they are there and unchanged."""
    wanted: list[str] = []
    for event in events:
        try:
            wanted += from_text(event["blobs"]).values()
        except (ValueError, AttributeError):
            continue  # the event's own hash will tell
    whole: dict[str, bytes] = {}
    table = tables.blob
    for some in _chunks(wanted):
        for row in connection.execute(sa.select(table).where(table.c.digest.in_(some))).mappings():
            if blob_digest(row["salt"], row["bytes"]) == row["digest"]:
                whole[row["digest"]] = row["bytes"]
    return whole


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _verify_run(connection: Connection, run: str) -> None:
    table = tables.run
    row = connection.execute(sa.select(table).where(table.c.id == run)).mappings().first()
    if row is None:
        raise _DamageError(None, "the run's row is missing")
    derived = Derivation(row["agent"])
    expected, head, bound = 0, GENESIS, ""
    for event, blobs in _events(connection, run):
        seq = event["seq"]
        if seq != expected:
            raise _DamageError(expected, f"event {expected} is missing")
        if event_hash(event) != event["hash"]:
            raise _DamageError(seq, f"event {seq} was changed: its hash does not match its columns")
        if event["prev_hash"] != head:
            raise _DamageError(
                seq, f"event {seq} does not follow event {seq - 1}: the chain is broken"
            )
        if seq == 0:
            bound = _verify_start(connection, row, event)
        if event["digests"] != bound:
            raise _DamageError(seq, f"event {seq} is bound to other digests than its run")
        for name, named in from_text(event["blobs"]).items():
            if named not in blobs:
                raise _DamageError(seq, f"the {name} of event {seq} is missing or was changed")
        try:
            derived.take(event, blobs)
        except (KeyError, ValueError, TypeError) as error:
            raise _DamageError(seq, f"event {seq} cannot be read: {error!r}") from None
        expected, head = expected + 1, event["hash"]
    if expected == 0:
        raise _DamageError(0, "event 0 is missing")
    _verify_derived(connection, run, derived, last=expected - 1)


def _verify_start(connection: Connection, row: Row, event: Row) -> str:
    """The run's row and policy against the first event; the digest that all events carry."""
    if event["kind"] != EventKind.RUN_STARTED:
        raise _DamageError(0, "event 0 does not start the run")
    body = from_text(event["body"])
    said = {
        "id": event["run_id"],
        "task": from_text(event["blobs"]).get("task"),
        "started_at": event["at"],
        "digests": body["digests"],
        **{name: body[name] for name in ("agent", "context", "seed", "policy", "engine", "model")},
    }
    stored = dict(row) | {"digests": from_text(row["digests"])}
    for name, value in stored.items():
        if said[name] != value:
            raise _DamageError(None, f"the run's row was changed: {name} differs from event 0")
    policy = tables.policy
    found = (
        connection.execute(sa.select(policy).where(policy.c.digest == row["policy"]))
        .mappings()
        .first()
    )
    if found is None:
        raise _DamageError(None, f"policy {row['policy'][:12]} is missing")
    read = blob_digest(b"", found["body"].encode())
    if read != found["digest"] or from_text(found["body"])["name"] != found["name"]:
        raise _DamageError(
            None, f"policy {found['name']!r} was changed: it does not match its digest"
        )
    return digest(body["digests"])


def _verify_derived(connection: Connection, run: str, derived: Derivation, last: int) -> None:
    remedy = "run `secateur db rebuild`"
    table = tables.thought
    left = dict(derived.thoughts)
    for row in connection.execute(sa.select(table).where(table.c.run_id == run)).mappings():
        expected = left.pop(row["id"], None)
        if expected is None:
            raise _DamageError(
                last + 1, f"thought {row['id']} has no event: events after {last} were cut off"
            )
        if dict(row) != expected:
            wrong = next(name for name in expected if row[name] != expected[name])
            raise _DamageError(
                row["seq"], f"thought {row['id']}: {wrong} is not what its events say; {remedy}"
            )
    for id, expected in left.items():
        raise _DamageError(expected["seq"], f"thought {id} is not in the thought table; {remedy}")
    table = tables.tag_score
    scores = {
        (row["thought_id"], row["tag"]): dict(row)
        for row in connection.execute(sa.select(table).where(table.c.run_id == run)).mappings()
    }
    if scores != derived.scores:
        odd = {key for key in scores | derived.scores if scores.get(key) != derived.scores.get(key)}
        thought, tag = min(odd)
        seq = derived.thoughts[thought]["seq"] if thought in derived.thoughts else None
        raise _DamageError(seq, f"the scores of {tag} for thought {thought} were changed; {remedy}")
