"""What the gate decided: an action with its reasons, or Broken when no reading could be made."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

__all__ = ["Action", "Broken", "Crossing", "Judgement", "Verdict"]


class Action(StrEnum):
    """What may happen to a thought, weakest first; the strongest that any rule reached wins, but no
    escalation over a locked rule that drops the thought."""

    ALLOW = "allow"
    FLAG = "flag"
    RESAMPLE = "resample"
    PRUNE = "prune"
    ESCALATE = "escalate"
    HALT = "halt"

    @property
    def strength(self) -> int:
        """0 for allow up to 5 for halt."""
        return _STRENGTH[self]

    @property
    def keeps(self) -> bool:
        """Whether the thought lives on (allow and flag)."""
        return self in (Action.ALLOW, Action.FLAG)

    @property
    def drops(self) -> bool:
        """Whether nobody can approve the thought, and the run goes on (resample and prune)."""
        return self in (Action.RESAMPLE, Action.PRUNE)

    def binds(self, other: "Action") -> bool:
        """Whether it is at least as strict as the other. What waits for a person may yet live, and
        what is tried again may not: neither of these binds the other."""
        if self is Action.PRUNE:
            return other is not Action.HALT
        if Action.ESCALATE in (self, other) and Action.RESAMPLE in (self, other):
            return False
        return self.strength >= other.strength and not (
            self is Action.ESCALATE and other is Action.PRUNE
        )


_STRENGTH = {action: strength for strength, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Crossing:
    """One rule that reached its threshold."""

    rule: int
    """Index of the rule in the policy's effective rules for this context."""
    tag: str
    reading: str
    score: float
    """The reading, or the threshold where rounding had carried it below."""
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
