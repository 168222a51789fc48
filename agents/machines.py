"""The state machines that decide what a plan does next: pure bookkeeping, no I/O.

``push`` gives a machine thoughts, ``tell`` the results of work; it puts new :class:`Work` on the
agenda as soon as that work's own parents are there. Nothing here runs anything: the scheduler does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .operations import Ask, Operation
from .thought import Status, Thought

__all__ = ["Growth", "Machine", "Startable", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """One operation on parents that are there: what the scheduler performs next."""

    operation: Operation
    parents: tuple[Thought, ...]
    path: tuple[int, ...]
    """Where its (first) thought will stand in the graph."""
    index: int = 0
    """Which child of these parents."""
    banned: bool = False
    """The last try after all siblings were pruned: every tag banned."""
    owner: "Leaf" = field(compare=False, repr=False, kw_only=True)

    @property
    def step(self) -> str:
        """The operation's name with its number in the plan: two alike operations on the same
        parents make different thoughts."""
        return f"{self.path[-2]} {self.operation.name}"


@dataclass(slots=True)
class Growth:
    """What all machines of one run share: the agenda, and whether the policy regrows."""

    regrow: bool
    agenda: list[Work] = field(default_factory=list)

    def ask(self) -> list[Work]:
        """The work that became possible since the last call."""
        ready, self.agenda = self.agenda, []
        return ready

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """Hand in what came of a piece of work."""
        work.owner.tell(work, thoughts)


class Startable(Protocol):
    """What a machine needs of a plan: to start it, and how many operations it has."""

    @property
    def size(self) -> int: ...

    def start(self, growth: Growth, number: int) -> "Machine": ...


class Machine(ABC):
    """Takes thoughts, gives thoughts. ``finished`` once closed and nothing is under way."""

    def __init__(self, growth: Growth) -> None:
        self.growth = growth
        self.closed = False
        self.out: Callable[[Thought], None] = lambda thought: None
        self.done: Callable[[], None] = lambda: None
        self._finished = False

    @abstractmethod
    def push(self, thought: Thought) -> None:
        """Take one thought."""

    def close(self) -> None:
        """No more thoughts will be pushed."""
        self.closed = True
        self.settle()

    @abstractmethod
    def busy(self) -> bool:
        """Whether something can still come out."""

    def settle(self) -> None:
        """Say so, once, when nothing more can come out."""
        if self.closed and not self._finished and not self.busy():
            self._finished = True
            self.done()


class Leaf(Machine):
    """One operation. Subclasses decide which work its parents make possible."""

    def __init__(self, growth: Growth, operation: Operation, number: int) -> None:
        super().__init__(growth)
        self.operation = operation
        self.number = number
        self.running = 0
        self.seen: set[str] = set()

    def push(self, thought: Thought) -> None:
        """A thought that comes twice (two branches passed it through) counts once."""
        if thought.id not in self.seen:
            self.seen.add(thought.id)
            self.take(thought)

    @abstractmethod
    def take(self, thought: Thought) -> None:
        """Take one thought that was not here before."""

    def busy(self) -> bool:
        return self.running > 0

    def post(self, parents: tuple[Thought, ...], index: int = 0, banned: bool = False) -> None:
        self.running += 1
        path = (*parents[0].path, self.number, index)
        work = Work(self.operation, parents, path, index, banned, owner=self)
        self.growth.agenda.append(work)

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        self.running -= 1
        for thought in thoughts:
            if thought.lives:
                self.out(thought)
        self.settle()


class EachLeaf(Leaf):
    """Starts for every parent at once."""

    def take(self, thought: Thought) -> None:
        self.post((thought,))


class AllLeaf(Leaf):
    """Starts once, when its input is complete, with the parents in the graph's own order."""

    def __init__(self, growth: Growth, operation: Operation, number: int) -> None:
        super().__init__(growth, operation, number)
        self.waiting: list[Thought] = []

    def take(self, thought: Thought) -> None:
        self.waiting.append(thought)

    def close(self) -> None:
        parents = _in_order(self.waiting)
        self.waiting = []
        if parents:
            self.post(parents)
        super().close()


@dataclass(slots=True)
class _Litter:
    """The children of one parent (or of joined parents)."""

    parents: tuple[Thought, ...]
    posted: int = 0
    running: int = 0
    living: int = 0
    pruned: bool = False
    regrown: bool = False


