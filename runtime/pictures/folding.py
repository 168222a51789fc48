"""Which thoughts of a run a picture shows, and which it folds away.

What came to nothing is folded, parent by parent, into one line that tells how many there were and
what cut them. What led to a result, or still waits, is always shown.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...agents.thought import Status
from .looks import Drawn, tally

__all__ = ["Fold", "Item", "Picture", "picture"]

_LARGE = 40
"""From so many thoughts on, a run is folded more tightly."""
_FOLDED = 8
"""So many dead thoughts of one parent make a fold; in a large run, two do."""
_FOLDED_IN_LARGE = 2
_BETTERED = ("refine", "improve")
"""Kinds of thought that say once more what their parent says, and may lose to it."""
_OPINIONS = ("check", "grade", "vote")
"""Kinds of thought that are about their parents, and no end of their own."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Dead children of one thought with all below them, as one line or box."""

    under: str | None
    """The parent; None for the run itself."""
    thoughts: tuple[Drawn, ...]

    @property
    def id(self) -> str:
        """The first thought's id, which ``--unfold`` takes."""
        return self.thoughts[0].id

    @property
    def summary(self) -> str:
        """How many of which kind, and what cut them."""
        return f"{len(self.thoughts)} folded: {tally(self.thoughts)}"


Item = Drawn | Fold


@dataclass(frozen=True, slots=True)
class Picture:
    """A run's graph, ready to be drawn."""

    title: str
    thoughts: tuple[Drawn, ...]
    """Every thought, folded ones included."""
    children: Mapping[str | None, tuple[Item, ...]]
    """What stands below each shown thought, in order; a merge below its first shown parent. Folds
    come before what is alive. ``None``: what has no parent."""
    parents: Mapping[str, tuple[str, ...]]
    """The shown parents of each shown thought."""
    merges: Mapping[str, str]
    """``M1``, ``M2`` …: the name of each shown thought that has several parents, living first."""
    into: Mapping[str, tuple[str, ...]]
    """The names of the merges that a thought went into, where they stand below another parent."""
    living: frozenset[str]
    """The shown thoughts that led to a result or still may."""

    @property
    def folded(self) -> int:
        """How many thoughts are folded away."""
        below = (item for items in self.children.values() for item in items)
        return sum(len(item.thoughts) for item in below if isinstance(item, Fold))

    def items(self) -> list[Item]:
        """All that is shown, each item after that below which it stands."""
        found: list[Item] = []
        todo = list(reversed(self.children.get(None, ())))
        while todo:  # not recursion: a run may be deeper than Python's stack
            item = todo.pop()
            found.append(item)
            if not isinstance(item, Fold):
                todo += reversed(self.children.get(item.id, ()))
        return found


def picture(
    thoughts: Iterable[Drawn],
    title: str = "run",
    *,
    everything: bool = False,
    unfold: Collection[str] = (),
) -> Picture:
    """The graph with its dead branches folded; ``everything`` folds nothing.

    ``unfold`` names thoughts: the folds that hold them and those below them are opened.
    """
    every = tuple(thoughts)
    place = {thought.id: number for number, thought in enumerate(every)}
    parents = {
        thought.id: tuple(dict.fromkeys(p for p in thought.parents if p in place))
        for thought in every
    }
    children: dict[str, list[Drawn]] = defaultdict(list)
    standing: dict[str | None, list[Drawn]] = defaultdict(list)
    for thought in every:
        for parent in parents[thought.id]:
            children[parent].append(thought)
        standing[next(iter(parents[thought.id]), None)].append(thought)
    living = _living(every, parents, children)
    opened = _below(unfold, children)
    large = len(every) > _LARGE
    least = _FOLDED_IN_LARGE if large else _FOLDED

    def dies(thought: Drawn) -> bool:
        """Whether a fold may begin with it: a kept thought only where others came further."""
        if thought.id in living or not thought.parents:
            return False
        return thought.status is not Status.KEPT or (large and bool(living))

    shown: dict[str | None, tuple[Item, ...]] = {}
    todo: list[str | None] = [None]
    while todo:
        under = todo.pop()
        dead = [thought.id for thought in standing[under] if dies(thought)]
        inside = set() if everything else _below(dead, standing)
        if len(inside) < least or inside & opened:
            inside = set()
        rest = [thought for thought in standing[under] if thought.id not in inside]
        folded = sorted(inside, key=lambda id: place[id])
        folds = [Fold(under, tuple(every[place[id]] for id in folded))] if folded else []
        shown[under] = (*folds, *rest)
        todo += [thought.id for thought in rest]
    stands = {id: tuple(p for p in parents[id] if p in shown) for id in parents if id in shown}
    joined = sorted((id for id in stands if len(stands[id]) > 1), key=lambda id: id not in living)
    merges = {id: f"M{number}" for number, id in enumerate(joined, 1)}
    into: dict[str, list[str]] = defaultdict(list)
    for id, name in merges.items():
        for parent in stands[id][1:]:
            into[parent].append(name)
    return Picture(
        title=title,
        thoughts=every,
        children=shown,
        parents=stands,
        merges=merges,
        into={id: tuple(names) for id, names in into.items()},
        living=frozenset(id for id in living if id in shown),
    )


def _living(
    thoughts: Sequence[Drawn],
    parents: Mapping[str, tuple[str, ...]],
    children: Mapping[str, list[Drawn]],
) -> set[str]:
    """Thoughts that are the end of a line that was kept, and all that led to them.

    A thought that was kept beside its refinements is an end all the same.
    """
    ends = [
        thought.id
        for thought in thoughts
        if thought.status in (Status.KEPT, Status.ESCALATED)
        and thought.kind not in _OPINIONS
        and all(child.kind in (*_BETTERED, *_OPINIONS) for child in children.get(thought.id, ()))
    ]
    return _above(ends, parents)


def _above(ids: Iterable[str], parents: Mapping[str, tuple[str, ...]]) -> set[str]:
    """These thoughts and all that they were made of."""
    found: set[str] = set()
    todo = [id for id in ids if id in parents]
    while todo:
        id = todo.pop()
        if id not in found:
            found.add(id)
            todo += parents[id]
    return found


def _below(ids: Iterable[str], children: Mapping[Any, list[Drawn]]) -> set[str]:
    """These thoughts and all that was made of them."""
    found: set[str] = set()
    todo = list(ids)
    while todo:
        id = todo.pop()
        if id not in found:
            found.add(id)
            todo += [child.id for child in children.get(id, ())]
    return found
