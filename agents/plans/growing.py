"""Machines that grow while they run: by a function that sees results, or by a search strategy."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...gates.canonical import digest
from ..errors import reason
from ..functions import called, contained
from ..search.strategy import Move, Strategy
from ..thought import Scene, Thought
from .machines import Branch, Group, Growth, Startable, Work, in_order
from .operations import Choose, Expand, Score

__all__ = ["GrowMachine", "SearchMachine"]


def _inner(number: int) -> int:
    """The first number for operations that nobody could count when the plan was written."""
    return (number + 1) << 16


class GrowMachine(Group):
    """A function sees all thoughts and gives more plan for them, round after round."""

    def __init__(
        self,
        growth: Growth,
        function: Callable[[Scene], Startable | None],
        name: str,
        rounds: int,
        number: int,
    ) -> None:
        super().__init__(growth)
        self.function, self.name, self.left = function, name, rounds
        self.number, self.next = number, _inner(number)
        self.thoughts: list[Thought] = []
        self.answer: Startable | None = None

    def push(self, thought: Thought) -> None:
        self.thoughts.append(thought)

    def close(self) -> None:
        if not self.closed:
            self._look()
        super().close()

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """The function has been called: grow what it gave, or end with what is there."""
        self.open -= 1
        if any(thought.lives for thought in thoughts):
            if self.answer is None:
                for thought in work.parents:
                    self.out(thought)
            else:
                self._grow(self.answer, work.parents)
        self.settle()

    def _look(self) -> None:
        thoughts, self.thoughts = in_order(self.thoughts), []
        if not thoughts:
            return
        if not self.left:
            for thought in thoughts:
                self.out(thought)
            return

        def look(scene: Scene) -> None:
            self.answer = self.function(scene)

        self.left -= 1
        self.open += 1
        path = thoughts[0].path.below(self.number, self.left)
        operation = Expand(name=self.name, by=look)
        self.growth.post(Work(operation, thoughts, path, branch=self.growth.branch, owner=self))

    def _grow(self, plan: Startable, thoughts: Sequence[Thought]) -> None:
        there = self.growth.at(thoughts[0])
        machine = self.adopt(plan.start(there, self.next), self.thoughts.append, self._look)
        self.next += plan.size
        for thought in thoughts:
            machine.push(thought)
        machine.close()


@dataclass(slots=True)
class _Expansion:
    thought: Thought
    branch: Branch | None
    children: list[Thought] = field(default_factory=list)
    ended: bool = False


class SearchMachine(Group):
    """A strategy decides which thoughts the step is started for."""

    def __init__(
        self, growth: Growth, step: Startable, strategy: Strategy, name: str, number: int
    ) -> None:
        super().__init__(growth)
        self.step, self.strategy, self.name, self.number = step, strategy, name, number
        self.roots: list[Thought] = []
        self.state: Any = None
        self.expansions: deque[_Expansion] = deque()
        """In the order in which they were asked for."""
        self.copies: Counter[str] = Counter()
        """How often each thought was expanded."""
        self.scores: dict[str, float | None] = {}
        """As the ledger has them."""
        self.turning = self.ended = False
        self.posted = 0

    def push(self, thought: Thought) -> None:
        if thought.id not in self.scores:
            self.scores[thought.id] = thought.score
            self.roots.append(thought)

    def close(self) -> None:
        if not self.closed and self.roots:
            roots = in_order(self.roots)
            key = [self.growth.seed, self.growth.place, self.number, self.name]
            with_seed = int(digest(key)[:15], 16)
            self._guarded(lambda: self._begin(roots, with_seed))
        super().close()

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """A choice, or a score of what the search gives, is written down."""
        self.open -= 1
        if isinstance(work.operation, Score):
            for thought in thoughts:
                if thought.lives:
                    self.out(thought)
        self.settle()

    def _begin(self, roots: tuple[Thought, ...], seed: int) -> None:
        self.state = called(self.strategy.begin, roots, seed)
        self._turn()

    def _guarded(self, decide: Callable[[], None]) -> None:
        """A strategy that goes wrong fails this search alone."""
        try:
            with contained():
                decide()
        except Exception as error:
            if not self.ended:
                self._stop()
                first = in_order(self.roots)[0]
                self.fail(first, self.number, self.name, f"the strategy raised {reason(error)}")

    def _turn(self) -> None:
        """Tell what has ended, in the order in which it was asked for, and ask what is next."""
        if self.turning:  # an expansion that ended while it was started
            return
        self.turning = True
        try:
            self._move()
            while not self.ended and self.expansions and self.expansions[0].ended:
                first = self.expansions.popleft()
                children = in_order(first.children)
                self.scores.update((child.id, child.score) for child in children)
                self.state = called(self.strategy.tell, self.state, first.thought, children)
                self._move()
        finally:
            self.turning = False

    def _move(self) -> None:
        move, self.state = called(self.strategy.ask, self.state)
        if move.drop:
            self._drop(move)
        for thought in move.expand:
            self._expand(thought)
        if move.give is not None:
            self._give(move.give)
        elif not self.expansions:
            raise ValueError("it waits, and nothing is under way: ask() gave no move")

    def _expand(self, thought: Thought) -> None:
        copy = self.copies[thought.id]
        self.copies[thought.id] += 1
        number = _inner(self.number) + copy * self.step.size
        there = self.growth.at(thought).within(f"{number} expansion")
        expansion = _Expansion(thought, there.branch)
        self.expansions.append(expansion)

        def ended() -> None:
            expansion.ended = True
            if not self.ended:
                self._guarded(self._turn)

        machine = self.adopt(self.step.start(there, number), expansion.children.append, ended)
        machine.push(thought)
        machine.close()

    def _drop(self, move: Move) -> None:
        gone = {thought.id for thought in move.drop}
        kept = [t for t in (*move.expand, *(move.give or ())) if t.id not in gone]
        choice = Choose(name=move.why, dropped=lambda: move.drop)
        self._post(choice, tuple({t.id: t for t in kept}.values()) or move.drop)
        for expansion in self.expansions:
            if expansion.thought.id in gone and not expansion.ended:
                self.growth.stop(expansion.branch, move.why)
                self._abandon(expansion)

    def _give(self, given: tuple[Thought, ...]) -> None:
        self._stop()
        for thought in in_order(given):
            score = thought.score
            if score is None or score == self.scores.get(thought.id):
                self.out(thought)
            else:
                self._post(Score(name=self.name, by=lambda scene, s=score: s), (thought,))

    def _stop(self) -> None:
        self.ended = True
        for expansion in self.expansions:
            if not expansion.ended:
                self.growth.stop(expansion.branch, "the search has ended")
                self._abandon(expansion)
        self.expansions.clear()

    def _abandon(self, expansion: _Expansion) -> None:
        """Its machine was stopped, and will not say that it has ended."""
        expansion.ended = True
        expansion.children.clear()
        self.open -= 1

    def _post(self, operation: Choose | Score, parents: tuple[Thought, ...]) -> None:
        self.open += 1
        self.posted += 1
        path = parents[0].path.below(self.number, self.posted)
        self.growth.post(Work(operation, parents, path, branch=self.growth.branch, owner=self))
