"""Operations: what makes thoughts out of thoughts. Values only; the runtime performs them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal, get_args

from ..gates.errors import SecateurError
from .prompt import Piece, Sampling, Text
from .steering import Steer, SteerAt
from .thought import Scene, Thought
from .tool import Call, Tool

__all__ = [
    "Act",
    "Ask",
    "KeepBest",
    "KeepValid",
    "Operation",
    "PlanError",
    "Prompt",
    "Score",
    "Split",
    "write_prompt",
]

Prompt = str | Callable[[Scene], str | Sequence[Piece]]
"""A template with {task}, {text}, {texts} and {value}, or a function of the scene."""

_FIELDS = ("task", "text", "texts", "value")


class PlanError(SecateurError):
    """A plan or one of its operations is put together wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What every operation has: a name, and whom it waits for."""

    name: str
    kind: str
    join: Literal["each", "all"] = "each"
    """``each``: starts for every parent as soon as it is there; ``all``: once, with all parents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Operation):
    """Ask the model: generate, aggregate (join all) or refine (unless the parent is good)."""

    kind: Literal["generate", "aggregate", "refine"]
    prompt: Prompt
    n: int = 1
    """Children wanted for each parent (or for the joined parents)."""
    spare: int = 0
    """Further children that may be asked for, one by one, in place of pruned or failed ones."""
    parse: Callable[[str], Any] | None = None
    """Text to plain JSON data; a ``ValueError`` makes a failed thought."""
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
        if self.steer_at not in get_args(SteerAt):
            raise PlanError(
                f"operation {self.name!r}: steer_at={self.steer_at!r}; choose "
                f"{', '.join(get_args(SteerAt))}"
            )
        if self.steer is not None and (
            not callable(self.steer) or inspect.iscoroutinefunction(self.steer)
        ):
            raise PlanError(
                f"operation {self.name!r}: steer= takes a plain function of the progress that "
                'gives controls such as {"angry": "allow"}, or None'
            )
        if self.n < 1 or self.spare < 0:
            raise PlanError(
                f"operation {self.name!r}: n={self.n}, spare={self.spare}; give n of at least 1 "
                "and spare of at least 0"
            )
        if isinstance(self.prompt, str):
            _check_template(self.name, self.prompt)
        elif not callable(self.prompt):
            raise PlanError(
                f"operation {self.name!r}: the prompt is a {type(self.prompt).__name__}; give a "
                "template or a function of the scene"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Operation):
    """Give each thought a number."""

    by: Callable[[Scene], float]
    kind: Literal["score"] = field(default="score", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepBest(Operation):
    """Keep the n best of all parents; thoughts without a score come last."""

    n: int
    lowest: bool
    """True where a small score is a good one (errors)."""
    kind: Literal["keep_best"] = field(default="keep_best", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepValid(Operation):
    """Keep the parents for which a function holds."""

    by: Callable[[Scene], bool]
    kind: Literal["keep_valid"] = field(default="keep_valid", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Operation):
    """Cut one thought into parts by a function; each part is a pair of text and value."""

    by: Callable[[Scene], Sequence[tuple[str, Any]]]
    kind: Literal["split"] = field(default="split", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(Operation):
    """Run the tool call that a thought asks for; a thought without one passes through."""

    tools: Mapping[str, Tool]
    calls: Callable[[str], Call | None]
    kind: Literal["act"] = field(default="act", init=False)


def _check_template(name: str, template: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise PlanError(f"operation {name!r}: the prompt template is broken: {error}") from None
    for given in fields:
        if given.split(".")[0].split("[")[0] not in _FIELDS:
            raise PlanError(
                f"operation {name!r}: the prompt names {{{given}}}; a template knows "
                f"{', '.join('{' + known + '}' for known in _FIELDS)} (write {{{{ and }}}} for "
                "braces)"
            )


def write_prompt(prompt: Prompt, scene: Scene) -> list[Piece]:
    """The prompt's pieces for one scene. Whatever a template holds is outside text."""
    if isinstance(prompt, str):
        texts = "\n".join(_numbered(scene.parents))
        return [
            Text(
                prompt.format(task=scene.task, text=scene.text, texts=texts, value=scene.value),
            )
        ]
    written = prompt(scene)
    return [Text(written)] if isinstance(written, str) else list(written)


def _numbered(parents: Sequence[Thought]) -> list[str]:
    return [f"{number}. {thought.text}" for number, thought in enumerate(parents, 1)]
