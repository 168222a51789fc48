"""What a run and its branches have spent and reserved, and whether one more piece of work fits."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ...agents.budget import Budget
from ...agents.plans.machines import Branch, Work
from ...agents.plans.operations import Ask
from ...agents.prompt import Sampling
from ...agents.thought import Thought

__all__ = ["Answer", "Spending"]


class Answer(StrEnum):
    """Whether work may start."""

    NOW = "now"
    LATER = "later"
    """When what is in flight has ended, and perhaps spent less than it reserved."""
    NEVER = "never"


@dataclass(slots=True, eq=False)
class Spending:
    """What a run, or one branch of it, has spent and reserved."""

    budget: Budget
    sampling: Sampling
    started: float = field(default_factory=time.monotonic)
    depth: int = 0
    """Of the thought that it began with."""
    tokens: int = 0
    thoughts: int = 0
    reserved: int = 0
    """Tokens that work in flight may still generate."""
    in_flight: int = 0
    ended: str | None = None
    """The budget that ran out first, in words; nothing that spends is admitted any more."""
    refused: str | None = None
    """Why the last work was refused."""
    levels: Counter[int] = field(default_factory=Counter)
    """Thoughts made or reserved at each depth, where breadth is limited."""
    branches: dict[Branch, "Spending"] = field(default_factory=dict)
    """Of the branches that have a budget of their own."""

    def chain(self, work: Work) -> "list[Spending]":
        """All that this work spends from: the run, and the branches that it lies in."""
        chain: list[Spending] = [self]
        if work.branch is not None:
            for branch in work.branch.up():
                if branch.budget is not None:
                    chain.append(self.of(branch, branch.budget))
        return chain

    def of(self, branch: Branch, budget: Budget) -> "Spending":
        """What a branch has spent; its time begins when its first work does."""
        found = self.branches.get(branch)
        if found is None:
            found = Spending(budget, self.sampling, depth=branch.depth)
            self.branches[branch] = found
        return found

    @property
    def deadline(self) -> float | None:
        """On the monotonic clock."""
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    def cost(self, work: Work) -> int:
        """The most tokens that one try at ``work`` can generate."""
        if not isinstance(work.operation, Ask):
            return 0
        return (work.operation.sampling or self.sampling).max_tokens

    def answer(self, work: Work) -> Answer:
        """Whether ``work`` may start now. Where it never will, :attr:`refused` says why, and
        :attr:`ended` where that goes for all that comes after it too."""
        budget, cost = self.budget, self.cost(work)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.overdue()
        if self.ended is not None:
            self.refused = self.ended
            return Answer.NEVER
        level = self._level(work)
        if budget.depth is not None and level > budget.depth:
            self.refused = f"it would stand deeper than {budget.depth}"
            return Answer.NEVER
        if budget.breadth is not None and self.levels[level] >= budget.breadth:
            self.refused = f"{budget.breadth} thoughts stand at depth {level} already"
            return Answer.NEVER
        if budget.in_flight is not None and self.in_flight >= budget.in_flight:
            return Answer.LATER
        if budget.thoughts is not None and self.thoughts + self.in_flight >= budget.thoughts:
            return self._wait_or_end(f"{self.thoughts} of {budget.thoughts} thoughts are made")
        if budget.tokens is not None and self.tokens + self.reserved + cost > budget.tokens:
            spent = f"{self.tokens} of {budget.tokens} tokens are spent"
            return self._wait_or_end(f"{spent}, and the next step may take {cost}")
        return Answer.NOW

    def admits_retry(self) -> bool:
        """Whether work in flight may try once more, within what it reserved for one try."""
        tokens, thoughts = self.budget.tokens, self.budget.thoughts
        return (
            self.ended is None
            and (tokens is None or self.tokens + self.reserved <= tokens)
            and (thoughts is None or self.thoughts + self.in_flight <= thoughts)
        )

    def admits_thoughts(self, count: int) -> bool:
        """Whether work in flight, which reserved one thought, may make so many."""
        most = self.budget.thoughts
        return most is None or self.thoughts + self.in_flight - 1 + count <= most

    def overdue(self) -> None:
        """The time is up."""
        if self.ended is None:
            self.ended = f"the budget of {self.budget.seconds:g} seconds is spent"

    def reserve(self, work: Work) -> None:
        """Before dispatch."""
        self.in_flight += 1
        self.reserved += self.cost(work)
        if self.budget.breadth is not None:
            self.levels[self._level(work)] += 1

    def release(self, work: Work) -> None:
        """After the work, whatever came of it."""
        self.in_flight -= 1
        self.reserved -= self.cost(work)

    def spend(self, thought: Thought) -> None:
        """Count a thought that was made, with the tokens it took."""
        self.tokens += thought.tokens
        self.thoughts += 1

    def spend_all(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """Count what came of work, its parents not where it only let them pass."""
        old = {parent.id for parent in work.parents}
        made: Iterable[Thought] = (thought for thought in thoughts if thought.id not in old)
        for thought in made:
            self.spend(thought)

    def _level(self, work: Work) -> int:
        return len(work.path) // 2 - self.depth

    def _wait_or_end(self, what: str) -> Answer:
        """What is in flight may spend less than it reserved; only alone is the end the end."""
        if self.in_flight:
            return Answer.LATER
        self.refused = self.ended = f"{what}: raise the budget"
        return Answer.NEVER
