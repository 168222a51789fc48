"""Whether the process that writes a run is still there, told from what the run recorded of it."""

import os
import platform
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

__all__ = ["Open", "gone", "opened", "this_process"]


class Open(Protocol):
    """A run's record that this process writes."""

    run: str

    @property
    def open(self) -> bool: ...


_OPENED: WeakSet[Open] = WeakSet()
"""The records that this process began to write: its own runs need no guess."""
_LOCK = threading.Lock()


def opened(log: Open) -> None:
    """Remember that this process writes a run."""
    with _LOCK:
        _OPENED.add(log)


def this_process() -> dict[str, Any]:
    """What a run records of the process that writes it, as plain JSON data: the machine since it
    was started, the process's number there, and when that one began."""
    pid = os.getpid()
    return {"machine": _machine(), "space": _space(), "pid": pid, "began": _began(pid)}


def gone(process: Mapping[str, Any] | None, run: str, *, shared: bool) -> bool:
    """Whether the process that wrote a run last is surely not at it any more.

    ``shared``: whether other machines write to this ledger too (PostgreSQL); of their processes
    nothing is known here, and a SQLite file has none. ``process`` is None where an older version
    recorded none.
    """
    if process is None:
        return False
    if process["machine"] != _machine():
        return not shared and bool(process["machine"]) and bool(_machine())
    if process["space"] != _space():
        return False
    if process["pid"] == os.getpid() and process["began"] == _began(os.getpid()):
        with _LOCK:
            return not any(log.run == run and log.open for log in _OPENED)
    if process["began"] is not None:
        return _began(process["pid"]) != process["began"]
    return not _exists(process["pid"])


@cache
def _machine() -> str:
    """This machine since its start; elsewhere than on Linux its name alone."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


@cache
def _space() -> str:
    """What the numbers of processes count in: containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _began(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None where there is none of
    this number, where it has ended, or where nothing tells."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; the state and the rest stand behind it.
    state, *rest = said.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def _exists(pid: int) -> bool:
    """Whether there may be a process of this number."""
    if os.name != "posix":
        return True  # there, asking would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
