"""Operations: what makes thoughts out of thoughts. Values only; the runtime performs them."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ...gates.unicode import joined
from ..errors import PlanError
from ..functions import check_function, check_plain, waits
from ..prompt import Sampling
from ..steering import Steer, SteerAt
from ..template import Prompt, check_prompt
from ..thought import Scene, Thought
from ..tool import Call, Tool
from .joins import AtLeast, First, Join

__all__ = [
    "Act",
    "Apply",
    "Ask",
    "Check",
    "Choose",
    "Expand",
    "Fail",
    "KeepBest",
    "KeepValid",
    "Operation",
    "Score",
    "Select",
    "Split",
    "Truth",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What every operation has: a name, whom it waits for, and how long it may take."""

    name: str
    kind: str
    join: Join = "each"
    timeout: float | None = None
    """Seconds; what takes longer is a failed thought."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise PlanError(f"operation {self.name!r}: timeout={self.timeout!r}; give seconds")
        object.__setattr__(self, "name", joined(self.name))  # as the ledger gives it back
        if self.join not in ("each", "all") and not isinstance(self.join, AtLeast | First):
            raise PlanError(
                f'operation {self.name!r}: join={self.join!r}; give "all", at_least(k) or first(k)'
            )
        by = getattr(self, "by", None)
        if by is not None:
            check_function(by, f"operation {self.name!r}")

    @property
    def free(self) -> bool:
        """Whether it spends nothing of a budget, so that it may run although one has ended: it
        makes no thought, asks no model, and calls no function that may have to be waited for."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Operation):
    """Ask the model, n times for each parent or for the joined parents."""

    kind: Literal["generate", "aggregate", "refine", "improve", "grade", "vote"]
    prompt: Prompt
    n: int = 1
    """Children wanted for each parent (or for the joined parents)."""
    spare: int = 0
    """Further children that may be asked for, one by one, in place of pruned or failed ones."""
    parse: Callable[[str], Any] | None = None
    """Text to plain JSON data; a ``ValueError`` makes a failed thought."""
    repairs: int = 0
    """How often the model is asked to mend an answer that ``parse`` refuses."""
    sampling: Sampling | None = None
    """None: the agent's own."""
    unless: Callable[[Scene], bool] | None = None
    """Where true, the parent passes through and the model is not asked."""
    calls: Callable[[str], Call | None] | None = None
    """Reads a tool call from the text; rules of scope ``action`` judge thoughts that have one."""
    steer: Steer | None = None
    """Changes the controls while a thought is written."""
    steer_at: SteerAt = "line"

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        if self.steer_at not in get_args(SteerAt):
            raise PlanError(
                f"operation {self.name!r}: steer_at={self.steer_at!r}; choose "
                f"{', '.join(get_args(SteerAt))}"
            )
        for key in ("parse", "unless", "calls", "steer"):
            function = getattr(self, key)
            if function is not None:
                check_plain(function, f"operation {self.name!r}: {key}=")
        if self.n < 1 or self.spare < 0 or self.repairs < 0:
            raise PlanError(
                f"operation {self.name!r}: n={self.n}, spare={self.spare}, repairs={self.repairs}; "
                "give n of at least 1, and spare and repairs of at least 0"
            )
        check_prompt(self.name, self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Operation):
    """Give each thought a number."""

    by: Callable[[Scene], float | Awaitable[float]]
    kind: Literal["score"] = field(default="score", init=False)

    @property
    def free(self) -> bool:
        return self.timeout is None and not waits(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepBest(Operation):
    """Keep the n best of all parents; thoughts without a score come last."""

    n: int
    lowest: bool
    """True where a small score is a good one (errors)."""
    kind: Literal["keep_best"] = field(default="keep_best", init=False)

    @property
    def free(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepValid(Operation):
    """Keep the parents for which a function holds."""

    by: Callable[[Scene], bool | Awaitable[bool]]
    kind: Literal["keep_valid"] = field(default="keep_valid", init=False)

    @property
    def free(self) -> bool:
        return self.timeout is None and not waits(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Operation):
    """Keep those of all parents that a function chooses."""

    by: Callable[[Scene], Sequence[Thought] | Awaitable[Sequence[Thought]]]
    kind: Literal["select"] = field(default="select", init=False)

    @property
    def free(self) -> bool:
        return self.timeout is None and not waits(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Operation):
    """Cut one thought into parts by a function; each part is a pair of text and value."""

    by: Callable[[Scene], Sequence[tuple[str, Any]]]
    kind: Literal["split"] = field(default="split", init=False)


Outcome = str | tuple[str, Any]
"""What a user's operation makes of a scene: a text, or a text with a value of plain JSON data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Operation):
    """A user's own operation: a function of the scene that gives texts and values."""

    by: Callable[[Scene], Any]
    kind: Literal["operation"] = field(default="operation", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Operation):
    """Let a function say what is wrong with a thought; None lets it pass through."""

    by: Callable[[Scene], str | Awaitable[str | None] | None]
    kind: Literal["check"] = field(default="check", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(Operation):
    """Run the tool call that a thought asks for; a thought without one passes through."""

    tools: Mapping[str, Tool]
    calls: Callable[[str], Call | None]
    kind: Literal["act"] = field(default="act", init=False)

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        check_plain(self.calls, f"operation {self.name!r}: calls=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth(Operation):
    """Compare a thought with what is known to be true; no plan can see what comes of it."""

    by: Callable[[Scene], bool | float]
    kind: Literal["ground_truth"] = field(default="ground_truth", init=False)

    @property
    def free(self) -> bool:
        return self.timeout is None and not waits(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand(Operation):
    """Call what lets a plan grow; it leaves its answer with the machine that posted it."""

    by: Callable[[Scene], None]
    kind: Literal["grow"] = field(default="grow", init=False)

    @property
    def free(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose(Operation):
    """Write down that the parents go on and others do not: a join or a search has decided."""

    dropped: Callable[[], Sequence[Thought]]
    """Those that do not; asked when the choice is written."""
    about: str | None = None
    """What a choice that depends on timing is known by, so that a resumed run makes it again."""
    kind: Literal["choose"] = field(default="choose", init=False)

    @property
    def free(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(Operation):
    """Come to nothing, for a reason that is known already."""

    kind: str
    reason: str

    @property
    def free(self) -> bool:
        return True
