"""Ctrl-C: the first stops what runs and says what it waits for, the second ends it at once."""

import asyncio
import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

from ..runtime.executor.tools import UNDER_WAY
from ..runtime.pictures.looks import shortened

__all__ = ["run_stoppable"]

T = TypeVar("T")

_PATIENCE: Final = 10.0
"""Seconds that what was given up has to write down its end."""

_HEARD: Final = 1.0
"""Seconds after which whoever does not hear of Ctrl-C is interrupted."""


def run_stoppable(runs: Coroutine[Any, Any, T], last_line: Callable[[], str]) -> T:
    """What comes of the runs, on an event loop, until somebody presses Ctrl-C.

    Then they are cancelled, and wait for tool calls that are under way. Pressed once more, no call
    is waited for: it is unknown. A process that does not end by that is ended in the end, with
    ``last_line`` and the exit code 130.

    Raises ``CancelledError``, or ``KeyboardInterrupt``, where the runs were stopped.
    """

    def end() -> None:
        try:
            _say(f"error: {last_line()}")
        finally:  # whoever reads no more must not keep it alive
            os._exit(130)

    timer = threading.Timer(_PATIENCE, end)
    timer.daemon = True
    try:
        return asyncio.run(_stoppable(runs, timer))
    finally:
        timer.cancel()


async def _stoppable(runs: Coroutine[Any, Any, T], timer: threading.Timer) -> T:
    task = asyncio.current_task()
    known = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if task is None or not here or known in (signal.SIG_IGN, None):
        return await runs
    loop = asyncio.get_running_loop()
    pressed = 0
    heard = False

    def stop() -> None:
        nonlocal heard
        heard = True
        task.cancel()

    def insist() -> None:
        if not heard:  # a function that runs now holds everything up: interrupt that
            interrupt_main()

    prod = threading.Timer(_HEARD, insist)
    prod.daemon = True

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            _say(f"stopping{_waits_for(loop)}; Ctrl-C once more ends it at once")
            loop.call_soon_threadsafe(stop)
            return
        if pressed > 2:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(_give_up, loop)
        timer.start()
        prod.start()

    signal.signal(signal.SIGINT, press)
    try:
        return await runs
    finally:
        prod.cancel()
        signal.signal(signal.SIGINT, known)


def _waits_for(loop: asyncio.AbstractEventLoop) -> str:
    """Which tools are under way, in words."""
    tools = sorted(shortened(call.get_name()[len(UNDER_WAY) :], 40) for call in _calls(loop))
    if not tools:
        return ""
    more = f" and {len(tools) - 3} more" if len(tools) > 3 else ""
    names = ", ".join(tools[:3])
    kind = "tool" if len(tools) == 1 else "tools"
    return f", but waiting for what the {kind} {names}{more} will say of a call that has begun"


def _give_up(loop: asyncio.AbstractEventLoop) -> None:
    for call in _calls(loop):
        call.cancel()


def _calls(loop: asyncio.AbstractEventLoop) -> "list[asyncio.Task[Any]]":
    return [task for task in asyncio.all_tasks(loop) if task.get_name().startswith(UNDER_WAY)]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
