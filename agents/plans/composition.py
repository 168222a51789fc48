"""How plans compose: one operation, chains, branches side by side, copies, rounds, searches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..budget import Budget
from ..errors import PlanError
from ..functions import called
from ..search.strategy import Strategy
from ..thought import Scene, Thought
from .grading import GradeMachine, ImproveMachine, VoteMachine
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
from .leaves import AskLeaf, Leaf
from .machines import Growth, Machine
from .operations import Act, Apply, Ask, Check, KeepBest, KeepValid, Operation, Score, Split

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
    "Source",
    "Step",
    "Voted",
    "checked_plan",
]


class Source(NamedTuple):
    """What makes thoughts at one place of a plan."""

    name: str
    kind: Literal["judged", "unjudged", "function", "unknown"]
    """Asked of the model with or without ``calls=``; made by a function; told by the run alone."""


Sources = frozenset[Source]


class Plan:
    """An operation or a composition of them. ``a >> b`` feeds a's thoughts to b; ``a & b`` gives
    the same thoughts to both and collects what comes of either (a merge follows)."""

    def start(self, growth: Growth, number: int) -> Machine:
        """A fresh machine; ``number`` tells its place among its sisters."""
        raise TypeError(f"{type(self).__name__} is no plan")

    def steps(self) -> Iterator[Operation]:
        """Every operation in the plan that is known before it runs."""
        raise TypeError(f"{type(self).__name__} is no plan")

    def sources(self, given: Sources) -> Sources:
        """What makes the thoughts that leave the plan, where ``given`` makes those that enter it.

        Raises :class:`PlanError` where an ``act`` gets thoughts that can never be judged as its
        calls; what is not known before the run is checked when it acts.
        """
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

    def sources(self, given: Sources) -> Sources:
        match self.operation:
            case Ask() as operation:
                passes = frozenset() if operation.unless is None else given
                return passes | {_asked(operation)}
            case Split() | Apply() as operation:
                return frozenset({Source(operation.name, "function")})
            case Act() as operation:
                _check_act(operation, given)
                return given | {Source(operation.name, "function")}
            case _:
                return given

    @property
    def hurries(self) -> bool:
        return isinstance(self.operation.join, First)


@dataclass(frozen=True)
class _Several(Plan):
    parts: tuple[Plan, ...]

    def steps(self) -> Iterator[Operation]:
        for part in self.parts:
            yield from part.steps()

    def sources(self, given: Sources) -> Sources:
        return frozenset().union(*(part.sources(given) for part in self.parts))

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def lowest(self) -> bool:
        return any(part.lowest for part in self.parts)


@dataclass(frozen=True)
class Chain(_Several):
    """Each part feeds the next."""

    def sources(self, given: Sources) -> Sources:
        for part in self.parts:
            given = part.sources(given)
        return given

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

    def sources(self, given: Sources) -> Sources:
        """As of rounds: what came of one may enter the next, or leave at once."""
        return given | self.inner.sources(given | self.inner.sources(given))

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

    def sources(self, given: Sources) -> Sources:
        return self.inner.sources(given)

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

    def sources(self, given: Sources) -> Sources:
        return given | {Source(self.name, "unknown")}

    @property
    def size(self) -> int:
        return 1

    def _more(self, scene: Scene) -> Plan | None:
        more = called(self.function, scene)
        if more is not None:
            checked_plan(more).sources(frozenset({Source(self.name, "unknown")}))
        return more


@dataclass(frozen=True)
class _Judged(Plan):
    ask: Ask
    score: Score

    def steps(self) -> Iterator[Operation]:
        yield self.ask
        yield self.score

    def sources(self, given: Sources) -> Sources:
        return given


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

    def sources(self, given: Sources) -> Sources:
        return given | {_asked(self.mend)}


def _asked(ask: Ask) -> Source:
    return Source(ask.name, "unjudged" if ask.calls is None else "judged")


def _check_act(act: Act, given: Sources) -> None:
    """Raise :class:`PlanError` for thoughts that no rule of scope ``action`` judges."""
    unjudged = [source.name for source in given if source.kind == "unjudged"]
    if not unjudged and any(source.kind in ("judged", "unknown") for source in given):
        return
    names = ", ".join(sorted(map(repr, unjudged or {source.name for source in given})))
    raise PlanError(
        f"{act.name}(…) would run calls that no rule of scope action has judged, from {names}: "
        "give the same function to generate(…, calls=…), and let nothing stand between them that "
        "makes other thoughts"
    )
