"""The outside journal: what a process asked of the ledger, and what the ledger said it has.

A file that the killer opens and the victim appends to, one line a write: the page cache keeps it
when the victim is killed. It never goes through the ledger, so that it can testify against it.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from secateur.runtime.ledger.events import EventKind, RunStart
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.writing.runlog import RunLog

__all__ = ["Journal", "Key", "Testimony", "appending", "listen", "mark", "read"]

Key = tuple[str, str | None, int | None, str | None]
"""What tells events of one run apart: kind, thought, attempt, and what it is about."""

_TELLING = frozenset({EventKind.SCORED, EventKind.SELECTED, EventKind.NOTED})

appending: ContextVar[str] = ContextVar("appending", default="nothing")
"""The kind of event that the running task is about to append."""


class Journal:
    """Appends lines; each is there as soon as :meth:`write` returns, whatever dies then."""

    def __init__(self, path: Path, log: Path | None = None) -> None:
        self._log = log
        """SQLite's log, whose length is noted with everything that is acknowledged."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *line: Any) -> None:
        """Add one line."""
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def acknowledged(self, run: str, key: Key) -> None:
        """The ledger says that it has this."""
        if self._log is not None:
            self.write("synced", self._log.stat().st_size)
        self.write("done", run, key)


def mark(content: str | bytes) -> str:
    """A few characters that tell contents apart."""
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    return sha256(raw).hexdigest()[:16]


def _rides_along(key: Key) -> bool:
    """Whether the call may return before the event is durable; a later durable one of the run
    makes it so."""
    kind, _, _, about = key
    return kind in _TELLING or (kind == EventKind.PLACED and about is None)


_KEYS: dict[str, Callable[..., tuple[Key, str | None]]] = {
    "resumed": lambda _start, reason: ((EventKind.RESUMED, None, None, reason), None),
    "abandon": lambda thought, attempt, _: ((EventKind.ABANDONED, thought, attempt, None), None),
    "decide": lambda thought, *, reason, **_: (
        (EventKind.DECIDED, thought, None, None),
        mark(reason),
    ),
    "erased": lambda _blobs, *, reason, **_: ((EventKind.ERASED, None, None, reason), None),
    "intend": lambda intent: (
        (EventKind.MODEL_INTENDED, intent.thought, intent.attempt, None),
        None,
    ),
    "switch": lambda thought, attempt, *_: ((EventKind.SWITCHED, thought, attempt, None), None),
    "back_up": lambda retry: (
        (EventKind.BACKED_UP, retry.thought, retry.attempt, None),
        mark(retry.text),
    ),
    "judge": lambda it: ((EventKind.JUDGED, it.id, it.attempt, None), mark(it.text)),
    "place": lambda it: ((EventKind.PLACED, it.id, it.attempt, it.acted), mark(it.text)),
    "score": lambda thought, _, operation: ((EventKind.SCORED, thought, None, operation), None),
    "select": lambda _kept, _dropped, reason: ((EventKind.SELECTED, None, None, reason), None),
    "intend_tool": lambda thought, tool, _: ((EventKind.TOOL_INTENDED, thought, None, tool), None),
    "tool_result": lambda thought, tool, text, **_: (
        (EventKind.TOOL_RETURNED, thought, None, tool),
        mark(text),
    ),
    "escalate": lambda thought, reason: (
        (EventKind.ESCALATED, thought, None, None),
        mark(reason),
    ),
    "note": lambda topic, _body, thought=None, _reason=None: (
        (EventKind.NOTED, thought, None, topic),
        None,
    ),
    "finish": lambda status, _=None: ((EventKind.RUN_FINISHED, None, None, status.value), None),
}
"""How each way to append is told apart, and the mark of the content that must be found again."""


def listen(journal: Journal) -> None:
    """Make every append of this process say in the journal that it begins, and that it returned."""

    def journaled(name: str, key_of: Callable[..., tuple[Key, str | None]]) -> None:
        append = getattr(RunLog, name)

        async def wrapper(log: RunLog, *given: Any, **named: Any) -> None:
            key, content = key_of(*given, **named)
            appending.set(key[0])
            journal.write("asked", log.run, key, content)
            try:
                await append(log, *given, **named)
            except BaseException:  # a cancelled append was not acknowledged either
                journal.write("refused", log.run)
                raise
            journal.acknowledged(log.run, key)

        setattr(RunLog, name, wrapper)

    for name, key_of in _KEYS.items():
        journaled(name, key_of)
    ledgers: Any = Ledger
    start = ledgers.start

    async def started(ledger: Ledger, run: RunStart) -> RunLog:
        key: Key = (EventKind.RUN_STARTED, None, None, None)
        appending.set(key[0])
        journal.write("asked", run.run, key, mark(run.task))
        log = await start(ledger, run)
        journal.acknowledged(run.run, key)
        return log

    ledgers.start = started


@dataclass(slots=True)
class Testimony:
    """What a journal says."""

    asked: dict[str, Counter[Key]] = field(default_factory=dict)
    """By run: what the process set out to append."""
    owed: dict[str, Counter[Key]] = field(default_factory=dict)
    """By run: what must be there."""
    contents: dict[tuple[str, Key], set[str]] = field(default_factory=dict)
    """Marks of what the event's content may be."""
    effects: list[tuple[str, str]] = field(default_factory=list)
    """(run, thought) of every tool that really did something."""
    reached: str | None = None
    """The named point at which the process died by its own hand."""
    words: list[list[Any]] = field(default_factory=list)
    """Everything else, in order."""

    def add(self, other: "Testimony") -> None:
        """Take in what a later process says of the same runs."""
        for mine, theirs in ((self.asked, other.asked), (self.owed, other.owed)):
            for run, keys in theirs.items():
                mine.setdefault(run, Counter()).update(keys)
        for key, marks in other.contents.items():
            self.contents.setdefault(key, set()).update(marks)


def read(path: Path, synced: int | None = None) -> Testimony:
    """Read a journal whose writer is dead; a last line that was cut off was never written.

    With ``synced``, nothing is owed of which SQLite's log was longer than that.
    """
    found = Testimony()
    riding: dict[str, list[tuple[int, Key]]] = {}
    begun: dict[tuple[str, Key], list[int]] = {}
    for place, line in enumerate(path.read_bytes().split(b"\n")[:-1]):
        word, *rest = json.loads(line)
        match word:
            case "asked":
                run, key, content = rest[0], tuple(rest[1]), rest[2]
                found.asked.setdefault(run, Counter())[key] += 1
                begun.setdefault((run, key), []).append(place)
                if content is not None:
                    found.contents.setdefault((run, key), set()).add(content)
            case "done":
                run, key = rest[0], tuple(rest[1])
                owed = found.owed.setdefault(run, Counter())
                waiting = riding.setdefault(run, [])
                if _rides_along(key):
                    waiting.append((place, key))
                    continue
                owed[key] += 1
                asked = begun[run, key].pop(0)
                owed.update(each for before, each in waiting if before < asked)
                riding[run] = [pair for pair in waiting if pair[0] >= asked]
            case "refused":
                riding.pop(rest[0], None)  # whatever was queued may be lost with it
            case "synced":
                if synced is not None and rest[0] > synced:
                    break
                found.words.append([word, *rest])
            case "point":
                found.reached = rest[0]
            case _:
                found.words.append([word, *rest])
    return found
