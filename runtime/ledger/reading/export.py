"""The ledger as files for other tools: JSON lines, for people or complete; streamed row by row."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....gates.visible import visible
from .. import tables
from ..chain import from_text, with_room
from . import fetch

__all__ = ["SCHEMA", "complete_lines", "heading", "lines"]

SCHEMA: Final = 1
"""The version of what an export holds: a new one when a column goes, or changes its meaning."""

_ROWS = 500
_TABLES = (
    tables.policy,
    tables.blob,
    tables.run,
    tables.event,
    tables.thought,
    tables.tag_score,
    tables.decision,
    tables.erasure,
    tables.checkpoint,
)
"""What a complete export holds, parents before children; the words of passages are in the blobs."""


def heading(*, complete: bool) -> dict[str, Any]:
    """The first line of an export."""
    return {
        "export": "secateur",
        "schema": SCHEMA,
        "revision": tables.HEAD,
        "complete": complete,
    }


def lines(connection: Connection, runs: Sequence[str], counts: Counter[str]) -> Iterator[str]:
    """For each run its line, then its thoughts and its events; ``record`` says which one it is.

    ``counts`` is told how many lines there were of each.
    """
    yield _line(heading(complete=False))
    for run in runs:
        (about,) = fetch.run_rows(connection, [run])
        counts["run"] += 1
        yield _line({"record": "run"} | about.as_json())
        for thought in fetch.each_thought(connection, run):
            counts["thought"] += 1
            yield _line({"record": "thought", "agent": about.agent} | thought.as_json())
        for event in _stream(connection, tables.event, tables.event.c.run_id == run):
            counts["event"] += 1
            (body,) = fetch.bodies(connection, [event])
            read = {"body": body, "blobs": from_text(event["blobs"])}
            yield _line({"record": "event"} | dict(event) | read)


def complete_lines(connection: Connection, run: str | None, counts: Counter[str]) -> Iterator[str]:
    """Every row of every table, or all that belongs to one run; ``table`` says which it is of.

    Bytes are base64; everything else is as it stands in its column, so that hashes can be made
    again. ``counts`` is told how many rows there were of each table.
    """
    yield _line(heading(complete=True))
    for table in _TABLES:
        rows = _stream(connection, table) if run is None else _of_run(connection, table, run)
        for row in rows:
            counts[table.name] += 1
            yield _line(
                {"table": table.name} | {name: _plain(value) for name, value in row.items()}
            )


def _of_run(connection: Connection, table: sa.Table, run: str) -> Iterator[Mapping[Any, Any]]:
    """The rows of a table that belong to one run."""
    if table is tables.policy:
        bound = sa.select(tables.run.c.policy).where(tables.run.c.id == run)
        yield from _stream(connection, table, table.c.digest.in_(bound))
    elif table is tables.blob:
        yield from _blobs(connection, run)
    elif table is tables.run:
        yield from _stream(connection, table, table.c.id == run)
    elif table is not tables.checkpoint:  # a checkpoint is of all runs
        yield from _stream(connection, table, table.c.run_id == run)


def _blobs(connection: Connection, run: str) -> Iterator[Mapping[Any, Any]]:
    """The blobs that a run's events name, each once."""
    seen: set[str] = set()
    for event in _stream(connection, tables.event, tables.event.c.run_id == run):
        named = [d for d in from_text(event["blobs"]).values() if d not in seen]
        seen.update(named)
        if named:
            yield from _stream(connection, tables.blob, tables.blob.c.digest.in_(named))


def _stream(
    connection: Connection, table: sa.Table, *wanted: sa.ColumnElement[bool]
) -> Iterator[Mapping[Any, Any]]:
    """Rows in the order of their key, a few at a time."""
    key = [column for column in table.c if column.primary_key]
    query = sa.select(table).where(*wanted).order_by(*key)
    yield from connection.execute(query, execution_options={"yield_per": _ROWS}).mappings()


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode("ascii")
    return value


def _line(record: Mapping[str, Any]) -> str:
    # Escaped as JSON has it: no reader splits the line, and no screen heeds it.
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except RecursionError:  # version 0.1 recorded values that lie deeper than now
        line = with_room(json.dumps, record, ensure_ascii=False, allow_nan=False)
    return visible(line) + "\n"
