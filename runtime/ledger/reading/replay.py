"""The verdict again, from stored evidence and a policy; no model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from ....gates.approval import Approval
from ....gates.evidence import GATE, Evidence
from ....gates.gate import judge
from ....gates.policy import Policy
from ....gates.reading import Reading
from ....gates.readings import read
from ....gates.rule import Rule, Scope
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
        """The verdict by the run's policy, as it was judged then, or by another one, as it would be
        now; always the same for the same."""
        evidence = self.evidence if policy is None else replace(self.evidence, gate=GATE)
        return self._judge(policy or self.bound.policy, evidence)

    def judge_without(self, rules: frozenset[int]) -> Judgement:
        """The verdict by the run's policy, had it not these of its rules, by number."""
        return self._judge(self.bound.policy, self.evidence, rules)

    def _judge(
        self, policy: Policy, evidence: Evidence, without: frozenset[int] = frozenset()
    ) -> Judgement:
        return judge(
            policy,
            evidence,
            self.bound.vocabulary,
            context=self.bound.context,
            scope=self.scope,
            attempt=self.attempt,
            approved=self.approved,
            without=without,
        )


@dataclass(frozen=True, slots=True)
class Loosening:
    """One rule that stood in the way, and how far its threshold would have had to rise."""

    rule: Rule
    score: float
    """The reading on all that was written, the highest within the rounding; a threshold above it
    lets the thought pass."""

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
    policy = stored.bound.policy
    rules = policy.rules_for(stored.bound.context)
    unread = set[int]()
    if not stored.evidence.weighed:  # cut before its end, so no posterior was made
        unread = {n for n, rule in enumerate(rules) if policy.raw(rule) is Reading.POSTERIOR}
    taken: list[int] = []
    verdict = stored.judge_without(frozenset(unread))
    while not isinstance(verdict, Broken) and not verdict.action.keeps:
        taken += [c.rule for c in verdict.crossings if not c.action.keeps]
        verdict = stored.judge_without(frozenset([*unread, *taken]))
    if isinstance(verdict, Broken):
        return ()
    found = read(stored.evidence, stored.bound.vocabulary, policy.calibrations)
    taken_rules = [rules[number] for number in taken]
    return tuple(Loosening(rule, found[rule.tag][rule.reading].most) for rule in taken_rules)


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
    unread: str | None = None
    """Why the run's own policy or its tags cannot be read, so that nothing was judged; likewise."""

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
            return all(getattr(self, each) == getattr(other, each) for each in self.__slots__)
        return isinstance(other, (list, tuple)) and self.flips == tuple(other)
