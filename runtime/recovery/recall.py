"""Answers for a resumed run from its own ledger, so that nothing that is finished happens again.

The plan is walked from its root a second time. Thought ids follow from what a thought was made of,
so whatever is in the ledger is found by its id, and only what is not there is done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...agents.thought import Thought
from ...agents.tool import Call
from ...gates.canonical import canonical_json
from ...gates.vocabulary import BoundVocabulary
from ..generation.trail import Origin, Trail, tokens_of
from ..ledger.derive import decided
from ..ledger.events import ModelIntent, Retry, RunStatus, Switch, ThoughtRecord
from ..ledger.writing.runlog import RunLog
from .history import Decision, History, ToolCall

__all__ = ["Recall", "RecallingLog", "as_decided"]


@dataclass(frozen=True, slots=True)
class Recall:
    """What a run has behind it; nothing, where it begins."""

    history: History = field(default_factory=History)

    def __bool__(self) -> bool:
        return bool(self.history.events)

    def __contains__(self, thought: str) -> bool:
        """Whether the ledger has this thought."""
        return thought in self.history.thoughts

    def lost(self, thought: str) -> bool:
        """Whether its call was given up because its process was killed."""
        return thought in self.history.abandoned

    def backed_up(self, thought: str) -> bool:
        """Whether it gave way to another try."""
        return thought in self.history.backed_up

    def declined(self, thought: str) -> bool:
        """Whether there was no budget to try it again."""
        return thought in self.history.declined

    def thought(self, made: Thought) -> Thought:
        """A thought as it is recorded, and as a person decided on it; ``made`` says where it
        stands in the graph."""
        recorded = replace(self.history.thoughts[made.id], path=made.path)
        decision = self.decision(made.id)
        return recorded if decision is None else as_decided(recorded, decision)

    def trail(self, thought: str, origin: Origin, vocabulary: BoundVocabulary) -> Trail:
        """What a judged try left behind, for another one to go on from."""
        evidence = self.history.read(thought)
        trail = Trail(origin)
        trail.tokens = tokens_of(evidence, self.history.written[thought])
        trail.sentences = list(evidence.sentences)
        for switch in self.history.switched.get(thought, ()):
            trail.switch(switch.token, switch.after, vocabulary)
        return trail

    def ended(self, thought: str) -> bool:
        """Whether the model had come to its end where it was escalated."""
        return self.history.cut.get(thought, True)

    def judged_call(self, thought: str, read: Callable[[], Call | None]) -> str | None:
        """Digest of the call that it was judged for in scope ``action``, if it was. Where only the
        scope was recorded, the call is ``read`` from its text."""
        if thought not in self.history.acting:
            return None
        recorded = self.history.acting[thought]
        if recorded is not None:
            return recorded
        try:
            call = read()
        except Exception:  # what cannot be read is no call, and nothing is done for it
            return None
        return None if call is None else call.digest

    def score(self, thought: str, operation: str) -> float | None:
        """The next score that an operation gave a thought."""
        given = self.history.scores.get((thought, operation))
        return given[0] if given else None

    def litter(self, made: Callable[[int], Thought]) -> list[Thought]:
        """All that a function made at once, as it was recorded; empty where some of it is lacking.
        ``made`` gives the thought of each place, with its id."""
        count = self.history.siblings.get(made(0).id, 0)
        there = [made(place).id for place in range(count)]
        known = self.history.thoughts
        return [known[id] for id in there] if all(id in known for id in there) else []

    def call(self, thought: str) -> ToolCall | None:
        """The tool call that makes this thought, if it was intended."""
        return self.history.calls.get(thought)

    def decision(self, thought: str) -> Decision | None:
        """What a person decided on it."""
        return self.history.decisions.get(thought)


def as_decided(thought: Thought, decision: Decision) -> Thought:
    """What a decision makes of an escalated thought: the same as the ledger's own tables say."""
    status, word = decided({"approve": decision.approve, "outcome": decision.outcome})
    said = f"{word} by person:{decision.by}: {decision.reason}"
    return replace(thought, status=status, reason=said)


class RecallingLog:
    """A run's log that writes nothing twice: what stands in the ledger already is not appended.

    Model calls and tool calls never come here a second time; their callers ask :class:`Recall`.
    """

    def __init__(self, log: RunLog, history: History) -> None:
        self.run = log.run
        self._log = log
        self._history = history

    async def intend(self, intent: ModelIntent) -> None:
        """Before the model is called."""
        await self._log.intend(intent)

    async def switch(self, thought: str, attempt: int, switch: Switch, prompt_text: str) -> None:
        """Before the model is called again for the same thought, with other controls."""
        await self._log.switch(thought, attempt, switch, prompt_text)

    async def abandon(self, thought: str, attempt: int, reason: str) -> None:
        """Give up a call whose process was killed."""
        if thought not in self._history.abandoned:
            self._history.abandoned.add(thought)
            await self._log.abandon(thought, attempt, reason)

    async def back_up(self, retry: Retry) -> None:
        """A try gives way to another one."""
        if retry.thought not in self._history.backed_up:
            await self._log.back_up(retry)

    async def judge(self, thought: ThoughtRecord) -> None:
        """A generated thought with its evidence and verdict."""
        await self._log.judge(thought)

    async def place(self, thought: ThoughtRecord) -> None:
        """A thought that no model wrote."""
        await self._log.place(thought)

    async def score(self, thought: str, score: float, operation: str) -> None:
        """A thought that was there got a score from a function."""
        given = self._history.scores.get((thought, operation))
        if given:
            given.popleft()
        else:
            await self._log.score(thought, score, operation)

    async def select(self, kept: Sequence[str], dropped: Sequence[str], reason: str) -> None:
        """Some go on, others are dropped."""
        body = {"kept": list(kept), "dropped": list(dropped), "reason": reason}
        key = canonical_json(body)
        if self._history.selections[key]:
            self._history.selections[key] -= 1
        else:
            await self._log.select(kept, dropped, reason)

    async def intend_tool(self, thought: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Before the tool is called."""
        await self._log.intend_tool(thought, tool, arguments)

    async def tool_result(
        self, thought: str, tool: str, text: str, *, ok: bool, latency_s: float | None = None
    ) -> None:
        """What the tool said."""
        await self._log.tool_result(thought, tool, text, ok=ok, latency_s=latency_s)

    async def escalate(self, thought: str, reason: str) -> None:
        """The thought waits for a person."""
        if thought not in self._history.escalated:
            self._history.escalated.add(thought)
            await self._log.escalate(thought, reason)

    async def note(
        self,
        topic: str,
        body: Mapping[str, Any],
        thought: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Anything else."""
        key = canonical_json([thought, {"topic": topic, "body": dict(body)}])
        if self._history.notes[key]:
            self._history.notes[key] -= 1
        else:
            await self._log.note(topic, body, thought, reason)

    async def finish(self, status: RunStatus, result: str | None = None) -> None:
        """The last event of the run."""
        await self._log.finish(status, result)
