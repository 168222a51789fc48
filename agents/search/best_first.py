"""Best-first search: always the most promising thought, wherever it stands."""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..functions import holds
from ..plans.ranking import rank, ranked
from ..thought import Thought
from .strategy import Move

__all__ = ["BestFirst"]


@dataclass(frozen=True, slots=True)
class _Place:
    thought: Thought
    level: int
    """Expansions above it."""


@dataclass(frozen=True, slots=True)
class _Frontier:
    left: int
    """Expansions that may still be asked for."""
    open: tuple[_Place, ...] = ()
    """May be expanded, the best first."""
    under_way: tuple[_Place, ...] = ()
    ended: tuple[Thought, ...] = ()
    """Expanded, or as deep as allowed."""
    found: tuple[Thought, ...] = ()
    """Thoughts that are good."""


@dataclass(frozen=True, slots=True)
class BestFirst:
    """Expands the best thought that was not expanded yet, so many times, ``parallel`` at once.

    With several at once each is chosen before those ahead of it have ended: another ``parallel``
    makes another graph, and the same one the same graph.
    """

    expansions: int
    parallel: int = 1
    keep: int = 1
    depth: int | None = None
    lowest: bool = False
    until: Callable[[Thought], bool] | None = None

    def begin(self, thoughts: tuple[Thought, ...], seed: int) -> _Frontier:
        return self._taken(_Frontier(self.expansions), thoughts, 0)

    def ask(self, state: _Frontier) -> tuple[Move, _Frontier]:
        if len(state.found) >= self.keep:
            return self._end(state)
        room = min(self.parallel - len(state.under_way), state.left, len(state.open))
        if room <= 0:
            return (Move(), state) if state.under_way else self._end(state)
        now = state.open[:room]
        under_way = replace(
            state,
            left=state.left - room,
            open=state.open[room:],
            under_way=(*state.under_way, *now),
        )
        return Move(expand=tuple(place.thought for place in now)), under_way

    def tell(self, state: _Frontier, thought: Thought, children: tuple[Thought, ...]) -> _Frontier:
        first, *others = state.under_way  # told in the order in which they were asked for
        ended = replace(state, under_way=tuple(others), ended=(*state.ended, thought))
        return self._taken(ended, children, first.level + 1)

    def _taken(self, state: _Frontier, thoughts: Sequence[Thought], level: int) -> _Frontier:
        places, found, ended = list(state.open), list(state.found), list(state.ended)
        for thought in thoughts:
            if self.until is not None and holds(self.until, thought.shown):
                found.append(thought)
            elif level == self.depth:
                ended.append(thought)
            else:
                place = _Place(thought, level)
                insort(places, place, key=lambda p: rank(p.thought, self.lowest))
        return replace(state, open=tuple(places), found=tuple(found), ended=tuple(ended))

    def _end(self, state: _Frontier) -> tuple[Move, _Frontier]:
        """Give what is good, or without ``until`` the best of all."""
        leaves = (*state.found, *(place.thought for place in state.open))
        every = (*leaves, *state.ended, *(place.thought for place in state.under_way))
        best = ranked(every if self.until is None else state.found, self.lowest)[: self.keep]
        given = {thought.id for thought in best}
        return Move(drop=tuple(t for t in leaves if t.id not in given), give=tuple(best)), state
