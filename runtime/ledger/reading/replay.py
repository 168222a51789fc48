"""The verdict again, from stored evidence and a policy; no model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from ....gates.approval import Approval
from ....gates.evidence import Evidence
from ....gates.gate import decide
from ....gates.policy import Policy
from ....gates.reading import Reading
from ....gates.rule import ContextOverride, Rule, Scope
from ....gates.verdict import Broken, Judgement
from ....gates.vocabulary import BoundVocabulary
from ..judgements import judgement_to_json

__all__ = ["Bound", "Flip", "Loosening", "Replay", "Stored", "what_would_pass"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What all verdicts of a run are made by."""

    policy: Policy
    vocabulary: BoundVocabulary
    context: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """All that a verdict was made from, as the ledger keeps it."""

    bound: Bound
    evidence: Evidence
    scope: Scope
    attempt: int
    approved: tuple[Approval, ...] = ()
    """What people had let pass: of another policy, it lets the very same rules pass."""

    def judge(self, policy: Policy | None = None) -> Judgement:
        """The verdict by the run's policy, or by another one; always the same for the same."""
        return decide(
            policy or self.bound.policy,
            self.evidence,
            self.bound.vocabulary,
            context=self.bound.context,
            scope=self.scope,
            attempt=self.attempt,
            approved=self.approved,
        )


@dataclass(frozen=True, slots=True)
class Loosening:
    """One rule that stood in the way, and how far its threshold would have had to rise."""

    rule: Rule
    score: float
    """The reading on all that was written; a threshold above it lets the thought pass."""

    def __str__(self) -> str:
        rule = self.rule
        if rule.reading.probability and self.score >= 1:
            return (
                f"no threshold: {rule.tag} {rule.reading} is {self.score:g}; the action would "
                "have to be flag"
            )
        return f"{rule.tag} {rule.reading}: a threshold above {self.score:.4g} (it is {rule.at:g})"


def what_would_pass(stored: Stored) -> tuple[Loosening, ...]:
    """The rules that all would have to give way for this thought to live; empty if it does.

    The rules that stop the thought are taken away, strongest first, until it passes. A reading is
    of what was written: what a branch that was cut would have written next, nobody knows.
    """
    rules = list(stored.bound.policy.rules_for(stored.bound.context))
    if not stored.evidence.weighed:  # cut before its end, so no posterior was made
        rules = [rule for rule in rules if rule.reading is not Reading.POSTERIOR]
    taken: list[Rule] = []
    verdict = stored.judge(_with_rules(stored.bound.policy, rules))
    while not isinstance(verdict, Broken) and not verdict.action.keeps:
        stopping = [rules[c.rule] for c in verdict.crossings if not c.action.keeps]
        taken += stopping
        rules = [rule for rule in rules if rule not in stopping]
        verdict = stored.judge(_with_rules(stored.bound.policy, rules))
    if isinstance(verdict, Broken):
        return ()
    return tuple(Loosening(rule, verdict.scores[rule.tag][rule.reading]) for rule in taken)


def _with_rules(policy: Policy, rules: Sequence[Rule]) -> Policy:
    """The policy with just these rules in every context; a copy that is judged by, never saved."""
    return policy.model_copy(
        update={
            "rules": tuple(rules),
            "contexts": {
                name: ContextOverride(tags=override.tags)
                for name, override in policy.contexts.items()
            },
        }
    )


@dataclass(frozen=True, slots=True)
class Flip:
    """A verdict that another policy turns."""

    run: str
    thought: str
    before: Judgement
    after: Judgement
    text: str

    @property
    def tightens(self) -> bool:
        """Whether the new verdict is the stronger one; where the action is the same, False."""
        return self.after.action.strength > self.before.action.strength

    @property
    def loosens(self) -> bool:
        """Whether the new verdict is the weaker one."""
        return self.after.action.strength < self.before.action.strength

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "run": self.run,
            "thought": self.thought,
            "before": judgement_to_json(self.before),
            "after": judgement_to_json(self.after),
            "text": self.text,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Replay(Sequence[Flip]):
    """What came of judging one run again: the verdicts that came out otherwise, in order."""

    run: str
    judged: int
    """Thoughts that were judged again."""
    erased: int
    """Thoughts that could not be, because their evidence was erased."""
    flips: tuple[Flip, ...]
    unfit: str | None = None
    """Why the policy does not fit the run's tags, so that nothing was judged; among many runs."""

    @overload
    def __getitem__(self, index: int) -> Flip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Flip]: ...
    def __getitem__(self, index: int | slice) -> Flip | Sequence[Flip]:
        return self.flips[index]

    def __len__(self) -> int:
        return len(self.flips)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Replay):
            return (self.run, self.judged, self.erased, self.flips, self.unfit) == (
                other.run,
                other.judged,
                other.erased,
                other.flips,
                other.unfit,
            )
        return isinstance(other, (list, tuple)) and self.flips == tuple(other)
