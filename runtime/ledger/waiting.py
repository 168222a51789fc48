"""What waits for a person: thoughts that a rule escalated, and tool calls whose end is unknown."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from . import tables
from .chain import from_text
from .events import About, RunStatus
from .reading.fetch import by_index, contents
from .standing import Asked, read_chain

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
    """All that waits for a person, oldest first; of one run, or of all.

    What is shown comes from the chain. Of one run the whole chain is read; among all, those runs
    are read that the derived tables or their own end name, and what a changed row hides beyond
    these is for verification to find. Raises :class:`LedgerError` where a chain or a text is not
    as it was written.
    """
    runs = _candidates(connection) if run is None else [run]
    found = [each for id in runs for each in _of(connection, id)]
    return sorted(found, key=lambda each: (each.at, each.thought))


def _candidates(connection: Connection) -> list[str]:
    row = tables.thought.c
    derived = sa.select(row.run_id).where(row.status == Status.ESCALATED.value).distinct()
    ended = sa.text(
        f"SELECT run_id FROM event {by_index(connection, 'finished')} WHERE kind = 'run_finished' "
        f'AND body LIKE \'%"status":"{RunStatus.ESCALATED.value}"%\''
    )
    return sorted({*connection.execute(derived).scalars(), *connection.execute(ended).scalars()})


def _of(connection: Connection, run: str) -> list[Waiting]:
    chain = read_chain(connection, run)
    waits = chain.standing.waits
    texts = {id: from_text(asked.event.blobs)["text"] for id, asked in waits.items()}
    written = contents(connection, list(texts.values()))
    return [
        _waiting(run, chain.started["agent"], asked, written[texts[id]])
        for id, asked in waits.items()
    ]


def _waiting(run: str, agent: str, asked: Asked, text: bytes | None) -> Waiting:
    body = asked.body
    judgement = body["judgement"] or {}
    cause = next(iter(judgement.get("crossings", ())), {})
    return Waiting(
        run=run,
        thought=str(asked.event.thought_id),
        agent=agent,
        about=asked.about,
        at=asked.event.at,
        operation=body["operation"],
        tag=cause.get("tag"),
        reading=cause.get("reading"),
        score=cause.get("score"),
        threshold=cause.get("threshold"),
        tool=body["acted"],
        reason=asked.reason,
        text="" if text is None else text.decode(),
    )
