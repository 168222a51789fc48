"""Ctrl-C: the first stops what runs and says what it waits for, the second ends it at once."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

from ..runtime.executor.tools import UNDER_WAY
from ..runtime.pictures.looks import shortened

__all__ = ["stoppable"]

T = TypeVar("T")

_PATIENCE: Final = 2.0
"""Seconds that what was given up has to write down its end."""


async def stoppable(runs: Coroutine[Any, Any, T], last_line: Callable[[], str]) -> T:
    """What comes of the runs, until somebody presses Ctrl-C.

    Then they are cancelled, and wait for tool calls that are under way. Pressed once more, no call
    is waited for: it is unknown, and the process ends with ``last_line`` and the exit code 130, at
    the latest when what was given up has had its time.
    """
    task = asyncio.current_task()
    known = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if task is None or not here or known in (signal.SIG_IGN, None):
        return await runs
    loop = asyncio.get_running_loop()
    pressed = 0

    def end() -> None:
        _say(f"error: {last_line()}")
        sys.stdout.flush()
        os._exit(130)

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            _say(f"stopping{_waits_for(loop)}; Ctrl-C once more ends it at once")
            loop.call_soon_threadsafe(task.cancel)
        elif pressed == 2:
            loop.call_soon_threadsafe(_give_up, loop)
            timer = threading.Timer(_PATIENCE, end)
            timer.daemon = True
            timer.start()
        else:
            end()

    signal.signal(signal.SIGINT, press)
    try:
        return await runs
    finally:
        if pressed > 1:  # a thread that goes on, or a task that will not end, holds nothing up
            end()
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
