"""Tool calls: the intent first, then the act, then what came of it; and what nobody knows of."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..agents.machines import Work
from ..agents.operations import Act
from ..agents.thought import Status, Thought
from ..agents.tool import Call, Tool, Workspace, read_call
from .aside import OverdueError, aside
from .recall import Recall
from .recording import Recording, reason

__all__ = ["Acting"]


@dataclass(frozen=True, slots=True)
class Acting:
    """Runs the tool calls of one run, each at most once, unless its tool may be run again."""

    recording: Recording
    workspace: Workspace

    @property
    def recall(self) -> Recall:
        """What a resumed run has behind it."""
        return self.recording.recall

    async def act(self, work: Work, operation: Act) -> Sequence[Thought]:
        """The tool call that the parent asks for, if the parent was judged in scope ``action`` for
        this very call."""
        failed = self.recording.made(work, content="failed")
        if failed.id in self.recall:
            return [self.recording.remember(self.recall.thought(failed))]
        # As it is recorded, whatever a function made of it on the way here.
        asked = self.recording.thoughts.get(work.parents[0].id)
        if asked is None or asked.status in (Status.PRUNED, Status.ESCALATED):
            return [await self.recording.failed(work, "its parent is no thought that may go on")]
        try:
            call = read_call(operation.calls, asked.text)
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        if call is None:
            return work.parents
        tool = operation.tools.get(call.tool)
        if tool is None:
            known = ", ".join(sorted(operation.tools))
            return [await self.recording.failed(work, f"no tool {call.tool!r}; there are: {known}")]
        limits = [limit for limit in (tool.timeout, operation.timeout) if limit is not None]
        tool = replace(tool, timeout=min(limits, default=None))
        attempt = 0
        while True:
            thought = self.recording.made(
                work, content=[call.tool, call.arguments], attempt=attempt
            )
            known = await self._known(work, tool, thought)
            if known is not None and known.status is not Status.DROPPED:
                return [known]
            if known is None and not self.recall.lost(thought.id):
                unjudged = self._unjudged(asked, call)
                if unjudged is not None:
                    return [await self.recording.failed(work, unjudged)]
                return [await self._whole(work, tool, call, thought)]
            attempt += 1  # its call is known not to have been made, or may be made again

    def _unjudged(self, asked: Thought, call: Call) -> str | None:
        """Why a call may not be made, with the remedy; None where it may."""
        judged, decision = self.recording.calls.get(asked.id), self.recall.decision(asked.id)
        if judged is None:
            return (
                f"{call.tool} was not run: what {asked.operation!r} made was not judged in scope "
                "action; give its calls= the function of act(…), or let the operation before it "
                "feed act(…)"
            )
        if decision is not None and decision.call not in (None, call.digest):
            return (
                f"{call.tool} was not run: it is not the call that was approved; resume with the "
                "calls= of that time, or run the task anew"
            )
        if judged != call.digest:
            return (
                f"{call.tool} was not run: it is not the call that was judged; give "
                f"{asked.operation!r} and act(…) the same calls="
            )
        return None

    async def _known(self, work: Work, tool: Tool, thought: Thought) -> Thought | None:
        """The thought, where its call was made or may have been; dropped where a person found
        that it was not. None where it is to be made now."""
        if thought.id in self.recall:
            return await self._recorded(thought)
        made = self.recall.call(thought.id)
        if made is None or self.recall.lost(thought.id):
            return None
        if made.text is not None:
            return await self._placed(work, tool, thought, made.text, made.ok)
        if tool.idempotent:
            await self.recording.log.abandon(
                thought.id, thought.attempt, f"the process was killed; {tool.name} may run again"
            )
            return None
        unknown = replace(
            thought,
            status=Status.ESCALATED,
            reason=f"nobody knows whether {tool.name} was run: the process was killed",
        )
        placed = await self.recording.place(unknown, work.index, acted=tool.name)
        return await self._recorded(placed)

    async def _recorded(self, thought: Thought) -> Thought:
        """A thought of an earlier process, with what a person found out about its call."""
        found = self.recall.thought(thought) if thought.id in self.recall else thought
        if found.status is Status.ESCALATED:
            await self.recording.log.escalate(found.id, found.reason or "its end is unknown")
        decision = self.recall.decision(found.id)
        if decision is not None and found.status is Status.KEPT:
            found = replace(found, text=decision.reason)
        return self.recording.remember(found)

    async def _whole(self, work: Work, tool: Tool, call: Call, thought: Thought) -> Thought:
        """Intent, act and result. What has begun must be known: when the run is cancelled, the
        end is still awaited and recorded."""
        wanted = asyncio.Event()
        wanted.set()
        acting = asyncio.ensure_future(self._run(work, tool, call, thought, wanted))
        try:
            return await asyncio.shield(acting)
        except asyncio.CancelledError:
            wanted.clear()
            await acting
            raise

    async def _run(
        self, work: Work, tool: Tool, call: Call, thought: Thought, wanted: asyncio.Event
    ) -> Thought:
        await self.recording.log.intend_tool(thought.id, call.tool, call.arguments)
        began = time.monotonic()
        if wanted.is_set():
            text, ok = await self._answer(tool, call)
        else:
            text, ok = "it was not run: the run was stopped before", False
        took = time.monotonic() - began
        await self.recording.log.tool_result(thought.id, call.tool, text, ok=ok, latency_s=took)
        return await self._placed(work, tool, thought, text, ok)

    async def _answer(self, tool: Tool, call: Call) -> tuple[str, bool]:
        """What the tool says, and whether it did what it was asked."""
        late = f"{tool.name} gave no answer within {tool.timeout} s; what it did is unknown", False
        limit = asyncio.timeout(tool.timeout if tool.waits else None)
        try:
            if not tool.waits:
                acts = aside(lambda: tool.run(self.workspace, call.arguments), tool.timeout, "tool")
                return str(await acts), True
            async with limit:
                return await tool.answer(self.workspace, call.arguments), True
        except OverdueError:
            return late
        except Exception as error:
            return late if limit.expired() else (reason(error), False)

    async def _placed(
        self, work: Work, tool: Tool, thought: Thought, text: str, ok: bool
    ) -> Thought:
        if ok:
            done = replace(thought, text=text)
        else:
            done = replace(thought, status=Status.FAILED, reason=text)
        return await self.recording.place(done, work.index, acted=tool.name)
