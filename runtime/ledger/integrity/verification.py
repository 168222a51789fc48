"""Whether a ledger is whole: chains, blobs, policies, checkpoints, and the rows derived.

What a whole chain proves: no event of a run was changed, removed from the middle, or put in
between since it was written. What it does not prove: that the newest events, or whole runs, were
not cut off together with everything derived from them, or that nobody with write access made the
chain anew. For that there are checkpoints (:mod:`.checkpoints`) that are kept elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from .. import connect, tables
from ..chain import blob_digest, from_text
from ..errors import LedgerError
from ..parallel import side_by_side
from .checkpoints import Checkpoint
from .damage import Damage, DamageKind
from .derived import Derivation, read_body
from .schema import schema_damages, statements
from .sweep import Span, Sweep, sweeping
from .walk import Walked, policy_fault, walk, walking
from .witness import Witnessed, witnessed

__all__ = ["Verification", "rebuild", "verify"]

_SPAN: Final = 5_000
"""Events that are checked in one go, at least: one run or several."""

_BATCH: Final = 512

_WORTH_A_PROCESS: Final = 50_000
"""Events in about the time that another Python takes to start."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify` found."""

    events: int
    runs: int
    blobs: int
    checkpoints: int
    damages: tuple[Damage, ...]
    """The first of each damaged run, in the order of the runs; then those of the whole ledger."""

    @property
    def ok(self) -> bool:
        """Whether everything was as it was written."""
        return not self.damages

    @property
    def first_bad(self) -> Damage | None:
        """The first thing that is wrong."""
        return self.damages[0] if self.damages else None


def verify(
    engine: Engine,
    run: str | None = None,
    *,
    processes: int = 1,
    derived: bool = True,
    checkpoint: Checkpoint | None = None,
    key: str | None = None,
    progress: Callable[[int, int], object] = lambda done, events: None,
) -> Verification:
    """Recompute every hash and digest of one run, or of all, and the rows derived from them.

    ``checkpoint`` is one that was kept elsewhere: every run that it vouches for must still be
    there, with the event that it names. ``key`` is the public key (64 hexadecimal digits) that
    every checkpoint must be signed with; without it they need only agree with themselves.
    ``progress`` is told how many events of how many are done. Raises :class:`LedgerError` where
    the database cannot be read.
    """
    try:
        with sweeping(engine) as sweep:
            return _verify(sweep, engine.url, run, processes, derived, checkpoint, key, progress)
    except engine.dialect.loaded_dbapi.Error as error:
        raise LedgerError(connect.explain(error, connect.place(engine.url))) from None


