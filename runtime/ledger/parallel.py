"""The same work on many things, in this process and in others beside it.

The others are new interpreters that import what the work needs and nothing else: not the script
that runs here, and no copy of this process, whose connections and threads a fork would share. They
start while the work goes on here; whoever is free takes the next thing.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

from .errors import LedgerError

__all__ = ["serve", "side_by_side"]

Given = TypeVar("Given")
Item = TypeVar("Item")
Result = TypeVar("Result")

_START: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    f"from {__name__} import serve; serve()"
)
_ENDED: Final = (
    "a process that worked beside this one was ended from outside: use one process, or make room "
    "in memory"
)


class _Said(NamedTuple):
    """What came back from a process."""

    place: int
    result: Any
    error: Exception | None


def side_by_side(
    work: Callable[[Item], Result],
    prepare: Callable[[Given], AbstractContextManager[Callable[[Item], Result]]],
    given: Given,
    items: Sequence[Item],
    others: int,
) -> Iterator[tuple[int, Result]]:
    """The place and the result of each item, in any order.

    ``work`` is for this process; each of the ``others`` enters ``prepare(given)`` once, which must
    be importable by its name, and works with what that gives. Whatever is raised anywhere ends it
    all. Raises :class:`LedgerError` where a process dies.
    """
    left = deque(enumerate(items))
    said: SimpleQueue[_Said] = SimpleQueue()
    processes = [_started() for _ in range(others)]
    threads = [
        Thread(target=_feed, args=(process, (prepare, given), left, said), daemon=True)
        for process in processes
    ]
    for thread in threads:
        thread.start()
    try:
        waiting = len(items)
        while waiting:
            try:
                place, item = left.popleft()
            except IndexError:
                yield _result(said.get())
            else:
                yield place, work(item)
            waiting -= 1
            while waiting and not said.empty():
                yield _result(said.get())
                waiting -= 1
    finally:
        left.clear()
        for process in processes:
            process.kill()  # it only read
        for process, thread in zip(processes, threads, strict=True):
            process.wait()
            thread.join()


def _result(said: _Said) -> tuple[int, Any]:
    if said.error is not None:
        raise said.error
    return said.place, said.result


def _started() -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C is for the process that started it, which ends it then.
    return subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0 if os.name == "posix" else None,
    )


def _feed(
    process: subprocess.Popen[bytes], task: Any, left: deque, said: "SimpleQueue[_Said]"
) -> None:
    """Give a process one item after the other, and pass on what it says."""
    place = -1
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    try:
        with process, process.stdin as to, process.stdout as back:
            pickle.dump(sys.path, to)
            pickle.dump(task, to)
            while left:
                try:
                    place, item = left.popleft()
                except IndexError:
                    break
                pickle.dump(item, to)
                to.flush()
                result, error = pickle.load(back)
                said.put(_Said(place, result, error))
    except (OSError, EOFError, pickle.UnpicklingError):
        said.put(_Said(place, None, LedgerError(_ENDED)))
    except Exception as error:
        said.put(_Said(place, None, error))


def serve() -> None:
    """Be one of the others: read the task and then items from stdin, until it is closed."""
    given = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever prints does not garble the answers
        prepare, settings = pickle.load(given)
        try:
            with prepare(settings) as work:
                while (item := _next(given)) is not _END:
                    _answer(answers, work(item), None)
        except Exception as error:
            _answer(answers, None, error)


_END: Final = object()


def _next(given: Any) -> Any:
    try:
        return pickle.load(given)
    except EOFError:
        return _END


def _answer(answers: Any, result: Any, error: Exception | None) -> None:
    pickle.dump((result, error), answers)
    answers.flush()
