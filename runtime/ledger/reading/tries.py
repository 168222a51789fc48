"""How one thought was tried, and steered, until it was kept or given up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....gates.unicode import well_formed
from .. import tables
from ..chain import as_text, from_text
from ..events import EventKind
from ..text import text_of
from .answers import ThoughtRow
from .explanation import SwitchRow, TryRow, WayBack
from .fetch import content

__all__ = ["Event", "events_of", "place", "switches", "tries"]

Event = Mapping[Any, Any]


def place(parents: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a thought stands below just these parents; as the index on that place spells it."""
    spelt = as_text(list(parents))
    start = sa.literal_column("substr(thought.parents, 1, 40)", sa.Text)
    # Not a plain "parents =": SQLite would put it into the expression, which then fits no index.
    return sa.and_(start == spelt[:40], tables.thought.c.parents.concat("") == spelt)


def tries(
    connection: Connection, alike: Sequence[ThoughtRow], events: Mapping[str, Sequence[Event]]
) -> list[TryRow]:
    """Every try at one child of the same parents, in order; ``events`` by thought."""
    asked = {id: from_text(event["body"]) for id, event in _of(events, EventKind.MODEL_INTENDED)}
    back: dict[str, WayBack] = {}
    for id, event in _of(events, EventKind.BACKED_UP):
        body = from_text(event["body"])
        dropped = content(connection, from_text(event["blobs"])["discarded"]) or b""
        back[id] = WayBack(
            text=well_formed(text_of(dropped)),
            approved=body.get("approved", False),  # which older versions do not say
            **{n: body[n] for n in WayBack.__slots__ if n not in ("text", "approved")},
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


def switches(events: Mapping[str, Sequence[Event]], thought: str) -> list[SwitchRow]:
    """Where the controls of a thought changed while it was written."""
    found: list[SwitchRow] = []
    for id, event in _of(events, EventKind.SWITCHED):
        if id == thought:
            body = from_text(event["body"])
            before, after = body["from"], body["to"]
            found.append(SwitchRow(body["token"], before, after, body["seed"], body["spent_after"]))
    return found


def events_of(connection: Connection, run: str, thoughts: Sequence[str]) -> dict[str, list[Event]]:
    """How these thoughts were asked for, by thought, in order."""
    event = tables.event
    kinds = (EventKind.MODEL_INTENDED, EventKind.SWITCHED, EventKind.BACKED_UP)
    query = sa.select(event).where(
        event.c.run_id == run,
        event.c.thought_id.in_(thoughts),
        event.c.kind.in_([kind.value for kind in kinds]),
    )
    found: dict[str, list[Event]] = {}
    # Sorted here: asked for in order, SQLite would walk through the whole run.
    for row in sorted(connection.execute(query).mappings(), key=lambda row: row["seq"]):
        found.setdefault(row["thought_id"], []).append(row)
    return found


def _of(events: Mapping[str, Sequence[Event]], kind: EventKind) -> Iterator[tuple[str, Event]]:
    for thought, several in events.items():
        for event in several:
            if event["kind"] == kind:
                yield thought, event
