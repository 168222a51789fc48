"""The one exception family of Secateur: every message is one line that names the remedy."""

from collections.abc import Mapping
from typing import Self

__all__ = ["PolicyError", "SecateurError", "UnreadableError", "VocabularyError"]


class SecateurError(Exception):
    """Something a user can mend; ``str(error)`` says what was given, expected, and what to do."""


class VocabularyError(SecateurError):
    """A tag vocabulary contradicts itself or does not fit the tokenizer."""


class UnreadableError(SecateurError):
    """Evidence from which no reading can be made; the gate turns it into Broken."""


class PolicyError(SecateurError):
    """A policy contradicts itself, names something unknown, or could never take effect.

    ``fault`` is the reason alone and ``where`` the path to the value at fault (``("rules", 2,
    "at")``), from which a policy that was read from a file finds the line.
    """

    def __init__(
        self, fault: str, where: tuple[str | int, ...] = (), place: str | None = None
    ) -> None:
        self.fault = fault
        self.where = where
        parts = [place, _spell(where), fault]
        super().__init__(": ".join(part for part in parts if part))

    def placed(self, places: Mapping[tuple[str | int, ...], str]) -> Self:
        """The same error with the ``file:line`` of its value, or of the nearest one around it."""
        where = self.where
        while where and where not in places:
            where = where[:-1]
        return type(self)(self.fault, self.where, places.get(where))


def _spell(where: tuple[str | int, ...]) -> str:
    """``rules[2].at`` for ``("rules", 2, "at")``; numbers count from 0, as in Python."""
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
