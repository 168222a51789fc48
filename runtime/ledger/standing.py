"""What a run's chain says of its thoughts: which wait for a person, which were cut, what is open.

Read from the events alone. The tables that are derived from them can be changed by whoever may
write to them, so nobody decides, resumes, erases or verifies by what they say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status
from ...gates.canonical import canonical_json
from ...gates.verdict import Action
from . import tables
from .chain import GENESIS, from_text
from .derive import decided
from .errors import LedgerError
from .events import About, EventKind
from .integrity.links import Link, link_hash

__all__ = ["TELLING", "Asked", "Chain", "ContradictionError", "Standing", "read_chain"]

_PERSON: Final = "person:"
"""How the actor of an event begins that a person is answerable for."""

TELLING: Final = frozenset(
    {
        EventKind.JUDGED,
        EventKind.PLACED,
        EventKind.SELECTED,
        EventKind.BACKED_UP,
        EventKind.TOOL_INTENDED,
        EventKind.TOOL_RETURNED,
        EventKind.ESCALATED,
        EventKind.DECIDED,
        EventKind.ERASED,
        EventKind.RUN_FINISHED,
        EventKind.RESUMED,
    }
)
"""Events that change where a thought, or the run, stands."""

_ASKS: Final = Action.ESCALATE.value
_PASSES: Final = frozenset({action.value for action in Action if action.keeps})
_AT_ONCE: Final = 1_000


class ContradictionError(Exception):
    """An event that the events before it do not allow: nobody recorded it who kept to the rules."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.seq, self.reason = seq, reason


@dataclass(frozen=True, slots=True)
class Asked:
    """What a thought that waits was recorded with."""

    about: About
    event: Link
    """The event that recorded it; of a call whose end is unknown, or the intent alone."""
    body: Mapping[str, Any]
    """Its body, read."""
    said: Link
    """The event that last said why it waits."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A tool call that was intended."""

    seq: int
    tool: str
    digest: str | None
    """Of tool and arguments; None where these are not at hand."""


@dataclass(slots=True)
class Standing:
    """Where the thoughts of one run stand, after the events that were taken, in order."""

    status: dict[str, str] = field(default_factory=dict)
    """Of every thought that was recorded, as the ``thought`` table should say it."""
    waits: dict[str, Asked] = field(default_factory=dict)
    """Thoughts on which a person has to decide, by id: a verdict escalated them, or they were
    recorded as calls whose end is unknown."""
    open: dict[str, str] = field(default_factory=dict)
    """Calls that were intended and have no end, by the thought that they make: the tool."""
    settled: set[str] = field(default_factory=set)
    """Thoughts on which a person decided."""
    ended: bool = False
    """Whether the last ``run_finished`` still holds."""

    _asks: dict[str, Asked] = field(default_factory=dict)
    """Thoughts whose verdict asks for a person, waiting or not."""
    _recorded_by: dict[str, int] = field(default_factory=dict)
    _calls: dict[str, _Call] = field(default_factory=dict)
    _judged: dict[str, str] = field(default_factory=dict)
    """The digest of the call that a thought was judged for, where it was recorded."""
    _barred: set[str] = field(default_factory=set)
    """Thoughts below which no tool may be called: cut, refused or waiting, and all below them."""
    _freed: dict[str, int] = field(default_factory=dict)
    """Thoughts that a person approved, by the event that says so."""

    def take(self, event: Link, body: Mapping[str, Any], arguments: bytes = b"") -> None:
        """Take the next event of a kind in :data:`TELLING`, its body read; ``arguments`` are those
        of a tool call that it intends, as JSON, where they are at hand.

        Raises :class:`ContradictionError` where what came before does not allow it, and
        ``KeyError``, ``TypeError`` or ``ValueError`` for one that cannot be read.
        """
        match EventKind(event.kind):
            case EventKind.JUDGED | EventKind.PLACED:
                self._recorded(event, body)
            case EventKind.SELECTED:
                for id in body["dropped"]:
                    self.status[id] = Status.DROPPED.value
                    self.waits.pop(id, None)
            case EventKind.BACKED_UP:
                if body.get("approved"):  # what a person let pass goes on as another thought
                    self.status[_thought(event)] = Status.DROPPED.value
            case EventKind.TOOL_INTENDED:
                self._intended(event, body, arguments)
            case EventKind.TOOL_RETURNED:
                self._returned(event, body)
            case EventKind.ESCALATED:
                self._escalated(event, body)
            case EventKind.DECIDED:
                self._decided(event, body)
            case EventKind.ERASED:
                _by_somebody(event, "erased")
            case EventKind.RUN_FINISHED:
                self.ended = True
            case EventKind.RESUMED:
                self.ended = False
            case _:
                pass

    def _recorded(self, event: Link, body: Mapping[str, Any]) -> None:
        id, status, judgement = _thought(event), Status(body["status"]), body["judgement"]
        if id in self._recorded_by:
            raise _wrong(event, f"records thought {id} again: event {self._recorded_by[id]} did")
        self._recorded_by[id] = event.seq
        action = None if judgement is None else judgement["action"]
        if status is Status.KEPT and action is not None and action not in _PASSES:
            raise _wrong(event, f"keeps thought {id}, whose verdict is {action}")
        if "call" in body:
            self._judged[id] = body["call"]["digest"]
        call = self._calls.get(id)
        if event.kind == EventKind.JUDGED and action == _ASKS:
            self._asks[id] = Asked("verdict", event, body, event)
        if status is Status.ESCALATED:
            if id in self._asks:
                self.waits[id] = self._asks[id]
            elif event.kind == EventKind.PLACED and id in self.open:
                self.waits[id] = Asked("tool", event, body, event)
            elif id not in self.settled:
                raise _wrong(event, f"lets thought {id} wait, which nothing escalated")
        parents: list[str] = body["parents"]
        if call is not None and event.kind == EventKind.PLACED:
            self._acted(event, call, body["acted"], parents)
        if id in self.settled:  # decided before it was placed: that stands
            return
        self.status[id] = status.value
        if status in (Status.PRUNED, Status.ESCALATED) or not self._barred.isdisjoint(parents):
            self._barred.add(id)

    def _acted(self, event: Link, call: _Call, acted: str | None, parents: list[str]) -> None:
        """What a call made stands below the thought that asked for it, which was not cut."""
        if acted != call.tool:
            raise _wrong(event, f"says that {acted} was called; event {call.seq} says {call.tool}")
        for parent in parents:
            if parent in self._barred or self._freed.get(parent, -1) > call.seq:
                raise ContradictionError(
                    call.seq,
                    f"event {call.seq} calls {call.tool} below thought {parent}, which was cut or "
                    "waited for a person",
                )
            if call.digest is not None and self._judged.get(parent, call.digest) != call.digest:
                raise ContradictionError(
                    call.seq,
                    f"event {call.seq} calls {call.tool} otherwise than {parent} was judged for",
                )

    def _intended(self, event: Link, body: Mapping[str, Any], arguments: bytes) -> None:
        id, tool = _thought(event), body["tool"]
        self._calls[id] = _Call(event.seq, tool, _digest(tool, arguments) if arguments else None)
        self.open[id] = tool

    def _returned(self, event: Link, body: Mapping[str, Any]) -> None:
        id, tool = _thought(event), body["tool"]
        call = self._calls.get(id)
        if call is None or call.tool != tool:
            raise _wrong(event, f"is the end of a call of {tool} that nothing intended")
        self.open.pop(id, None)

    def _escalated(self, event: Link, body: Mapping[str, Any]) -> None:
        id = _thought(event)
        asked = self.waits.get(id) or self._asks.get(id)
        if asked is not None and id not in self.settled:
            self.waits[id] = Asked(asked.about, asked.event, asked.body, event)
            self.status[id] = Status.ESCALATED.value
            self._barred.add(id)
        elif id not in self.open and id not in self.settled:
            raise _wrong(event, f"escalates thought {id}, which no verdict escalated")

    def _decided(self, event: Link, body: Mapping[str, Any]) -> None:
        id, about = _thought(event), body["about"]
        _by_somebody(event, "decided")
        if id in self.settled:
            raise _wrong(event, f"decides on thought {id}, on which a person decided already")
        asked = self.waits.get(id)
        waits = id in self.open if about == "tool" else asked is not None and about == asked.about
        if not waits:
            raise _wrong(event, f"decides on thought {id}, which did not wait for a person")
        if about == "verdict" and body.get("call") not in (None, self._judged.get(id)):
            raise _wrong(event, f"decides on another call than thought {id} was judged for")
        self.settled.add(id)
        self.waits.pop(id, None)
        self.open.pop(id, None)
        status, _ = decided(body)
        self.status[id] = status.value
        if status is Status.KEPT:
            self._barred.discard(id)
            self._freed[id] = event.seq
        else:
            self._barred.add(id)