class AskLeaf(Leaf):
    """Asks the model for n children, replaces pruned ones, and regrows a barren node once."""

    operation: Ask

    def __init__(self, growth: Growth, operation: Ask, number: int) -> None:
        super().__init__(growth, operation, number)
        self.litters: dict[tuple[str, ...], _Litter] = {}
        self.waiting: list[Thought] = []

    def take(self, thought: Thought) -> None:
        if self.operation.join == "all":
            self.waiting.append(thought)
        else:
            self._start((thought,))

    def close(self) -> None:
        if self.waiting:
            self._start(_in_order(self.waiting))
            self.waiting = []
        super().close()

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        litter = self.litters[_ids(work.parents)]
        litter.running -= 1
        litter.living += sum(t.status in (Status.KEPT, Status.ESCALATED) for t in thoughts)
        if not any(t.status in (Status.KEPT, Status.ESCALATED) for t in thoughts):
            litter.pruned |= any(t.status is Status.PRUNED for t in thoughts)
            hopeless = any(t.hopeless for t in thoughts)
            if not hopeless and litter.posted < self.operation.n + self.operation.spare:
                self._child(litter)
            elif self._barren(litter):
                litter.regrown = True
                self._child(litter, banned=True)
        super().tell(work, thoughts)

    def _barren(self, litter: _Litter) -> bool:
        return (
            self.growth.regrow
            and litter.pruned
            and not (litter.living or litter.running or litter.regrown)
        )

    def _start(self, parents: tuple[Thought, ...]) -> None:
        litter = self.litters[_ids(parents)] = _Litter(parents)
        for _ in range(self.operation.n):
            self._child(litter)

    def _child(self, litter: _Litter, banned: bool = False) -> None:
        self.post(litter.parents, litter.posted, banned)
        litter.posted += 1
        litter.running += 1


def _ids(thoughts: Sequence[Thought]) -> tuple[str, ...]:
    return tuple(thought.id for thought in thoughts)


def _in_order(thoughts: Sequence[Thought]) -> tuple[Thought, ...]:
    return tuple(sorted(thoughts, key=lambda thought: thought.path))


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
        self.stages = [part.start(growth, n) for part, n in _numbered(parts, number)]
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            stage.out, stage.done = following.push, following.close
        self.stages[-1].out = lambda thought: self.out(thought)
        self.stages[-1].done = self.settle

    def push(self, thought: Thought) -> None:
        self.stages[0].push(thought)

    def close(self) -> None:
        self.closed = True
        self.stages[0].close()

    def busy(self) -> bool:
        return not self.stages[-1]._finished


class Group(Machine):
    """A machine that waits for machines it started."""

    def __init__(self, growth: Growth) -> None:
        super().__init__(growth)
        self.open = 0

    def adopt(self, machine: Machine, out: Callable[[Thought], None]) -> Machine:
        self.open += 1
        machine.out, machine.done = out, self._one_done
        return machine

    def _one_done(self) -> None:
        self.open -= 1
        self.settle()

    def busy(self) -> bool:
        return self.open > 0


class BothMachine(Group):
    """Every part gets every thought."""

    def __init__(self, growth: Growth, parts: Sequence[Startable], number: int) -> None:
        super().__init__(growth)
        self.parts = [
            self.adopt(part.start(growth, n), lambda thought: self.out(thought))
            for part, n in _numbered(parts, number)
        ]

    def push(self, thought: Thought) -> None:
        for part in self.parts:
            part.push(thought)

    def close(self) -> None:
        for part in self.parts:
            part.close()
        super().close()


class EachMachine(Group):
    """A copy of the inner plan for every thought, so that joins inside wait for that one only."""

    def __init__(self, growth: Growth, inner: Startable, number: int) -> None:
        super().__init__(growth)
        self.inner, self.number = inner, number

    def push(self, thought: Thought) -> None:
        machine = self.adopt(self.inner.start(self.growth, self.number), lambda t: self.out(t))
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
        if left == 0 or self.until(thought):
            self.out(thought)
            return

        def again(result: Thought) -> None:
            # A round that passed its thought through would pass it through for ever.
            self._round(result, 0 if result.id == thought.id else left - 1)

        machine = self.adopt(self.inner.start(self.growth, self.number), again)
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

    def _one_done(self) -> None:
        self.open -= 1
        if self.open == 0:
            self._round()

    def _round(self) -> None:
        thoughts = _in_order(self.waiting)
        self.waiting = []
        fewer = self.before is None or len(thoughts) < self.before
        if len(thoughts) < 2 or not fewer:
            for thought in thoughts:
                self.out(thought)
            self.settle()
            return
        self.before = len(thoughts)
        pairs = [thoughts[i : i + 2] for i in range(0, len(thoughts) - 1, 2)]
        self.waiting = [thoughts[-1]] if len(thoughts) % 2 else []
        machines = [
            self.adopt(self.inner.start(self.growth, self.number), self.waiting.append)
            for _ in pairs
        ]
        for machine, pair in zip(machines, pairs, strict=True):
            for thought in pair:
                machine.push(thought)
            machine.close()
