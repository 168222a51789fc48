"""Plans: operations that compose. A plan is a value; the scheduler starts it for each run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .machines import (
    AllLeaf,
    AskLeaf,
    BothMachine,
    ChainMachine,
    EachLeaf,
    EachMachine,
    Growth,
    Machine,
    PairwiseMachine,
    RepeatMachine,
)
from .operations import Act, Ask, KeepBest, KeepValid, Operation, PlanError, Prompt, Score, Split
from .prompt import Sampling
from .steering import Steer, SteerAt
from .thought import Scene, Thought
from .tool import Call, Tool

__all__ = [
    "Plan",
    "act",
    "aggregate",
    "each",
    "generate",
    "keep_best",
    "keep_valid",
    "pairwise",
    "refine",
    "repeat",
    "score",
    "split",
]


class Plan:
    """An operation or a composition of them. ``a >> b`` feeds a's thoughts to b; ``a & b`` gives
    the same thoughts to both and collects what comes of either (a merge follows)."""

    def start(self, growth: Growth, number: int) -> "Machine":
        """A fresh machine; ``number`` tells its place among its sisters."""
        raise TypeError(f"{type(self).__name__} is no plan")

    def steps(self) -> Iterator[Operation]:
        """Every operation in the plan."""
        raise TypeError(f"{type(self).__name__} is no plan")

    @property
    def size(self) -> int:
        """How many operations it has."""
        return sum(1 for _ in self.steps())

    def __rshift__(self, other: "Plan") -> "Plan":
        return _Chain((*_parts(self, _Chain), *_parts(_checked(other), _Chain)))

    def __and__(self, other: "Plan") -> "Plan":
        return _Both((*_parts(self, _Both), *_parts(_checked(other), _Both)))


def _checked(other: Any) -> Plan:
    if not isinstance(other, Plan):
        raise PlanError(
            f"a plan composes with plans, not with a {type(other).__name__}; wrap the function in "
            "generate(…), score(…) or split(…)"
        )
    return other


def _parts(plan: Plan, kind: "type[_Chain | _Both]") -> tuple[Plan, ...]:
    return plan.parts if isinstance(plan, kind) else (plan,)


@dataclass(frozen=True)
class _Step(Plan):
    operation: Operation

    def start(self, growth: Growth, number: int) -> Machine:
        if isinstance(self.operation, Ask):
            return AskLeaf(growth, self.operation, number)
        leaf = AllLeaf if self.operation.join == "all" else EachLeaf
        return leaf(growth, self.operation, number)

    def steps(self) -> Iterator[Operation]:
        yield self.operation


@dataclass(frozen=True)
class _Chain(Plan):
    parts: tuple[Plan, ...]

    def start(self, growth: Growth, number: int) -> Machine:
        return ChainMachine(growth, self.parts, number)

    def steps(self) -> Iterator[Operation]:
        for part in self.parts:
            yield from part.steps()


@dataclass(frozen=True)
class _Both(Plan):
    parts: tuple[Plan, ...]

    def start(self, growth: Growth, number: int) -> Machine:
        return BothMachine(growth, self.parts, number)

    def steps(self) -> Iterator[Operation]:
        for part in self.parts:
            yield from part.steps()


@dataclass(frozen=True)
class _Wrapped(Plan):
    inner: Plan

    def steps(self) -> Iterator[Operation]:
        yield from self.inner.steps()


@dataclass(frozen=True)
class _Each(_Wrapped):
    def start(self, growth: Growth, number: int) -> Machine:
        return EachMachine(growth, self.inner, number)


@dataclass(frozen=True)
class _Pairwise(_Wrapped):
    def start(self, growth: Growth, number: int) -> Machine:
        return PairwiseMachine(growth, self.inner, number)


@dataclass(frozen=True)
class _Repeat(_Wrapped):
    until: Callable[[Thought], bool]
    at_most: int

    def start(self, growth: Growth, number: int) -> Machine:
        return RepeatMachine(growth, self.inner, self.until, self.at_most, number)


def generate(
    prompt: Prompt,
    *,
    n: int = 1,
    spare: int = 0,
    parse: Callable[[str], Any] | None = None,
    sampling: Sampling | None = None,
    calls: Callable[[str], Call | None] | None = None,
    steer: Steer | None = None,
    steer_at: SteerAt = "line",
    name: str = "generate",
) -> Plan:
    """Ask the model n times for each parent; pruned children are replaced up to ``spare`` times.

    ``steer`` changes the controls while a thought is written; it is asked at each ``steer_at``.
    """
    return _Step(
        Ask(
            name=name,
            kind="generate",
            prompt=prompt,
            n=n,
            spare=spare,
            parse=parse,
            sampling=sampling,
            calls=calls,
            steer=steer,
            steer_at=steer_at,
        )
    )


def aggregate(
    prompt: Prompt,
    *,
    n: int = 1,
    spare: int = 0,
    parse: Callable[[str], Any] | None = None,
    sampling: Sampling | None = None,
    calls: Callable[[str], Call | None] | None = None,
    steer: Steer | None = None,
    steer_at: SteerAt = "line",
    name: str = "aggregate",
) -> Plan:
    """Ask the model, n times, to make one thought of all parents."""
    return _Step(
        Ask(
            name=name,
            kind="aggregate",
            join="all",
            prompt=prompt,
            n=n,
            spare=spare,
            parse=parse,
            sampling=sampling,
            calls=calls,
            steer=steer,
            steer_at=steer_at,
        )
    )


def refine(
    prompt: Prompt,
    *,
    unless: Callable[[Scene], bool],
    n: int = 1,
    spare: int = 0,
    parse: Callable[[str], Any] | None = None,
    sampling: Sampling | None = None,
    calls: Callable[[str], Call | None] | None = None,
    steer: Steer | None = None,
    steer_at: SteerAt = "line",
    name: str = "refine",
) -> Plan:
    """Ask the model to improve each parent, unless it is good already (then it passes through)."""
    return _Step(
        Ask(
            name=name,
            kind="refine",
            prompt=prompt,
            n=n,
            spare=spare,
            parse=parse,
            sampling=sampling,
            calls=calls,
            steer=steer,
            steer_at=steer_at,
            unless=unless,
        )
    )


def score(by: Callable[[Scene], float], *, name: str | None = None) -> Plan:
    """Give each thought the number that ``by`` makes of its scene."""
    return _Step(Score(name=name or f"score {_name(by)}", by=by))


def keep_best(n: int = 1, *, lowest: bool = False, name: str | None = None) -> Plan:
    """Keep the n highest scores (``lowest=True``: the lowest, for errors), drop the others."""
    if n < 1:
        raise PlanError(f"keep_best({n}): keep at least 1")
    return _Step(KeepBest(name=name or f"keep best {n}", join="all", n=n, lowest=lowest))


def keep_valid(by: Callable[[Scene], bool], *, name: str | None = None) -> Plan:
    """Keep the thoughts for which ``by`` holds, drop the others."""
    return _Step(KeepValid(name=name or f"keep {_name(by)}", by=by))


def split(by: Callable[[Scene], Sequence[tuple[str, Any]]], *, name: str | None = None) -> Plan:
    """Cut each thought into parts; ``by`` gives (text, value) pairs."""
    return _Step(Split(name=name or f"split {_name(by)}", by=by))


def act(tools: Sequence[Tool], *, calls: Callable[[str], Call | None], name: str = "act") -> Plan:
    """Run the tool call that ``calls`` reads from a thought; others pass through."""
    return _Step(Act(name=name, tools={tool.name: tool for tool in tools}, calls=calls))


def each(inner: Plan) -> Plan:
    """A copy of ``inner`` for every thought: its joins wait for that thought's own children."""
    return _Each(_checked(inner))


def pairwise(inner: Plan) -> Plan:
    """Join thoughts two by two with ``inner`` (which makes one of two) until one is left."""
    return _Pairwise(_checked(inner))


def repeat(inner: Plan, *, until: Callable[[Thought], bool], at_most: int) -> Plan:
    """Apply ``inner`` again and again to what comes of it, ``at_most`` times."""
    if at_most < 1:
        raise PlanError(f"repeat(at_most={at_most}): give at least 1 round")
    return _Repeat(_checked(inner), until, at_most)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__).strip("_<>").replace("_", " ")
