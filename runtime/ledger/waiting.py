"""What waits for a person: thoughts that a rule escalated, and tool calls whose end is unknown."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from . import tables
from .events import About

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

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def waiting(connection: Connection, run: str | None = None) -> list[Waiting]:
    """All that waits for a person, oldest first; of one run, or of all."""
    row = tables.thought.c
    query = sa.select(tables.thought).where(row.status == Status.ESCALATED.value)
    if run is not None:
        query = query.where(row.run_id == run)
    return [
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
        )
        for found in connection.execute(query.order_by(row.at, row.id)).mappings()
    ]
