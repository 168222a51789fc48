"""Performing one piece of work: ask the model, or score, select, split, act."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..agents.machines import Work
from ..agents.operations import Act, Ask, KeepBest, KeepValid, Score, Split
from ..agents.thought import Status, Thought
from ..agents.tool import Call, Tool, Workspace
from ..gates.canonical import canonical_json
from .attempts import Attempts
from .recording import Recording, reason

__all__ = ["Performer"]


@dataclass(frozen=True, slots=True)
class Performer:
    """Performs the work of one run, each step recorded before it is acted upon."""

    attempts: Attempts
    """Asks the model."""
    recording: Recording
    """The run's thoughts, and its log."""
    workspace: Workspace

    async def perform(self, work: Work) -> Sequence[Thought]:
        """What comes of the work. A branch that fails is a result; only the ledger and a verdict
        to halt stop the run."""
        match work.operation:
            case Ask() as operation:
                return await self.attempts.ask(work, operation)
            case Score() as operation:
                return await self._score(work, operation)
            case KeepBest() as operation:
                return await self._keep_best(work, operation)
            case KeepValid() as operation:
                return await self._keep_valid(work, operation)
            case Split() as operation:
                return await self._split(work, operation)
            case Act() as operation:
                return await self._act(work, operation)
            case unknown:
                raise TypeError(f"{type(unknown).__name__} is no operation that can be performed")

    # Operations without a model.
    # A user's function may raise anything: it fails its own branch, with its reason, and no other.

    async def _score(self, work: Work, operation: Score) -> Sequence[Thought]:
        try:
            score = float(operation.by(self.recording.scene(work.parents)))
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        if not math.isfinite(score):
            return [
                await self.recording.failed(work, f"{operation.name} gave {score}, not a number")
            ]
        scored = replace(work.parents[0], score=score)
        await self.recording.log.score(scored.id, score, operation.name)
        return [self.recording.remember(scored)]

    async def _keep_best(self, work: Work, operation: KeepBest) -> Sequence[Thought]:
        worst = math.inf if operation.lowest else -math.inf
        scores = [worst if t.score is None else t.score for t in work.parents]
        ranked = sorted(
            range(len(scores)), key=lambda i: (scores[i] if operation.lowest else -scores[i], i)
        )
        kept = sorted(ranked[: operation.n])
        return await self._select(work, kept, operation.name)

    async def _keep_valid(self, work: Work, operation: KeepValid) -> Sequence[Thought]:
        try:
            valid = bool(operation.by(self.recording.scene(work.parents)))
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        return await self._select(work, [0] if valid else [], operation.name)

    async def _select(self, work: Work, kept: list[int], why: str) -> Sequence[Thought]:
        dropped = [i for i in range(len(work.parents)) if i not in kept]
        if dropped:
            await self.recording.log.select(
                [work.parents[i].id for i in kept], [work.parents[i].id for i in dropped], why
            )
        for i in dropped:
            lost = f"lost to a better one: {why}" if kept else f"not kept: {why}"
            self.recording.remember(replace(work.parents[i], status=Status.DROPPED, reason=lost))
        return [work.parents[i] for i in kept]

    async def _split(self, work: Work, operation: Split) -> Sequence[Thought]:
        try:
            parts = [
                (str(text), value)
                for text, value in operation.by(self.recording.scene(work.parents))
            ]
            canonical_json([value for _, value in parts])
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        made: list[Thought] = []
        for place, (text, value) in enumerate(parts):
            thought = replace(
                self.recording.made(work, index=place),
                text=text,
                value=value,
                path=(*work.path, place),
            )
            made.append(await self.recording.place(thought, place))
        return made

    async def _act(self, work: Work, operation: Act) -> Sequence[Thought]:
        """The tool call that the parent asks for; the parent was judged in scope ``action``."""
        try:
            call = operation.calls(work.parents[0].text)
            canonical_json(None if call is None else call.arguments)
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        if call is None:
            return work.parents
        if call.tool not in operation.tools:
            known = ", ".join(sorted(operation.tools))
            return [await self.recording.failed(work, f"no tool {call.tool!r}; there are: {known}")]
        thought = self.recording.made(work, content=[call.tool, call.arguments])
        await self.recording.log.intend_tool(thought.id, call.tool, call.arguments)
        # A thread cannot be stopped, and what it does must be known: when the run is cancelled, the
        # tool's end is still awaited and recorded.
        acting = asyncio.ensure_future(self._call(work, operation.tools[call.tool], call, thought))
        try:
            return [await asyncio.shield(acting)]
        except asyncio.CancelledError:
            await acting
            raise

    async def _call(self, work: Work, tool: Tool, call: Call, thought: Thought) -> Thought:
        """Run a tool whose intent is durable, and record what it said."""
        began = time.monotonic()
        try:
            text, ok = await asyncio.to_thread(tool.run, self.workspace, call.arguments), True
        except Exception as error:
            text, ok = reason(error), False
        took = time.monotonic() - began
        await self.recording.log.tool_result(thought.id, call.tool, text, ok=ok, latency_s=took)
        if ok:
            done = replace(thought, text=text)
        else:
            done = replace(thought, status=Status.FAILED, reason=text)
        return await self.recording.place(done, work.index, acted=call.tool)
