"""Machines of one operation: which work its parents make possible."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..thought import Status, Thought
from .joins import AtLeast, First
from .machines import Growth, Machine, Work, in_order
from .operations import Ask, Choose, Fail, Operation

__all__ = ["AskLeaf", "Leaf"]


class Leaf(Machine):
    """One operation: starts for every parent at once, or once with those that its join wants."""

    def __init__(self, growth: Growth, operation: Operation, number: int) -> None:
        super().__init__(growth)
        self.operation = operation
        self.number = number
        self.running = 0
        self.seen: set[str] = set()
        self.waiting: list[Thought] = []
        self.chosen = False
        """Whether a ``first`` join has what it wants."""

    @property
    def key(self) -> str:
        """What its join is known by in every walk of the plan."""
        return f"{self.growth.place} {self.number} {self.operation.name}"

    def push(self, thought: Thought) -> None:
        """A thought that comes twice (two branches passed it through) counts once."""
        if self.chosen or thought.id in self.seen:
            return
        self.seen.add(thought.id)
        if self.operation.join == "each":
            self.start((thought,))
            return
        self.waiting.append(thought)
        if isinstance(self.operation.join, First):
            self._hurry(self.operation.join)

    def close(self) -> None:
        parents, join = in_order(self.waiting), self.operation.join
        self.waiting = []
        if parents and not self.chosen:
            wanted = join.k if isinstance(join, AtLeast | First) else 1
            if len(parents) < wanted:
                self._fail(parents, f"it joins {join}, and {len(parents)} came")
            else:
                self.start(parents)
        super().close()

    def start(self, parents: tuple[Thought, ...]) -> None:
        """Begin with these parents."""
        self.post(parents)

    def busy(self) -> bool:
        return self.running > 0

    def post(
        self,
        parents: tuple[Thought, ...],
        index: int = 0,
        *,
        operation: Operation | None = None,
        banned: bool = False,
        mends: Thought | None = None,
    ) -> None:
        """Put work on the agenda: this leaf's operation, or another one in its place."""
        self.running += 1
        self.growth.post(
            Work(
                operation or self.operation,
                parents if mends is None else (*parents, mends),
                parents[0].path.below(self.number, index),
                index,
                banned,
                mends,
                self.growth.branch,
                owner=self,
            )
        )

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        self.running -= 1
        if isinstance(work.operation, Choose):
            self.start(work.parents)
        else:
            if work.operation is self.operation:
                self.told(work, thoughts)
            for thought in thoughts:
                if thought.lives:
                    self.out(thought)
        self.settle()

    def told(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """Learn from what came of the work, before it goes on."""

    def _hurry(self, join: First) -> None:
        known = self.growth.settled.get(self.key)
        if known is None:
            won = self.waiting if len(self.waiting) == join.k else []
        else:
            won = [thought for thought in self.waiting if thought.id in known]
            won = won if len(won) == len(known) else []
        if won:
            parents, self.waiting, self.chosen = in_order(won), [], True
            choice = Choose(
                name=f"lost to the {join} of {self.operation.name}",
                about=self.key,
                dropped=lambda: self.growth.losers(parents),
            )
            self.post(parents, operation=choice)
            self.enough()

    def _fail(self, parents: tuple[Thought, ...], why: str) -> None:
        failure = Fail(name=self.operation.name, kind=self.operation.kind, reason=why)
        self.post(parents, operation=failure)


@dataclass(slots=True)
class _Litter:
    """The children of one parent (or of joined parents)."""

    parents: tuple[Thought, ...]
    posted: int = 0
    running: int = 0
    living: int = 0
    pruned: bool = False
    regrown: bool = False
    hopeless: bool = False


class AskLeaf(Leaf):
    """Asks the model for n children, has unreadable answers mended, replaces pruned ones, and
    regrows a barren node once."""

    operation: Ask

    def __init__(self, growth: Growth, operation: Ask, number: int) -> None:
        super().__init__(growth, operation, number)
        self.litters: dict[tuple[str, ...], _Litter] = {}
        self.places = operation.n + operation.spare + 1
        """One for each child, a regrown one included; what mends a child stands so many on."""

    def start(self, parents: tuple[Thought, ...]) -> None:
        litter = self.litters[_ids(parents)] = _Litter(parents)
        for _ in range(self.operation.n):
            self._child(litter)

    def told(self, work: Work, thoughts: Sequence[Thought]) -> None:
        parents = work.parents if work.mends is None else work.parents[:-1]
        litter = self.litters[_ids(parents)]
        litter.running -= 1
        litter.living += sum(t.status in (Status.KEPT, Status.ESCALATED) for t in thoughts)
        litter.pruned |= any(t.status is Status.PRUNED for t in thoughts)
        litter.hopeless |= any(t.hopeless for t in thoughts)
        # Nothing comes of what a budget refused, or what can never fit: nor would it another time.
        lost = thoughts and not any(t.status in (Status.KEPT, Status.ESCALATED) for t in thoughts)
        if lost:
            self._replace(litter, work, thoughts[-1])
        if not litter.running:
            del self.litters[_ids(parents)]

    def _replace(self, litter: _Litter, work: Work, last: Thought) -> None:
        if last.unread and work.index + self.places < self.places * (self.operation.repairs + 1):
            litter.running += 1
            self.post(litter.parents, work.index + self.places, banned=work.banned, mends=last)
        elif not litter.hopeless and litter.posted < self.operation.n + self.operation.spare:
            self._child(litter)
        elif self._barren(litter):
            litter.regrown = True
            self._child(litter, banned=True)

    def _barren(self, litter: _Litter) -> bool:
        return (
            self.growth.regrow
            and litter.pruned
            and not (litter.living or litter.running or litter.regrown)
        )

    def _child(self, litter: _Litter, banned: bool = False) -> None:
        self.post(litter.parents, litter.posted, banned=banned)
        litter.posted += 1
        litter.running += 1


def _ids(thoughts: Sequence[Thought]) -> tuple[str, ...]:
    return tuple(thought.id for thought in thoughts)
