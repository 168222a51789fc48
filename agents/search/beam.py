"""Beam search: level by level, only the best go on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..functions import holds
from ..plans.ranking import ranked
from ..thought import Thought
from .strategy import Move

__all__ = ["Beam"]


@dataclass(frozen=True, slots=True)
class _Level:
    number: int
    beam: tuple[Thought, ...]
    """The thoughts of this level that go on."""
    waiting: int = 0
    """Expansions that are under way."""
    children: tuple[Thought, ...] = ()
    finished: tuple[Thought, ...] = ()
    """Thoughts that are good already; they are not expanded."""
    dropped: tuple[Thought, ...] = ()


@dataclass(frozen=True, slots=True)
class Beam:
    """Expands ``width`` thoughts at each of ``depth`` levels, and keeps the ``width`` best of all
    their children. A level of which nothing lives is the last; the one before it is given."""

    width: int
    depth: int
    lowest: bool = False
    until: Callable[[Thought], bool] | None = None

    def begin(self, thoughts: tuple[Thought, ...], seed: int) -> _Level:
        return self._sorted(_Level(0, ()), thoughts)

    def ask(self, state: _Level) -> tuple[Move, _Level]:
        if state.waiting:
            return Move(), state
        why = f"outside the beam of {self.width}"
        if state.number == self.depth or not state.beam:
            unfinished = () if self.until is not None else state.beam
            best = ranked((*state.finished, *unfinished), self.lowest)[: self.width]
            given = {thought.id for thought in best}
            rest = [t for t in (*state.finished, *state.beam) if t.id not in given]
            return Move(drop=(*state.dropped, *rest), give=tuple(best), why=why), state
        move = Move(expand=state.beam, drop=state.dropped, why=why)
        return move, replace(state, waiting=len(state.beam), dropped=())

    def tell(self, state: _Level, thought: Thought, children: tuple[Thought, ...]) -> _Level:
        state = replace(state, waiting=state.waiting - 1, children=(*state.children, *children))
        if state.waiting:
            return state
        if not state.children:
            return replace(state, number=self.depth)
        return self._sorted(state, state.children)

    def _sorted(self, state: _Level, thoughts: tuple[Thought, ...]) -> _Level:
        good = [self.until is not None and holds(self.until, thought.shown) for thought in thoughts]
        finished = tuple(t for t, is_good in zip(thoughts, good, strict=True) if is_good)
        more = [t for t, is_good in zip(thoughts, good, strict=True) if not is_good]
        best = ranked(more, self.lowest)
        number = state.number + bool(state.beam)
        return _Level(
            number,
            tuple(best[: self.width]),
            finished=(*state.finished, *finished),
            dropped=tuple(best[self.width :]),
        )
