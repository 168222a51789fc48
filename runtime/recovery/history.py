"""What the ledger holds of one run, read back so that the run can go on from there."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...agents.thought import Status, Thought
from ...gates.canonical import canonical_json
from ...gates.control import Control
from ...gates.evidence import Evidence
from ...gates.policy import Policy
from ..ledger import tables
from ..ledger.chain import GENESIS, blob_digest, event_hash, from_text
from ..ledger.derive import told
from ..ledger.errors import LedgerError
from ..ledger.events import About, EventKind, RunStatus, ToolOutcome
from ..ledger.integrity.links import Link
from ..ledger.judgements import judgement_from_json
from ..ledger.reading.fetch import damaged, policy
from ..ledger.standing import TELLING, ContradictionError, Standing
from ..ledger.text import text_of

__all__ = ["Decision", "History", "Switched", "ToolCall", "has_run", "read_history"]

_AT_ONCE = 500
"""Blobs in one query: within what every database takes as parameters."""

_NEEDED = ("task", "text", "value", "evidence", "result", "reason", "note")
"""Blobs that going on takes; prompts are written anew from them."""


@dataclass(frozen=True, slots=True)
class Switched:
    """Other controls from a token of a thought on."""

    token: int
    after: Mapping[str, Control]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call whose intent is recorded."""

    tool: str
    text: str | None = None
    """What it answered; None where nobody knows."""
    ok: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided."""

    approve: bool
    by: str
    reason: str
    about: About
    outcome: ToolOutcome | None
    bound: bool = False
    """Whether it is on one crossing and one call; before decisions said so, it was on the thought
    as a whole."""
    rule: int | None = None
    """Number of the rule whose crossing it is on; None: of the one that asked."""
    call: str | None = None
    """Digest of the tool call that it is on."""


@dataclass(slots=True)
class History:
    """One run's events, by what they are about. An empty one is that of a run that begins."""

    run: str = ""
    started: Mapping[str, Any] = field(default_factory=dict)
    """The body of the run's first event."""
    task: str = ""
    policy: Policy | None = None
    ended: RunStatus | None = None
    """None where the run was killed, or still goes on."""
    result: str | None = None
    """Its result, or the reason for having none."""
    seconds: float = 0.0
    """How long it went on, the time between its processes not counted."""
    events: int = 0
    thoughts: dict[str, Thought] = field(default_factory=dict)
    """As they were recorded, without their place in the graph; what became of them stands below."""
    siblings: dict[str, int] = field(default_factory=dict)
    """How many a function made at once with a thought, itself included."""
    evidence: dict[str, bytes] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    """What the model wrote, unstripped, as the evidence's offsets count."""
    intended: dict[str, int] = field(default_factory=dict)
    """Model calls without an end, with the number of their attempt."""
    abandoned: set[str] = field(default_factory=set)
    switched: dict[str, list[Switched]] = field(default_factory=lambda: defaultdict(list))
    backed_up: set[str] = field(default_factory=set)
    declined: set[str] = field(default_factory=set)
    """Tries that could have been followed by another one, had there been a budget for it."""
    scores: dict[tuple[str, str], deque[float]] = field(default_factory=lambda: defaultdict(deque))
    """By thought and operation."""
    selections: Counter[bytes] = field(default_factory=Counter)
    notes: Counter[bytes] = field(default_factory=Counter)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    """Tool calls, by the thought that they make."""
    escalated: set[str] = field(default_factory=set)
    acting: dict[str, str | None] = field(default_factory=dict)
    """Thoughts that were judged in scope ``action``, with the digest of the call that they were
    judged for; None where only the scope was recorded."""
    cut: dict[str, bool] = field(default_factory=dict)
    """Thoughts that a rule which asks for a person broke off, and whether the model had ended."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    """The last one on each thought."""
    settled: dict[str, list[str]] = field(default_factory=dict)
    """Choices that depended on timing, by what they were about."""
    decided_since: bool = False
    """Whether a person decided something after the run's end."""

    _children: set[tuple[str, tuple[str, ...], int]] = field(default_factory=set)
    _last_ns: int = 0

    @property
    def open(self) -> bool:
        """Whether there is something to go on with, whatever the budget says."""
        ends = (None, RunStatus.FAILED, RunStatus.CANCELLED)
        return self.decided_since or self.ended in ends

    @property
    def waiting(self) -> list[str]:
        """Thoughts on which a person has to decide yet."""
        asks = [id for id, thought in self.thoughts.items() if thought.status is Status.ESCALATED]
        return [id for id in asks if id not in self.decisions]

    def knows(self, operation: str, parents: tuple[str, ...], index: int) -> bool:
        """Whether this child of these parents is there already, whatever became of it."""
        return (operation, parents, index) in self._children

    def take(self, event: Mapping[Any, Any], blobs: Mapping[str, bytes]) -> None:
        """Take the next event; ``blobs`` are the bytes by name."""
        words = {name: text_of(blobs[name]) for name in ("reason", "note") if name in blobs}
        body = told(from_text(event["body"]), words)
        id = event["thought_id"]
        kind = EventKind(event["kind"])
        self.events += 1
        self._count_time(event["monotonic_ns"], kind)
        match kind:
            case EventKind.RUN_STARTED:
                self.run, self.started = event["run_id"], body
                self.task = text_of(blobs["task"])
            case EventKind.MODEL_INTENDED:
                self.intended[id] = event["attempt"]
            case EventKind.SWITCHED:
                after = {tag: Control.model_validate(c) for tag, c in body["to"].items()}
                self.switched[id].append(Switched(body["token"], after))
            case EventKind.JUDGED | EventKind.PLACED:
                self.intended.pop(id, None)
                self._take_thought(id, event["attempt"], body, blobs)
            case EventKind.ABANDONED:
                self.intended.pop(id, None)
                self.abandoned.add(id)
            case EventKind.BACKED_UP:
                self.backed_up.add(id)
            case EventKind.SCORED:
                self.scores[id, body["operation"]].append(body["score"])
            case EventKind.SELECTED:
                self.selections[canonical_json(body)] += 1
            case EventKind.TOOL_INTENDED:
                self.calls[id] = ToolCall(body["tool"])
            case EventKind.TOOL_RETURNED:
                self.calls[id] = ToolCall(body["tool"], text_of(blobs["result"]), body["ok"])
            case EventKind.ESCALATED:
                self.escalated.add(id)
            case EventKind.DECIDED:
                by = event["actor"].removeprefix("person:")
                self.decisions[id] = Decision(
                    body["approve"],
                    by,
                    body["reason"],
                    body["about"],
                    body["outcome"],
                    "rule" in body,
                    body.get("rule"),
                    body.get("call"),
                )
                self.decided_since = self.ended is not None
            case EventKind.NOTED:
                self._take_note(id, body)
            case EventKind.RUN_FINISHED:
                self.ended, self.decided_since = RunStatus(body["status"]), False
                self.result = text_of(blobs["result"]) if "result" in blobs else None
            case EventKind.RESUMED:
                self.ended = None
            case EventKind.ERASED:
                pass

    def _count_time(self, now: int, kind: EventKind) -> None:
        """Clocks of two processes have nothing in common: add up what each one saw."""
        if kind in (EventKind.DECIDED, EventKind.ERASED):
            return  # people take their own time
        if kind not in (EventKind.RUN_STARTED, EventKind.RESUMED):
            self.seconds += max(now - self._last_ns, 0) / 1e9
        self._last_ns = now

    def _take_thought(
        self, id: str, attempt: int, body: Mapping[str, Any], blobs: Mapping[str, bytes]
    ) -> None:
        judgement = body["judgement"]
        parents = tuple(body["parents"])
        text = text_of(blobs["text"])
        if "evidence" in blobs:
            self.evidence[id] = blobs["evidence"]
        self.written[id] = text
        self._children.add((body["operation"], parents, body["index"]))
        self.siblings[id] = body.get("siblings", 0)
        if body["scope"] == "action":
            self.acting[id] = body["call"]["digest"] if "call" in body else None
        if "cut" in body:
            self.cut[id] = body["cut"]["ended"]
        self.thoughts[id] = Thought(
            id=id,
            operation=body["operation"],
            kind=body["kind"],
            parents=parents,
            text=text if judgement is None else text.strip(),
            value=from_text(blobs["value"].decode()) if "value" in blobs else None,
            score=body["score"],
            status=Status(body["status"]),
            judgement=None if judgement is None else judgement_from_json(judgement),
            reason=body["reason"],
            token_ids=self.read(id).token_ids if id in self.evidence else (),
            tokens=body["tokens"],
            spent_after=body.get("spent_after", 0),
            attempt=attempt,
            hopeless=body.get("hopeless", False),
        )

    def _take_note(self, id: str | None, body: Mapping[str, Any]) -> None:
        if body["topic"] == "declined" and id is not None:
            self.declined.add(id)
        elif body["topic"] == "decided" and body["body"]["chosen"]:
            self.settled[body["body"]["about"]] = body["body"]["chosen"]
        said = {"topic": body["topic"], "body": body["body"]}
        self.notes[canonical_json([id, said])] += 1

    def read(self, thought: str) -> Evidence:
        """What was seen while a thought was written."""
        return Evidence.from_bytes(self.evidence[thought])


