"""Ctrl-C while nothing has begun: the process ends at once, and without a traceback."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["ending_at_once"]


@contextmanager
def ending_at_once() -> Iterator[None]:
    """For imports and loading: an exception in their midst could be swallowed, or come out as
    another one."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _end(number: int, frame: Any) -> NoReturn:
    os.write(2, b"error: interrupted\n")
    os._exit(130)
