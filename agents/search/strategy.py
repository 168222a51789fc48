"""Search strategies decide and do nothing else: what to expand, what to drop, what to give."""

from dataclasses import dataclass
from typing import Any, Protocol

from ..thought import Thought

__all__ = ["Move", "Strategy"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a strategy wants next."""

    expand: tuple[Thought, ...] = ()
    """The step is started for each of them, and again where one stands here twice."""
    drop: tuple[Thought, ...] = ()
    """Of no use any more; what is in flight below is cancelled."""
    give: tuple[Thought, ...] | None = None
    """The search's result, which ends it; a score that was changed here is written down."""
    why: str = "lost to better ones"
    """Why some are dropped, for the ledger."""


class Strategy(Protocol):
    """A search: frozen state in, frozen state out, no I/O and no clock.

    What was expanded is told in the order in which it was asked for, whatever ended first, so that
    the same results lead to the same graph. After each ``tell`` the strategy is asked again.
    """

    def begin(self, thoughts: tuple[Thought, ...], seed: int) -> Any:
        """The first state. ``seed`` derives from the run's."""
        ...

    def ask(self, state: Any) -> tuple[Move, Any]:
        """What to do next, and the state in which that is under way. An empty move waits for what
        is; ``give=`` ends the search."""
        ...

    def tell(self, state: Any, thought: Thought, children: tuple[Thought, ...]) -> Any:
        """The state that knows what came of one expansion: the children that live, which are none
        where all were pruned or failed."""
        ...
