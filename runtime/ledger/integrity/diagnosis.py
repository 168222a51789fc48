"""What became of an event that does not fit: looked for where it might stand instead.

Verification is quick because it asks one question of each event. Only when the answer is no does
it come here, where there is time to try every place.
"""

from collections.abc import Iterator, Sequence

from .damage import DamageError, DamageKind
from .links import COLUMNS, Link, link_hash
from .sweep import Sweep

__all__ = ["broken_link", "gap"]


def gap(sweep: Sweep, run: str, expected: int, head: str, following: int) -> DamageError:
    """Why ``following`` comes where ``expected`` should: moved elsewhere, or gone."""
    query = f"SELECT {', '.join(COLUMNS)} FROM event WHERE prev_hash = ?"
    for columns in sweep.rows(query, (head,)):
        link = Link._make(columns)
        if link_hash(link._replace(run_id=run, seq=expected)) == link.hash:
            return DamageError(
                expected,
                DamageKind.SWAPPED,
                f"event {expected} does not stand in its place, but {_place(link, run)}",
            )
    lost = f"event {expected} is" if following == expected + 1 else _several(expected, following)
    return DamageError(expected, DamageKind.MISSING, f"{lost} missing")


def broken_link(sweep: Sweep, columns: tuple, head: str, bound: str) -> DamageError:
    """Why an event's hash is not that of its columns, or does not follow the event before."""
    link = Link._make(columns)
    if link_hash(link) == link.hash:
        return _unlinked(sweep, link, head)
    place = _own_place(sweep, link)
    if place is not None:
        return DamageError(
            link.seq,
            DamageKind.SWAPPED,
            f"event {link.seq} was swapped: what stands there was recorded as {place}",
        )
    return DamageError(
        link.seq,
        DamageKind.CHANGED,
        f"event {link.seq} was changed: {_column(sweep, link, head, bound)}",
    )


def _unlinked(sweep: Sweep, link: Link, head: str) -> DamageError:
    """A hash that is right, and a chain that is not: somebody made one of two hashes anew."""
    followed = sweep.rows(
        "SELECT prev_hash FROM event WHERE run_id = ? AND seq = ?", (link.run_id, link.seq + 1)
    )
    if link.seq and followed and followed[0][0] == link.hash:
        return DamageError(
            link.seq - 1,
            DamageKind.CHANGED,
            f"event {link.seq - 1} was changed and its hash made anew: event {link.seq} follows "
            f"{link.prev_hash[:12]}, not {head[:12]}",
        )
    return DamageError(
        link.seq,
        DamageKind.CHANGED,
        f"event {link.seq} was changed and its hash made anew: it does not follow "
        + (f"event {link.seq - 1}" if link.seq else "the beginning of a chain"),
    )


def _own_place(sweep: Sweep, link: Link) -> str | None:
    """Where these columns give the hash that stands there: the event's own place."""
    for run, seq, previous, hash in _places(sweep, link):
        if (run, seq) == (link.run_id, link.seq):
            continue
        moved = link._replace(run_id=run, seq=seq)
        if link_hash(moved) == link.hash:  # the whole row was moved
            return _name(run, seq, link.run_id)
        if link_hash(moved._replace(prev_hash=previous)) in (hash, link.hash):  # all but its links
            return _name(run, seq, link.run_id)
    return None


def _places(sweep: Sweep, link: Link) -> Iterator[Sequence]:
    """Places in a chain, with the links there: this run's, and behind the event it names."""
    query = "SELECT run_id, seq, prev_hash, hash FROM event WHERE run_id = ? ORDER BY seq"
    yield from sweep.rows(query, (link.run_id,))
    before = sweep.rows("SELECT run_id, seq FROM event WHERE hash = ?", (link.prev_hash,))
    for run, seq in before:
        yield run, seq + 1, "", ""
    if link.seq == 0:  # the start of another run
        yield from sweep.rows("SELECT id, 0, '', '' FROM run")


def _column(sweep: Sweep, link: Link, head: str, bound: str) -> str:
    """Which column it is, where that can be told."""
    whole = link_hash(link)
    if whole is None:
        return "a column has another type"
    for name, value in (("prev_hash", head), ("digests", bound)):
        if link_hash(link._replace(**{name: value})) == link.hash:
            return f"its {name} is not what was hashed"
    followed = sweep.rows("SELECT seq FROM event WHERE prev_hash = ?", (whole,))
    if (link.seq + 1,) in [tuple(row) for row in followed]:
        return f"its hash is not the one that event {link.seq + 1} follows"
    return "its hash does not match its columns"


def _several(first: int, following: int) -> str:
    return f"events {first} to {following - 1} are"


def _place(link: Link, run: str) -> str:
    return f"as {_name(link.run_id, link.seq, run)}"


def _name(run: str, seq: int, here: str) -> str:
    return f"event {seq}" if run == here else f"event {seq} of run {run}"
