"""The plans that the Graph of Thoughts paper compares, for both of its tasks that we ship.

``io``      one request for the whole answer
``chain``   one line of thoughts: an answer, then the same answer mended; nothing is compared
``tree``    several answers; the best goes on, is mended several times, and the best goes on again
``graph``   the task in parts, each solved and mended, the parts merged: the built-in agent

All four read tasks, draw tokens and are scored alike; only the plan differs. Besta et al. 2024,
*Graph of Thoughts*, section 5.
"""

from dataclasses import replace
from typing import Literal, get_args

from ..plans.composition import Plan
from ..plans.words import generate, keep_best, refine, repeat, score
from ..spec import AgentSpec
from ..thought import Scene, Thought
from . import intersect as set_task
from . import sort as list_task
from .intersect import intersect
from .sets import parse_marks
from .sort import sort

__all__ = ["PLANS", "PlanName", "intersecting", "sorting"]

PlanName = Literal["io", "chain", "tree", "graph"]
PLANS: tuple[PlanName, ...] = get_args(PlanName)

_WIDTH = 8
"""Answers at the root of a tree."""
_MENDS = 4
"""Tries to mend the best of them, in each of two rounds."""
_ROUNDS = 2


def _never(scene: Scene) -> bool:
    return False


def _right(thought: Thought) -> bool:
    return thought.score == 0


def _named(agent: AgentSpec, io: Plan, chain: Plan, tree: Plan) -> dict[PlanName, AgentSpec]:
    return {
        "io": replace(agent, name=f"{agent.name}-io", plan=io),
        "chain": replace(agent, name=f"{agent.name}-chain", plan=chain),
        "tree": replace(agent, name=f"{agent.name}-tree", plan=tree),
        "graph": agent,
    }


def sorting() -> dict[PlanName, AgentSpec]:
    """The plans for sorting digits; each takes what ``sort`` takes."""

    def ask(n: int) -> Plan:
        return generate(list_task.sort_prompt, n=n, parse=list_task.digits_of, name="sort")

    def fix(n: int) -> Plan:
        prompt, parse = list_task.fix_prompt, list_task.digits_of
        return refine(prompt, unless=_never, n=n, parse=parse, name="fix")

    scored, best = score(list_task.errors), keep_best(1, lowest=True)
    mended = (scored & (fix(_MENDS) >> scored)) >> best
    tree = ask(_WIDTH) >> scored >> best >> repeat(mended, until=_right, at_most=_ROUNDS)
    return _named(sort, ask(1), ask(1) >> fix(1), tree)


def intersecting() -> dict[PlanName, AgentSpec]:
    """The plans for the intersection of sets; each takes what ``intersect`` takes.

    An answer is mended by looking up once more what it holds, and what it left out.
    """

    def ask(n: int) -> Plan:
        return generate(set_task.intersect_prompt, n=n, parse=parse_marks, name="intersect")

    scored, best = score(set_task.errors), keep_best(1, lowest=True)
    chain = ask(1) >> set_task.recheck() >> set_task.search()
    tree = ask(_WIDTH) >> scored >> best >> set_task.mended(_MENDS // 2, _ROUNDS)
    return _named(intersect, ask(1), chain, tree)
