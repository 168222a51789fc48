"""Tool calls as the ledger holds them: judged and not made, or begun and without an end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....agents.tool import Call
from .. import tables
from ..chain import as_text, from_text
from ..events import EventKind
from ..liveness import gone
from . import fetch

__all__ = ["Begun", "RecordedCall", "begun", "calls_of"]

Event = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """What a thought asks for, or what was begun."""

    tool: str
    arguments: Any
    """Plain JSON data; None where they were erased, or not recorded."""
    digest: str | None
    """Of tool and arguments; None where it cannot be told any more."""

    def __str__(self) -> str:
        return f"{self.tool}({'…' if self.arguments is None else as_text(self.arguments)})"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Begun:
    """A tool call that was begun by a process that is gone, and has no end."""

    run: str
    agent: str
    thought: str
    """The thought that its answer would have made."""
    at: str
    call: RecordedCall


def calls_of(connection: Connection, events: Sequence[Event]) -> list[RecordedCall | None]:
    """The tool call in each ``judged`` or ``tool_intended`` event; None for those without."""
    bodies = [from_text(event["body"]) for event in events]
    named = [from_text(event["blobs"]).get("arguments") for event in events]
    found = fetch.contents(connection, [digest for digest in named if digest is not None])
    calls: list[RecordedCall | None] = []
    for event, body, name in zip(events, bodies, named, strict=True):
        said = body if event["kind"] == EventKind.TOOL_INTENDED else body.get("call")
        if said is None:
            calls.append(None)
            continue
        raw = None if name is None else found[name]
        arguments = None if raw is None else from_text(raw.decode())
        digest = said.get("digest")
        if digest is None and arguments is not None:
            digest = Call(said["tool"], arguments).digest
        calls.append(RecordedCall(said["tool"], arguments, digest))
    return calls


def begun(connection: Connection, run: str | None = None) -> list[Begun]:
    """The tool calls without an end, of runs that have none either and whose process is gone."""
    shared = connection.dialect.name == "postgresql"
    event = tables.event
    found: list[Begun] = []
    for id, agent in _unfinished(connection, run):
        kinds = (
            EventKind.RUN_STARTED,
            EventKind.RESUMED,
            EventKind.TOOL_INTENDED,
            EventKind.TOOL_RETURNED,
            EventKind.PLACED,
            EventKind.ABANDONED,
        )
        query = sa.select(event).where(event.c.run_id == id, event.c.kind.in_(kinds))
        process: Mapping[str, Any] | None = None
        open_: dict[str, Event] = {}
        for row in connection.execute(query.order_by(event.c.seq)).mappings():
            match EventKind(row["kind"]):
                case EventKind.RUN_STARTED | EventKind.RESUMED:
                    process = from_text(row["body"]).get("process")
                case EventKind.TOOL_INTENDED:
                    open_[row["thought_id"]] = row
                case _:
                    open_.pop(row["thought_id"], None)
        if open_ and gone(process, id, shared=shared):
            calls = calls_of(connection, list(open_.values()))
            found += [
                Begun(id, agent, thought, row["at"], call)
                for (thought, row), call in zip(open_.items(), calls, strict=True)
                if call is not None
            ]
    return found


def _unfinished(connection: Connection, run: str | None) -> list[tuple[str, str]]:
    """Runs that have not ended, or were resumed since, with their agents."""
    last: dict[str, dict[str, int]] = {}
    for kind in ("run_finished", "resumed"):
        index = fetch.by_index(connection, kind.removeprefix("run_"))
        found = connection.execute(
            sa.text(
                f"SELECT run_id, max(seq) AS seq FROM event {index} WHERE kind = '{kind}' "
                "GROUP BY run_id"
            )
        )
        last[kind] = {row.run_id: row.seq for row in found}
    row = tables.run.c
    query = sa.select(row.id, row.agent).order_by(row.id)
    if run is not None:
        query = query.where(row.id == run)
    ended, resumed = last["run_finished"], last["resumed"]
    return [
        (each.id, each.agent)
        for each in connection.execute(query)
        if each.id not in ended or resumed.get(each.id, -1) > ended[each.id]
    ]
