"""Every column of every kind of event changed in turn, and every other row: found, and named."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from secateur.benchmarks.breaking.attacker import CHECKED, Attacker, Row, where, write_ledger
from secateur.benchmarks.breaking.checks import ALONE
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import in_child
from secateur.benchmarks.breaking.tally import Tally
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.chain import event_hash
from secateur.runtime.ledger.events import EventKind
from secateur.runtime.ledger.integrity import verification, verifier
from secateur.runtime.ledger.integrity.checkpoints import Checkpoint
from secateur.runtime.ledger.integrity.damage import Damage, DamageKind

__all__ = ["mutate_everything"]

FOUND = "what was changed is found"
NAMED = "and named: the event or row, and what is wrong with it"
_LAX = ("is longer",)
"""What the one-file verifier passes over: blanks where JSON and hexadecimal allow them."""
_ASIDE: dict[type, Any] = {str: "~", int: 1_000_000}
"""Where one of two keys waits while they change places."""


@dataclass(frozen=True, slots=True)
class _Mutation:
    """One change of one column of one row."""

    table: sa.Table
    row: Row
    column: str
    how: str
    new: Any
    statements: tuple[sa.Executable, ...]
    partner: Row | None = None
    """The neighbour that it changed places with."""

    def __str__(self) -> str:
        key = "/".join(str(self.row[column.name])[:12] for column in self.table.primary_key)
        return f"{self.table.name} {key} ({self.row.get('kind', '')}): {self.column} {self.how}"


def mutate_everything(place: Place, folder: Path, every: int) -> Tally:
    """Each mutation (or every so-manieth) in turn, on one small ledger, undone each time."""
    tally = Tally()
    url = place.new()
    run, checkpoint = in_child(lambda: write_ledger(url, folder))
    attacker = Attacker(url)
    engine = connect.open_existing(url)
    blobs = _names_of_blobs(attacker)
    kinds = {row["kind"] for row in attacker.rows["event"]}
    assert kinds == set(EventKind), set(EventKind) - kinds
    before = verification.verify(engine)
    tally.hold(FOUND, before.ok, f"something before anything was changed: {before.first_bad}")
    for number, mutation in enumerate(_mutations(attacker, run)):
        if number % every:
            continue
        if not attacker.do(*mutation.statements):
            tally.done["changes that the database itself refused"] += 1
            continue
        damages = _verify(engine, str(mutation), tally)
        if number % (3 * every) == 0:
            _verify_alone(url, mutation, tally)
        attacker.restore(mutation.table.name)
        tally.done[f"changes of {mutation.table.name}"] += 1
        if damages:
            named = any(_names(damage, mutation, blobs) for damage in damages)
            tally.hold(NAMED, named, f"{mutation} is called: {damages}")
    _take_rows(attacker, engine, run, checkpoint, every, tally)
    after = verification.verify(engine)
    tally.hold(FOUND, after.ok, f"something after everything was undone: {after.first_bad}")
    engine.dispose()
    attacker.close()
    return tally


def _verify(
    engine: sa.Engine, what: str, tally: Tally, checkpoint: Checkpoint | None = None
) -> Sequence[Damage]:
    """What verification finds; that it finds something is a promise, that it ends another."""
    try:
        damages = verification.verify(engine, checkpoint=checkpoint).damages
    except Exception as error:
        tally.hold(FOUND, False, f"verification itself broke on {what}: {error!r}")
        return ()
    tally.hold(FOUND, bool(damages), f"not this one: {what}")
    return damages


def _verify_alone(url: str, mutation: _Mutation, tally: Tally) -> None:
    """What the one-file verifier finds in a SQLite file; derived rows it does not read."""
    evidence = mutation.table.name in verifier.TABLES
    if not evidence or mutation.how in _LAX or connect.address(url).get_backend_name() != "sqlite":
        return
    _, _, wrong = verifier.verify(verifier.open_ledger(Path(url)), None, None, None, None)
    tally.hold(ALONE, bool(wrong), f"not {mutation}")


def _names_of_blobs(attacker: Attacker) -> dict[str, tuple[str, int, str]]:
    """By digest: run, event and name of whoever names it."""
    return {
        digest: (row["run_id"], row["seq"], name)
        for row in attacker.rows["event"]
        for name, digest in json.loads(row["blobs"]).items()
    }


def _mutations(attacker: Attacker, run: str) -> Iterator[_Mutation]:
    """All of the first event of each kind; of every other row each column, in turns."""
    seen: set[str] = set()
    for table in CHECKED:
        rows = attacker.rows[table.name]
        for place, row in enumerate(rows):
            if table is tables.event and (row["run_id"] != run or row["kind"] in seen):
                continue
            seen.add(row.get("kind", ""))
            neighbour = rows[place + 1] if place + 1 < len(rows) else rows[place - 1]
            thorough = table is tables.event or place == 0
            for turn, column in enumerate(table.c):
                several = list(_of_column(table, row, column, neighbour))
                if not thorough:
                    several = several[(place + turn) % len(several) :][:1] if several else []
                yield from several


def _of_column(
    table: sa.Table, row: Row, column: sa.Column[Any], neighbour: Row
) -> Iterator[_Mutation]:
    name, value, other = column.name, row[column.name], neighbour[column.name]
    here, there = where(table, row), where(table, neighbour)
    for how, new in _changed(value, column):
        change = sa.update(table).where(here).values({name: new})
        yield _Mutation(table, row, name, how, new, (change,))
    if other == value or other is None or value is None or neighbour is row:
        return
    copied = sa.update(table).where(here).values({name: other})
    yield _Mutation(table, row, name, "is its neighbour's", other, (copied,))
    if column.primary_key and len(table.primary_key) == 1:
        aside = {**row, name: _ASIDE[type(value)]}
        swap = (
            sa.update(table).where(here).values({name: aside[name]}),
            sa.update(table).where(there).values({name: value}),
            sa.update(table).where(where(table, aside)).values({name: other}),
        )
    elif column.primary_key:
        return  # within one run it is the whole row that changes places: see below
    else:
        swap = (copied, sa.update(table).where(there).values({name: value}))
    how = "changed places with its neighbour's"
    yield _Mutation(table, row, name, how, other, swap, neighbour)


def _changed(value: Any, column: sa.Column[Any]) -> Iterator[tuple[str, Any]]:
    match value:
        case None:
            filled = {int: 7, float: 0.5}.get(column.type.python_type, "b2")
            yield "is filled", filled
            return
        case bool():
            yield "is the opposite", not value
        case str():
            yield "has another letter", _another_letter(value)
            yield "is longer", f"{value}\t"  # a blank, which a lenient reader passes over
            yield "is empty", ""
        case int():
            yield "is one more", value + 1
            yield "is negative", -value - 1
        case float():
            yield "is the next number", math.nextafter(value, math.inf)
            yield "is 0", 0.0 if value else 1.0
        case bytes() if value:
            yield "has another bit", bytes([value[0] ^ 1]) + value[1:]
            yield "is longer", value + b"\0"
            yield "is empty", b""
        case bytes():
            yield "is no longer empty", b"\0"
        case _:
            raise TypeError(f"no way to change {value!r}")
    yield "is NULL", None


def _another_letter(text: str) -> str:
    if not text:
        return "x"
    middle = len(text) // 2
    letter = "0" if text[middle] != "0" else "1"
    return text[:middle] + letter + text[middle + 1 :]


def _names(damage: Damage, mutation: _Mutation, blobs: dict[str, tuple[str, int, str]]) -> bool:
    """Whether this is what was done."""
    rows = [mutation.row] if mutation.partner is None else [mutation.row, mutation.partner]
    reason = damage.reason
    match mutation.table.name:
        case "event":
            return any((damage.run, damage.seq) == (row["run_id"], row["seq"]) for row in rows)
        case "blob":
            places = [blobs[row["digest"]] for row in rows]
            return any(
                (damage.run, damage.seq) == (run, seq) and name in reason
                for run, seq, name in places
            )
        case "run":
            return any(damage.run == row["id"] for row in rows) and (
                mutation.column in reason or mutation.column == "id"
            )
        case "policy":
            return "policy" in reason
        case "checkpoint":
            return any(f"checkpoint {row['number']}" in reason for row in rows)
        case "erasure":
            places = [blobs[row["digest"]] for row in rows]
            return any(damage.run == run for run, _, _ in places) and (
                damage.seq in [seq for _, seq, _ in places] + [row["seq"] for row in rows]
            )
        case "decision":
            return any(damage.run == row["run_id"] for row in rows) and damage.seq in (
                *(row["seq"] for row in rows),
                mutation.new,
            )
        case _:  # thought, tag_score: by the name it had, or the one it has now
            column = "id" if mutation.table is tables.thought else "thought_id"
            names = [row[column] for row in rows]
            names += [str(mutation.new)] if mutation.column == column else []
            return any(damage.run == row["run_id"] for row in rows) and any(
                re.search(f"thought {re.escape(name)}[ :]", reason) for name in names
            )


def _take_rows(
    attacker: Attacker,
    engine: sa.Engine,
    run: str,
    checkpoint: Checkpoint,
    every: int,
    tally: Tally,
) -> None:
    """Whole rows taken out, cut off, put in and exchanged."""
    events = [row for row in attacker.rows["event"] if row["run_id"] == run]

    def check(
        what: str, kind: DamageKind, seq: int | None, *statements: sa.Executable, kept: bool = False
    ) -> None:
        assert attacker.do(*statements), what
        damages = _verify(engine, f"{what} {seq}", tally, checkpoint if kept else None)
        attacker.restore(*(table.name for table in CHECKED))
        tally.done[what] += 1
        if damages:
            named = [(bad.kind, bad.seq) for bad in damages if bad.run == run]
            tally.hold(
                NAMED,
                any(k is kind and seq in (None, s) for k, s in named),
                f"{what} {seq} is called: {damages}",
            )

    event = tables.event
    for row in events[:-1:every]:
        gone = sa.delete(event).where(where(event, row))
        check("events taken out of the middle", DamageKind.MISSING, row["seq"], gone)
    for length in (1, 2, len(events) // 2):
        gone = sa.delete(event).where(event.c.run_id == run, event.c.seq >= len(events) - length)
        check("ends cut off", DamageKind.TRUNCATED, len(events) - length, gone)
    for row, following in list(pairwise(events))[::every]:
        aside = {**row, "seq": _ASIDE[int]}
        check(
            "events that changed places",
            DamageKind.SWAPPED,
            row["seq"],
            sa.update(event).where(where(event, row)).values(seq=aside["seq"]),
            sa.update(event).where(where(event, following)).values(seq=row["seq"]),
            sa.update(event).where(where(event, aside)).values(seq=following["seq"]),
        )
    extra = {**events[-1], "seq": len(events)}
    check("events put in", DamageKind.SWAPPED, len(events), sa.insert(event).values(extra))
    for table in CHECKED:
        if table is event:
            continue
        # Of the newest checkpoint only a copy kept elsewhere could tell.
        rows = attacker.rows[table.name][: -1 if table is tables.checkpoint else None]
        for row in rows[::every]:
            if row.get("run_id", row.get("id", run)) == run:
                assert attacker.do(sa.delete(table).where(where(table, row)))
                _verify(engine, f"a row of {table.name} taken out, {row}", tally)
                attacker.restore(table.name)
                tally.done[f"rows of {table.name} taken out"] += 1
    everything = [
        sa.delete(table).where(table.c["id" if table is tables.run else "run_id"] == run)
        for table in CHECKED
        if table.name in ("run", "event", "thought", "tag_score", "decision", "erasure")
    ]
    for row in (events[1], events[len(events) // 2], events[-1]):
        anew = _made_anew(events, row["seq"])
        check("chains made anew", DamageKind.CHANGED, None, *anew)
        gone = sa.delete(tables.checkpoint)
        check("chains made anew", DamageKind.CHANGED, None, *anew, gone, kept=True)
    check("whole runs taken out", DamageKind.MISSING, None, *everything, kept=True)


def _made_anew(events: list[Row], seq: int) -> list[sa.Executable]:
    """One event changed, and every hash from there on computed anew, as one who knows how would."""
    statements: list[sa.Executable] = []
    head = events[seq]["prev_hash"]
    for row in events[seq:]:
        forged = {**row, "prev_hash": head}
        if row["seq"] == seq:
            forged["monotonic_ns"] += 1
        head = forged["hash"] = event_hash(forged)
        statements.append(sa.update(tables.event).where(where(tables.event, row)).values(**forged))
    return statements
