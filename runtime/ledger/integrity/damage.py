"""What can be wrong with a ledger, in words that a reviewer can act upon."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Damage", "DamageError", "DamageKind", "cut_off"]


class DamageKind(StrEnum):
    """How something differs from what was written."""

    CHANGED = "changed"
    """It is there, and says something else."""
    MISSING = "missing"
    """It was taken out, and what stood around it is still there."""
    SWAPPED = "swapped"
    """It is whole, and stands in another's place."""
    TRUNCATED = "truncated"
    """It was the last of its kind, and was cut off."""


@dataclass(frozen=True, slots=True)
class Damage:
    """The first thing that is wrong with a run, or with the ledger as a whole."""

    run: str | None
    """None where no run can be named: a checkpoint, a blob that belongs to no event."""
    seq: int | None
    """The event at fault; None where it is no event: the run's row, its policy."""
    kind: DamageKind
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"run": self.run, "seq": self.seq, "kind": self.kind.value, "reason": self.reason}

    def __str__(self) -> str:
        return self.reason if self.run is None else f"run {self.run}: {self.reason}"


class DamageError(Exception):
    """Ends the reading of one run; becomes its :class:`Damage`."""

    def __init__(self, seq: int | None, kind: DamageKind, reason: str) -> None:
        super().__init__(reason)
        self.seq, self.kind, self.reason = seq, kind, reason

    def of(self, run: str | None) -> Damage:
        """As a value."""
        return Damage(run, self.seq, self.kind, self.reason)


def cut_off(last: int, witness: str) -> DamageError:
    """A chain that ends with ``last``, where something knows of more."""
    return DamageError(
        last + 1, DamageKind.TRUNCATED, f"events after {last} were cut off: {witness}"
    )
