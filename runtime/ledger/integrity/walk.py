"""One run after another: its chain link by link, its blobs, and what was derived from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from ....gates.canonical import digest as digest_of
from .. import connect, tables
from ..chain import GENESIS, as_text, blob_digest, from_text
from ..errors import LedgerError
from ..events import EventKind
from ..standing import TELLING, ContradictionError, Standing
from ..text import shown
from .damage import Damage, DamageError, DamageKind, cut_off
from .derived import Derivation, Spoken, check_derived, check_passages, read_body
from .diagnosis import broken_link, gap
from .links import Link, link_hash
from .sweep import Span, Sweep, sweeping

__all__ = ["Mark", "Marks", "Walked", "policy_fault", "walk", "walking"]

_BATCH: Final = 512
_DERIVED: Final = (
    *(tables.thought, tables.tag_score, tables.decision),
    *(tables.passage, tables.passage_mark),
)
_RESUMED: Final = EventKind.RESUMED.value
_ERASED: Final = EventKind.ERASED.value
_BOUND: Final = ("policy", "model", "tokenizer", "vocabulary")
"""Digests that a resumed run has in common with its start; its code may be newer."""


class Mark(NamedTuple):
    """What a checkpoint says of one run: the event at ``seq`` had this hash."""

    seq: int
    hash: str
    source: str
    """The checkpoint, in words: ``checkpoint 3 of 2026-…``."""


Marks = Mapping[str, Sequence[Mark]]
"""By run."""


@dataclass(slots=True)
class Walked:
    """What came of one span."""

    events: int = 0
    blobs: int = 0
    runs: int = 0
    damages: list[Damage] = field(default_factory=list)
    """The first of each run that has any, in the order of the runs."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a span holds beside its events, each by run."""

    policies: Mapping[str, tuple]
    """By digest."""
    runs: Mapping[str, list[tuple]]
    erasures: Mapping[str, list[tuple]]
    thoughts: Mapping[str, list[tuple]]
    scores: Mapping[str, list[tuple]]
    decisions: Mapping[str, list[tuple]]
    passages: Mapping[str, list[tuple]]
    marks: Mapping[str, list[tuple]]

    @property
    def known(self) -> set[str]:
        """Every run that is named anywhere here."""
        tables = (
            *(self.runs, self.erasures, self.thoughts, self.scores, self.decisions),
            *(self.passages, self.marks),
        )
        return {run for table in tables for run in table}


def walk(sweep: Sweep, span: Span, marks: Marks, *, derived: bool) -> Walked:
    """Check the runs of one span. ``derived``: the tables made from the events as well."""
    try:
        return _walk(sweep, span, marks, derived)
    except sweep.undecodable:
        with sweep.lenient():
            return _walk(sweep, span, marks, derived)


@contextmanager
def walking(given: tuple[str, Marks, bool]) -> Iterator[Callable[[Span], Walked]]:
    """The same in a process of its own, which opens the ledger for itself: its URL, the marks, and
    whether derived rows are checked as well."""
    url, marks, derived = given
    engine = connect.connect(url, read_only=True)
    try:
        with sweeping(engine) as sweep:
            yield lambda span: walk(sweep, span, marks, derived=derived)
    except engine.dialect.loaded_dbapi.Error as error:
        raise LedgerError(connect.explain(error, connect.place(engine.url))) from None
    finally:
        engine.dispose()


def _walk(sweep: Sweep, span: Span, marks: Marks, derived: bool) -> Walked:
    beside = _Beside(
        {row[0]: row for row in sweep.rows("SELECT digest, name, body FROM policy")},
        sweep.of(tables.run, span),
        sweep.of(tables.erasure, span),
        *(sweep.of(table, span) if derived else {} for table in _DERIVED),
    )
    walked, seen = Walked(), set[str]()
    for run, links in groupby(sweep.events(span), key=itemgetter(0)):
        seen.add(run)
        check = _Run(sweep, run, beside, marks.get(run, ()), derived)
        damage = check.through(links)
        if damage is not None:
            walked.damages.append(damage)
        walked.events += check.taken
        walked.blobs += check.blobs
    for run in sorted(beside.known - seen, key=str):
        reason = "all of its events were cut off"
        walked.damages.append(Damage(run, 0, DamageKind.TRUNCATED, reason))
    walked.damages.sort(key=lambda damage: str(damage.run))
    walked.runs = len(seen | beside.known)
    return walked


