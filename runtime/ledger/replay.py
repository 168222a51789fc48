"""The verdict again, from stored evidence and a policy; no model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...gates.evidence import Evidence
from ...gates.gate import decide
from ...gates.policy import Policy
from ...gates.reading import Reading
from ...gates.rule import ContextOverride, Rule, Scope
from ...gates.verdict import Broken, Judgement
from ...gates.vocabulary import BoundVocabulary

__all__ = ["Loosening", "Stored", "what_would_pass"]


@dataclass(frozen=True, slots=True)
class Stored:
    """All that a verdict was made from, as the ledger keeps it."""

    policy: Policy
    evidence: Evidence
    vocabulary: BoundVocabulary
    context: str | None
    scope: Scope
    attempt: int

    def judge(self, policy: Policy | None = None) -> Judgement:
        """The verdict by the stored policy, or by another one; always the same for the same."""
        return decide(
            policy or self.policy,
            self.evidence,
            self.vocabulary,
            context=self.context,
            scope=self.scope,
            attempt=self.attempt,
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
    rules = list(stored.policy.rules_for(stored.context))
    if not stored.evidence.weighed:  # cut before its end, so no posterior was made
        rules = [rule for rule in rules if rule.reading is not Reading.POSTERIOR]
    taken: list[Rule] = []
    verdict = stored.judge(_with_rules(stored.policy, rules))
    while not isinstance(verdict, Broken) and not verdict.action.keeps:
        stopping = [rules[c.rule] for c in verdict.crossings if not c.action.keeps]
        taken += stopping
        rules = [rule for rule in rules if rule not in stopping]
        verdict = stored.judge(_with_rules(stored.policy, rules))
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
