"""Named points at which a process dies, installed from outside by wrapping, in that process alone.

Secateur's own code knows nothing of them: the ledger's writer, the tools and the engine's stream
are wrapped in the process that is going to be killed.
"""

import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from secateur.agents.tool import Tool, Workspace
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.executor.session import Session
from secateur.runtime.ledger.writing.writer import Writer

__all__ = ["Point", "Points"]


@dataclass(frozen=True, order=True)
class Point:
    """One moment in a process's life."""

    name: str
    """``before judged``, ``after the effect``, ``token`` …"""
    times: int = 1
    """The so-manieth time it is passed."""

    def __str__(self) -> str:
        return f"{self.name} ({self.times})"


@dataclass
class Points:
    """Counts the points that this process passes, and kills it at one of them."""

    trap: Point | None = None
    passed: Counter[str] = field(default_factory=Counter)

    def reach(self, name: str) -> None:
        """The process stands at this point."""
        self.passed[name] += 1
        if self.trap == Point(name, self.passed[name]):
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Wrap the writer's transactions, the tools, the tokens and the laying out of folders."""
        write, begin = Writer._write, Tool.begin
        stream, prepare = LocalEngine.stream, Session._prepare

        def watched_write(writer: Writer, appends: Any) -> None:
            kinds = [append.event[2] for append in appends]
            for kind in kinds:
                self.reach(f"before {kind}")
            write(writer, appends)
            for kind in kinds:
                self.reach(f"after {kind}")

        def watched_begin(tool: Tool, workspace: Workspace, arguments: dict[str, Any]) -> Any:
            self.reach("before the effect")
            answer = begin(tool, workspace, arguments)
            self.reach("after the effect")
            return answer

        async def watched_stream(engine: LocalEngine, request: Any) -> Any:
            async for token in stream(engine, request):
                self.reach("token")
                yield token

        def watched_prepare(session: Session) -> None:
            prepare(session)
            self.reach("laid out")

        Writer._write = watched_write
        Tool.begin = watched_begin
        LocalEngine.stream = watched_stream
        Session._prepare = watched_prepare
