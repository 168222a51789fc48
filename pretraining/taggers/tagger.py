"""What a tagger is: text in, spans out, and no clean bill for what it could not read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ...gates.errors import SecateurError
from ..corpus.document import Span

__all__ = ["Outcome", "Spans", "Tagger", "TaggerError", "Untagged", "UntaggedError"]

Spans = tuple[Span, ...]
"""The tagged spans of one text, by start."""


class TaggerError(SecateurError):
    """A tagger that cannot be built, or cannot work at all."""


@dataclass(frozen=True, slots=True)
class Untagged:
    """A text that the tagger could not judge: it is not clean, it is unknown."""

    reason: str


Outcome = Spans | Untagged
"""What a tagger says of one text."""


class UntaggedError(TaggerError):
    """Some texts could not be judged; ``failures`` says which (by number from 0) and why."""

    def __init__(self, failures: dict[int, str], count: int) -> None:
        self.failures = failures
        number, reason = next(iter(failures.items()))
        super().__init__(
            f"{len(failures)} of {count} texts could not be tagged; text {number + 1}: {reason}; "
            "leave them out, or mend the tagger and tag them again"
        )


class Tagger(ABC):
    """Turns texts into spans. A tagger of your own needs :meth:`attempt` alone."""

    @abstractmethod
    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        """For each text its spans, or why it could not be judged.

        Spans lie within their text, by start, and may overlap. Raises :class:`TaggerError` where
        no text can be tagged (a model that is not there, say).
        """

    def tag(self, texts: Sequence[str]) -> list[Spans]:
        """The spans of each text. Raises :class:`UntaggedError` if any could not be judged."""
        spans: list[Spans] = []
        failures: dict[int, str] = {}
        for number, outcome in enumerate(self.attempt(texts)):
            if isinstance(outcome, Untagged):
                failures[number] = outcome.reason
            else:
                spans.append(outcome)
        if failures:
            raise UntaggedError(failures, len(texts))
        return spans
