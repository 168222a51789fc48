"""Tools: typed functions, or LangChain's tools, that an agent's thoughts may call."""

import asyncio
import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints, overload

from pydantic import ConfigDict, ValidationError, validate_call

from ..gates.canonical import canonical_json, digest
from ..gates.errors import SecateurError
from . import langchain

__all__ = ["Call", "Tool", "ToolError", "Workspace", "read_call", "tool"]


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

    @property
    def digest(self) -> str:
        """What a judgement and an approval are bound to: tool and arguments, in 64 hexadecimal
        digits. Raises what :func:`.canonical_json` raises."""
        return digest([self.tool, self.arguments])


def read_call(calls: Callable[[str], Call | None] | None, text: str) -> Call | None:
    """The tool call that a text asks for: a copy, so that what is judged and approved is what runs.

    Raises what a user's function raises, and for arguments that are no plain JSON data.
    """
    call = None if calls is None else copy.deepcopy(calls(text))
    if call is not None:
        canonical_json([call.tool, call.arguments])
    return call


@dataclass(frozen=True, slots=True)
class Tool:
    """A function with a name, checked arguments and a promise about being run twice."""

    name: str
    function: Callable[..., Any]
    """Checks its arguments, then acts; gives the answer, or an awaitable of it."""
    idempotent: bool
    """True promises that running it again after a crash does no harm."""
    workspace: str | None
    """The parameter that receives the :class:`Workspace`, if any."""
    timeout: float | None
    """Seconds after which its call has failed; None waits for as long as it takes."""
    waits: bool
    """Whether the function is asynchronous."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ToolError(
                f"tool {self.name!r}: timeout={self.timeout}; give seconds, more than 0, or None"
            )

    @classmethod
    def of(cls, function: Any, *, idempotent: bool = False, timeout: float | None = None) -> Self:
        """Wrap a typed function, plain or ``async``, or a LangChain tool.

        A function's annotations become the checked argument types; a LangChain tool brings its
        own schema. Raises :class:`ToolError` for what is neither.
        """
        if langchain.is_tool(function):
            act, waits = langchain.adapted(function)
            return cls(function.name, act, idempotent, None, timeout, waits)
        if not callable(function):
            raise ToolError(
                f"{function!r:.60} is no tool: give a typed function or a LangChain tool"
            )
        name = getattr(function, "__name__", type(function).__name__)
        hints = get_type_hints(function)
        takers = [taker for taker, hint in hints.items() if hint is Workspace and taker != "return"]
        untyped = [given for given in inspect.signature(function).parameters if given not in hints]
        if untyped:
            raise ToolError(
                f"tool {name!r}: parameter {untyped[0]!r} has no type; annotate it so that calls "
                "can be checked"
            )
        checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
        waits = inspect.iscoroutinefunction(function)
        return cls(name, checked, idempotent, takers[0] if takers else None, timeout, waits)

    def run(self, workspace: Workspace, arguments: dict[str, Any]) -> str:
        """Check the arguments, then act; blocks until it is done, without its timeout.

        Raises :class:`ToolError` with the first fault, and whatever the function raises.
        """
        if self.waits:
            return asyncio.run(self.answer(workspace, arguments))
        try:
            return str(self.function(**self._given(workspace, arguments)))
        except ValidationError as error:
            raise self._refused(error) from None

    async def answer(self, workspace: Workspace, arguments: dict[str, Any]) -> str:
        """The same for a tool that ``waits``, without blocking."""
        try:
            return str(await self.function(**self._given(workspace, arguments)))
        except ValidationError as error:
            raise self._refused(error) from None

    def _given(self, workspace: Workspace, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments if self.workspace is None else arguments | {self.workspace: workspace}

    def _refused(self, error: ValidationError) -> ToolError:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return ToolError(f"tool {self.name!r}: argument {where!r}: {fault['msg']}")


@overload
def tool(function: Callable[..., Any]) -> Tool: ...
@overload
def tool(
    *, idempotent: bool = False, timeout: float | None = None
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    *,
    idempotent: bool = False,
    timeout: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a typed function: ``@tool``, ``@tool(idempotent=True, timeout=10)``."""
    if function is not None:
        return Tool.of(function)
    return lambda wrapped: Tool.of(wrapped, idempotent=idempotent, timeout=timeout)
