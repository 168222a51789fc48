"""Checkpoints: a signed Merkle root over the heads of all runs, to be kept elsewhere.

A chain shows what was changed inside it, not what was cut from its end, nor that it was made anew
from the start. A checkpoint vouches for the last event of each run there was: kept out of reach of
whoever can write to the ledger, it shows both.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from ....gates.encoding import decoded
from .. import connect, tables
from ..chain import GENESIS, as_text, blob_digest, from_text
from ..errors import LedgerError
from . import merkle
from .signing import SigningKey, signed_by
from .sweep import Span, Sweep
from .walk import walk

__all__ = [
    "Checkpoint",
    "Head",
    "Proof",
    "checkpoints",
    "heads_of",
    "make_checkpoint",
    "read_checkpoint",
    "stored_checkpoint",
    "was_verified",
]

_SIGNED: Final = ("number", "at", "runs", "events", "root", "previous", "key")
_SPAN: Final = 10_000
"""Events that are verified in one go, at least."""
_FORMAT: Final = "secateur-checkpoint/1"
_PROOF_FORMAT: Final = "secateur-proof/1"


class Head(NamedTuple):
    """Where a run's chain ended."""

    run: str
    seq: int
    hash: str

    @property
    def leaf(self) -> bytes:
        """What stands in the tree: canonical JSON of the three, as a list."""
        return as_text(list(self)).encode("ascii")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was signed, and by whom."""

    number: int
    """From 1; 0 for one that the ledger does not hold."""
    at: str
    runs: int
    events: int
    root: str
    previous: str
    """SHA-256 of the ``body`` of the checkpoint before; zeros for the first."""
    key: str
    """The Ed25519 public key, in hexadecimal."""
    signature: str
    heads: tuple[Head, ...] | None = None
    """The leaves, by run id; None where only the root was kept."""
    verified: bool | None = None
    """Whether what was new since the checkpoint before was verified before it was signed; None
    where version 0.1 signed it, which looked at the heads alone."""

    @property
    def body(self) -> str:
        """The canonical JSON that is signed."""
        said = {} if self.verified is None else {"verified": self.verified}
        return as_text({name: getattr(self, name) for name in _SIGNED} | said)

    @property
    def hash(self) -> str:
        """What the next checkpoint names as ``previous``."""
        return blob_digest(b"", self.body.encode("ascii"))

    @property
    def name(self) -> str:
        """How a message calls it."""
        number = f" {self.number}" if self.number else ""
        return f"checkpoint{number} of {self.at[:19]}Z"

    def fault(self) -> str | None:
        """What is wrong with it in itself; None where signature and root are right."""
        if not signed_by(self.key, self.signature, self.body.encode("ascii")):
            return "its signature does not match"
        if self.heads is None:
            return None
        if list(self.heads) != sorted(set(self.heads)) or len(self.heads) != self.runs:
            return "its heads are not those of so many runs"
        if sum(head.seq + 1 for head in self.heads) != self.events:
            return "its heads are not those of so many events"
        if merkle.root([head.leaf for head in self.heads]).hex() != self.root:
            return "its heads do not make its root"
        return None

    def prove(self, run: str) -> "Proof":
        """That this run's head is under the root, without showing any other run's.

        Raises :class:`LedgerError` where the run is not in it.
        """
        heads = self.heads or ()
        place = next((at for at, head in enumerate(heads) if head.run == run), None)
        if place is None:
            raise LedgerError(f"{self.name} has no run {run}: it was started later")
        path = merkle.proof([head.leaf for head in heads], place)
        return Proof(self, heads[place], place, tuple(step.hex() for step in path))

    def as_json(self, *, heads: bool = False) -> dict[str, Any]:
        """Plain JSON data; with ``heads``, what each run ended with as well."""
        written = {
            "format": _FORMAT,
            "body": from_text(self.body),
            "signature": self.signature,
        }
        if heads and self.heads is not None:
            written["heads"] = [list(head) for head in self.heads]
        return written


@dataclass(frozen=True, slots=True)
class Proof:
    """The audit path of one run's head, as RFC 6962 has it."""

    checkpoint: Checkpoint
    head: Head
    index: int
    path: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the head is under the checkpoint's root, and the checkpoint is signed."""
        return self.checkpoint.fault() is None and merkle.proves(
            self.head.leaf,
            self.index,
            self.checkpoint.runs,
            [bytes.fromhex(step) for step in self.path],
            bytes.fromhex(self.checkpoint.root),
        )

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "format": _PROOF_FORMAT,
            "checkpoint": self.checkpoint.as_json(),
            "head": list(self.head),
            "index": self.index,
            "path": list(self.path),
        }


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A checkpoint that was kept as a file. Raises :class:`LedgerError` for anything else."""
    try:
        given: Any = json.loads(decoded(Path(path).read_bytes()))
    except OSError as error:
        raise LedgerError(f"the checkpoint {path} cannot be read: {error.strerror}") from None
    except ValueError:
        given = None
    try:
        if given["format"] != _FORMAT:
            raise ValueError(given["format"])
        heads = given.get("heads")
        found = Checkpoint(
            **given["body"],
            signature=given["signature"],
            heads=None if heads is None else tuple(Head(*head) for head in heads),
        )
        _check_types(found)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise LedgerError(
            f"{path} is no checkpoint: it should be what `secateur audit checkpoint --out` wrote"
        ) from None
    return found


def _check_types(found: Checkpoint) -> None:
    """Raises ``ValueError`` or ``TypeError`` for what a signature cannot be asked about."""
    bytes.fromhex(found.root + found.previous + found.key + found.signature)
    datetime.fromisoformat(found.at)
    if not all(type(n) is int for n in (found.number, found.runs, found.events)):
        raise TypeError("number, runs and events are whole numbers")
    if found.verified not in (None, True, False) or type(found.verified) is int:
        raise TypeError("verified is true or false")


def checkpoints(connection: Connection) -> list[Checkpoint]:
    """All that the ledger holds, oldest first, without their heads."""
    table = tables.checkpoint.c
    columns = (*_SIGNED, "signature", "body")
    query = sa.select(*(table[name] for name in columns)).order_by(table.number)
    rows = [tuple[Any, ...](row) for row in connection.execute(query)]
    return [Checkpoint(*signed, verified=was_verified(body)) for *signed, body in rows]


def stored_checkpoint(connection: Connection, number: int | None = None) -> Checkpoint:
    """One of them, with its heads; the newest where no number is given.

    Raises :class:`LedgerError` where it is not there or cannot be read.
    """
    table = tables.checkpoint.c
    query = sa.select(*(table[name] for name in (*_SIGNED, "signature", "body", "heads")))
    query = query.order_by(table.number.desc()).limit(1)
    if number is not None:
        query = query.where(table.number == number)
    row = connection.execute(query).first()
    if row is None:
        which = "no checkpoint" if number is None else f"no checkpoint {number}"
        raise LedgerError(f"there is {which} yet: `secateur audit checkpoint` makes one")
    *signed, body, heads = tuple[Any, ...](row)
    try:
        return Checkpoint(*signed, heads=heads_of(heads), verified=was_verified(body))
    except (ValueError, TypeError, AttributeError):
        raise LedgerError(f"checkpoint {row[0]} was damaged: run `secateur audit verify`") from None


def heads_of(text: str) -> tuple[Head, ...]:
    """The leaves as a row keeps them. Raises ``ValueError`` or ``TypeError``."""
    return tuple(Head(*head) for head in from_text(text))


def was_verified(body: str) -> bool | None:
    """What a signed body says of it. Raises ``ValueError`` or ``AttributeError`` for what is no
    body."""
    return from_text(body).get("verified")


def make_checkpoint(
    engine: Engine,
    key: SigningKey,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    outside: bool = False,
    unverified: bool = False,
) -> Checkpoint:
    """Sign the heads of all runs as they are now, and record it.

    Before that, every run with events that the checkpoint before did not vouch for is verified:
    its chain, its blobs, what its events allow. ``unverified`` leaves this out, and the checkpoint
    says so. ``engine`` must be open for writing, unless the checkpoint stays ``outside``: then it
    is not recorded, has the number 0, and is worth nothing without its heads. Raises
    :class:`LedgerError` where the checkpoint before does not hold any more, or a run is damaged.
    """
    # What is signed is one state of the ledger, read without keeping anybody from writing.
    reading = connect.connect(engine.url.render_as_string(hide_password=False), read_only=True)
    try:
        with reading.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                made = _signed(connection, key, now, outside, unverified)
        if not outside:
            row = {name: getattr(made, name) for name in (*_SIGNED, "signature", "body")}
            row["heads"] = as_text([list(head) for head in made.heads or ()])
            with engine.begin() as connection:
                connection.execute(sa.insert(tables.checkpoint), row)
        return made
    except IntegrityError:
        raise LedgerError(
            "another checkpoint was made at the same time: this one is not needed"
        ) from None
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        raise LedgerError(connect.explain(error, connect.place(engine.url))) from None
    finally:
        reading.dispose()


def _signed(
    connection: Connection,
    key: SigningKey,
    now: Callable[[], datetime],
    outside: bool,
    unverified: bool,
) -> Checkpoint:
    before = _newest(connection)
    heads = _heads_now(connection)
    if not unverified:
        _verify_new(Sweep(connection), before, heads)
    follows = None if outside else before
    unsigned = Checkpoint(
        number=0 if outside else 1 if before is None else before.number + 1,
        at=now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        runs=len(heads),
        events=sum(head.seq + 1 for head in heads),
        root=merkle.root([head.leaf for head in heads]).hex(),
        previous=GENESIS if follows is None else follows.hash,
        key=key.public,
        signature="",
        heads=heads,
        verified=not unverified,
    )
    return replace(unsigned, signature=key.sign(unsigned.body.encode("ascii")))


def _verify_new(sweep: Sweep, before: Checkpoint | None, heads: tuple[Head, ...]) -> None:
    """Walk every run whose head the checkpoint before did not verify already."""
    known = set(before.heads or ()) if before is not None and before.verified else set[Head]()
    new = {head.run for head in heads if head not in known}
    if 2 * len(new) > len(heads):
        spans = sweep.spans(_SPAN)
    else:
        spans = [Span(run, None, 0, alone=True) for run in sorted(new)]
    for span in spans:
        for damage in walk(sweep, span, {}, derived=False).damages:
            raise LedgerError(
                f"no checkpoint was made, because {damage}: run `secateur audit verify`; "
                "--unverified signs all the same, and says so"
            )


def _heads_now(connection: Connection) -> tuple[Head, ...]:
    event = tables.event.c
    last = (
        sa.select(event.run_id, sa.func.max(event.seq).label("seq"))
        .group_by(event.run_id)
        .subquery()
    )
    query = sa.select(event.run_id, event.seq, event.hash).join(
        last, sa.and_(event.run_id == last.c.run_id, event.seq == last.c.seq)
    )
    return tuple(sorted(Head(*row) for row in connection.execute(query)))


def _newest(connection: Connection) -> Checkpoint | None:
    """The checkpoint before, if there is one; it must hold."""
    table = tables.checkpoint.c
    if connection.execute(sa.select(table.number).limit(1)).first() is None:
        return None
    before = stored_checkpoint(connection)
    heads = before.heads or ()
    there = Sweep(connection).hashes([(head.run, head.seq) for head in heads])
    gone = [head.run for head in heads if there.get((head.run, head.seq)) != head.hash]
    fault = f"run {gone[0]} is not what it vouches for" if gone else before.fault()
    if fault is not None:
        raise LedgerError(
            f"no checkpoint was made, because {before.name} does not hold any more ({fault}): run "
            "`secateur audit verify`"
        )
    return before
