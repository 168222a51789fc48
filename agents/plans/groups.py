"""Machines made of machines: chains, branches side by side, copies, rounds and races."""

from collections.abc import Callable, Sequence

from ..budget import Budget
from ..errors import reason
from ..functions import holds
from ..thought import Thought
from .machines import Branch, Group, Growth, Machine, Startable, Work, in_order
from .operations import Choose

__all__ = [
    "BothMachine",
    "ChainMachine",
    "EachMachine",
    "PairwiseMachine",
    "RaceMachine",
    "RepeatMachine",
]


def _numbered(parts: Sequence[Startable], number: int) -> list[tuple[Startable, int]]:
    """Each part with the number of its first operation, unique within the plan."""
    numbers: list[tuple[Startable, int]] = []
    for part in parts:
        numbers.append((part, number))
        number += part.size
    return numbers


class ChainMachine(Machine):
    """Each stage feeds the next, thought by thought."""

    def __init__(self, growth: Growth, parts: Sequence[Startable], number: int) -> None:
        super().__init__(growth)
        self.stages: list[Machine] = []
        self.feeding: list[Branch] = []
        """One for each stage that stands before one that hurries."""
        last = max((i for i, part in enumerate(parts) if part.hurries), default=0)
        for i, (part, n) in enumerate(_numbered(parts, number)):
            there = growth.after(self.feeding) if part.hurries else growth.shared()
            if i < last:
                there = there.within(f"{n} before a join")
                assert there.branch is not None
                self.feeding.append(there.branch)
            self.stages.append(part.start(there, n))
        for i, stage in enumerate(self.stages[:-1]):
            stage.out, stage.done = self.stages[i + 1].push, self.stages[i + 1].close
        for i, stage in enumerate(self.stages):
            stage.enough = self._enough(i)
        self.stages[-1].out = lambda thought: self.out(thought)
        self.stages[-1].done = self.settle

    def push(self, thought: Thought) -> None:
        self.stages[0].push(thought)

    def close(self) -> None:
        self.closed = True
        self.stages[0].close()

    def busy(self) -> bool:
        return not self.stages[-1].finished

    def _enough(self, stage: int) -> Callable[[], None]:
        def enough() -> None:
            for branch in self.feeding[:stage]:
                self.growth.stop(branch, "enough others were there first")
            self.closed = True
            self.enough()
            self.stages[stage].close()

        return enough


class BothMachine(Group):
    """Every part gets every thought."""

    def __init__(self, growth: Growth, parts: Sequence[Startable], number: int) -> None:
        super().__init__(growth)
        self.parts = [
            self.adopt(part.start(growth.shared(), n), lambda thought: self.out(thought))
            for part, n in _numbered(parts, number)
        ]
        self.wanting = len(self.parts)
        for part in self.parts:
            part.enough = self._enough

    def push(self, thought: Thought) -> None:
        for part in self.parts:
            part.push(thought)

    def close(self) -> None:
        if not self.closed:
            for part in self.parts:
                part.close()
        super().close()

    def _enough(self) -> None:
        self.wanting -= 1
        if not self.wanting:
            self.enough()


class EachMachine(Group):
    """A copy of the inner plan for every thought, so that joins inside wait for that one only."""

    def __init__(
        self, growth: Growth, inner: Startable, number: int, budget: Budget | None = None
    ) -> None:
        super().__init__(growth)
        self.inner, self.number, self.budget = inner, number, budget

    def push(self, thought: Thought) -> None:
        there = self.growth.at(thought)
        if self.budget is not None:
            there = there.within(f"{self.number} each", self.budget)
        machine = self.adopt(self.inner.start(there, self.number), lambda t: self.out(t))
        machine.push(thought)
        machine.close()


class RepeatMachine(Group):
    """The inner plan again and again, until a thought is good or the rounds are spent."""

    def __init__(
        self,
        growth: Growth,
        inner: Startable,
        until: Callable[[Thought], bool],
        at_most: int,
        number: int,
    ) -> None:
        super().__init__(growth)
        self.inner, self.until, self.at_most, self.number = inner, until, at_most, number

    def push(self, thought: Thought) -> None:
        self._round(thought, self.at_most)

    def _round(self, thought: Thought, left: int) -> None:
        try:
            through = left == 0 or holds(self.until, thought.shown)
        except Exception as error:
            self.fail(thought, self.number, "repeat", f"until= raised {reason(error)}")
            return
        if through:
            self.out(thought)
            return

        def again(result: Thought) -> None:
            # A round that passed its thought through would pass it through for ever.
            self._round(result, 0 if result.id == thought.id else left - 1)

        there = self.growth.at(thought)
        machine = self.adopt(self.inner.start(there, self.number), again)
        machine.push(thought)
        machine.close()


