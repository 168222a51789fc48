"""The thoughts of one run, each recorded in the ledger before anything is done with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..agents.machines import Work
from ..agents.thought import Scene, Status, Thought, thought_id
from ..gates.errors import SecateurError
from .ledger.events import ThoughtRecord
from .ledger.ledger import RunLog
from .logs import get_logger
from .scheduler import Spending

__all__ = ["Recording", "reason", "record"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """Makes thoughts, writes them down, counts what they spent, and tells whoever watches."""

    log: RunLog
    spending: Spending
    task: str
    observe: Callable[[Thought], None]
    thoughts: dict[str, Thought]
    """All thoughts of the run by id, in the order in which they were made."""

    def scene(self, parents: tuple[Thought, ...]) -> Scene:
        """The parents with all that led to the first of them."""
        line = [parents[0]]
        while line[-1].parents:
            line.append(self.thoughts[line[-1].parents[0]])
        return Scene(self.task, parents, tuple(reversed(line)), self.thoughts)

    def made(
        self,
        work: Work,
        *,
        id: str | None = None,
        content: Any = None,
        index: int | None = None,
        attempt: int = 0,
    ) -> Thought:
        """A thought of this work, without content yet."""
        parents = tuple(parent.id for parent in work.parents)
        place = work.index if index is None else index
        operation = work.operation
        return Thought(
            id=id or thought_id(work.step, parents, prompt=content, index=place),
            operation=operation.name,
            kind=operation.kind,
            parents=parents,
            path=work.path,
            attempt=attempt,
        )

    async def place(self, thought: Thought, index: int, acted: str | None = None) -> Thought:
        """Record a thought that no model wrote; ``acted`` names the tool that it comes from."""
        await self.log.place(replace(record(thought, index), acted=acted))
        _log.info("thought placed", thought=thought.id, operation=thought.operation, tool=acted)
        return self.remember(thought)

    async def failed(self, work: Work, why: str) -> Thought:
        """Record that an operation came to nothing."""
        _log.warning("operation failed", operation=work.operation.name, reason=why)
        thought = self.made(work, content="failed")
        return await self.place(replace(thought, status=Status.FAILED, reason=why), work.index)

    def remember(self, thought: Thought) -> Thought:
        """Take a thought that the ledger has, or what became of it."""
        if thought.id not in self.thoughts:
            self.spending.spend(thought)
        self.thoughts[thought.id] = thought
        self.observe(thought)
        return thought


def reason(error: Exception) -> str:
    """One line; our own errors and ``ValueError`` speak for themselves."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (SecateurError, ValueError)):
        return line
    return f"{type(error).__name__}: {line}"


def record(thought: Thought, index: int) -> ThoughtRecord:
    """A thought as the ledger takes it."""
    return ThoughtRecord(
        id=thought.id,
        parents=thought.parents,
        operation=thought.operation,
        kind=thought.kind,
        depth=len(thought.path) // 2,
        index=index,
        status=thought.status,
        attempt=thought.attempt,
        value=thought.value,
        score=thought.score,
        tokens=thought.tokens,
        spent_after=thought.spent_after,
        judgement=thought.judgement,
        reason=thought.reason,
        text=thought.text,
    )