def has_run(connection: Connection, run: str) -> bool:
    """Whether a run of this id was begun."""
    return (
        connection.execute(sa.select(tables.run.c.id).where(tables.run.c.id == run)).first()
        is not None
    )


def read_history(connection: Connection, run: str) -> History:
    """A run's whole history, each event and each blob checked against its hash.

    Raises :class:`LedgerError` where something is not as it was written, or was erased.
    """
    table = tables.event
    query = sa.select(table).where(table.c.run_id == run).order_by(table.c.seq)
    events = [dict(row) for row in connection.execute(query).mappings()]
    if not events:
        raise LedgerError(f"there is no run {run}: `secateur audit runs` lists them")
    if any(event["kind"] == EventKind.ERASED for event in events):
        raise LedgerError(f"run {run} cannot be resumed: texts of it were erased")
    named = [{n: d for n, d in from_text(e["blobs"]).items() if n in _NEEDED} for e in events]
    found = _blobs(connection, [digest for names in named for digest in names.values()])
    history, standing, head = History(), Standing(), GENESIS
    for seq, (event, names) in enumerate(zip(events, named, strict=True)):
        intact = event_hash(event) == event["hash"] and event["prev_hash"] == head
        if not intact or event["seq"] != seq:
            raise LedgerError(damaged(f"event {seq} of run {run}"))
        head = event["hash"]
        if event["kind"] in TELLING:
            try:
                standing.take(Link(**event), from_text(event["body"]))
            except ContradictionError as wrong:
                raise LedgerError(damaged(f"run {run} ({wrong.reason})")) from None
        history.take(event, {name: found[digest] for name, digest in names.items()})
    history.policy = policy(connection, history.started["policy"])
    return history


def _blobs(connection: Connection, digests: Iterable[str]) -> dict[str, bytes]:
    wanted = sorted(set(digests))
    table, found = tables.blob, dict[str, bytes]()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        for row in connection.execute(sa.select(table).where(table.c.digest.in_(part))).mappings():
            if blob_digest(row["salt"], row["bytes"]) != row["digest"]:
                raise LedgerError(damaged(f"blob {row['digest'][:12]}"))
            found[row["digest"]] = bytes(row["bytes"])
    for digest in wanted:
        if digest not in found:
            raise LedgerError(damaged(f"blob {digest[:12]}"))
    return found
