"""What a plan is written with: operations and their compositions. A plan is a value."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypedDict, Unpack, overload

from ..budget import Budget
from ..errors import PlanError
from ..functions import Plain, check_plain
from ..prompt import Sampling
from ..steering import Steer, SteerAt
from ..structured import reader
from ..template import Prompt
from ..thought import Scene, Thought
from ..tool import Call, Tool
from .composition import (
    Each,
    Graded,
    Growing,
    Improving,
    Pairwise,
    Plan,
    Race,
    Repeat,
    Step,
    Voted,
    checked_plan,
)
from .joins import Join
from .numbers import read_number, read_vote
from .operations import (
    Act,
    Apply,
    Ask,
    Check,
    KeepBest,
    KeepValid,
    Score,
    Select,
    Split,
    Truth,
)

__all__ = [
    "Asking",
    "act",
    "aggregate",
    "each",
    "generate",
    "grade",
    "ground_truth",
    "grow",
    "improve",
    "keep_best",
    "keep_valid",
    "operation",
    "pairwise",
    "race",
    "refine",
    "repeat",
    "score",
    "select",
    "split",
    "vote",
]


class Asking(TypedDict, total=False):
    """How the model is asked; every operation that asks it takes these."""

    n: int
    """How many thoughts; 1 unless said otherwise."""
    spare: int
    """How many more may be asked for, one by one, in place of pruned or failed ones."""
    parse: Callable[[str], Any]
    """The answer as plain JSON data; a ``ValueError`` makes a failed thought."""
    returns: Any
    """A pydantic model, or any type pydantic can check: the answer's JSON (or what ``parse`` gives)
    is checked against it, and becomes the thought's value as plain JSON data."""
    repairs: int
    """How often the model is asked to mend an answer that cannot be read: 1 with ``returns``."""
    sampling: Sampling
    """How tokens are drawn; the agent's own way unless said otherwise."""
    calls: Callable[[str], Call | None]
    """Reads a tool call from the answer, for the rules of scope ``action``."""
    steer: Steer
    """Changes the controls while a thought is written; asked at each ``steer_at``."""
    steer_at: SteerAt
    timeout: float
    """Seconds for one answer; a thought that takes longer has failed."""
    name: str


def _ask(kind: Any, prompt: Prompt, asking: Asking, **more: Any) -> Ask:
    unknown = [key for key in asking if key not in Asking.__annotations__]
    if unknown:
        known = ", ".join(f"{key}=" for key in Asking.__annotations__)
        raise PlanError(f"{kind}(…) takes no {unknown[0]}=; it takes {known}")
    options: dict[str, Any] = {"name": kind, **asking, **more}
    if "returns" in options:
        check_plain(options.get("parse", read_number), f"operation {options['name']!r}: parse=")
        options["parse"] = reader(options.pop("returns"), options.get("parse"))
        options.setdefault("repairs", 1)
    return Ask(kind=kind, prompt=prompt, **options)


def generate(prompt: Prompt, **asking: Unpack[Asking]) -> Plan:
    """Ask the model n times for each parent."""
    return Step(_ask("generate", prompt, asking))


def aggregate(prompt: Prompt, *, join: Join = "all", **asking: Unpack[Asking]) -> Plan:
    """Ask the model, n times, to make one thought of all parents, or of those ``join`` names."""
    return Step(_ask("aggregate", prompt, asking, join=_joined("aggregate", join)))


def refine(prompt: Prompt, *, unless: Callable[[Scene], bool], **asking: Unpack[Asking]) -> Plan:
    """Ask the model to improve each parent, unless it is good already (then it passes through)."""
    return Step(_ask("refine", prompt, asking, unless=unless))


