"""What the ledger answers: frozen rows, each with its JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...agents.thought import Status
from ...gates.rule import Rule, Scope
from ...gates.verdict import Broken, Judgement, Verdict
from .judgements import judgement_to_json
from .replay import Loosening

__all__ = [
    "EventRow",
    "Explanation",
    "Flip",
    "PrunedRow",
    "RunRow",
    "SwitchRow",
    "ThoughtRow",
    "TokenRow",
    "TryRow",
    "WayBack",
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
    judgement: Judgement | None

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
class TokenRow:
    """One token of a thought, with what the model would have liked to open before it."""

    text: str
    """A tag that was sampled is spelt out."""
    temptations: Mapping[str, float | None]
    """p per tag, before the controls; None where it could not be read."""
    convicts: bool
    """Whether it lies in the range that the verdict names."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WayBack:
    """How a try gave way to the next: what stayed, what was dropped, and for what."""

    following: str
    token: int
    """So many tokens stayed."""
    back_to: str
    discarded: int
    text: str
    """What was dropped."""
    tag: str
    reading: str
    score: float
    threshold: float
    controls: Mapping[str, str]
    seed: int

    def __str__(self) -> str:
        where = f"token {self.token} ({self.back_to})" if self.token else "the prompt"
        return (
            f"{self.tag} {self.reading} {self.score:.3f} reached {self.threshold:g}; back to "
            f"{where}, {self.discarded} tokens dropped: {' '.join(self.text.split())!r}"
        )


@dataclass(frozen=True, slots=True)
class TryRow:
    """One try at a thought."""

    thought: str
    attempt: int
    status: Status
    accepted: int
    """Tokens that it took over from the try before."""
    tokens: int
    spent_after: int
    seed: int
    controls: Mapping[str, str]
    back: WayBack | None
    """None for the try that counted."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"status": self.status.value}


@dataclass(frozen=True, slots=True)
class SwitchRow:
    """Other controls from one token on."""

    token: int
    before: Mapping[str, str]
    after: Mapping[str, str]
    seed: int
    spent_after: int

    def __str__(self) -> str:
        changed = [
            f"{tag} {self.before.get(tag, 'allow')} -> {self.after.get(tag, 'allow')}"
            for tag in dict.fromkeys([*self.before, *self.after])
            if self.before.get(tag, "allow") != self.after.get(tag, "allow")
        ]
        return f"from token {self.token}: {', '.join(changed)}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say about one verdict."""

    run: RunRow
    thought: ThoughtRow
    prompt: str | None
    rule: Rule | None
    """The rule that decided, as it stands in the policy."""
    tokens: tuple[TokenRow, ...]
    siblings: tuple[ThoughtRow, ...]
    """What else came of the same parents and operation."""
    tries: tuple[TryRow, ...]
    """How often it was tried, itself included; one where it never backed up."""
    switches: tuple[SwitchRow, ...]
    """Where its controls changed while it was written."""
    below: int
    """How many thoughts were made from it."""
    passes_if: tuple[Loosening, ...]
    """What would have had to be otherwise; empty where it passed, or could not be read."""
    also_in: tuple[str, ...]
    """Other runs with the same thought (same task, seed and controls)."""

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        judgement = self.thought.judgement
        match judgement:
            case None:
                return self.thought.reason or "no model wrote it, so there was nothing to judge"
            case Broken():
                return f"cut because it could not be read: {judgement.reason}"
            case Verdict(cause=None):
                return "no rule was reached"
            case Verdict(cause=cause):
                assert cause is not None
                return (
                    f"{cause.tag} {cause.reading} was {cause.score:.3f}, "
                    f"and the rule says {judgement.action} from {cause.threshold:g}"
                )

    @property
    def next(self) -> str:
        """What happened after it, in one sentence."""
        if self.thought.status is Status.KEPT:
            return f"it was kept; thoughts that stand on it: {self.below}"
        kept = [row for row in self.siblings if row.status is Status.KEPT]
        later = [row for row in kept if row.at > self.thought.at]
        if later:
            return f"the run went on with {later[0].id}, made after it in the same place"
        if kept:
            return f"the run went on with {kept[0].id}, made beside it"
        return "nothing in its place survived"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data; the keys of ``pruned`` stand at the top."""
        judgement = self.thought.judgement
        cause = judgement.cause if isinstance(judgement, Verdict) else None
        return {
            "run": self.run.run,
            "thought": self.thought.id,
            "agent": self.run.agent,
            "task": self.run.task,
            "context": self.run.context,
            "policy": self.run.policy,
            "policy_digest": self.run.policy_digest,
            "model": self.run.model,
            "operation": self.thought.operation,
            "status": self.thought.status.value,
            "text": self.thought.text,
            "prompt": self.prompt,
            "tag": None if cause is None else cause.tag,
            "reading": None if cause is None else str(cause.reading),
            "score": None if cause is None else cause.score,
            "threshold": None if cause is None else cause.threshold,
            "margin": None if cause is None else cause.margin,
            "action": None if judgement is None else judgement.action.value,
            "at": self.thought.at,
            "spent_after": self.thought.spent_after,
            "reason": self.thought.reason,
            "summary": self.summary,
            "rule": None if self.rule is None else self.rule.model_dump(mode="json"),
            "judgement": None if judgement is None else judgement_to_json(judgement),
            "tokens": [token.as_json() for token in self.tokens],
            "passes_if": [
                {
                    "rule": loosening.rule.model_dump(mode="json"),
                    "score": loosening.score,
                    "text": str(loosening),
                }
                for loosening in self.passes_if
            ],
            "next": self.next,
            "siblings": [
                {"thought": row.id, "status": row.status.value, "text": row.text}
                for row in self.siblings
            ],
            "tries": [row.as_json() for row in self.tries],
            "switches": [row.as_json() for row in self.switches],
            "also_in": list(self.also_in),
        }


@dataclass(frozen=True, slots=True)
class Flip:
    """A verdict that another policy turns."""

    run: str
    thought: str
    before: Judgement
    after: Judgement
    text: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "run": self.run,
            "thought": self.thought,
            "before": judgement_to_json(self.before),
            "after": judgement_to_json(self.after),
            "text": self.text,
        }
