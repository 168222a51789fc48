"""Tool calls: the intent first, then the act, then what came of it; and what nobody knows of."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ...agents.errors import reason
from ...agents.functions import discard
from ...agents.plans.machines import Work
from ...agents.plans.operations import Act
from ...agents.thought import Status, Thought
from ...agents.tool import Call, Tool, Workspace, read_call
from ...gates.canonical import recordable_text
from ..recovery.recall import Recall
from .recording import Recording
from .threads import OverdueError, aside, awaited

__all__ = ["UNDER_WAY", "Acting"]

UNDER_WAY: Final = "tool call: "
"""How the name of a task begins that runs a tool; its name follows."""


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
        return await self._unknown(work, tool, thought, "the process was killed")

    async def _unknown(self, work: Work, tool: Tool, thought: Thought, why: str) -> Thought:
        """A call of which a person has to find out whether it was made."""
        said = f"nobody knows whether {tool.name} was run: {why}"
        unknown = replace(thought, status=Status.ESCALATED, reason=said)
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
        """Intent, act and result. What has begun must be known: when the run is cancelled, however
        often, the end is still awaited and recorded. Who cannot wait for it cancels the task that
        is named after the tool: the call is unknown then."""
        wanted = asyncio.Event()
        wanted.set()
        running = self._run(work, tool, call, thought, wanted)
        acting = asyncio.create_task(running, name=f"{UNDER_WAY}{tool.name}")
        try:
            return await asyncio.shield(acting)
        except asyncio.CancelledError:
            wanted.clear()
            while not acting.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([acting])
            if not acting.cancelled():
                acting.result()  # raises where the ledger could not record it
            raise

    async def _run(
        self, work: Work, tool: Tool, call: Call, thought: Thought, wanted: asyncio.Event
    ) -> Thought:
        try:
            await self.recording.log.intend_tool(thought.id, call.tool, call.arguments)
            began = time.monotonic()
            if wanted.is_set():
                text, ok = await self._answer(tool, call)
            else:
                text, ok = "it was not run: the run was stopped before", False
        except OverdueError:
            late = f"it gave no answer within {tool.timeout} s"
            return await self._unknown(work, tool, thought, late)
        except asyncio.CancelledError:
            await self._unknown(work, tool, thought, "the run was ended before it answered")
            raise
        took = time.monotonic() - began
        await self.recording.log.tool_result(thought.id, call.tool, text, ok=ok, latency_s=took)
        return await self._placed(work, tool, thought, text, ok)

    async def _answer(self, tool: Tool, call: Call) -> tuple[str, bool]:
        """What the tool says, and whether it did what it was asked.

        Raises :class:`OverdueError` where it does not say in time; what it did is unknown then.
        """
        began = time.monotonic()
        given: object = None
        try:
            if tool.waits:
                given = tool.answer(self.workspace, call.arguments)
            else:
                given = await aside(
                    lambda: tool.begin(self.workspace, call.arguments), tool.timeout, "tool"
                )
            if isinstance(given, str):
                return recordable_text(given), True
            left = None if tool.timeout is None else tool.timeout - (time.monotonic() - began)
            return recordable_text(await awaited(tool.end(given), left)), True
        except OverdueError:
            raise
        except Exception as error:
            return reason(error), False
        finally:
            discard(given)

    async def _placed(
        self, work: Work, tool: Tool, thought: Thought, text: str, ok: bool
    ) -> Thought:
        if ok:
            done = replace(thought, text=text)
        else:
            done = replace(thought, status=Status.FAILED, reason=text)
        return await self.recording.place(done, work.index, acted=tool.name)
