"""What checkpoints say about the runs, and whether the checkpoints themselves are whole."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..chain import GENESIS, as_text, from_text
from ..errors import LedgerError
from .checkpoints import Checkpoint, Head, heads_of, was_verified
from .damage import Damage, DamageKind
from .sweep import Sweep
from .walk import Mark

__all__ = ["Witnessed", "witnessed"]

_COLUMNS = "number, at, runs, events, root, previous, key, signature, body, heads"

_Fault = tuple[DamageKind, str]


@dataclass(slots=True)
class Witnessed:
    """What is known of the runs' heads, from the ledger's checkpoints and one kept elsewhere."""

    checkpoints: int = 0
    marks: dict[str, list[Mark]] = field(default_factory=dict)
    """For each run what is to be found in its chain, by seq."""
    damages: list[Damage] = field(default_factory=list)
    """What is wrong with the checkpoints."""

    def add(self, heads: Iterable[Head], source: str) -> None:
        """Take the word of a checkpoint; what is known already is not kept twice."""
        for head in heads:
            marks = self.marks.setdefault(head.run, [])
            if not any(mark[:2] == head[1:] for mark in marks[-1:]):
                marks.append(Mark(head.seq, head.hash, source))

    def bad(self, fault: _Fault, name: str) -> None:
        """Note what is wrong with a checkpoint."""
        kind, reason = fault
        self.damages.append(Damage(None, None, kind, f"{name} {reason}"))


def witnessed(sweep: Sweep, run: str | None, kept: Checkpoint | None, key: str | None) -> Witnessed:
    """Read the ledger's checkpoints, and one that was kept elsewhere.

    For one run, the newest checkpoint is enough. Raises :class:`LedgerError` where ``kept`` is not
    signed, or with another key than ``key``: then it vouches for nothing.
    """
    if kept is not None:
        fault = kept.fault() or _other_key(kept, key)
        if fault is not None:
            raise LedgerError(f"the {kept.name} that was kept proves nothing: {fault}")
    found = Witnessed()
    _own(sweep, run, key, found)
    if kept is not None:
        _kept(sweep, kept, found)
    if run is not None:
        found.marks = {run: found.marks[run]} if run in found.marks else {}
    return found


def _own(sweep: Sweep, run: str | None, key: str | None, found: Witnessed) -> None:
    """The ledger's own checkpoints: a chain of their own, each signed, each with its tree."""
    last = " DESC LIMIT 1" if run is not None else ""
    previous, expected = GENESIS, 1
    for row in sweep.rows(f"SELECT {_COLUMNS} FROM checkpoint ORDER BY number{last}"):
        number, body = row[0], row[8]
        name = f"checkpoint {number}"
        if run is None and number != expected:
            lost = f"checkpoint {expected}"
            found.bad((DamageKind.MISSING, "is missing"), lost)
        checkpoint, fault = _read(row)
        if fault is None and checkpoint is not None:
            if (other := _other_key(checkpoint, key)) is not None:
                fault = (DamageKind.CHANGED, f"was changed: {other}")
            elif run is None and number == expected and checkpoint.previous != previous:
                fault = (
                    DamageKind.CHANGED,
                    f"does not follow the one before: checkpoint {number - 1} was made anew",
                )
        if fault is not None:
            found.bad(fault, name)
        elif checkpoint is not None:
            found.add(checkpoint.heads or (), checkpoint.name)
        found.checkpoints += 1
        expected = number + 1
        previous = checkpoint.hash if checkpoint is not None else body


def _read(row: tuple) -> tuple[Checkpoint | None, _Fault | None]:
    """A row as a checkpoint, and what is wrong with it in itself."""
    *signed, body, heads = row
    try:
        checkpoint = Checkpoint(*signed, heads=heads_of(heads), verified=was_verified(body))
        if body != checkpoint.body:
            if from_text(body)["number"] != checkpoint.number:
                other = from_text(body)["number"]
                return None, (DamageKind.SWAPPED, f"was swapped: it is checkpoint {other}")
            return None, (DamageKind.CHANGED, "was changed: its columns are not what was signed")
        fault = checkpoint.fault()
        if fault is None and as_text([list(head) for head in checkpoint.heads or ()]) != heads:
            fault = "its heads are written in another way"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return None, (DamageKind.CHANGED, f"cannot be read: {error!r}")
    if fault is not None:
        return None, (DamageKind.CHANGED, f"was changed: {fault}")
    return checkpoint, None


def _kept(sweep: Sweep, kept: Checkpoint, found: Witnessed) -> None:
    """The ledger against a checkpoint that was kept elsewhere."""
    row = sweep.rows(f"SELECT {_COLUMNS} FROM checkpoint WHERE number = ?", (kept.number,))
    name = f"the {kept.name} that was kept"
    heads = kept.heads
    if kept.number == 0:
        if heads is None:
            raise LedgerError(f"{name} names no heads, and the ledger never held it")
    elif not row:
        later = sweep.rows("SELECT number FROM checkpoint WHERE number > ?", (kept.number,))
        kind = DamageKind.MISSING if later else DamageKind.TRUNCATED
        found.bad((kind, "is not in the ledger any more"), name)
    else:
        own, _ = _read(row[0])
        if own is None or own.body != kept.body:
            found.bad((DamageKind.CHANGED, "is not the one that the ledger holds"), name)
        elif heads is None:
            heads = own.heads
    found.add(heads or (), name)


def _other_key(checkpoint: Checkpoint, key: str | None) -> str | None:
    if key is None or checkpoint.key == key:
        return None
    return f"it is signed with the key {checkpoint.key[:16]}…, not with {key[:16]}…"
