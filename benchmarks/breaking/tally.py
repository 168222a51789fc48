"""What was checked, how often, and what did not hold."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """The counts of one part of a campaign on one database."""

    done: Counter[str] = field(default_factory=Counter)
    """What was done to it."""
    held: Counter[str] = field(default_factory=Counter)
    """By promise: how often it was checked, broken or not."""
    broken: list[str] = field(default_factory=list)
    """What did not hold, a line each."""
    left_out: list[str] = field(default_factory=list)
    """What could not be done here, and why."""

    def hold(self, promise: str, whether: bool, otherwise: str, times: int = 1) -> None:
        """Check a promise; ``otherwise`` says what was found instead."""
        self.held[promise] += times
        if not whether:
            self.broken.append(f"{promise}: {otherwise}")

    def add(self, other: "Tally") -> None:
        """Take in another part."""
        self.done.update(other.done)
        self.held.update(other.held)
        self.broken += other.broken
        self.left_out += other.left_out

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "done": dict(self.done),
            "held": dict(self.held),
            "broken": self.broken,
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Tally":
        """What :meth:`to_json` made."""
        return cls(Counter(data["done"]), Counter(data["held"]), data["broken"], data["left_out"])
