"""How one run's chain grows: an event with its hash, its blobs and what is derived from it."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa

from ....agents.thought import Status
from .. import tables
from ..chain import Blob, as_text, event_hash, plain_text
from ..derive import CHANGING, changes, decided, decision_row, tag_score_rows, thought_row, told
from ..errors import LedgerError
from ..events import AFTER_THE_END, EventKind
from ..text import shown, text_of, to_bytes
from .writer import Append, Lane, Writer

__all__ = ["Appender", "Clock", "Known", "iso", "number"]

Row = tuple[Any, ...]

_SALTS: Final = 64
"""Drawn at once."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the ledger's times come from."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic_ns: Callable[[], int] = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Known:
    """Where a run's chain stands: what its next event needs to know."""

    run: str
    agent: str
    digests: Mapping[str, str]
    """What event 0 bound the run to."""
    bound: str
    """The digest that its last event carries."""
    seq: int
    """Of the next event."""
    head: str
    """Hash of the last one."""
    thoughts: Mapping[str, str]
    """The status of every thought that stands."""


class Appender:
    """Appends events to one run, each bound to the one before."""

    def __init__(self, known: Known, writer: Writer, clock: Clock) -> None:
        self.run = known.run
        self._agent = shown(known.agent)
        self._digests = dict(known.digests)
        self._bound = known.bound
        self._seq = known.seq
        self._head = known.head
        self._thoughts = dict(known.thoughts)
        self._writer = writer
        self._clock = clock
        self._lane = Lane(known.run)
        self._lock = threading.Lock()
        self._salts: deque[bytes] = deque()
        self._closed = "not resumed: call resumed() first"

    @property
    def open(self) -> bool:
        """Whether the run goes on here: it was started or resumed, and has not finished."""
        return self._closed is None

    async def _append(
        self,
        kind: EventKind,
        body: Mapping[str, Any],
        *,
        actor: str = "runtime",
        thought: str | None = None,
        attempt: int | None = None,
        latency_s: float | None = None,
        blobs: Mapping[str, Blob] = MappingProxyType({}),
        words: Mapping[str, str] = MappingProxyType({}),
        at: str | None = None,
        rows: Mapping[sa.Table, Sequence[Row]] = MappingProxyType({}),
        emptied: Sequence[str] = (),
        wait: bool = True,
        text: str | None = None,
    ) -> None:
        if text is None:
            text = _json_text(body, f"a {kind} event")
        if words:
            blobs, body = {**blobs, **self._seal(words)}, told(body, words)
        named = plain_text({name: blob.digest for name, blob in blobs.items()})
        latency_s = number(latency_s, "the latency")
        if self._writer.full:
            await self._writer.room()
        with self._lock:  # seq, hash and place in the queue belong together
            self._lane.check()
            if self._closed is not None and kind not in AFTER_THE_END:
                raise LedgerError(f"run {self.run} is {self._closed}")
            event: dict[str, Any] = {
                "run_id": self.run,
                "seq": self._seq,
                "kind": kind.value,
                "at": at or iso(self._clock.now()),
                "monotonic_ns": self._clock.monotonic_ns(),
                "actor": actor,
                "thought_id": thought,
                "attempt": attempt,
                "digests": self._bound,
                "latency_s": latency_s,
                "blobs": named,
                "body": text,
                "prev_hash": self._head,
            }
            event["hash"] = event_hash(event)
            size = len(text)
            for blob in blobs.values():
                size += len(blob.content)
            append = Append(
                self._lane,
                tuple(event.values()),
                {
                    tables.blob: list(blobs.values()),
                    **rows,
                    **self._derived(kind, event, body, blobs),
                },
                size,
                changes(event, body) if kind in CHANGING else (),
                emptied,
            )
            durable = self._writer.put(append, wait=wait)
            self._seq, self._head = self._seq + 1, event["hash"]
            self._follow(kind, thought, body)
        if durable is not None:
            await durable

    def _seal(self, contents: Mapping[str, str | bytes]) -> dict[str, Blob]:
        """Each under a salt of its own."""
        return {
            name: Blob.seal(given if isinstance(given, bytes) else to_bytes(given), self._salt())
            for name, given in contents.items()
        }

    def _salt(self) -> bytes:
        """Sixteen bytes that nothing else has. Drawn in numbers: each draw lets go of Python's
        lock, and others take it."""
        try:
            return self._salts.pop()
        except IndexError:
            drawn = os.urandom(16 * _SALTS)
            self._salts.extend(drawn[n : n + 16] for n in range(16, len(drawn), 16))
            return drawn[:16]

    def _derived(
        self,
        kind: EventKind,
        event: Mapping[str, Any],
        body: Mapping[str, Any],
        blobs: Mapping[str, Blob],
    ) -> Mapping[sa.Table, Sequence[Row]]:
        if kind in (EventKind.JUDGED, EventKind.PLACED):
            if event["thought_id"] in self._thoughts:
                raise LedgerError(
                    f"thought {event['thought_id']} stands in run {self.run} already: "
                    "a second one needs another attempt or index"
                )
            value = text_of(blobs["value"].content) if "value" in blobs else None
            text = text_of(blobs["text"].content)
            evidence = blobs["evidence"].digest if "evidence" in blobs else None
            thought = thought_row(event, body, self._agent, text, value, evidence)
            return {tables.thought: [thought], tables.tag_score: tag_score_rows(event, body)}
        if kind is EventKind.DECIDED:
            return {tables.decision: [decision_row(event, body)]}
        if kind is EventKind.ERASED:
            run, seq, at = event["run_id"], event["seq"], event["at"]
            return {tables.erasure: [(each, run, seq, at) for each in body["blobs"]]}
        return {}

    def _follow(self, kind: EventKind, thought: str | None, body: Mapping[str, Any]) -> None:
        """Keep in mind what the next events depend on."""
        match kind:
            case EventKind.JUDGED | EventKind.PLACED:
                self._thoughts[str(thought)] = body["status"]
            case EventKind.ESCALATED:
                self._thoughts[str(thought)] = Status.ESCALATED.value
            case EventKind.DECIDED:
                self._thoughts[str(thought)] = decided(body)[0].value
            case EventKind.BACKED_UP if body.get("approved"):
                self._thoughts[str(thought)] = Status.DROPPED.value
            case EventKind.RESUMED:
                self._closed = None
            case EventKind.RUN_FINISHED:
                self._closed = "finished: nothing can be added to it but a person's decision"
            case _:
                pass


def iso(moment: datetime) -> str:
    """UTC with microseconds: 27 characters that sort by time."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"


def number(value: float | None, what: str) -> float | None:
    """As the database will give it back, which the hash must fit. Refuses NaN and infinities."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise LedgerError(f"{what} cannot be recorded: it is {value}; it must be a finite number")
    return float(value) + 0.0  # SQLite has no -0.0


def _json_text(value: Any, what: str) -> str:
    try:
        return as_text(value)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"{what} cannot be recorded: {error}; use plain JSON data") from None
