"""Prompts: a template or a function of the scene, and the pieces they become."""

from collections.abc import Callable, Sequence
from string import Formatter

from .errors import PlanError
from .functions import called, check_plain, contained
from .prompt import Ids, Piece, Text
from .thought import Scene, Thought

__all__ = ["Prompt", "ask_again", "check_prompt", "write_prompt"]

Prompt = str | Callable[[Scene], str | Sequence[Piece]]
"""A template with {task}, {text}, {texts}, {value} and {error}, or a function of the scene."""

_FIELDS = ("task", "text", "texts", "value", "error")


def check_prompt(name: str, prompt: Prompt) -> None:
    """Raise :class:`PlanError` for what is no prompt, or a template that cannot be filled in."""
    if callable(prompt):
        check_plain(prompt, f"operation {name!r}: the prompt")
        return
    if not isinstance(prompt, str):
        raise PlanError(
            f"operation {name!r}: the prompt is a {type(prompt).__name__}; give a template or a "
            "function of the scene"
        )
    try:
        fields = [field for _, field, _, _ in Formatter().parse(prompt) if field is not None]
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
        texts = "\n".join(_numbered(scene.parents)) if "{texts" in prompt else ""
        return [
            Text(
                prompt.format(
                    task=scene.task,
                    text=scene.text,
                    texts=texts,
                    value=scene.value,
                    error=scene.error,
                )
            )
        ]
    written = called(prompt, scene)
    with contained():
        return [Text(written)] if isinstance(written, str) else list(written)


def ask_again(asked: Sequence[Piece], answer: Thought) -> list[Piece]:
    """What was asked, what was answered, and what is wrong with that, in the checker's words."""
    wrong = Text(f"\nThis answer cannot be used: {answer.reason}\nThe answer, mended:\n")
    return [*asked, Ids(answer.token_ids), wrong]


def _numbered(parents: Sequence[Thought]) -> list[str]:
    return [f"{number}. {thought.text}" for number, thought in enumerate(parents, 1)]
