"""What waits for a person: thoughts that a rule escalated, and tool calls whose end is unknown."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....agents.thought import Status
from .. import tables
from ..chain import from_text
from ..events import About, EventKind, RunStatus
from ..standing import Asked, read_chain
from ..text import shown, text_of
from .calls import Begun, RecordedCall, begun, calls_of
from .fetch import by_index, contents

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

    What is shown comes from the chain. Of one run the whole chain is read; among all, those runs
    are read that the derived tables or their own end name, and what a changed row hides beyond
    these is for verification to find. A call that a killed process had begun is there before its
    run is resumed, as soon as that process is known to be gone. Raises :class:`LedgerError` where a
    chain or a text is not as it was written.
    """
    runs = _candidates(connection) if run is None else [run]
    escalated = [each for id in runs for each in _of(connection, id)]
    killed = map(_killed, begun(connection, run))
    return sorted([*escalated, *killed], key=lambda each: (each.at, each.thought))


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
    calls = calls_of(connection, [_about(connection, asked) for asked in waits.values()])
    named = [_words(asked) for asked in waits.values()]
    written = contents(connection, [digest for names in named for digest in names.values()])
    return [
        _waiting(
            run, chain.started["agent"], asked, call, {n: written[d] for n, d in names.items()}
        )
        for asked, call, names in zip(waits.values(), calls, named, strict=True)
    ]


def _words(asked: Asked) -> dict[str, str]:
    """The digests of its text, and of why it waits where a blob keeps that."""
    said = from_text(asked.said.blobs)
    names = {"text": from_text(asked.event.blobs)["text"]}
    return names | ({"reason": said["reason"]} if "reason" in said else {})


def _about(connection: Connection, asked: Asked) -> Any:
    """The event that holds a waiting thought's call: its judgement, or the call's own."""
    if asked.event.kind == EventKind.JUDGED:
        return asked.event._asdict()
    event = tables.event
    query = sa.select(event).where(
        event.c.run_id == asked.event.run_id,
        event.c.thought_id == asked.event.thought_id,
        event.c.kind == EventKind.TOOL_INTENDED.value,
    )
    return connection.execute(query).mappings().one()


def _waiting(
    run: str,
    agent: str,
    asked: Asked,
    call: RecordedCall | None,
    words: dict[str, bytes | None],
) -> Waiting:
    body = asked.body
    judgement = body["judgement"] or {}
    cause = next(iter(judgement.get("crossings", ())), {})
    why = words.get("reason")
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
        reason=from_text(asked.said.body)["reason"] if why is None else shown(text_of(why)),
        text=shown(text_of(words["text"] or b"")),
        rule=cause.get("rule"),
        call=call,
        cut="cut" in body,
    )


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