class _Run:
    """One run, as far as it has been read."""

    def __init__(
        self, sweep: Sweep, run: str, beside: _Beside, marks: Sequence[Mark], derived: bool
    ) -> None:
        self.sweep, self.run, self.derived = sweep, run, derived
        rows = beside.runs.get(run)
        self.row = dict(zip(tables.run.c.keys(), rows[0], strict=True)) if rows else None
        self.beside = beside
        self.marks: dict[int, list[Mark]] = {}
        for mark in marks:
            self.marks.setdefault(mark.seq, []).append(mark)
        self.erasures = {digest: (seq, at) for digest, _, seq, at in beside.erasures.get(run, ())}
        self.standing = Standing()
        self.derivation = Derivation(self.row["agent"] if self.row else "")
        self.spoken = Spoken()
        self.expected, self.bound = 0, ""
        self.head: str = GENESIS
        self.digests: Mapping[str, str] = {}
        self.taken = 0
        """Events that were read, whole or not."""
        self.blobs = 0
        self.gone: dict[str, tuple[int, str]] = {}
        """Blobs without bytes, until the event that erased them is met: event and name."""

    def through(self, links: Iterator[tuple]) -> Damage | None:
        """Check all of it; the first damage."""
        try:
            self.known()
            self.chain(links)
            self.end()
        except DamageError as bad:
            self.taken += sum(1 for _ in links)  # counted, and passed over
            return bad.of(self.run)
        return None

    def known(self) -> None:
        """The run's row is there, and its policy is whole."""
        if self.row is None:
            raise DamageError(None, DamageKind.MISSING, "the run's row is missing")
        policy = self.beside.policies.get(self.row["policy"])
        if policy is None:
            reason = f"policy {self.row['policy'][:12]} is missing"
            raise DamageError(None, DamageKind.MISSING, reason)
        fault = policy_fault(policy)
        if fault is not None:
            raise DamageError(None, DamageKind.CHANGED, fault)

    def chain(self, links: Iterator[tuple]) -> None:
        """Follow the chain. What is found first in it is raised first."""
        while batch := list(islice(links, _BATCH)):
            self.taken += len(batch)
            whole, bad = self._linked(batch)
            try:
                contents = self._contents(whole)
                self._follow(whole, contents)
            except DamageError as earlier:
                raise self._first(earlier, whole) from None
            if bad is not None:
                raise self._first(bad, whole)

    def _linked(self, batch: list[tuple]) -> tuple[list[tuple[tuple, dict]], DamageError | None]:
        """The links that fit, each with the blobs it names; and what is wrong with the next."""
        whole: list[tuple[tuple, dict]] = []
        for columns in batch:
            seq = columns[1]
            if seq != self.expected:
                return whole, gap(self.sweep, self.run, self.expected, self.head, seq)
            hash = columns[13]
            if link_hash(columns) != hash or columns[12] != self.head:
                return whole, broken_link(self.sweep, columns, self.head, self.bound)
            if seq in self.marks and (mark := self._disowned(seq, hash)) is not None:
                return whole, DamageError(
                    seq,
                    DamageKind.CHANGED,
                    f"event {seq} is not the one that {mark.source} vouches for: the chain was "
                    "made anew",
                )
            try:
                if seq == 0:
                    self._started(columns)
                elif columns[2] == _RESUMED:
                    self._resumed(columns)
                if columns[8] != self.bound:
                    raise DamageError(
                        seq,
                        DamageKind.CHANGED,
                        f"event {seq} is bound to other digests than its run",
                    )
                whole.append((columns, orjson.loads(columns[10])))
            except DamageError as bad:
                return whole, bad
            except (KeyError, ValueError, TypeError) as error:
                return whole, _unreadable(seq, error)
            self.expected, self.head = seq + 1, hash
        return whole, None

    def _disowned(self, seq: int, hash: str) -> Mark | None:
        """The checkpoint that vouches for another event in this place."""
        return next((mark for mark in self.marks.get(seq, ()) if mark.hash != hash), None)

    def _started(self, columns: tuple) -> None:
        """The run's row against its first event, which says what all others are bound to."""
        event = Link._make(columns)
        if event.kind != EventKind.RUN_STARTED:
            raise DamageError(0, DamageKind.CHANGED, "event 0 does not start the run")
        body, row = from_text(event.body), self.row
        assert row is not None, "known comes first"
        said = {
            "id": event.run_id,
            "task": from_text(event.blobs).get("task"),
            "started_at": event.at,
            "digests": as_text(body["digests"]),
            **{n: body[n] for n in ("agent", "context", "seed", "policy", "engine", "model")},
        }
        for name, value in row.items():
            if _column(said[name]) != value:
                raise DamageError(
                    None,
                    DamageKind.CHANGED,
                    f"the run's row was changed: {name} differs from event 0",
                )
        self.digests, self.bound = body["digests"], digest_of(body["digests"])

    def _resumed(self, columns: tuple) -> None:
        """A run that goes on is bound to what it was, but for its code."""
        digests = from_text(columns[11])["digests"]
        for name in _BOUND:
            if digests[name] != self.digests[name]:
                raise DamageError(
                    columns[1],
                    DamageKind.CHANGED,
                    f"event {columns[1]} resumes the run under another {name}",
                )
        self.bound = digest_of(digests)

    def _contents(self, whole: list[tuple[tuple, dict]]) -> dict[str, bytes]:
        """The bytes of every blob that these events name; empty for those that were erased."""
        found = self.sweep.blobs([digest for _, named in whole for digest in named.values()])
        contents: dict[str, bytes] = {}
        for columns, named in whole:
            for name, digest in named.items():
                held = found.get(digest)
                try:
                    if held is not None and sha256(held[0] + held[1]).hexdigest() == digest:
                        contents[digest] = held[1]
                        continue
                except TypeError:  # another type than bytes: somebody wrote it by hand
                    pass
                self._not_whole(columns[1], name, digest, held)
                contents[digest] = b""
            self.blobs += len(named)
        return contents

    def _not_whole(self, seq: int, name: str, digest: str, held: tuple[Any, Any] | None) -> None:
        """Nothing, where the blob was erased; the event that did it is still to be met."""
        if held is None:
            raise DamageError(seq, DamageKind.MISSING, f"the {name} of event {seq} is missing")
        if not held[0] and not held[1]:
            if digest not in self.erasures:
                raise DamageError(
                    seq,
                    DamageKind.MISSING,
                    f"the bytes of the {name} of event {seq} are gone, and no erasure says why",
                )
            self.gone[digest] = (seq, name)
            return
        other = _digest(held)
        if other is not None and self.sweep.blobs([other]):
            raise DamageError(
                seq,
                DamageKind.SWAPPED,
                f"the {name} of event {seq} was swapped with another blob, {other[:12]}",
            )
        raise DamageError(seq, DamageKind.CHANGED, f"the {name} of event {seq} was changed")

    def _follow(self, whole: list[tuple[tuple, dict]], contents: Mapping[str, bytes]) -> None:
        """What each event says against what the ones before it allow, and what is made from it."""
        for columns, named in whole:
            try:
                if self.derived:
                    self.spoken.take(columns, named, contents)
                body = read_body(columns[2], columns[11])
                if body is None:
                    continue
                if columns[2] == _ERASED:
                    self._erased(columns)
                if columns[2] in TELLING:
                    arguments = contents.get(named.get("arguments", ""), b"")
                    self.standing.take(Link._make(columns), body, arguments)
                if self.derived:
                    self.derivation.take(columns, body, named, contents)
            except ContradictionError as wrong:
                raise DamageError(wrong.seq, DamageKind.CHANGED, wrong.reason) from None
            except (KeyError, ValueError, TypeError) as error:
                raise _unreadable(columns[1], error) from None

    def _erased(self, columns: tuple) -> None:
        """An event that erased blobs of this run: they are gone, and their rows say the same."""
        event = Link._make(columns)
        try:
            blobs = from_text(event.body)["blobs"]
            named = {digest: (said["seq"], said["name"]) for digest, said in blobs.items()}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _unreadable(event.seq, error) from None
        for digest, (seq, name) in named.items():
            what = f"the {name} of event {seq}"
            row = self.erasures.pop(digest, None)
            if row is None:
                raise DamageError(
                    event.seq,
                    DamageKind.MISSING,
                    f"event {event.seq} erased {what}, but its erasure row is missing",
                )
            if row != (event.seq, event.at):
                raise DamageError(
                    event.seq,
                    DamageKind.CHANGED,
                    f"the erasure row of {what} is not what event {event.seq} says",
                )
            if self.gone.pop(digest, None) != (seq, name):
                raise DamageError(
                    event.seq,
                    DamageKind.CHANGED,
                    f"event {event.seq} erased {what}, but its bytes are there, or were another's",
                )

    def _first(self, found: DamageError, whole: list[tuple[tuple, dict]]) -> DamageError:
        """What was found, or what is wrong with an earlier blob that was said to be erased."""
        if found.seq is None:
            return found
        # Of this batch the erasing events before it may not have been met yet.
        told = {
            digest for columns, _ in whole if columns[1] < found.seq for digest in _told(columns)
        }
        for digest, (seq, name) in self.gone.items():
            # A row that was taken already is the one that was found to be wrong.
            erasing, _ = self.erasures.get(digest, (found.seq, ""))
            if digest not in told and max(erasing, seq) < found.seq:
                return _unaccounted(seq, name, erasing)
        return found

    def end(self) -> None:
        """Nothing knows of more than the chain tells, and the derived rows are what it says."""
        last = self.expected - 1
        for mark in sorted(mark for marks in self.marks.values() for mark in marks):
            if mark.seq > last:
                raise cut_off(last, f"{mark.source} vouches for event {mark.seq}")
        for seq, _ in self.erasures.values():
            if seq > last:
                raise cut_off(last, f"an erasure names event {seq}")
        for digest, (seq, name) in self.gone.items():
            raise _unaccounted(seq, name, self.erasures[digest][0])
        for seq, _ in self.erasures.values():
            raise DamageError(
                seq, DamageKind.CHANGED, f"an erasure names event {seq}, which erased no such blob"
            )
        if self.derived:
            check_derived(
                self.derivation,
                self.beside.thoughts.get(self.run, ()),
                self.beside.scores.get(self.run, ()),
                self.beside.decisions.get(self.run, ()),
                last,
            )
            check_passages(
                self.spoken,
                self.beside.passages.get(self.run, ()),
                self.beside.marks.get(self.run, ()),
                self.standing.ended,
                last,
            )


