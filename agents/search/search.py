"""Searches as plans: a strategy decides which thoughts a step is applied to."""

from collections.abc import Awaitable, Callable

from ..errors import PlanError
from ..functions import check_plain
from ..plans.composition import Plan, Search, checked_plan
from ..plans.words import score as score_by
from ..thought import Scene, Thought
from .beam import Beam
from .best_first import BestFirst
from .smc import SequentialMonteCarlo, log_survival
from .strategy import Strategy

__all__ = ["beam", "best_first", "search", "smc"]


def search(
    step: Plan,
    strategy: Strategy,
    *,
    score: Callable[[Scene], float | Awaitable[float]] | None = None,
    name: str | None = None,
) -> Plan:
    """Let a strategy decide what ``step`` is applied to; ``score`` rates what comes of it.

    A strategy of your own is a class with ``begin``, ``ask`` and ``tell`` (see
    :class:`.strategy.Strategy`).
    """
    for method in ("begin", "ask", "tell"):
        check_plain(getattr(strategy, method, None), f"search(…): the strategy's {method}")
    scored = checked_plan(step) if score is None else checked_plan(step) >> score_by(score)
    return Search(scored, strategy, name or type(strategy).__name__.lower())


def beam(
    step: Plan,
    *,
    width: int,
    depth: int,
    score: Callable[[Scene], float | Awaitable[float]] | None = None,
    lowest: bool = False,
    until: Callable[[Thought], bool] | None = None,
) -> Plan:
    """Beam search: ``depth`` levels, of which the ``width`` best thoughts go on.

    With ``until``, a thought that is good is not expanded, and only good ones are given.
    """
    _at_least_one("beam", width=width, depth=depth)
    _plain("beam", until=until)
    strategy = Beam(width=width, depth=depth, lowest=lowest, until=until)
    return search(step, strategy, score=score, name="beam")


def best_first(
    step: Plan,
    *,
    expansions: int,
    parallel: int = 1,
    keep: int = 1,
    depth: int | None = None,
    score: Callable[[Scene], float | Awaitable[float]] | None = None,
    lowest: bool = False,
    until: Callable[[Thought], bool] | None = None,
) -> Plan:
    """Best-first search: expand the best thought there is, so many times; give the ``keep`` best.

    With ``until``, the search ends when so many thoughts are good, and gives only those.
    """
    _at_least_one("best_first", expansions=expansions, parallel=parallel, keep=keep)
    _plain("best_first", until=until)
    if depth is not None:
        _at_least_one("best_first", depth=depth)
    strategy = BestFirst(
        expansions=expansions,
        parallel=parallel,
        keep=keep,
        depth=depth,
        lowest=lowest,
        until=until,
    )
    return search(step, strategy, score=score, name="best first")


def smc(
    step: Plan,
    *,
    particles: int,
    steps: int,
    weight: Callable[[Thought], float] = log_survival,
    until: Callable[[Thought], bool] | None = None,
) -> Plan:
    """Sequential Monte Carlo: ``particles`` grow by ``step``, weighed by S and resampled.

    The policy should ban the tags: then the particles stand for what the free model writes when no
    tag opens. Where tags are allowed and cut, the cut has done that already; give a ``weight`` of
    your own (the logarithm of a factor) to weigh by something else.
    """
    _at_least_one("smc", particles=particles, steps=steps)
    _plain("smc", weight=weight, until=until)
    strategy = SequentialMonteCarlo(particles=particles, steps=steps, weight=weight, until=until)
    return search(step, strategy, name="smc")


def _at_least_one(name: str, **given: int) -> None:
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlanError(f"{name}({key}={value!r}): give a whole number of at least 1")


def _plain(name: str, **given: Callable[[Thought], object] | None) -> None:
    for key, function in given.items():
        if function is not None:
            check_plain(function, f"{name}({key}=…)")
