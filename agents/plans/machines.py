"""What a plan's state machines share: work, the agenda, branches, and how machines nest.

A machine decides what a plan does next: pure bookkeeping, no I/O. ``push`` gives it thoughts,
``tell`` the results of work; it puts new :class:`Work` on the agenda as soon as that work's own
parents are there. Nothing here runs anything: the scheduler does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..budget import Budget
from ..path import Path
from ..thought import Thought
from .operations import Fail, Operation

__all__ = ["Branch", "Group", "Growth", "Machine", "Owner", "Startable", "Work", "in_order"]


@dataclass(slots=True, eq=False)
class Branch:
    """A part of the graph that can be stopped, or has a budget of its own."""

    above: "Branch | None"
    key: str
    """The same in every walk of the plan."""
    depth: int
    """How deep the thought stands that it began with."""
    budget: Budget | None = None
    thoughts: dict[str, Thought] = field(default_factory=dict)
    """What was made in it and lived, by id."""
    stopped: str | None = None
    """Why nothing more of it is wanted."""

    def up(self) -> "Iterator[Branch]":
        """Itself and all that it lies in."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.above


class Owner(Protocol):
    """Who is told what came of a piece of work."""

    def tell(self, work: "Work", thoughts: Sequence[Thought]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One operation on parents that are there: what the scheduler performs next."""

    operation: Operation
    parents: tuple[Thought, ...]
    path: Path
    """Where its (first) thought will stand in the graph."""
    index: int = 0
    """Which child of these parents."""
    banned: bool = False
    """The last try after all siblings were pruned: every tag banned."""
    mends: Thought | None = None
    """An answer that could not be read; the model is asked to mend it."""
    branch: Branch | None = None
    owner: Owner = field(repr=False, kw_only=True)

    @property
    def step(self) -> str:
        """The operation's name with its number in the plan: two alike operations on the same
        parents make different thoughts."""
        return f"{self.path[-2]} {self.operation.name}"

    @property
    def key(self) -> str:
        """What it is known by: the same in every walk of the plan, and no other work's."""
        parents = " ".join(parent.id for parent in self.parents)
        return f"{parents} {self.step} {self.index}"

    @property
    def stopped(self) -> str | None:
        """Why it is no longer wanted, if so."""
        if self.branch is None:
            return None
        return next((b.stopped for b in self.branch.up() if b.stopped is not None), None)


@dataclass(slots=True)
class _Agenda:
    """What became possible, and whether something became unwanted."""

    ready: list[Work] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Growth:
    """What all machines of one run share, seen from one place in the plan."""

    regrow: bool
    """Whether the policy regrows a barren node."""
    seed: int = 0
    """The run's; what a strategy draws derives from it."""
    settled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Ids of the winners of joins that a resumed run has behind it, by the join's key."""
    place: str = ""
    """Id of the thought that this part of the plan was started for."""
    depth: int = 0
    """How deep that thought stands."""
    branch: Branch | None = None
    upstream: tuple[Branch, ...] = ()
    """What feeds this part and nothing else: of no use once a ``first`` join here has enough."""
    _agenda: _Agenda = field(default_factory=_Agenda, repr=False)

    def ask(self) -> list[Work]:
        """The work that became possible since the last call."""
        ready, self._agenda.ready = self._agenda.ready, []
        return ready

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        """Hand in what came of a piece of work; of no use where it is no longer wanted."""
        if work.branch is not None:
            if work.stopped is not None:
                return
            old = {parent.id for parent in work.parents}
            made = [t for t in thoughts if t.lives and t.id not in old]
            for branch in work.branch.up():
                branch.thoughts.update((thought.id, thought) for thought in made)
        work.owner.tell(work, thoughts)

    def post(self, work: Work) -> None:
        """Put work on the agenda."""
        self._agenda.ready.append(work)

    def at(self, thought: Thought) -> "Growth":
        """The view of a part that is started for one thought."""
        depth = len(thought.path) // 2
        return replace(self, place=thought.id, depth=depth, upstream=())

    def losers(self, winners: Sequence[Thought]) -> list[Thought]:
        """What was made upstream and led to none of the winners."""
        made = {id: t for branch in self.upstream for id, t in branch.thoughts.items()}
        won = list(winners)
        while won:
            thought = won.pop()
            made.pop(thought.id, None)
            won += [made[parent] for parent in thought.parents if parent in made]
        return list(made.values())

    def within(self, name: str, budget: Budget | None = None) -> "Growth":
        """The view from a branch of its own."""
        key = f"{self.place} {name}"
        return replace(self, branch=Branch(self.branch, key, self.depth, budget))

    def after(self, upstream: Sequence[Branch]) -> "Growth":
        """The view of a part that these branches feed, besides what feeds the whole."""
        return replace(self, upstream=(*self.upstream, *upstream))

    def shared(self) -> "Growth":
        """The view of a part that others share their thoughts with."""
        return replace(self, upstream=()) if self.upstream else self

    def stop(self, branch: Branch | None, why: str) -> None:
        """Nothing more of this branch is wanted: what is in flight there is cancelled."""
        if branch is not None and branch.stopped is None:
            branch.stopped = why
            self._agenda.stopped = True

    def take_stopped(self) -> bool:
        """Whether a branch was stopped since the last call."""
        stopped, self._agenda.stopped = self._agenda.stopped, False
        return stopped


class Startable(Protocol):
    """What a machine needs of a plan: to start it, how many operations it has, and whether it may
    be through before all that feeds it has ended."""

    @property
    def size(self) -> int: ...

    @property
    def hurries(self) -> bool: ...

    def start(self, growth: Growth, number: int) -> "Machine": ...


def _nothing() -> None:
    pass


class Machine(ABC):
    """Takes thoughts, gives thoughts. ``finished`` once closed and nothing is under way."""

    def __init__(self, growth: Growth) -> None:
        self.growth = growth
        self.closed = False
        self.out: Callable[[Thought], None] = lambda thought: None
        self.done: Callable[[], None] = _nothing
        self.enough: Callable[[], None] = _nothing
        """Called once when it wants no more thoughts, whatever feeds it is doing."""
        self.finished = False

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
        if self.closed and not self.finished and not self.busy():
            self.finished = True
            self.done()


class Group(Machine):
    """A machine that waits for machines it started."""

    def __init__(self, growth: Growth) -> None:
        super().__init__(growth)
        self.open = 0

    def adopt(
        self,
        machine: Machine,
        out: Callable[[Thought], None],
        done: Callable[[], None] = _nothing,
    ) -> Machine:
        """Wait for a machine; ``done`` is called when it has ended, before that counts."""

        def ended() -> None:
            done()
            self.open -= 1
            self.settle()

        self.open += 1
        machine.out, machine.done = out, ended
        return machine

    def busy(self) -> bool:
        return self.open > 0

    def fail(self, thought: Thought, number: int, name: str, why: str) -> None:
        """Let a branch come to nothing because a function of the plan itself went wrong."""
        path = thought.path.below(number, 0)
        failure = Fail(name=name, kind="failed", reason=why)
        self.open += 1
        self.growth.post(
            Work(failure, (thought,), path, branch=self.growth.branch, owner=_Failing(self))
        )


class _Failing:
    """Waits for a failure to be written down."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def tell(self, work: Work, thoughts: Sequence[Thought]) -> None:
        self.group.open -= 1
        self.group.settle()


def in_order(thoughts: Sequence[Thought]) -> tuple[Thought, ...]:
    """In the graph's own order, whatever came first."""
    return tuple(sorted(thoughts, key=lambda thought: thought.path))
