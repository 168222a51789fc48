"""What an agent is: a plan with its policy, its reading of the task, and its folder to act in."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..gates.policy import Policy
from ..gates.unicode import joined
from .budget import Budget
from .errors import PlanError
from .functions import check_plain
from .plans.composition import Plan, Source
from .plans.operations import Act
from .prompt import Sampling
from .thought import Scene
from .tool import Workspace

__all__ = ["AgentSpec", "ReadTask", "TaskError"]


class TaskError(PlanError):
    """The task is not one that this agent can take."""


@dataclass(frozen=True, slots=True)
class ReadTask:
    """What an agent made of the user's text."""

    value: object = None
    """The task as plain JSON data, for operations to use."""
    context: str | None = None
    """The policy context that the text puts the run in; None is the base policy."""


def _as_it_is(task: str) -> ReadTask:
    return ReadTask()


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """An agent as data. ``secateur.Agent`` is one that can run."""

    name: str
    plan: Plan
    policy: Policy | str = "prune"
    """A policy, the name of a shipped one, or a path to a YAML file."""
    sampling: Sampling = field(default_factory=Sampling)
    read: Callable[[str], ReadTask] = _as_it_is
    """Reads the user's text; raises ``ValueError`` in words a user understands."""
    prepare: Callable[[Workspace, str, int], None] | None = None
    """Lays out the workspace for (folder, task, seed) before the run."""
    answer: Callable[[Scene], str] | None = None
    """The result in words, from the best thought's scene; None: the thought's text."""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not isinstance(self.plan, Plan):
            raise PlanError(
                f"agent {self.name!r}: the plan is a {type(self.plan).__name__}; compose one with "
                "generate(…) >> score(…) >> keep_best(…)"
            )
        if not self.name.strip():
            raise PlanError("an agent needs a name that is not empty")
        object.__setattr__(self, "name", joined(self.name))  # as the ledger gives it back
        for key in ("read", "prepare", "answer"):
            function = getattr(self, key)
            if function is not None:
                check_plain(function, f"agent {self.name!r}: {key}=")
        try:
            self.plan.sources(frozenset({Source("the task", "function")}))
        except PlanError as error:
            raise PlanError(f"agent {self.name!r}: {error}") from None

    @property
    def acts(self) -> bool:
        """Whether its plan calls tools."""
        return any(isinstance(step, Act) for step in self.plan.steps())