def improve(
    prompt: Prompt,
    *,
    check: Callable[[Scene], str | Awaitable[str | None] | None],
    rounds: int = 2,
    **asking: Unpack[Asking],
) -> Plan:
    """Let ``check`` say what is wrong with each thought, or None; ask the model to mend it.

    What ``check`` said is a thought of its own, and the prompt's ``{error}``; what is to be mended
    is its ``{text}``. A thought that is still wrong after so many rounds is dropped.
    """
    if rounds < 1:
        raise PlanError(f"improve(rounds={rounds}): give at least 1 round")
    return Improving(
        Check(name=f"check {_name(check)}", by=check),
        _ask("improve", prompt, asking),
        KeepValid(name=f"still wrong after {rounds} rounds", by=lambda scene: False),
        rounds,
    )


def score(
    by: Callable[[Scene], float | Awaitable[float]],
    *,
    timeout: float | None = None,
    name: str | None = None,
) -> Plan:
    """Give each thought the number that ``by`` makes of its scene."""
    return Step(Score(name=name or f"score {_name(by)}", by=by, timeout=timeout))


def grade(prompt: Prompt, **asking: Unpack[Asking]) -> Plan:
    """Let the model grade each thought n times; its score is the mean.

    ``parse`` reads a grade from an answer; by default it is the last number there.
    """
    given = asking.get("parse", read_number)
    check_plain(given, "grade(parse=…)")
    parse = Plain(given)
    asking["parse"] = lambda text: _finite(parse(text))
    return Graded(_ask("grade", prompt, asking), Score(name="mean grade", by=_unset))


def vote(prompt: Prompt, **asking: Unpack[Asking]) -> Plan:
    """Let the model vote n times among all thoughts; a thought's score is its share of the votes.

    The prompt's ``{texts}`` are the candidates, numbered from 1; ``parse`` reads a number from an
    answer, by default the last one there.
    """
    asking.setdefault("parse", read_vote)
    return Voted(_ask("vote", prompt, asking, join="all"), Score(name="share of votes", by=_unset))


def keep_best(
    n: int = 1, *, lowest: bool = False, join: Join = "all", name: str | None = None
) -> Plan:
    """Keep the n highest scores (``lowest=True``: the lowest, for errors), drop the others."""
    if n < 1:
        raise PlanError(f"keep_best({n}): keep at least 1")
    join = _joined("keep_best", join)
    return Step(KeepBest(name=name or f"keep best {n}", join=join, n=n, lowest=lowest))


def keep_valid(
    by: Callable[[Scene], bool | Awaitable[bool]],
    *,
    timeout: float | None = None,
    name: str | None = None,
) -> Plan:
    """Keep the thoughts for which ``by`` holds, drop the others."""
    return Step(KeepValid(name=name or f"keep {_name(by)}", by=by, timeout=timeout))


def select(
    by: Callable[[Scene], Sequence[Thought] | Awaitable[Sequence[Thought]]],
    *,
    join: Join = "all",
    timeout: float | None = None,
    name: str | None = None,
) -> Plan:
    """Keep those of ``scene.parents`` that ``by`` returns, drop the others."""
    join = _joined("select", join)
    name = name or f"select {_name(by)}"
    return Step(Select(name=name, by=by, join=join, timeout=timeout))


def split(
    by: Callable[[Scene], Sequence[tuple[str, Any]]],
    *,
    timeout: float | None = None,
    name: str | None = None,
) -> Plan:
    """Cut each thought into parts; ``by`` gives (text, value) pairs."""
    return Step(Split(name=name or f"split {_name(by)}", by=by, timeout=timeout))


