"""The ready queue: work starts when its own parents are there and the budget allows it."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..agents.machines import Growth, Work
from ..agents.operations import Ask
from ..agents.plan import Plan
from ..agents.prompt import Sampling
from ..agents.spec import Budget
from ..agents.thought import Thought

__all__ = ["Grown", "Halt", "Spending", "grow"]

Perform = Callable[[Work], Awaitable[Sequence[Thought]]]


class Halt(Exception):  # noqa: N818 - a verdict, not an error
    """A rule whose action is ``halt`` was reached: the whole run stops."""

    def __init__(self, thought: Thought) -> None:
        super().__init__(thought.id)
        self.thought = thought


@dataclass(slots=True)
class Spending:
    """What a run has spent and reserved; :meth:`admits` says whether one more piece fits."""

    budget: Budget
    sampling: Sampling
    started: float = field(default_factory=time.monotonic)
    tokens: int = 0
    thoughts: int = 0
    reserved: int = 0
    """Tokens that work in flight may still generate."""
    in_flight: int = 0
    ended: str | None = None
    """The budget that ran out first, in words."""

    def cost(self, work: Work) -> int:
        """The most tokens that one try at ``work`` can generate."""
        if not isinstance(work.operation, Ask):
            return 0
        return (work.operation.sampling or self.sampling).max_tokens

    def admits(self, work: Work) -> bool:
        """Whether ``work`` may start now. Sets :attr:`ended` where it never will."""
        budget, cost = self.budget, self.cost(work)
        if time.monotonic() - self.started >= budget.seconds:
            self.ended = f"the budget of {budget.seconds:g} seconds is spent"
        if self.ended is not None or self.in_flight >= budget.in_flight:
            return False
        if self.thoughts + self.in_flight >= budget.thoughts:
            return self._wait_or_end(f"{self.thoughts} of {budget.thoughts} thoughts are made")
        if self.tokens + self.reserved + cost > budget.tokens:
            spent = f"{self.tokens} of {budget.tokens} tokens are spent"
            return self._wait_or_end(f"{spent}, and the next step may take {cost}")
        return True

    def admits_retry(self) -> bool:
        """Whether work in flight may try once more, within what it reserved for one try."""
        budget = self.budget
        return (
            self.tokens + self.reserved <= budget.tokens
            and self.thoughts + self.in_flight <= budget.thoughts
        )

    def _wait_or_end(self, what: str) -> bool:
        """What is in flight may spend less than it reserved; only alone is the end the end."""
        if self.in_flight == 0:
            self.ended = f"{what}: raise the budget"
        return False

    def reserve(self, work: Work) -> None:
        """Before dispatch."""
        self.in_flight += 1
        self.reserved += self.cost(work)

    def release(self, work: Work) -> None:
        """After the work, whatever came of it."""
        self.in_flight -= 1
        self.reserved -= self.cost(work)

    def spend(self, thought: Thought) -> None:
        """Count a thought that was made, with the tokens it took."""
        self.tokens += thought.tokens
        self.thoughts += 1


@dataclass(frozen=True, slots=True)
class Grown:
    """What a plan came to."""

    kept: tuple[Thought, ...]
    """The plan's own output, in the graph's order."""
    ended: str | None
    """The budget that ran out, in words; None when the plan came to its end."""
    left: int
    """Pieces of work that were possible and not done."""


async def grow(
    plan: Plan, root: Thought, perform: Perform, spending: Spending, regrow: bool
) -> Grown:
    """Run a plan from its root thought until nothing more is possible.

    Work is dispatched in the order in which it became possible, as many pieces at a time as the
    budget allows. Results are told as they come; what grows does not depend on their order.
    Raises :class:`Halt`; whatever leaves this function, nothing is left running.
    """
    growth = Growth(regrow)
    kept: list[Thought] = []
    machine = plan.start(growth, 0)
    machine.out = kept.append
    machine.push(root)
    machine.close()

    queue: deque[Work] = deque(growth.ask())
    running: dict[asyncio.Task[Sequence[Thought]], Work] = {}
    deadline = spending.started + spending.budget.seconds
    try:
        while True:
            while queue and spending.admits(queue[0]):
                work = queue.popleft()
                spending.reserve(work)
                running[asyncio.ensure_future(perform(work))] = work
            if not running:
                break
            left = deadline - time.monotonic()
            done, _ = await asyncio.wait(
                running, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                spending.ended = f"the budget of {spending.budget.seconds:g} seconds is spent"
                break
            for task in done:
                work = running.pop(task)
                thoughts = task.result()
                spending.release(work)
                growth.tell(work, thoughts)
            queue.extend(growth.ask())
    finally:
        await _cancel(running)
    by_path = sorted(kept, key=lambda thought: thought.path)
    return Grown(tuple(by_path), spending.ended, len(queue) + len(running))


async def _cancel(running: dict[asyncio.Task[Sequence[Thought]], Work]) -> None:
    for task in running:
        task.cancel()
    if running:
        await asyncio.gather(*running, return_exceptions=True)
