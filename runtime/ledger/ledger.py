"""The write side: open a ledger, start a run, append its events. Await means durable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .events import ModelIntent, RunStart, RunStatus, ThoughtRecord

__all__ = ["Ledger", "RunLog", "new_run_id"]


def new_run_id() -> str:
    """Twelve Crockford base-32 characters that sort by time."""
    ...


class Ledger:
    """An open ledger; ``async with Ledger.open("secateur.db") as ledger``."""

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True) -> "Ledger":
        """Raises :class:`LedgerError` in one line that names the remedy."""
        ...

    async def start(self, start: RunStart) -> "RunLog": ...

    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class RunLog:
    """Appends to one run. Every method returns when its event is durable."""

    run: str

    async def intend(self, intent: ModelIntent) -> None:
        """Before the model is called."""

    async def judge(self, thought: ThoughtRecord) -> None:
        """A generated thought with its evidence and verdict, before it is acted upon."""

    async def place(self, thought: ThoughtRecord) -> None:
        """A thought that no model wrote."""

    async def select(self, kept: Sequence[str], dropped: Sequence[str], reason: str) -> None:
        """A keep_best: ``dropped`` become :attr:`ThoughtStatus.DROPPED`."""

    async def intend_tool(self, thought: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Before the tool is called."""

    async def tool_result(
        self, thought: str, tool: str, text: str, *, ok: bool, latency_s: float | None = None
    ) -> None:
        """What the tool said. An intent without this stays unknown, and is not run again."""

    async def escalate(self, thought: str, reason: str) -> None:
        """The thought waits for a person."""

    async def note(self, topic: str, body: Mapping[str, Any], thought: str | None = None) -> None:
        """Anything else: a budget that ended, a branch that was regrown."""

    async def finish(self, status: RunStatus, result: str | None = None) -> None:
        """The last event of the run."""
