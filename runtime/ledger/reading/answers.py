"""What the ledger answers: frozen rows, each with its JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ....agents.thought import Status
from ....gates.approval import Approval
from ....gates.rule import Scope
from ....gates.verdict import Judgement
from ..judgements import judgement_to_json

__all__ = [
    "EventRow",
    "FoundRow",
    "PrunedRow",
    "RunRow",
    "ThoughtRow",
]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, with how it went."""

    run: str
    agent: str
    task: str
    context: str | None
    status: str
    """A :class:`RunStatus`, or ``unfinished``: still going, or killed."""
    result: str | None
    seed: int
    policy: str
    policy_digest: str
    engine: str
    model: str
    digests: Mapping[str, str]
    started_at: str
    finished_at: str | None
    thoughts: int
    pruned: int
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ThoughtRow:
    """One node of a run's graph."""

    run: str
    id: str
    parents: tuple[str, ...]
    operation: str
    kind: str
    depth: int
    index: int
    attempt: int
    retries: int
    """How many tries the gate sent back before: what the verdict counts."""
    status: Status
    scope: Scope
    text: str
    value: Any
    score: float | None
    tokens: int
    spent_after: int
    """Tokens that the engine generated beyond those that were read."""
    accepted: int
    """How many of its tokens an earlier try wrote."""
    latency_s: float | None
    acted: str | None
    reason: str | None
    at: str
    evidence: str | None
    """The digest of the blob that it was judged by."""
    judgement: Judgement | None
    approved: tuple[Approval, ...]
    """What people had let pass when it was judged."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data; ``score`` is the plan's score, ``judgement`` holds the tags'."""
        judgement = None if self.judgement is None else judgement_to_json(self.judgement)
        plain = {name: getattr(self, name) for name in self.__slots__}
        del plain["id"]
        return plain | {
            "thought": self.id,
            "parents": list(self.parents),
            "status": self.status.value,
            "judgement": judgement,
            "approved": [approval.as_json() for approval in self.approved],
        }


@dataclass(frozen=True, slots=True)
class EventRow:
    """One link of a run's chain."""

    run: str
    seq: int
    kind: str
    at: str
    actor: str
    thought: str | None
    attempt: int | None
    latency_s: float | None
    body: Any
    hash: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PrunedRow:
    """One branch that was cut; tag, reading, score and threshold are None where a reading could
    not be made, or where it fell with its parent."""

    run: str
    thought: str
    agent: str
    operation: str
    tag: str | None
    reading: str | None
    score: float | None
    threshold: float | None
    margin: float | None
    action: str | None
    at: str
    text: str
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FoundRow:
    """One thought that a search found, whatever became of it."""

    run: str
    thought: str
    agent: str
    context: str | None
    model: str
    policy: str
    operation: str
    status: Status
    tag: str | None
    """The tag that decided; None where no rule was reached."""
    reading: str | None
    score: float | None
    threshold: float | None
    action: str | None
    """None where there was nothing to judge."""
    tokens: int
    at: str
    text: str
    reason: str | None
    excerpt: str | None
    """Where the words stand, in what was written or else in what was asked; None without words."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"status": self.status.value}
