"""What a person let pass: one rule's crossing in the text that they read, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .rule import Rule

__all__ = ["Approval"]


@dataclass(frozen=True, slots=True)
class Approval:
    """One rule is not held against the first ``tokens`` tokens of a thought any more.

    What comes after them is read by itself, and may reach the rule again. Every other rule reads
    the whole thought.
    """

    rule: Rule
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"rule": self.rule.model_dump(mode="json"), "tokens": self.tokens}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` wrote."""
        return cls(Rule.model_validate(data["rule"]), data["tokens"])
