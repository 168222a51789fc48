"""The thoughts of one run, each recorded in the ledger before anything is done with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...agents.errors import reason
from ...agents.functions import called
from ...agents.plans.machines import Work
from ...agents.thought import Lineage, Scene, Shown, Status, Thought, thought_id
from ..ledger.events import ThoughtRecord
from ..ledger.writing.runlog import RunLog
from ..logs import get_logger
from ..recovery.recall import Recall, RecallingLog
from .spending import Spending

__all__ = ["Recording", "record"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """Makes thoughts, writes them down, counts what they spent, and tells whoever watches."""

    log: RunLog | RecallingLog
    spending: Spending
    task: str
    observe: Callable[[Thought], None]
    thoughts: dict[str, Thought]
    """All thoughts of the run by id, in the order in which they were made."""
    truths: dict[str, bool | float | str] = field(default_factory=dict)
    """What ground truth says of thoughts, by id; in words where it could not be told. No scene
    shows it."""
    recall: Recall = field(default_factory=Recall)
    """What a resumed run has behind it."""
    calls: dict[str, str] = field(default_factory=dict)
    """Digest of the tool call that each thought was judged for in scope ``action``, by id."""

    def scene(self, parents: tuple[Thought, ...]) -> Scene:
        """The parents with all that led to the first of them, without what the gate or a reviewer
        said of them."""
        parents = tuple(parent.shown for parent in parents)
        known = Shown(parents, self.thoughts)
        return Scene(self.task, parents, Lineage(parents[0], known), known)

    def made(
        self,
        work: Work,
        *,
        id: str | None = None,
        content: Any = None,
        index: int | None = None,
        attempt: int = 0,
        **given: Any,
    ) -> Thought:
        """A thought of this work, with what is ``given`` of a thought's other fields.

        Where no ``id`` is given it is made of ``content`` and of ``index``.
        """
        parents = tuple(parent.id for parent in work.parents)
        place = work.index if index is None else index
        operation = work.operation
        return Thought(
            id=id or thought_id(work.step, parents, prompt=content, attempt=attempt, index=place),
            operation=operation.name,
            kind=operation.kind,
            parents=parents,
            attempt=attempt,
            **{"path": work.path, **given},
        )

    async def place(
        self, thought: Thought, index: int, acted: str | None = None, *, siblings: int = 0
    ) -> Thought:
        """Record a thought that no model wrote; ``acted`` names the tool that it comes from, and
        ``siblings`` counts what a function made at once."""
        if thought.id in self.recall:
            return self.remember(self.recall.thought(thought))
        await self.log.place(record(thought, index, acted=acted, siblings=siblings))
        _log.info("thought placed", thought=thought.id, operation=thought.operation, tool=acted)
        return self.remember(thought)

    async def failed(self, work: Work, why: str, *, hopeless: bool = False) -> Thought:
        """Record that an operation came to nothing; ``hopeless``: and would another time."""
        _log.warning("operation failed", operation=work.operation.name, reason=why)
        failed = self.made(
            work, content="failed", status=Status.FAILED, reason=why, hopeless=hopeless
        )
        return await self.place(failed, work.index)

    async def select(self, kept: Sequence[Thought], dropped: Sequence[Thought], why: str) -> None:
        """Record that some thoughts go on and others do not."""
        if not dropped:
            return
        await self.log.select([t.id for t in kept], [t.id for t in dropped], why)
        for thought in dropped:
            self.remember(replace(thought, status=Status.DROPPED, reason=why))

    @property
    def settled(self) -> Mapping[str, Sequence[str]]:
        """The choices that a resumed run has behind it, by what they are about."""
        return self.recall.history.settled

    def knows(self, work: Work) -> bool:
        """Whether a resumed run has behind it what came of this work."""
        parents = tuple(parent.id for parent in work.parents)
        return self.recall.history.knows(work.operation.name, parents, work.index)

    async def settle(self, about: str, chosen: Sequence[str], why: str) -> None:
        """Record a choice that depends on timing, so that a resumed run makes it again."""
        await self.log.note("decided", {"about": about, "chosen": list(chosen), "reason": why})

    async def drop(self, thoughts: Sequence[Thought], why: str) -> None:
        """Record that thoughts came when nobody wanted them any more."""
        await self.select((), thoughts, why)

    def remember(self, thought: Thought) -> Thought:
        """Take a thought that the ledger has, or what became of it."""
        if thought.id not in self.thoughts:
            self.spending.spend(thought)
        self.thoughts[thought.id] = thought
        try:
            called(self.observe, thought)
        except Exception as error:  # who looks on can fail no branch
            _log.warning("observe= raised", thought=thought.id, reason=reason(error))
        return thought


def record(thought: Thought, index: int, *, text: str | None = None, **more: Any) -> ThoughtRecord:
    """A thought as the ledger takes it, with what only the ledger asks for; ``text`` where it is
    another than the thought's own."""
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
        hopeless=thought.hopeless,
        text=thought.text if text is None else text,
        **more,
    )