def _verify(
    sweep: Sweep,
    url: URL,
    run: str | None,
    processes: int,
    derived: bool,
    checkpoint: Checkpoint | None,
    key: str | None,
    progress: Callable[[int, int], object],
) -> Verification:
    witness = witnessed(sweep, run, checkpoint, key)
    if run is None:
        spans = sweep.spans(_SPAN)
    else:
        ((events,),) = sweep.rows("SELECT count(*) FROM event WHERE run_id = ?", (run,))
        spans = [Span(run, None, events, alone=True)]
    events = sum(span.events for span in spans)
    blobs = _stored(sweep)
    done, walked = 0, list[tuple[int, Walked]]()
    progress(0, events)
    workers = min(processes, len(spans), 1 + events // _WORTH_A_PROCESS)
    found = side_by_side(
        lambda span: walk(sweep, span, witness.marks, derived=derived),
        walking,
        (url.render_as_string(hide_password=False), witness.marks, derived),
        spans,
        workers - 1,
    )
    for place, part in found:
        walked.append((place, part))
        done += spans[place].events
        progress(done, events)
    parts = [part for _, part in sorted(walked, key=itemgetter(0))]
    damages = [damage for part in parts for damage in part.damages]
    damages += _gone(sweep, witness, run)
    damages += witness.damages
    damages += schema_damages(sweep)
    if run is None:
        damages += _wrong_policies(sweep)
        if not damages:
            damages += _nameless(sweep, blobs, sum(part.blobs for part in parts))
    return Verification(
        events=sum(part.events for part in parts),
        runs=sum(part.runs for part in parts),
        blobs=sum(part.blobs for part in parts),
        checkpoints=witness.checkpoints,
        damages=tuple(damages),
    )


def _stored(sweep: Sweep) -> int:
    return sweep.rows("SELECT count(*) FROM blob")[0][0]


def _gone(sweep: Sweep, witness: Witnessed, run: str | None) -> list[Damage]:
    """Runs that a checkpoint vouches for, and of which nothing is left."""
    if run is not None or not witness.marks:
        return []
    there = {id for (id,) in sweep.rows("SELECT id FROM run UNION SELECT run_id FROM event")}
    return [
        Damage(
            id,
            None,
            DamageKind.MISSING,
            f"the whole run is missing: {marks[-1].source} vouches for its event {marks[-1].seq}",
        )
        for id, marks in sorted(witness.marks.items())
        if id not in there
    ]


def _wrong_policies(sweep: Sweep) -> list[Damage]:
    """Among all, those that no run was judged by included."""
    faults = map(policy_fault, sweep.rows("SELECT digest, name, body FROM policy ORDER BY digest"))
    return [Damage(None, None, DamageKind.CHANGED, fault) for fault in faults if fault is not None]


def _nameless(sweep: Sweep, stored: int, named: int) -> list[Damage]:
    """Blobs that no event names: what named them was cut off, with all that was derived from it."""
    if stored == named:
        return []
    # Others may have written since they were counted; this sees one state of both tables.
    names = (
        "SELECT j.value FROM event e CROSS JOIN LATERAL json_each_text(e.blobs::json) j"
        if sweep.postgresql
        else "SELECT j.value FROM event e CROSS JOIN json_each(e.blobs) j"
    )
    left = sorted(digest for (digest,) in sweep.rows(f"SELECT digest FROM blob EXCEPT {names}"))
    if not left:
        return []
    blobs = "blob belongs" if len(left) == 1 else "blobs belong"
    reason = f"{len(left)} {blobs} to no event ({left[0][:12]} …): the events that named them"
    return [Damage(None, None, DamageKind.TRUNCATED, f"{reason} were cut off")]


def rebuild(engine: Engine, run: str | None = None) -> int:
    """Make the derived tables anew from the events, and the triggers, views and indexes as they
    should be; how many thoughts there are.

    ``engine`` must be open for writing.
    """
    made = 0
    with engine.begin() as connection:
        sweep = Sweep(connection)
        for statement in statements(sweep):
            sweep.execute(statement)
        spans = sweep.spans(_SPAN) if run is None else [Span(run, None, 0, alone=True)]
        for span in spans:
            agents = {id: rows[0][1] for id, rows in sweep.of(tables.run, span).items()}
            for id, links in groupby(sweep.events(span), key=itemgetter(0)):
                derived = Derivation(agents[id])
                while batch := list(islice(links, _BATCH)):
                    named = [from_text(columns[10]) for columns in batch]
                    contents = _contents(sweep, named)
                    for columns, names in zip(batch, named, strict=True):
                        body = read_body(columns[2], columns[11])
                        if body is not None:
                            derived.take(columns, body, names, contents)
                _replace(connection, id, derived)
                made += len(derived.thoughts)
    return made


def _contents(sweep: Sweep, named: list[dict[str, str]]) -> dict[str, bytes]:
    """The bytes of these blobs, where they are what was written or erased."""
    digests = [digest for names in named for digest in names.values()]
    return {
        digest: bytes(held or b"")
        for digest, (salt, held) in sweep.blobs(digests).items()
        if not held or blob_digest(salt, held) == digest
    }


def _replace(connection: sa.Connection, run: str, derived: Derivation) -> None:
    anew = (
        (tables.thought, derived.thoughts),
        (tables.tag_score, derived.scores),
        (tables.decision, derived.decisions),
    )
    for table, _ in reversed(anew):
        connection.execute(sa.delete(table).where(table.c.run_id == run))
    for table, made in anew:
        if made:
            names = table.c.keys()
            rows = [dict(zip(names, row, strict=True)) for row in made.values()]
            connection.execute(sa.insert(table), rows)
