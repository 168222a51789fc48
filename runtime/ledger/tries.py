"""How one thought was tried, and steered, until it was kept or given up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from . import tables
from .chain import as_text, from_text
from .events import EventKind
from .explanation import SwitchRow, TryRow, WayBack
from .fetch import content, thought_rows
from .rows import ThoughtRow

__all__ = ["place", "switches", "tries"]


def place(parents: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a thought stands below just these parents; as the index on that place spells it."""
    spelt = as_text(list(parents))
    start = sa.literal_column("substr(thought.parents, 1, 40)", sa.Text)
    return sa.and_(start == spelt[:40], tables.thought.c.parents == spelt)


def tries(connection: Connection, thought: ThoughtRow) -> list[TryRow]:
    """Every try at the same child of the same parents, in order."""
    row = tables.thought.c
    alike = thought_rows(
        connection,
        thought.run,
        place(thought.parents),
        # All there are, so that the index leads to the child.
        row.status.in_([status.value for status in Status]),
        row.child == thought.index,
        row.operation == thought.operation,
    )
    ids = [row.id for row in alike]
    asked = {
        id: from_text(event["body"])
        for id, event in _events(connection, thought.run, ids, EventKind.MODEL_INTENDED)
    }
    back: dict[str, WayBack] = {}
    for id, event in _events(connection, thought.run, ids, EventKind.BACKED_UP):
        body = from_text(event["body"])
        dropped = content(connection, from_text(event["blobs"])["discarded"]) or b""
        back[id] = WayBack(
            text=dropped.decode(),
            **{name: body[name] for name in WayBack.__slots__ if name != "text"},
        )
    return [
        TryRow(
            thought=row.id,
            attempt=row.attempt,
            status=row.status,
            accepted=row.accepted,
            tokens=row.tokens,
            spent_after=row.spent_after,
            seed=asked[row.id]["seed"],
            controls=asked[row.id]["controls"],
            back=back.get(row.id),
        )
        for row in sorted(alike, key=lambda row: row.attempt)
        if row.id in asked
    ]


def switches(connection: Connection, thought: ThoughtRow) -> list[SwitchRow]:
    """Where the controls of a thought changed while it was written."""
    found: list[SwitchRow] = []
    for _, event in _events(connection, thought.run, [thought.id], EventKind.SWITCHED):
        body = from_text(event["body"])
        found.append(
            SwitchRow(body["token"], body["from"], body["to"], body["seed"], body["spent_after"])
        )
    return found


def _events(
    connection: Connection, run: str, thoughts: Sequence[str], kind: EventKind
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    table = tables.event
    query = sa.select(table).where(
        table.c.run_id == run, table.c.thought_id.in_(thoughts), table.c.kind == kind.value
    )
    for event in connection.execute(query.order_by(table.c.seq)).mappings().all():
        yield event["thought_id"], event
