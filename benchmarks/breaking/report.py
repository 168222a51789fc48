"""The counts, as a table for the terminal and as a page."""

import platform
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from secateur.benchmarks.breaking.campaign import Part
from secateur.benchmarks.breaking.databases import Database

__all__ = ["as_json", "broken", "markdown", "show"]

Results = Mapping[Database, Sequence[Part]]
_NAMES: Mapping[Database, str] = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
_KILLED = "killed "


def broken(results: Results) -> list[str]:
    """Every promise that did not hold, a line each."""
    return [
        f"{_NAMES[database]}, {part.name}: {line}"
        for database, parts in results.items()
        for part in parts
        for line in part.tally.broken
    ]


def as_json(results: Results, seconds: float) -> dict[str, Any]:
    """Everything, as plain data."""
    return {
        "seconds": round(seconds, 1),
        "broken": len(broken(results)),
        "kills": {database: _done(parts)["kills"] for database, parts in results.items()},
        "databases": {
            database: [part.to_json() for part in parts] for database, parts in results.items()
        },
    }


def _done(parts: Sequence[Part]) -> Counter[str]:
    return sum((part.tally.done for part in parts), Counter[str]())


def _damage(results: Results) -> list[tuple[str, ...]]:
    """What was done: part, what, and how often on each database."""
    rows: dict[tuple[str, str], dict[Database, int]] = {}
    for database, parts in results.items():
        for part in parts:
            for what, times in part.tally.done.items():
                if not what.startswith(_KILLED):
                    rows.setdefault((part.name, what), {})[database] = times
    return [
        (name, what, *(_count(counts.get(database)) for database in results))
        for (name, what), counts in rows.items()
    ]


def _promises(results: Results) -> list[tuple[str, ...]]:
    """What was checked: promise, how often on each database, how often it did not hold."""
    held: dict[str, Counter[Database]] = {}
    failed: Counter[str] = Counter()
    for database, parts in results.items():
        for part in parts:
            for promise, times in part.tally.held.items():
                held.setdefault(promise, Counter())[database] += times
            failed.update(line.split(": ")[0] for line in part.tally.broken)
    rows = [
        (promise, *(_count(counts[database]) for database in results), str(failed.pop(promise, 0)))
        for promise, counts in held.items()
    ]
    return rows + [
        (promise, *("" for _ in results), str(times)) for promise, times in failed.items()
    ]


def _points(results: Results) -> list[tuple[str, ...]]:
    """Where processes were killed, and how often on each database: before / after, or there."""
    kills: dict[Database, Counter[str]] = {
        database: _done(parts) for database, parts in results.items()
    }
    places: dict[str, dict[Database, dict[str, int]]] = {}
    for database, counts in kills.items():
        for what, times in counts.items():
            if what.startswith(_KILLED):
                place, when = _place(what.removeprefix(_KILLED))
                places.setdefault(place, {}).setdefault(database, {})[when] = times
    return [
        (place, *(_before_after(places[place].get(database, {})) for database in kills))
        for place in sorted(places, key=_rank)
    ]


def _place(point: str) -> tuple[str, str]:
    """A point without its ``before`` or ``after``, and that."""
    for when in ("before", "after"):
        for start in (f"{when} ", f"an agent's run {when} "):
            if point.startswith(start):
                agent = "an agent's run: " if start.startswith("an") else ""
                return agent + point.removeprefix(start), when
        if f": {when} " in point:
            return point.replace(f": {when} ", ": "), when
    return point, "there"


def _before_after(times: Mapping[str, int]) -> str:
    if not times:
        return ""
    if "there" in times:
        return _count(times["there"])
    return f"{times.get('before', 0)} / {times.get('after', 0)}"


def _rank(place: str) -> tuple[int, str]:
    """Random moments first, then what happens to an event, to a transaction, to a ledger."""
    signs = ("at a random moment", "is queued", "COMMIT", "BEGIN", "opening", "closing", "WAL")
    order = next((rank for rank, sign in enumerate(signs) if sign in place), len(signs))
    return (order + 10 * place.startswith("an agent"), place)


def _count(times: int | None) -> str:
    return f"{times:,}" if times else ""


def _left_out(results: Results) -> list[str]:
    return [
        f"{_NAMES[database]}: {line}"
        for database, parts in results.items()
        for part in parts
        for line in part.tally.left_out
    ]


def show(results: Results, console: Console) -> None:
    """Print the counts."""
    columns = [_NAMES[database] for database in results]
    _print(console, "What was done", ["", "", *columns], _damage(results))
    _print(console, "Where processes were killed", ["", *columns], _points(results))
    _print(console, "What was checked", ["", *columns, "broken"], _promises(results))
    for line in _left_out(results):
        console.print(f"left out: {line}")
    for line in broken(results)[:40]:
        console.print(f"[red]broken[/red] {line}", highlight=False, soft_wrap=True)


def _print(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def markdown(results: Results, seconds: float, command: str) -> str:
    """The page that is published."""
    columns = [_NAMES[database] for database in results]
    seconds_of = {
        _NAMES[database]: sum(part.seconds for part in parts) for database, parts in results.items()
    }
    times = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds_of.items())
    lines = [
        "# Proof by damage",
        "",
        "What the ledger promises, tried by killing, tearing, filling, racing and changing it.",
        f"Made by `{command}`",
        f"in {seconds:.0f} s ({times}, side by side; {platform.machine()},",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}{_server(results)}).",
        "An outside journal keeps what the ledger acknowledged and what the tools really did; it",
        "never goes through the ledger, so that it can testify against it.",
        "",
        f"**Broken promises: {len(broken(results))}.**",
        "",
        "## What was checked",
        "",
        *_table(["promise", *columns, "broken"], _promises(results)),
        "",
        "## What was done",
        "",
        *_table(["", "", *columns], _damage(results)),
        "",
        "## Where processes were killed",
        "",
        "Named points are installed in the victim from outside, around its queue and its database",
        "driver; each is hit at a drawn repetition. `5 / 6`: five times before it, six times after",
        "it; after `COMMIT` is before the acknowledgement. Statements are those of the writer's",
        "transactions; one of a new ledger is any of its migrations'.",
        "",
        *_table(["", *columns], _points(results)),
        "",
        *_LIMITS,
    ]
    lines += [f"- Left out here: {line}." for line in _left_out(results)]
    lines += [f"- Broken: {line}" for line in broken(results)]
    return "\n".join(lines) + "\n"


def _server(results: Results) -> str:
    return ", PostgreSQL" if "postgres" in results else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ends = ["---:" if column else "---" for column in columns]
    ends[0] = "---"
    return [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join(ends)}|",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]


_LIMITS = [
    "## What this does not show",
    "",
    "- A killed process loses what it had not handed to the operating system; a power cut loses",
    "  what the disk had not stored as well. That cannot be tried from a program. What can: crash",
    "  images of a SQLite file and its log, copied while the writer stands still, and torn behind",
    "  the last byte that was synced. They believe the system and the disk that a sync is a sync.",
    "- Whoever can write to the database can make a whole chain anew, with everything derived",
    "  from it. Only a checkpoint kept elsewhere tells (`docs/ledger.md`).",
    "- The index of words behind `audit search` is not evidence and is not attacked; it can be",
    "  made anew.",
]
