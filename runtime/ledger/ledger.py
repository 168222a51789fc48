"""The write side: open a ledger, start a run, append its events. Await means durable."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import sqlalchemy as sa

from ...gates.control import Control
from . import tables
from .chain import GENESIS, Blob, as_text, event_hash
from .connect import open_or_create
from .derive import changes, tag_score_rows, thought_row
from .errors import LedgerError
from .events import EventKind, ModelIntent, Retry, RunStart, RunStatus, Switch, ThoughtRecord
from .judgements import judgement_to_json
from .provenance import run_digests
from .writer import Append, Row, Writer

__all__ = ["Clock", "Ledger", "LedgerError", "RunLog", "new_run_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01; 40 bits of milliseconds last until 2059


def new_run_id(now: datetime | None = None) -> str:
    """Twelve base-32 characters that sort by time: 40 bits of milliseconds, 20 of chance."""
    stamp = int((now or datetime.now(UTC)).timestamp() * 1000) - _EPOCH_MS
    number = (stamp % (1 << 40)) << 20 | secrets.randbits(20)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(55, -1, -5))


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the ledger's times come from."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic_ns: Callable[[], int] = time.monotonic_ns


class Ledger:
    """An open ledger; ``async with Ledger.open("secateur.db") as ledger``."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    @classmethod
    def open(cls, url: str | Path, *, clock: Clock | None = None) -> "Ledger":
        """Open ``x.db``, ``sqlite:///x.db`` or ``postgresql://…`` for writing; make it when new.

        Raises :class:`LedgerError`, in one line that names the remedy.
        """
        return cls(Writer(open_or_create(url)), clock or Clock())

    async def start(self, start: RunStart) -> "RunLog":
        """Admit a run: its row, its policy, and the first event of its chain."""
        log = RunLog(start, self._writer, self._clock)
        await log._start()
        return log

    async def aclose(self) -> None:
        """Finish writing and let go of the database."""
        await self._writer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class RunLog:
    """Appends to one run. Every method returns when its event is durable.

    Raises :class:`LedgerError` where it cannot be; after that every append fails, so that the
    chain has no gap.
    """

    def __init__(self, start: RunStart, writer: Writer, clock: Clock) -> None:
        self.run = start.run
        self._run_start = start
        self._writer = writer
        self._clock = clock
        self._digests = run_digests(start)
        self._bound = event_hash(self._digests)
        self._lock = threading.Lock()
        self._seq = 0
        self._head = GENESIS
        self._thoughts: set[str] = set()
        self._finished = False

    async def _start(self) -> None:
        start, info = self._run_start, self._run_start.engine
        at = _iso(self._clock.now())
        task = _blob(start.task)
        policy = as_text(start.policy.model_dump(mode="json"))
        described = {
            "agent": start.agent,
            "context": start.context,
            "seed": start.seed,
            "policy": start.policy.digest,
            "engine": info.engine,
            "model": info.model,
        }
        body = {
            **described,
            "digests": self._digests,
            "context_length": info.context_length,
            "vocabulary": info.vocabulary.vocabulary.model_dump(mode="json"),
            "token_ids": info.vocabulary.ids,
            "options": dict(start.options),
        }
        run = {
            "id": self.run,
            **described,
            "task": task.digest,
            "digests": as_text(self._digests),
            "started_at": at,
        }
        await self._append(
            EventKind.RUN_STARTED,
            body,
            blobs={"task": task},
            at=at,
            run=run,
            policy={"digest": start.policy.digest, "name": start.policy.name, "body": policy},
        )

    async def intend(self, intent: ModelIntent) -> None:
        """Before the model is called."""
        prompt = {"ids": list(intent.prompt_ids), "text": intent.prompt_text}
        await self._append(
            EventKind.MODEL_INTENDED,
            {
                "operation": intent.operation,
                "parents": list(intent.parents),
                "sampling": asdict(intent.sampling),
                "controls": _spelt(intent.controls),
                "seed": intent.seed,
                "accepted": intent.accepted,
            },
            thought=intent.thought,
            attempt=intent.attempt,
            blobs={"prompt": _blob(as_text(prompt))},
        )

    async def switch(self, thought: str, attempt: int, switch: Switch, prompt_text: str) -> None:
        """Before the model is called again for the same thought, with other controls."""
        prompt = {"ids": list(switch.prompt_ids), "text": prompt_text}
        await self._append(
            EventKind.SWITCHED,
            {
                "token": switch.token,
                "from": _spelt(switch.before),
                "to": _spelt(switch.after),
                "seed": switch.seed,
                "spent_after": switch.spent_after,
            },
            thought=thought,
            attempt=attempt,
            blobs={"prompt": _blob(as_text(prompt))},
        )

    async def back_up(self, retry: Retry) -> None:
        """A try, judged before, gives way to one that goes on from its accepted prefix."""
        cause = retry.cause
        await self._append(
            EventKind.BACKED_UP,
            {
                "following": retry.following,
                "token": retry.token,
                "back_to": retry.back_to,
                "discarded": retry.discarded,
                "rule": cause.rule,
                "tag": str(cause.tag),
                "reading": str(cause.reading),
                "score": cause.score,
                "threshold": cause.threshold,
                "controls": _spelt(retry.controls),
                "seed": retry.seed,
                "reason": retry.reason,
            },
            thought=retry.thought,
            attempt=retry.attempt,
            blobs={"discarded": _blob(retry.text)},
        )

    async def judge(self, thought: ThoughtRecord) -> None:
        """A generated thought with its evidence and verdict, before it is acted upon."""
        await self._record(EventKind.JUDGED, thought, "gate")

    async def place(self, thought: ThoughtRecord) -> None:
        """A thought that no model wrote."""
        await self._record(EventKind.PLACED, thought, "runtime")

    async def score(self, thought: str, score: float, operation: str) -> None:
        """A thought that was there got a score from a function."""
        body = {"score": score, "operation": operation}
        await self._append(EventKind.SCORED, body, thought=thought)

    async def select(self, kept: Sequence[str], dropped: Sequence[str], reason: str) -> None:
        """Some go on; ``dropped`` become :attr:`Status.DROPPED` for ``reason``."""
        body = {"kept": list(kept), "dropped": list(dropped), "reason": reason}
        await self._append(EventKind.SELECTED, body)

    async def intend_tool(self, thought: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Before the tool is called."""
        given = _json(dict(arguments), f"the arguments of tool {tool!r}")
        await self._append(
            EventKind.TOOL_INTENDED,
            {"tool": tool},
            thought=thought,
            blobs={"arguments": _blob(given)},
        )

    async def tool_result(
        self, thought: str, tool: str, text: str, *, ok: bool, latency_s: float | None = None
    ) -> None:
        """What the tool said. An intent without this stays unknown, and is not run again."""
        await self._append(
            EventKind.TOOL_RETURNED,
            {"tool": tool, "ok": ok},
            actor=f"tool:{tool}",
            thought=thought,
            latency_s=latency_s,
            blobs={"result": _blob(text)},
        )

    async def escalate(self, thought: str, reason: str) -> None:
        """The thought waits for a person."""
        await self._append(EventKind.ESCALATED, {"reason": reason}, thought=thought)

    async def note(self, topic: str, body: Mapping[str, Any], thought: str | None = None) -> None:
        """Anything else: a budget that ended, a branch that was regrown."""
        await self._append(EventKind.NOTED, {"topic": topic, "body": dict(body)}, thought=thought)

    async def finish(self, status: RunStatus, result: str | None = None) -> None:
        """The last event of the run: its status, and its result or the reason for having none."""
        blobs = {} if result is None else {"result": _blob(result)}
        await self._append(EventKind.RUN_FINISHED, {"status": status.value}, blobs=blobs)

    async def _record(self, kind: EventKind, thought: ThoughtRecord, actor: str) -> None:
        value = None
        if thought.value is not None:
            value = _json(thought.value, f"the value of thought {thought.id}")
        judgement = thought.judgement
        body = {
            "parents": list(thought.parents),
            "operation": thought.operation,
            "kind": thought.kind,
            "depth": thought.depth,
            "index": thought.index,
            "status": thought.status.value,
            "scope": thought.scope,
            "score": thought.score,
            "tokens": thought.tokens,
            "spent_after": thought.spent_after,
            "accepted": thought.accepted,
            "acted": thought.acted,
            "reason": thought.reason,
            "judgement": None if judgement is None else judgement_to_json(judgement),
        }
        blobs = {"text": _blob(thought.text)}
        if value is not None:
            blobs["value"] = _blob(value)
        if thought.evidence is not None:
            blobs["evidence"] = _blob(thought.evidence.to_bytes())
        await self._append(
            kind,
            body,
            actor=actor,
            thought=thought.id,
            attempt=thought.attempt,
            latency_s=thought.latency_s,
            blobs=blobs,
        )

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
        at: str | None = None,
        run: Row | None = None,
        policy: Row | None = None,
    ) -> None:
        text = _json(body, f"a {kind} event")
        with self._lock:  # seq, hash and place in the queue belong together
            if self._finished:
                raise LedgerError(f"run {self.run} is finished: nothing can be added to it")
            event: Row = {
                "run_id": self.run,
                "seq": self._seq,
                "kind": kind.value,
                "at": at or _iso(self._clock.now()),
                "monotonic_ns": self._clock.monotonic_ns(),
                "actor": actor,
                "thought_id": thought,
                "attempt": attempt,
                "digests": self._bound,
                "latency_s": latency_s,
                "blobs": as_text({name: blob.digest for name, blob in blobs.items()}),
                "body": text,
                "prev_hash": self._head,
            }
            event["hash"] = event_hash(event)
            rows = [(tables.blob, _row(blob)) for blob in blobs.values()]
            rows += [] if run is None else [(tables.run, run)]
            rows.append((tables.event, event))
            rows += self._derived(event, blobs)
            durable = self._writer.put(Append(self.run, rows, changes(event), policy))
            self._seq, self._head = self._seq + 1, event["hash"]
            self._finished = kind is EventKind.RUN_FINISHED
        await durable

    def _derived(self, event: Row, blobs: Mapping[str, Blob]) -> list[tuple[sa.Table, Row]]:
        if event["kind"] not in (EventKind.JUDGED, EventKind.PLACED):
            return []
        if event["thought_id"] in self._thoughts:
            raise LedgerError(
                f"thought {event['thought_id']} stands in run {self.run} already: "
                "a second one needs another attempt or index"
            )
        self._thoughts.add(event["thought_id"])
        value = blobs["value"].content.decode() if "value" in blobs else None
        text = blobs["text"].content.decode()
        thought = thought_row(event, self._run_start.agent, text, value)
        return [(tables.thought, thought)] + [
            (tables.tag_score, row) for row in tag_score_rows(event)
        ]


def _spelt(controls: Mapping[str, Control]) -> dict[str, str]:
    return {tag: str(control) for tag, control in controls.items()}


def _iso(moment: datetime) -> str:
    """UTC with microseconds: 27 characters that sort by time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _blob(content: str | bytes) -> Blob:
    """Sealed under a salt of its own; what UTF-8 cannot spell becomes ``?``."""
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    return Blob(secrets.token_bytes(16), raw)


def _row(blob: Blob) -> Row:
    return {"digest": blob.digest, "salt": blob.salt, "bytes": blob.content}


def _json(value: Any, what: str) -> str:
    try:
        return as_text(value)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"{what} cannot be recorded: {error}; use plain JSON data") from None
