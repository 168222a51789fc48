"""One immutable node of the graph of thoughts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, overload

from ..gates.canonical import digest
from ..gates.verdict import Judgement
from .path import Path

__all__ = ["Lineage", "Scene", "Shown", "Status", "Thought", "thought_id"]


class Status(StrEnum):
    """What became of a thought."""

    KEPT = "kept"
    PRUNED = "pruned"
    """Cut by the gate, with everything below it."""
    FAILED = "failed"
    """Its operation raised, timed out or returned rubbish."""
    ESCALATED = "escalated"
    """Waits for a person; nothing below it happens before."""
    DROPPED = "dropped"
    """Lost to a better sibling, or to an empty budget."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A node: what was asked, what came back, and what the gate said of it."""

    id: str
    operation: str
    """Name of the operation that made it."""
    kind: str
    """The operation's kind: task, generate, score, act …"""
    parents: tuple[str, ...] = ()
    path: Path = Path()  # noqa: RUF009 - a value that nobody can change
    """Position in the run's graph, independent of timing; siblings differ in the last number."""
    text: str = ""
    value: Any = None
    """The parsed content, plain JSON data."""
    score: float | None = None
    status: Status = Status.KEPT
    judgement: Judgement | None = None
    """None where no model wrote the text (tasks, tool results, scores)."""
    reason: str | None = None
    """Why it failed, was dropped or waits."""
    token_ids: tuple[int, ...] = ()
    """What the model wrote, tags included; carried into later prompts as it is."""
    tokens: int = 0
    """Tokens that were generated for it; what it took over from an earlier try is not counted."""
    spent_after: int = 0
    """Tokens that the engine generated beyond those that were read: after a cut or a switch."""
    attempt: int = 0
    hopeless: bool = False
    """Whether asking again could only fail in the same way (the prompt does not fit, say)."""

    @property
    def lives(self) -> bool:
        """Whether the plan goes on from here."""
        return self.status is Status.KEPT

    @property
    def unread(self) -> bool:
        """Whether the gate let it pass, and only reading a value from its text failed."""
        judged = self.judgement is not None and self.judgement.action.keeps
        return judged and self.status is Status.FAILED

    @property
    def shown(self) -> "Thought":
        """The thought as functions, templates and prompts see it: without its judgement, and
        without a reason, which may be a gate's or a reviewer's."""
        if self.judgement is None and self.reason is None:
            return self
        return replace(self, judgement=None, reason=None)


class Shown(Mapping[str, Thought]):
    """What led to some thoughts, by id, as functions see it: the same whenever one looks, whatever
    else the run has made meanwhile."""

    __slots__ = ("_ends", "_thoughts")

    def __init__(self, ends: Sequence[Thought], thoughts: Mapping[str, Thought]) -> None:
        self._ends, self._thoughts = ends, thoughts

    def __getitem__(self, id: str) -> Thought:
        return self._thoughts[id].shown

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = {}
        due = [end.id for end in reversed(self._ends)]
        while due:
            id = due.pop()
            if id not in seen:
                seen[id] = None
                due += reversed(self._thoughts[id].parents)
        return iter(seen)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Lineage(Sequence[Thought]):
    """The way from the task to a thought, walked when somebody looks: most operations never do."""

    __slots__ = ("_end", "_known", "_way")

    def __init__(self, end: Thought, known: Mapping[str, Thought]) -> None:
        self._end, self._known = end, known
        self._way: tuple[Thought, ...] | None = None

    def _walked(self) -> tuple[Thought, ...]:
        if self._way is None:
            line = [self._end]
            while line[-1].parents:
                line.append(self._known[line[-1].parents[0]])
            self._way = tuple(reversed(line))
        return self._way

    @overload
    def __getitem__(self, index: int) -> Thought: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Thought, ...]: ...
    def __getitem__(self, index: int | slice) -> Thought | tuple[Thought, ...]:
        return self._walked()[index]

    def __len__(self) -> int:
        return len(self._walked())


@dataclass(frozen=True, slots=True)
class Scene:
    """What an operation may look at: the task, its parents and how they came about. No thought in
    it has a judgement or a reason: what the gate or a reviewer said reaches no prompt."""

    task: str
    parents: tuple[Thought, ...]
    lineage: Sequence[Thought]
    """From the task to the first parent, in order."""
    known: Mapping[str, Thought] = field(default_factory=dict, repr=False, compare=False)
    """What led to the parents, by id, themselves included."""

    def parents_of(self, thought: Thought) -> tuple[Thought, ...]:
        """What a thought was made of: a merge has several parents, of which ``lineage`` shows
        the first."""
        return tuple(self.known[parent] for parent in thought.parents)

    @property
    def text(self) -> str:
        """The first parent's text."""
        return self.parents[0].text

    @property
    def value(self) -> Any:
        """The first parent's value."""
        return self.parents[0].value

    @property
    def error(self) -> str:
        """Where something is to be mended: what is wrong with it, in one line."""
        return self.parents[-1].text


def thought_id(
    operation: str,
    parents: tuple[str, ...],
    *,
    prompt: Any = None,
    sampling: Mapping[str, Any] | None = None,
    controls: Mapping[str, str] | None = None,
    model: str = "",
    attempt: int = 0,
    index: int = 0,
) -> str:
    """Digest of all that a thought depends on; 16 hexadecimal digits.

    Sampling seeds derive from it and from the run's seed, so that two runs with one seed grow the
    same graph whatever the timing. ``index`` tells siblings apart, ``attempt`` tries at the same
    sibling.
    """
    return digest(
        {
            "operation": operation,
            "parents": list(parents),
            "prompt": prompt,
            "sampling": dict(sampling or {}),
            "controls": dict(controls or {}),
            "model": model,
            "attempt": attempt,
            "index": index,
        }
    )[:16]