class PairwiseMachine(Group):
    """Two thoughts to one, round after round, until one is left; an odd one waits a round.

    A round that leaves as many as it found is the last: the inner plan joins nothing.
    """

    def __init__(self, growth: Growth, inner: Startable, number: int) -> None:
        super().__init__(growth)
        self.inner, self.number = inner, number
        self.waiting: list[Thought] = []
        self.before: int | None = None
        """How many thoughts the last round began with."""

    def push(self, thought: Thought) -> None:
        self.waiting.append(thought)

    def close(self) -> None:
        self.closed = True
        self._round()

    def settle(self) -> None:
        if self.closed and not self.finished and self.open == 0:
            self._round()

    def _round(self) -> None:
        thoughts = in_order(self.waiting)
        self.waiting = []
        fewer = self.before is None or len(thoughts) < self.before
        if len(thoughts) < 2 or not fewer:
            for thought in thoughts:
                self.out(thought)
            super().settle()
            return
        self.before = len(thoughts)
        pairs = [thoughts[i : i + 2] for i in range(0, len(thoughts) - 1, 2)]
        self.waiting = [thoughts[-1]] if len(thoughts) % 2 else []
        machines = [
            self.adopt(self.inner.start(self.growth.at(pair[0]), self.number), self.waiting.append)
            for pair in pairs
        ]
        for machine, pair in zip(machines, pairs, strict=True):
            for thought in pair:
                machine.push(thought)
            machine.close()


class RaceMachine(Group):
    """Every part gets every thought; of what they make of it, that of the first to end goes on."""

    def __init__(self, growth: Growth, parts: Sequence[Startable], number: int) -> None:
        super().__init__(growth)
        self.parts, self.number = parts, number

    def push(self, thought: Thought) -> None:
        heat = _Heat(self.growth.at(thought), self.parts, self.number)
        machine = self.adopt(heat, lambda t: self.out(t))
        machine.push(thought)
        machine.close()


class _Heat(Machine):
    """One thought's race."""

    def __init__(self, growth: Growth, parts: Sequence[Startable], number: int) -> None:
        super().__init__(growth)
        self.number = number
        self.key = f"{growth.place} {number} race"
        self.racers: list[Machine] = []
        self.branches: list[Branch] = []
        self.made: list[list[Thought]] = []
        self.running = 0
        self.chosen = self.writing = False
        for i, (part, n) in enumerate(_numbered(parts, number)):
            there = growth.within(f"{n} racer")
            assert there.branch is not None
            racer = part.start(there, n)
            made: list[Thought] = []
            racer.out, racer.done = made.append, self._ended(i)
            self.racers.append(racer)
            self.branches.append(there.branch)
            self.made.append(made)

    def push(self, thought: Thought) -> None:
        self.running = len(self.racers)
        for racer in self.racers:
            racer.push(thought)

    def close(self) -> None:
        self.closed = True
        for racer in self.racers:
            racer.close()
        self.settle()

    def busy(self) -> bool:
        return self.writing or (self.running > 0 and not self.chosen)

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """The choice is written down: the winner's thoughts go on."""
        self.writing = False
        for thought in work.parents:
            self.out(thought)
        self.settle()

    def _ended(self, racer: int) -> Callable[[], None]:
        def ended() -> None:
            self.running -= 1
            known = self.growth.settled.get(self.key)
            made = in_order(self.made[racer])
            if made and not self.chosen and (known is None or {t.id for t in made} == set(known)):
                self._choose(racer, made)
            self.settle()

        return ended

    def _choose(self, winner: int, made: tuple[Thought, ...]) -> None:
        losers = [branch for i, branch in enumerate(self.branches) if i != winner]
        self.chosen = self.writing = True
        choice = Choose(
            name="lost the race",
            about=self.key,
            dropped=lambda: [t for branch in losers for t in branch.thoughts.values()],
        )
        path = made[0].path.below(self.number, winner)
        self.growth.post(Work(choice, made, path, branch=self.growth.branch, owner=self))
        for branch in losers:
            self.growth.stop(branch, "lost the race")
