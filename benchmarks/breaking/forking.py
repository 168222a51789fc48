"""Children of a parent that has everything imported and no event loop: they start in 20 ms."""

import asyncio
import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["fork", "in_child", "wait", "wait_for", "wait_long"]

_PATIENCE = 240.0
"""Seconds after which a child that should have ended is killed, and the campaign with it."""

T = TypeVar("T")


def fork(work: Callable[[], Coroutine[Any, Any, Any]]) -> int:
    """A child that runs this and nothing else; its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    faulthandler.dump_traceback_later(_PATIENCE - 5)  # where it hangs, should it hang
    try:
        asyncio.run(work())
        code = 0
    except BaseException:  # whatever it is, a child never goes back into its parent's stack
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The status of a child that is about to end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(f"child {child} did not end within {_PATIENCE:g} s")
        time.sleep(0.001)


def wait_for(path: Path, size: int, seconds: float = 0.5) -> None:
    """Wait until a file is so long, but no longer than that."""
    deadline = time.monotonic() + seconds
    while path.stat().st_size < size and time.monotonic() < deadline:
        time.sleep(0.0003)


def wait_long(child: int) -> int:
    """The status of a child that may take its time."""
    return os.waitpid(child, 0)[1]


def in_child(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do something with an event loop elsewhere, so that this process never has one."""
    receive, send = os.pipe()

    async def told() -> None:
        os.close(receive)
        with os.fdopen(send, "wb") as pipe:
            pickle.dump(await work(), pipe)

    child = fork(told)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read()
    status = wait(child)
    if status or not answer:
        raise RuntimeError(f"a child failed with {os.waitstatus_to_exitcode(status)}")
    return pickle.loads(answer)