def _told(columns: tuple) -> set[str]:
    """The blobs that an event erased, where it did and can be read."""
    if columns[2] != _ERASED:
        return set()
    try:
        return set(from_text(columns[11])["blobs"])
    except (KeyError, ValueError, TypeError):
        return set()


def _column(value: Any) -> Any:
    """What event 0 or a policy says, as a column holds it."""
    return shown(value) if isinstance(value, str) else value


def policy_fault(row: tuple) -> str | None:
    """What is wrong with a row of ``policy``: digest, name, body."""
    digest, name, body = row
    try:
        whole = blob_digest(b"", body.encode()) == digest
        fine = whole and _column(from_text(body)["name"]) == name
    except (ValueError, TypeError, KeyError, AttributeError):
        fine = False
    return None if fine else f"policy {name!r} was changed: it does not match its digest"


def _digest(held: tuple[Any, Any]) -> str | None:
    try:
        return sha256(held[0] + held[1]).hexdigest()
    except TypeError:  # another type than bytes: somebody wrote it by hand
        return None


def _unreadable(seq: int, error: Exception) -> DamageError:
    return DamageError(seq, DamageKind.CHANGED, f"event {seq} cannot be read: {error!r}")


def _unaccounted(seq: int, name: str, erasing: int) -> DamageError:
    return DamageError(
        seq,
        DamageKind.MISSING,
        f"the bytes of the {name} of event {seq} are gone, and event {erasing}, which should have "
        "erased them, does not say so",
    )
