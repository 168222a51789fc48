"""Tools: typed functions, or LangChain's tools, that an agent's thoughts may call."""

import asyncio
import copy
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints, overload

from pydantic import ConfigDict, ValidationError, validate_call

from ..gates.canonical import digest, recordable
from ..gates.errors import SecateurError
from . import langchain
from .errors import reason
from .functions import called, contained, waits

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
    """The tool call that a user's ``calls=`` reads from a thought's text: a copy, so that what is
    judged and approved is what runs.

    Raises :class:`ToolError` for what is neither a call that can be recorded nor None, and
    whatever the function raises.
    """
    call = None if calls is None else called(calls, text)
    if call is None:
        return None
    if not isinstance(call, Call):
        raise ToolError(f"calls= gave a {type(call).__name__}; return a Call, or None")
    if not isinstance(call.tool, str) or not isinstance(call.arguments, dict):
        raise ToolError("calls= gave a Call whose arguments are no mapping of names to values")
    recordable([call.tool, call.arguments])
    return copy.deepcopy(call)


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
    """Whether the function is known to be asynchronous."""

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
            act, waiting = langchain.adapted(function)
            return cls(function.name, act, idempotent, None, timeout, waiting)
        if not callable(function):
            raise ToolError(
                f"{function!r:.60} is no tool: give a typed function or a LangChain tool"
            )
        name, plain = _described(function)
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise ToolError(
                f"tool {name!r} is a generator, which acts bit by bit: return its answer"
            )
        try:
            hints = get_type_hints(plain)
            parameters = inspect.signature(function).parameters
            checked = _checked(function, plain)
        except Exception as error:
            raise ToolError(f"tool {name!r} cannot be checked: {reason(error)}") from None
        takers = [taker for taker in parameters if hints.get(taker) is Workspace]
        untyped = [given for given in parameters if given not in hints]
        if untyped:
            raise ToolError(
                f"tool {name!r}: parameter {untyped[0]!r} has no type; annotate it so that calls "
                "can be checked"
            )
        taker = takers[0] if takers else None
        return cls(name, checked, idempotent, taker, timeout, waits(function))

    def run(self, workspace: Workspace, arguments: dict[str, Any]) -> str:
        """Check the arguments, then act; blocks until it is done, without its timeout.

        Raises :class:`ToolError` with the first fault, and whatever the function raises.
        """
        given = self.begin(workspace, arguments)
        return self._said(asyncio.run(self.end(given)) if inspect.isawaitable(given) else given)

    async def answer(self, workspace: Workspace, arguments: dict[str, Any]) -> str:
        """The same without blocking, for a tool that ``waits``."""
        return await self.end(self.begin(workspace, arguments))

    def begin(self, workspace: Workspace, arguments: dict[str, Any]) -> Any:
        """Check the arguments and call the function: its answer in words, or what is to be awaited
        for it with :meth:`end`."""
        given = arguments if self.workspace is None else arguments | {self.workspace: workspace}
        try:
            found = self.function(**given)
        except ValidationError as error:
            raise self._refused(error) from None
        return found if inspect.isawaitable(found) else self._said(found)

    async def end(self, given: Any) -> str:
        """The answer in words, once it is there."""
        try:
            while inspect.isawaitable(given):
                given = await given
        except ValidationError as error:
            raise self._refused(error) from None
        return self._said(given)

    def _said(self, given: Any) -> str:
        if inspect.isgenerator(given) or inspect.isasyncgen(given):
            raise ToolError(
                f"tool {self.name!r} gave a generator, which has not run: return a text"
            )
        with contained():
            return str(given)

    def _refused(self, error: ValidationError) -> ToolError:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return ToolError(f"tool {self.name!r}: argument {where!r}: {fault['msg']}")


def _checked(function: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments checked first.

    It is not called by pydantic, whose frames a thread that is still in a tool when the process
    ends would tear down: the process would be aborted.
    """

    def given(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    functools.update_wrapper(given, plain)
    vars(given)["__signature__"] = inspect.signature(function)
    taken = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(given)

    def call(**arguments: Any) -> Any:
        args, kwargs = taken(**arguments)
        return function(*args, **kwargs)

    return functools.update_wrapper(call, plain)


def _bare(function: Any) -> Any:
    """The function of a partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _described(function: Any) -> tuple[str, Any]:
    """A tool's name, and where its annotations stand: for an object that is called, at its call."""
    bare = _bare(function)
    if inspect.isroutine(bare) or isinstance(bare, type):
        return bare.__name__, bare
    return getattr(bare, "__name__", type(bare).__name__), bare.__call__


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
