"""Waiting for a user's function, with patience: on a thread of its own, or for what it awaits.

What hangs cannot always be stopped; nobody has to wait for it.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from ...agents.functions import FunctionError, contained, discard

__all__ = ["OverdueError", "aside", "awaited"]

_GRACE: Final = 1.0
"""Seconds in which what is cancelled may tidy up."""


class OverdueError(Exception):
    """It gave no answer in time."""


async def aside(function: Callable[[], Any], patience: float | None, name: str) -> Any:
    """What ``function`` returns, on a daemon thread called ``name``.

    Raises what it raises (:class:`FunctionError` for what would end the process), and
    :class:`OverdueError` after ``patience`` seconds; the thread then goes on, and nobody hears of
    it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(value: Any, error: Exception | None) -> None:
        if answer.done():
            discard(value)
        elif error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def work() -> None:
        value: Any = None
        failure: Exception | None = None
        try:
            with contained():
                value = context.run(function)
        except StopIteration as error:  # no future can hold one
            failure = FunctionError(f"StopIteration: {error}")
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:  # the loop is closed: the run is over
            discard(value)

    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        await asyncio.wait([answer], timeout=patience)
        if not answer.done():
            raise OverdueError
        return answer.result()
    finally:
        answer.cancel()


async def awaited(given: Any, patience: float | None) -> Any:
    """What comes of an awaitable, whatever that does with the task it runs in.

    Raises what it raises (:class:`FunctionError` for what would end the process or cancels itself),
    and :class:`OverdueError` after ``patience`` seconds. It is cancelled then, and when nobody
    waits any more; what it gives while it is being cancelled is its answer all the same.
    """

    async def follow() -> Any:
        with contained():
            found = given
            while inspect.isawaitable(found):
                found = await found
            return found

    task = asyncio.ensure_future(follow())
    task.add_done_callback(_retrieve)
    try:
        await asyncio.wait([task], timeout=patience)
    finally:
        late = not task.done()
        if late:
            task.cancel()
            await asyncio.wait([task], timeout=_GRACE)
        discard(given)
    if not task.done() or (late and (task.cancelled() or task.exception() is not None)):
        raise OverdueError
    if task.cancelled():
        raise FunctionError("its task was cancelled")
    return task.result()


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """What is raised when nobody waits any more is of no interest."""
    if not task.cancelled():
        task.exception()
