"""Everything there is to say about one verdict: frozen rows, each with its JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ....agents.thought import Status
from ....gates.approval import Approval
from ....gates.rule import Rule
from ....gates.verdict import Broken, Verdict
from ..judgements import judgement_to_json
from .answers import RunRow, ThoughtRow
from .calls import RecordedCall
from .replay import Loosening

__all__ = [
    "DecisionRow",
    "Explanation",
    "SwitchRow",
    "TokenRow",
    "TryRow",
    "WayBack",
]


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
    approved: bool
    """Whether a person let the crossing pass, so that all tokens stayed."""

    def __str__(self) -> str:
        if self.approved:
            return (
                f"{self.tag} {self.reading} {self.score:.3f} reached {self.threshold:g}; approved, "
                f"and gone on with from token {self.token}"
            )
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
class DecisionRow:
    """What a person decided about a thought."""

    seq: int
    at: str
    by: str
    approve: bool
    about: str
    """``verdict``, or ``tool`` for a call whose end was unknown."""
    outcome: str | None
    """``done`` or ``not done``, of such a call."""
    reason: str | None
    """None where it was erased."""

    def __str__(self) -> str:
        about = "the verdict" if self.about == "verdict" else "the tool call"
        found = f", found {self.outcome}" if self.outcome else ""
        word = "approved" if self.approve else "refused"
        why = "why was erased" if self.reason is None else self.reason
        return f"{self.by} {word} {about}{found}: {why}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say about one verdict."""

    run: RunRow
    thought: ThoughtRow
    prompt: str | None
    call: RecordedCall | None
    """The tool call that it was judged for, or that it is the answer of."""
    approved: tuple[Approval, ...]
    """What people had let pass when it was judged."""
    rule: Rule | None
    """The rule that decided, as it stands in the policy."""
    in_place_of: Rule | None
    """The policy's own rule, where the run's context put :attr:`rule` in its place."""
    decisions: tuple[DecisionRow, ...]
    """What people decided about it, in order."""
    tokens: tuple[TokenRow, ...]
    siblings: tuple[ThoughtRow, ...]
    """What else came of the same parents: the nearest of them."""
    siblings_in_all: int
    """How many others came of the same parents."""
    tries: tuple[TryRow, ...]
    """How often it was tried, itself included; one where it never backed up."""
    switches: tuple[SwitchRow, ...]
    """Where its controls changed while it was written."""
    below: int
    """How many thoughts were made from it directly."""
    successor: ThoughtRow | None
    """The sibling with which the run went on: the first kept after it, or else beside it."""
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
        if self.thought.status is Status.ESCALATED:
            does = "" if self.call is None else f"; approved, it calls {self.call}"
            return f"it waits for a person: `secateur audit decide {self.thought.id}`{does}"
        if self.successor is None:
            return "nothing in its place survived"
        after = self.successor.at > self.thought.at
        where = "after it in the same place" if after else "beside it"
        return f"the run went on with {self.successor.id}, made {where}"

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
            "call": None if self.call is None else self.call.as_json(),
            "approved": [approval.as_json() for approval in self.approved],
            "rule": None if self.rule is None else self.rule.model_dump(mode="json"),
            "in_place_of": None
            if self.in_place_of is None
            else self.in_place_of.model_dump(mode="json"),
            "decisions": [row.as_json() for row in self.decisions],
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
            "siblings_in_all": self.siblings_in_all,
            "below": self.below,
            "also_in": list(self.also_in),
        }