@overload
def operation(
    by: Callable[[Scene], Any],
    *,
    join: Join = "each",
    timeout: float | None = None,
    name: str | None = None,
) -> Plan: ...
@overload
def operation(
    *, join: Join = "each", timeout: float | None = None, name: str | None = None
) -> Callable[[Callable[[Scene], Any]], Plan]: ...
def operation(
    by: Callable[[Scene], Any] | None = None,
    *,
    join: Join = "each",
    timeout: float | None = None,
    name: str | None = None,
) -> Plan | Callable[[Callable[[Scene], Any]], Plan]:
    """An operation of your own: a function of the scene, plain or async, also as a decorator.

    It returns a text, a (text, value) pair, a list of these, or None for nothing; ``join="all"``
    gives it all parents at once. A plain function with a ``timeout`` runs in a thread, which goes
    on behind the run's back when the time is up; an async one is cancelled.
    """
    if by is None:
        return lambda given: operation(given, join=join, timeout=timeout, name=name)
    if not callable(by):
        raise PlanError(f"operation(…) takes a function of the scene, not a {type(by).__name__}")
    return Step(Apply(name=name or _name(by), by=by, join=join, timeout=timeout))


def act(
    tools: Sequence[Any],
    *,
    calls: Callable[[str], Call | None],
    name: str = "act",
) -> Plan:
    """Run the tool call that ``calls`` reads from a thought; others pass through.

    ``tools`` are those of :func:`~.tool.tool`, LangChain's, or typed functions.
    """
    made = [tool if isinstance(tool, Tool) else Tool.of(tool) for tool in tools]
    named = {tool.name: tool for tool in made}
    if len(named) < len(made):
        raise PlanError(f"operation {name!r}: two tools have one name; give each its own")
    return Step(Act(name=name, tools=named, calls=calls))


def ground_truth(by: Callable[[Scene], bool | float], *, name: str | None = None) -> Plan:
    """Compare each thought with the truth, for experiments; it passes through unchanged.

    What comes of it is in the ledger and in ``RunResult.truths``, and nowhere in a scene: no plan
    can decide by it.
    """
    return Step(Truth(name=name or f"truth {_name(by)}", by=by))


# Compositions


def each(inner: Plan, *, budget: Budget | None = None) -> Plan:
    """A copy of ``inner`` for every thought: its joins wait for that thought's own children.

    ``budget`` is what each copy may spend; one that has spent it goes on with what it has.
    """
    return Each(checked_plan(inner), budget)


def pairwise(inner: Plan) -> Plan:
    """Join thoughts two by two with ``inner`` (which makes one of two) until one is left."""
    return Pairwise(checked_plan(inner))


def repeat(inner: Plan, *, until: Callable[[Thought], bool], at_most: int) -> Plan:
    """Apply ``inner`` again and again to what comes of it, ``at_most`` times."""
    if at_most < 1:
        raise PlanError(f"repeat(at_most={at_most}): give at least 1 round")
    check_plain(until, "repeat(until=…)")
    return Repeat(checked_plan(inner), until, at_most)


def race(*plans: Plan) -> Plan:
    """Give each thought to all plans; the first that ends with something wins, for that thought.

    What the others are doing is cancelled, and what they made is dropped.
    """
    if len(plans) < 2:
        raise PlanError("race(…) takes two plans or more")
    return Race(tuple(map(checked_plan, plans)))


def grow(
    function: Callable[[Scene], Plan | None], *, rounds: int = 10, name: str | None = None
) -> Plan:
    """Let a plan grow while it runs: ``function`` sees what is there, and gives more plan.

    It is called when all thoughts that feed it are there (``scene.parents``), then with what came
    of the plan it gave, for at most so many rounds; None ends it. It must be a function of the
    scene alone, so that the same results grow the same graph.
    """
    if rounds < 1:
        raise PlanError(f"grow(rounds={rounds}): give at least 1 round")
    check_plain(function, "grow(…)")
    return Growing(function, name or f"grow {_name(function)}", rounds)


def _joined(name: str, join: Join) -> Join:
    if join == "each":
        raise PlanError(f'{name}(join="each"): it joins; give "all", at_least(k) or first(k)')
    return join


def _finite(given: Any) -> float:
    number = float(given)
    if not math.isfinite(number):
        raise ValueError(f"the grade is {number}, not a number")
    return number


def _unset(scene: Scene) -> float:
    raise ValueError("the model has not judged this thought")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__).strip("_<>").replace("_", " ")
