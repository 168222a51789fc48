"""A user's function on a thread that nobody has to wait for: what hangs cannot be stopped."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

__all__ = ["LeftError", "OverdueError", "aside"]


class OverdueError(Exception):
    """It gave no answer in time."""


class LeftError(Exception):
    """It raised what is no ``Exception``, such as ``SystemExit``."""


async def aside(function: Callable[[], Any], patience: float | None, name: str) -> Any:
    """What ``function`` returns, on a daemon thread called ``name``.

    Raises what it raises (:class:`LeftError` for what would end the process), and
    :class:`OverdueError` after ``patience`` seconds; the thread then goes on, and nobody hears of
    it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def work() -> None:
        value: Any = None
        failure: BaseException | None = None
        try:
            value = context.run(function)
        except Exception as error:
            failure = error
        except BaseException as error:  # SystemExit too must not pass for an answer
            failure = LeftError(f"{type(error).__name__}: {error}")
        if isinstance(failure, StopIteration):  # no future can hold one
            failure = LeftError("StopIteration")
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:
            return  # the loop is closed: the run is over

    threading.Thread(target=work, name=name, daemon=True).start()
    await asyncio.wait([answer], timeout=patience)
    if not answer.done():
        answer.cancel()
        raise OverdueError
    return answer.result()
