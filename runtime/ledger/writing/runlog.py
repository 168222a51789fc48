"""The record of one run as it is written: each method appends one event to its chain."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, assert_never

from ....agents.prompt import Sampling
from ....agents.thought import Status
from ....gates.canonical import digest, recordable
from ....gates.control import Control
from .. import tables
from ..chain import as_text, plain_text
from ..errors import LedgerError
from ..events import (
    About,
    ErasedBlob,
    EventKind,
    ModelIntent,
    Retry,
    RunStart,
    RunStatus,
    Switch,
    ThoughtRecord,
    ToolOutcome,
)
from ..judgements import judgement_text, judgement_to_json
from ..liveness import opened, this_process
from ..provenance import run_digests
from ..text import shown
from .appending import Appender, iso, number

__all__ = ["RunLog"]


class RunLog(Appender):
    """Appends to one run. What is about to be acted upon (intents, verdicts, a tool's result, an
    escalation, a decision, start and end) is durable when its method returns. What merely tells
    (a score, a selection, a note, a thought that neither model nor tool made) is queued, in order,
    and durable before anything that is awaited after it.

    Raises :class:`LedgerError` where it cannot be; after that every append fails, so that the
    chain has no gap. :meth:`.Ledger.reopen` goes on once the database is back.
    """

    async def started(self, start: RunStart) -> None:
        """The first event of the chain, with the run's row and its policy."""
        self._closed = None
        info = start.engine
        at = iso(self._clock.now())
        _check_start(start)
        blobs = self._seal({"task": start.task})
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
            "process": this_process(),
            "digests": self._digests,
            "weights": info.compared,
            **({"probe": list(info.probe)} if info.probe else {}),
            "context_length": info.context_length,
            "vocabulary": info.vocabulary.vocabulary.model_dump(mode="json"),
            "token_ids": info.vocabulary.ids,
            "options": dict(start.options),
        }
        run = {
            "id": self.run,
            **{n: shown(v) if isinstance(v, str) else v for n, v in described.items()},
            "task": blobs["task"].digest,
            "digests": as_text(self._digests),
            "started_at": at,
        }
        await self._append(
            EventKind.RUN_STARTED,
            body,
            blobs=blobs,
            at=at,
            rows={
                tables.policy: [(start.policy.digest, shown(start.policy.name), policy)],
                tables.run: [tuple(run[column.name] for column in tables.run.c)],
            },
        )
        opened(self)

    async def resumed(self, start: RunStart, reason: str, *, by: str = "runtime") -> None:
        """The run goes on, with the code that is here now; all else must be as it was.

        Raises :class:`LedgerError` where policy, model, tokenizer or vocabulary is another.
        """
        now = run_digests(start)
        for what in ("policy", "model", "tokenizer", "vocabulary"):
            if now[what] != self._digests[what]:
                raise LedgerError(
                    f"run {self.run} cannot go on with another {what} ({now[what][:12]}, it began "
                    f"with {self._digests[what][:12]}): resume it with that one, or run it anew"
                )
        with self._lock:
            before, self._bound = self._bound, digest(now)
        try:
            body = {
                "digests": now,
                "weights": start.engine.compared,
                "by": by,
                "reason": reason,
                "process": this_process(),
            }
            await self._append(EventKind.RESUMED, body)
        except BaseException:
            self._bound = before
            raise
        opened(self)

    async def abandon(self, thought: str, attempt: int, reason: str) -> None:
        """Give up a model call whose process was killed; the next attempt follows."""
        await self._append(
            EventKind.ABANDONED, {"reason": reason}, thought=thought, attempt=attempt
        )

    async def decide(
        self,
        thought: str,
        *,
        approve: bool,
        by: str,
        reason: str,
        about: About = "verdict",
        outcome: ToolOutcome | None = None,
        rule: int | None = None,
        call: str | None = None,
    ) -> None:
        """What a person decided on an escalated thought, or found out about a tool call.

        ``rule`` is the number of the rule whose crossing is decided on, ``call`` the digest of the
        tool call that the thought asks for: an approval holds for these alone.

        Raises :class:`LedgerError` where there is nothing of the kind to decide.
        """
        status = self._thoughts.get(thought)
        if status != Status.ESCALATED:
            state = "not in it" if status is None else status
            raise LedgerError(
                f"thought {thought} of run {self.run} does not wait for a person (it is {state}): "
                "decide on an escalated one"
            )
        match about:
            case "verdict":
                if outcome is not None:
                    raise LedgerError("an outcome belongs to a tool call, not to a verdict")
            case "tool":
                if approve and outcome is None:
                    raise LedgerError("say whether the tool call was done or not done")
            case _:
                assert_never(about)
        await self._append(
            EventKind.DECIDED,
            {
                "approve": approve,
                "reason": None,
                "about": about,
                "outcome": outcome,
                "rule": rule,
                "call": call,
            },
            actor=_person(by),
            thought=thought,
            words={"note": reason},
        )

    async def erased(self, blobs: Sequence[ErasedBlob], *, by: str, reason: str) -> None:
        """Empty these blobs of the run, bytes and salts, and say so in its chain."""
        named = {blob.digest: _named(blob) for blob in blobs}
        if not named:
            raise LedgerError(f"nothing of run {self.run} was named to be erased")
        await self._append(
            EventKind.ERASED,
            {"blobs": named, "reason": reason},
            actor=_person(by),
            emptied=list(named),
        )

    async def intend(self, intent: ModelIntent) -> None:
        """Before the model is called."""
        prompt = {"ids": intent.prompt_ids, "text": intent.prompt_text}
        sampling, spelt = _sampling(intent.sampling)
        body = {
            "operation": intent.operation,
            "parents": intent.parents,
            "sampling": sampling,
            "controls": _spelt(intent.controls),
            "seed": intent.seed,
            "accepted": intent.accepted,
        }
        await self._append(
            EventKind.MODEL_INTENDED,
            body,
            thought=intent.thought,
            attempt=intent.attempt,
            blobs=self._seal({"prompt": plain_text(prompt)}),
            text=plain_text(body, {"sampling": spelt}),
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
            blobs=self._seal({"prompt": plain_text(prompt)}),
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
                "approved": retry.approved,
            },
            thought=retry.thought,
            attempt=retry.attempt,
            blobs=self._seal({"discarded": retry.text}),
        )

    async def judge(self, thought: ThoughtRecord) -> None:
        """A generated thought with its evidence and verdict, before it is acted upon."""
        await self._record(EventKind.JUDGED, thought, "gate")

    async def place(self, thought: ThoughtRecord) -> None:
        """A thought that no model wrote; durable at once where it comes from a tool."""
        await self._record(EventKind.PLACED, thought, "runtime", wait=thought.acted is not None)

    async def score(self, thought: str, score: float, operation: str) -> None:
        """A thought that was there got a score from a function."""
        body = {"score": number(score, "the score"), "operation": operation}
        await self._append(EventKind.SCORED, body, thought=thought, wait=False)

    async def select(self, kept: Sequence[str], dropped: Sequence[str], reason: str) -> None:
        """Some go on; ``dropped`` become :attr:`Status.DROPPED` for ``reason``."""
        body = {"kept": list(kept), "dropped": list(dropped), "reason": reason}
        await self._append(EventKind.SELECTED, body, wait=False)

    async def intend_tool(self, thought: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Before the tool is called."""
        await self._append(
            EventKind.TOOL_INTENDED,
            {"tool": tool},
            thought=thought,
            blobs=self._seal({"arguments": _recordable(dict(arguments), f"arguments of {tool!r}")}),
        )

    async def tool_result(
        self, thought: str, tool: str, text: str, *, ok: bool, latency_s: float | None = None
    ) -> None:
        """What the tool said. An intent without this stays unknown, and is not run again."""
        await self._append(
            EventKind.TOOL_RETURNED,
            {"tool": tool, "ok": ok},
            actor=shown(f"tool:{tool}"),
            thought=thought,
            latency_s=latency_s,
            blobs=self._seal({"result": text}),
        )

    async def escalate(self, thought: str, reason: str) -> None:
        """The thought waits for a person."""
        words = {"reason": reason}
        await self._append(EventKind.ESCALATED, {"reason": None}, thought=thought, words=words)

    async def note(
        self,
        topic: str,
        body: Mapping[str, Any],
        thought: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Anything else: a budget that ended, a branch that was regrown. ``reason`` are words that
        may quote a text, and can be erased."""
        said = {"topic": topic, "body": dict(body)}
        words = {} if reason is None else {"reason": reason}
        await self._append(EventKind.NOTED, said, thought=thought, words=words, wait=False)

    async def finish(self, status: RunStatus, result: str | None = None) -> None:
        """The last event of the run: its status, and its result or the reason for having none."""
        blobs = {} if result is None else self._seal({"result": result})
        await self._append(EventKind.RUN_FINISHED, {"status": status.value}, blobs=blobs)

    async def _record(
        self, kind: EventKind, thought: ThoughtRecord, actor: str, *, wait: bool = True
    ) -> None:
        judgement = None if thought.judgement is None else judgement_to_json(thought.judgement)
        score = number(thought.score, f"the score of thought {thought.id}")
        body = {
            "parents": list(thought.parents),
            "operation": thought.operation,
            "kind": thought.kind,
            "depth": thought.depth,
            "index": thought.index,
            "siblings": thought.siblings,
            "status": thought.status.value,
            "scope": thought.scope,
            "score": score,
            "tokens": thought.tokens,
            "spent_after": thought.spent_after,
            "accepted": thought.accepted,
            "retries": thought.retries,
            "hopeless": thought.hopeless,
            "acted": thought.acted,
            "reason": None,
            "judgement": judgement,
            **_asked_of_people(thought),
        }
        known = {} if judgement is None else {"judgement": judgement_text(judgement)}
        if score is not None:
            known["score"] = repr(score)
        if "approved" in body:
            known["approved"] = as_text(body["approved"])
        given: dict[str, str | bytes] = {"text": thought.text}
        if thought.value is not None:
            given["value"] = _recordable(thought.value, f"thought {thought.id}")
        if thought.evidence is not None:
            given["evidence"] = thought.evidence.to_bytes()
        if thought.call is not None and thought.status is Status.ESCALATED:
            given["arguments"] = _recordable(thought.call.arguments, f"the call of {thought.id}")
        await self._append(
            kind,
            body,
            actor=actor,
            thought=thought.id,
            attempt=thought.attempt,
            latency_s=thought.latency_s,
            blobs=self._seal(given),
            words={} if thought.reason is None else {"reason": thought.reason},
            wait=wait,
            text=plain_text(body, known),
        )


def _asked_of_people(thought: ThoughtRecord) -> dict[str, Any]:
    """What an escalation and an approval rest on; most thoughts have nothing of it."""
    said: dict[str, Any] = {}
    if thought.call is not None:
        said["call"] = {"tool": thought.call.tool, "digest": thought.call.digest}
    if thought.cut:
        said["cut"] = {"ended": thought.ended}
    if thought.approved:
        said["approved"] = [approval.as_json() for approval in thought.approved]
    return said


@lru_cache(maxsize=64)
def _sampling(sampling: Sampling) -> tuple[Mapping[str, Any], str]:
    """As data and as text, made once for all the calls that share it."""
    data = asdict(sampling)
    return data, as_text(data)


def _check_start(start: RunStart) -> None:
    """Raises :class:`LedgerError` for what a run's row cannot hold."""
    whole = isinstance(start.seed, int) and not isinstance(start.seed, bool)
    if not whole or not -(1 << 63) <= start.seed < 1 << 63:
        raise LedgerError("the seed must be a whole number from -2**63 to 2**63 - 1")


def _named(blob: ErasedBlob) -> dict[str, Any]:
    """What an ``erased`` event says of a blob; of words that stand in a row elsewhere, whose."""
    said: dict[str, Any] = {"seq": blob.seq, "name": blob.name}
    return said | {"thought": blob.thought} if blob.name in ("reason", "note") else said


def _recordable(value: Any, whose: str) -> bytes:
    try:
        return recordable(value)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"{whose}: {error}") from None


def _spelt(controls: Mapping[str, Control]) -> dict[str, str]:
    return {tag: str(control) for tag, control in controls.items()}


def _person(name: str) -> str:
    """The actor that a person is. Raises :class:`LedgerError` for a name nobody could read."""
    if not name.strip() or not name.isprintable():
        raise LedgerError("say who decides: a name of printable characters, on one line")
    return f"person:{name.strip()}"
