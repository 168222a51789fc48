"""How plans compose: one operation, chains, branches side by side, copies, rounds, searches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .budget import Budget
from .errors import PlanError
from .functions import called
from .groups import (
    BothMachine,
    ChainMachine,
    EachMachine,
    PairwiseMachine,
    RaceMachine,
    RepeatMachine,
)
from .growing import GrowMachine, SearchMachine
from .joins import First
from .judging import GradeMachine, ImproveMachine, VoteMachine
from .leaves import AskLeaf, Leaf
from .machines import Growth, Machine
from .operations import Ask, Check, KeepBest, KeepValid, Operation, Score
from .strategy import Strategy
from .thought import Scene, Thought

__all__ = [
    "Each",
    "Graded",
    "Growing",
    "Improving",
    "Pairwise",
    "Plan",
    "Race",
    "Repeat",
    "Search",
    "Step",
    "Voted",
    "checked_plan",
]


class Plan:
    """An operation or a composition of them. ``a >> b`` feeds a's thoughts to b; ``a & b`` gives
    the same thoughts to both and collects what comes of either (a merge follows)."""

    def start(self, growth: Growth, number: int) -> Machine:
        """A fresh machine; ``number`` tells its place among its sisters."""
        raise TypeError(f"{type(self).__name__} is no plan")

    def steps(self) -> Iterator[Operation]:
        """Every operation in the plan that is known before it runs."""
        raise TypeError(f"{type(self).__name__} is no plan")

    @property
    def size(self) -> int:
        """How many operations it has."""
        return sum(1 for _ in self.steps())

    @property
    def hurries(self) -> bool:
        """Whether it may be through before all that feeds it has ended."""
        return False

    @property
    def lowest(self) -> bool:
        """Whether a low score is a good one, as its ``keep_best`` or its search has it."""
        return any(isinstance(step, KeepBest) and step.lowest for step in self.steps())

    def __rshift__(self, other: "Plan") -> "Plan":
        return Chain((*_parts(self, Chain), *_parts(checked_plan(other), Chain)))

    def __and__(self, other: "Plan") -> "Plan":
        return Both((*_parts(self, Both), *_parts(checked_plan(other), Both)))


def checked_plan(other: Any) -> Plan:
    """``other``, or a :class:`PlanError` that says what to do with it."""
    if not isinstance(other, Plan):
        raise PlanError(
            f"a plan composes with plans, not with a {type(other).__name__}; wrap the function in "
            "generate(…), score(…), split(…) or operation(…)"
        )
    return other


def _parts(plan: Plan, kind: "type[Chain | Both]") -> tuple[Plan, ...]:
    return plan.parts if isinstance(plan, kind) else (plan,)


@dataclass(frozen=True)
class Step(Plan):
    """One operation."""

    operation: Operation

    def start(self, growth: Growth, number: int) -> Machine:
        if isinstance(self.operation, Ask):
            return AskLeaf(growth, self.operation, number)
        return Leaf(growth, self.operation, number)

    def steps(self) -> Iterator[Operation]:
        yield self.operation

    @property
    def hurries(self) -> bool:
        return isinstance(self.operation.join, First)


@dataclass(frozen=True)
class _Several(Plan):
    parts: tuple[Plan, ...]

    def steps(self) -> Iterator[Operation]:
        for part in self.parts:
            yield from part.steps()

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def lowest(self) -> bool:
        return any(part.lowest for part in self.parts)


@dataclass(frozen=True)
class Chain(_Several):
    """Each part feeds the next."""

    def start(self, growth: Growth, number: int) -> Machine:
        return ChainMachine(growth, self.parts, number)

    @property
    def hurries(self) -> bool:
        return self.parts[0].hurries


@dataclass(frozen=True)
class Both(_Several):
    """All parts get the same thoughts."""

    def start(self, growth: Growth, number: int) -> Machine:
        return BothMachine(growth, self.parts, number)

    @property
    def hurries(self) -> bool:
        return all(part.hurries for part in self.parts)


@dataclass(frozen=True)
class Race(_Several):
    """All parts get the same thoughts, and the first to end with something wins."""

    def start(self, growth: Growth, number: int) -> Machine:
        return RaceMachine(growth, self.parts, number)


@dataclass(frozen=True)
class _Wrapped(Plan):
    inner: Plan

    def steps(self) -> Iterator[Operation]:
        yield from self.inner.steps()

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def lowest(self) -> bool:
        return self.inner.lowest


@dataclass(frozen=True)
class Each(_Wrapped):
    """A copy for every thought."""

    budget: Budget | None = None

    def start(self, growth: Growth, number: int) -> Machine:
        return EachMachine(growth, self.inner, number, self.budget)


@dataclass(frozen=True)
class Pairwise(_Wrapped):
    """Two by two until one is left."""

    def start(self, growth: Growth, number: int) -> Machine:
        return PairwiseMachine(growth, self.inner, number)


@dataclass(frozen=True)
class Repeat(_Wrapped):
    """Again and again."""

    until: Callable[[Thought], bool]
    at_most: int

    def start(self, growth: Growth, number: int) -> Machine:
        return RepeatMachine(growth, self.inner, self.until, self.at_most, number)


@dataclass(frozen=True)
class Search(_Wrapped):
    """A strategy decides what the step is applied to."""

    strategy: Strategy
    name: str

    @property
    def lowest(self) -> bool:
        return getattr(self.strategy, "lowest", False) or self.inner.lowest

    def start(self, growth: Growth, number: int) -> Machine:
        return SearchMachine(growth, self.inner, self.strategy, self.name, number)


@dataclass(frozen=True)
class Growing(Plan):
    """More plan, from a function that sees results."""

    function: Callable[[Scene], Plan | None]
    name: str
    rounds: int

    def start(self, growth: Growth, number: int) -> Machine:
        return GrowMachine(growth, self._more, self.name, self.rounds, number)

    def steps(self) -> Iterator[Operation]:
        yield from ()

    @property
    def size(self) -> int:
        return 1

    def _more(self, scene: Scene) -> Plan | None:
        more = called(self.function, scene)
        return None if more is None else checked_plan(more)


@dataclass(frozen=True)
class _Judged(Plan):
    ask: Ask
    score: Score

    def steps(self) -> Iterator[Operation]:
        yield self.ask
        yield self.score


@dataclass(frozen=True)
class Graded(_Judged):
    """The model grades."""

    def start(self, growth: Growth, number: int) -> Machine:
        return GradeMachine(growth, self.ask, self.score, number)


@dataclass(frozen=True)
class Voted(_Judged):
    """The model votes."""

    def start(self, growth: Growth, number: int) -> Machine:
        return VoteMachine(growth, self.ask, self.score, number)


@dataclass(frozen=True)
class Improving(Plan):
    """A function finds fault, and the model mends."""

    check: Check
    mend: Ask
    drop: KeepValid
    rounds: int

    def start(self, growth: Growth, number: int) -> Machine:
        return ImproveMachine(growth, self.check, self.mend, self.drop, self.rounds, number)

    def steps(self) -> Iterator[Operation]:
        yield self.check
        yield self.mend
        yield self.drop
