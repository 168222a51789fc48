"""Calling a user's functions, so that whatever they raise stays in the branch that called them.

Where an operation may wait, what a function gives is awaited (see ``runtime/aside.py``); everywhere
else only a plain function can stand, and one that gives something to await is refused.
"""

import asyncio
import functools
import inspect
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any, Final

from ..gates.errors import SecateurError
from .errors import PlanError, named

__all__ = [
    "FunctionError",
    "Plain",
    "called",
    "check_function",
    "check_plain",
    "contained",
    "discard",
    "holds",
    "waits",
]

_RAISING: Final = frozenset(
    opmap.get(name)
    for name in ("RAISE_VARARGS", "RERAISE", "RETURN_GENERATOR", "YIELD_VALUE", "SEND")
)
"""Instructions at which an error is raised, or thrown in; a signal never strikes there."""


class FunctionError(SecateurError):
    """A function raised what would end more than its own branch, or gave what has not run yet."""


class contained:  # noqa: N801 - read as a word: ``with contained():``
    """Makes a :class:`FunctionError` of ``SystemExit``, ``CancelledError``, ``KeyboardInterrupt``
    and the like, raised by a user's code; that somebody pressed Ctrl-C passes as it is.

    Around code that waits it stands only where nobody but that code can cancel the task.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Exception) or _pressed(error):
            return
        raise FunctionError(named(error)) from error


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a plain function gives. Raises what it raises, if that is an ``Exception``, and
    :class:`FunctionError` for anything else and for what nobody would await."""
    with contained():
        given = function(*arguments)
    if inspect.isawaitable(given) or inspect.isasyncgen(given):
        discard(given)
        raise FunctionError(
            f"{_name(function)} gave {_kind(given)}, and nothing waits for it here: give a plain "
            "function"
        )
    return given


def holds(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a predicate holds; what has not run yet is no answer, though Python calls it true."""
    given = called(function, *arguments)
    if inspect.isgenerator(given):
        raise FunctionError(f"{_name(function)} gave a generator, which is always true")
    with contained():
        return bool(given)


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain function that another function calls: it is :func:`called`."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return called(self.function, *arguments)


def discard(given: Any) -> None:
    """Let go of what will not be awaited."""
    if inspect.iscoroutine(given):
        if inspect.getcoroutinestate(given) == inspect.CORO_CREATED:
            given.close()
    elif asyncio.isfuture(given):
        given.cancel()


def waits(function: Any) -> bool:
    """Whether a function is known to give something to await: ``async def``, also as a partial or
    as an object's call."""
    return _is(inspect.iscoroutinefunction, function)


def check_function(function: Any, place: str) -> None:
    """Raises :class:`PlanError` for what is no function, plain or ``async``, with one answer."""
    if not callable(function):
        raise PlanError(f"{place} takes a function, not {function!r:.40}")
    if _is(inspect.isasyncgenfunction, function):
        raise PlanError(f"{place} {_name(function)} is an async generator; return what it yields")


def check_plain(function: Any, place: str) -> None:
    """Raises :class:`PlanError` for what is no plain function: nothing waits at this place."""
    check_function(function, place)
    if waits(function):
        raise PlanError(
            f"{place} takes a plain function, and {_name(function)} is async; let an operation of "
            "the plan do the waiting"
        )


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if kind(function):
        return True
    # Calling a class makes an object, whatever the object's own call does.
    return not isinstance(function, type) and kind(getattr(function, "__call__", None))  # noqa: B004


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _kind(given: Any) -> str:
    if inspect.iscoroutine(given):
        return "a coroutine"
    return "an async generator" if inspect.isasyncgen(given) else f"a {type(given).__name__}"


def _pressed(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C: Python then raises between two instructions of the main
    thread, or in its handler of the signal, and not where code raises or is thrown into."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = _handler()
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code is handler:
            return True
        trace, last = trace.tb_next, trace
    return last is None or not _raises(last.tb_frame, last.tb_lasti)


def _raises(frame: FrameType, instruction: int) -> bool:
    return frame.f_code.co_code[instruction] in _RAISING


def _handler() -> Any:
    """The code of who handles Ctrl-C, where that is written in Python."""
    handler: Any = signal.getsignal(signal.SIGINT)
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(getattr(handler, "__func__", handler), "__code__", ())
