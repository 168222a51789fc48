"""What waits for a person: thoughts that a rule escalated, and tool calls whose end is unknown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from . import tables
from .calls import Begun, RecordedCall, begun, calls_of
from .chain import from_text
from .events import About, EventKind

__all__ = ["Waiting", "waiting"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thought that waits for a person."""

    run: str
    thought: str
    agent: str
    about: About
    """``verdict``: a rule asks for a person. ``tool``: nobody knows whether a call was made."""
    at: str
    operation: str
    tag: str | None
    reading: str | None
    score: float | None
    threshold: float | None
    tool: str | None
    reason: str | None
    text: str
    rule: int | None = None
    """Number of the rule that asks."""
    call: RecordedCall | None = None
    """The tool call that approving would make, or whose end is unknown. None where the thought
    asks for none, or was broken off before that could be told."""
    cut: bool = False
    """Whether it was broken off: approved, it is written to its end and judged again."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def waiting(connection: Connection, run: str | None = None) -> list[Waiting]:
    """All that waits for a person, oldest first; of one run, or of all.

    A call that a killed process had begun is there before its run is resumed, as soon as that
    process is known to be gone.
    """
    row, event = tables.thought.c, tables.event.c
    query = (
        sa.select(tables.thought, event.kind.label("recorded"), event.body, event.blobs)
        .join(tables.event, sa.and_(event.run_id == row.run_id, event.seq == row.seq))
        .where(row.status == Status.ESCALATED.value)
    )
    if run is not None:
        query = query.where(row.run_id == run)
    rows = connection.execute(query.order_by(row.at, row.id)).mappings().all()
    calls = calls_of(connection, [_about(connection, found) for found in rows])
    escalated = [
        Waiting(
            run=found["run_id"],
            thought=found["id"],
            agent=found["agent"],
            about="tool" if found["action"] is None else "verdict",
            at=found["at"],
            operation=found["operation"],
            tag=found["tag"],
            reading=found["reading"],
            score=found["reached"],
            threshold=found["threshold"],
            tool=found["acted"],
            reason=found["reason"],
            text=found["text"],
            rule=found["rule"],
            call=call,
            cut="cut" in from_text(found["body"]),
        )
        for found, call in zip(rows, calls, strict=True)
    ]
    killed = map(_killed, begun(connection, run))
    return sorted([*escalated, *killed], key=lambda each: (each.at, each.thought))


def _about(connection: Connection, found: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The event that holds a waiting thought's call: its judgement, or the call's own."""
    if found["recorded"] == EventKind.JUDGED:
        return {"kind": found["recorded"], "body": found["body"], "blobs": found["blobs"]}
    event = tables.event
    query = sa.select(event).where(
        event.c.run_id == found["run_id"],
        event.c.thought_id == found["id"],
        event.c.kind == EventKind.TOOL_INTENDED.value,
    )
    intended = connection.execute(query).mappings().first()
    return intended or {"kind": EventKind.PLACED, "body": "{}", "blobs": "{}"}


def _killed(begun: Begun) -> Waiting:
    return Waiting(
        run=begun.run,
        thought=begun.thought,
        agent=begun.agent,
        about="tool",
        at=begun.at,
        operation="act",
        tag=None,
        reading=None,
        score=None,
        threshold=None,
        tool=begun.call.tool,
        reason=f"nobody knows whether {begun.call.tool} was run: the process is gone; go on with "
        f"`secateur run --resume {begun.run}`, then decide",
        text="",
        call=begun.call,
    )
