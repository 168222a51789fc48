"""Tools: typed Python functions that an agent's thoughts may call."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints, overload

from pydantic import ConfigDict, ValidationError, validate_call

from ..gates.errors import SecateurError

__all__ = ["Call", "Tool", "ToolError", "Workspace", "tool"]


class ToolError(SecateurError):
    """A tool was called wrongly or could not do its work."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder in which one run's tools act; a tool that names it in its signature gets it."""

    path: Path


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call that a thought asks for."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function with a name, typed arguments and a promise about being run twice."""

    name: str
    function: Callable[..., str]
    idempotent: bool
    """True promises that running it again after a crash does no harm."""
    workspace: str | None
    """The parameter that receives the :class:`Workspace`, if any."""

    @classmethod
    def of(cls, function: Callable[..., str], *, idempotent: bool = False) -> Self:
        """Wrap a function; its annotations become the checked argument types."""
        hints = get_type_hints(function)
        takers = [name for name, hint in hints.items() if hint is Workspace and name != "return"]
        untyped = [name for name in inspect.signature(function).parameters if name not in hints]
        name = getattr(function, "__name__", "tool")
        if untyped:
            raise ToolError(
                f"tool {name!r}: parameter {untyped[0]!r} has no type; annotate it so that calls "
                "can be checked"
            )
        return cls(name, function, idempotent, takers[0] if takers else None)

    def run(self, workspace: Workspace, arguments: dict[str, Any]) -> str:
        """Check the arguments, then act. Raises :class:`ToolError` with the first fault."""
        given = dict(arguments)
        if self.workspace is not None:
            given[self.workspace] = workspace
        checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(self.function)
        try:
            return str(checked(**given))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise ToolError(f"tool {self.name!r}: argument {where!r}: {fault['msg']}") from None


@overload
def tool(function: Callable[..., str]) -> Tool: ...
@overload
def tool(*, idempotent: bool = False) -> Callable[[Callable[..., str]], Tool]: ...
def tool(
    function: Callable[..., str] | None = None, *, idempotent: bool = False
) -> Tool | Callable[[Callable[..., str]], Tool]:
    """Make a tool of a typed function: ``@tool`` or ``@tool(idempotent=True)``."""
    if function is not None:
        return Tool.of(function)
    return lambda wrapped: Tool.of(wrapped, idempotent=idempotent)
