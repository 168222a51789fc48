"""Who belongs to whom in a run: children, siblings and tries of each thought."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from .looks import Drawn

__all__ = ["Child", "Kin", "kin_of"]


class Child(Drawn, Protocol):
    """A thought that knows its place among its siblings."""

    @property
    def index(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Kin:
    """The ids around one thought, each in the order in which they were recorded."""

    children: tuple[str, ...]
    """What was made of it."""
    siblings: tuple[str, ...]
    """What else came of the same parents and operation; other tries are not among them."""
    tries: tuple[str, ...]
    """Every try at the same place, itself included."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {name: list(ids) for name, ids in asdict(self).items()}


def kin_of(thoughts: Iterable[Child]) -> dict[str, Kin]:
    """The kin of each thought, by its id."""
    every = list(thoughts)
    children: dict[str, list[str]] = defaultdict(list)
    litters: dict[tuple[tuple[str, ...], str], list[Child]] = defaultdict(list)
    for thought in every:
        for parent in dict.fromkeys(thought.parents):
            children[parent].append(thought.id)
        litters[thought.parents, thought.operation].append(thought)
    found: dict[str, Kin] = {}
    for litter in litters.values():
        # The same child tried again has the same place among its siblings.
        places: dict[int, list[str]] = defaultdict(list)
        for thought in litter:
            places[thought.index].append(thought.id)
        ids = [thought.id for thought in litter]
        for thought in litter:
            tries = places[thought.index]
            found[thought.id] = Kin(
                tuple(children[thought.id]),
                tuple(id for id in ids if id not in tries),
                tuple(tries),
            )
    return found