def _digest(tool: str, arguments: bytes) -> str:
    """SHA-256 of the canonical JSON of both, as a judgement names a call; the arguments are stored
    as that already."""
    return sha256(b"[%s,%s]" % (canonical_json(tool), arguments)).hexdigest()


def _thought(event: Link) -> str:
    if not isinstance(event.thought_id, str):
        raise _wrong(event, "names no thought")
    return event.thought_id


def _by_somebody(event: Link, did: str) -> None:
    if not event.actor.removeprefix(_PERSON).strip() or not event.actor.startswith(_PERSON):
        raise _wrong(event, f"says that {event.actor!r} {did}, which names no person")


def _wrong(event: Link, what: str) -> ContradictionError:
    return ContradictionError(event.seq, f"event {event.seq} {what}")


@dataclass(frozen=True, slots=True)
class Chain:
    """A run's chain that was read from its start, each event checked against its hash."""

    started: Mapping[str, Any]
    """The body of event 0."""
    standing: Standing
    events: int
    head: str
    """Hash of the last event."""
    bound: str
    """The digest that the last event carries."""


def read_chain(connection: Connection, run: str) -> Chain:
    """Where a run stands. Raises :class:`LedgerError` where there is no such run, or where its
    chain is not as it was written."""
    standing, started, bound, head, seq = Standing(), {}, "", GENESIS, -1
    table = tables.event
    query = sa.select(table).where(table.c.run_id == run).order_by(table.c.seq)
    for seq, row in enumerate(connection.execute(query, execution_options={"yield_per": _AT_ONCE})):
        event = Link._make(row)
        if event.seq != seq:
            raise _damaged(run, f"event {seq} is missing")
        if link_hash(event) != event.hash:
            raise _damaged(run, f"event {seq} was changed")
        if event.prev_hash != head:
            raise _damaged(run, f"event {seq} does not follow the one before")
        head, bound = event.hash, event.digests
        try:
            if seq == 0:
                started = from_text(event.body)
            elif event.kind in TELLING:
                standing.take(event, from_text(event.body))
        except ContradictionError as wrong:
            raise _damaged(run, wrong.reason) from None
        except (KeyError, TypeError, ValueError):
            raise _damaged(run, f"event {seq} cannot be read") from None
    if seq < 0:
        raise LedgerError(f"no run is called {run!r}: `secateur audit runs` lists them")
    return Chain(started, standing, seq + 1, head, bound)


def _damaged(run: str, what: str) -> LedgerError:
    return LedgerError(f"run {run} was damaged ({what}): run `secateur audit verify {run}`")
