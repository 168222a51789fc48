"""What the gate decided: an action with its reasons, or Broken when no reading could be made."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

__all__ = ["Action", "Broken", "Crossing", "Judgement", "Verdict"]


class Action(StrEnum):
    """What may happen to a thought, weakest first; the strongest that any rule reached wins."""

    ALLOW = "allow"
    FLAG = "flag"
    RESAMPLE = "resample"
    PRUNE = "prune"
    ESCALATE = "escalate"
    HALT = "halt"

    @property
    def strength(self) -> int:
        """0 for allow up to 5 for halt."""
        return list(Action).index(self)

    @property
    def keeps(self) -> bool:
        """Whether the thought lives on (allow and flag)."""
        return self in (Action.ALLOW, Action.FLAG)


@dataclass(frozen=True, slots=True)
class Crossing:
    """One rule that reached its threshold."""

    rule: int
    """Index of the rule in the policy's effective rules for this context."""
    tag: str
    reading: str
    score: float
    threshold: float
    action: Action
    start: int
    """First token of the range that convicts; ``end`` is one past the last."""
    end: int

    @property
    def margin(self) -> float:
        """score - threshold, never negative."""
        return self.score - self.threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """The action of one gate decision; ``crossings`` strongest first, empty for allow."""

    action: Action
    crossings: tuple[Crossing, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Every reading that was made: tag, then reading, then score."""

    @property
    def cause(self) -> Crossing | None:
        """The crossing that decided."""
        return self.crossings[0] if self.crossings else None


@dataclass(frozen=True, slots=True)
class Broken:
    """The reading could not be made. There is no default score: Broken never allows."""

    reason: str
    action: Literal[Action.PRUNE, Action.HALT] = Action.PRUNE


Judgement = Verdict | Broken
