"""Word lists and regular expressions: weighed, added up within a line or sentence."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from ...gates.encoding import decoded
from .mention import Mention, compiled
from .places import near
from .scale import Scale
from .tagger import Outcome, Tagger
from .units import Unit, ranges

__all__ = ["PatternTagger", "read_words"]


def _weighed(given: object, info: ValidationInfo) -> object:
    """A list counts each of its members once; a string names a word list's file."""
    if isinstance(given, str):
        path = near(given, info)
        try:
            return read_words(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"the word list {path} cannot be read ({error})") from None
    return dict.fromkeys(given, 1.0) if isinstance(given, (list, tuple)) else given


Weights = Annotated[dict[str, float], BeforeValidator(_weighed)]


class PatternTagger(BaseModel, Tagger):
    """One tag by words and regular expressions.

    Each match adds its weight (1 in a plain list; a negative one excuses); the unit is tagged from
    ``at`` on (any weight above zero where it is not given), or with the band that the sum
    reaches. Words are whole words or phrases in any case, given as a list, with their weights, or
    as the name of a file (:func:`read_words`); patterns are taken as they are written,
    with ``^`` and ``$`` at the ends of the unit's lines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    kind: Literal["patterns"] = "patterns"
    scale: Scale
    """In a file its ``tag``, ``at`` and ``bands`` stand beside the other settings."""
    words: Weights = Field(default_factory=dict)
    patterns: Weights = Field(default_factory=dict)
    unit: Unit = "line"
    mention: Mention = Mention()

    @model_validator(mode="before")
    @classmethod
    def _gather_the_scale(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "scale" in given:
            return given
        parts = {name: given[name] for name in Scale.model_fields if name in given}
        return {name: given[name] for name in given.keys() - parts.keys()} | {"scale": parts}

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        tag = self.scale.tag
        if not self.words and not self.patterns:
            raise ValueError(f"tag {tag!r} needs 'words' or 'patterns'")
        if any(not word.strip() for word in self.words):
            raise ValueError(f"tag {tag!r}: a word is empty")
        weights = [*self.words.values(), *self.patterns.values()]
        if not all(abs(weight) < 1e9 for weight in weights):  # NaN fails this too
            raise ValueError(f"tag {tag!r}: a weight is no finite number")
        if not any(weight > 0 for weight in weights):
            raise ValueError(f"tag {tag!r}: no weight is above zero, so it could never fire")
        _ = self._rules
        return self

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], float], ...]:
        rules = [(compiled(pattern), weight) for pattern, weight in self.patterns.items()]
        # Words of one weight are one alternation: long lists stay fast.
        for weight in sorted(set(self.words.values())):
            alike = [word for word, own in self.words.items() if own == weight]
            # The longest first, so that a phrase wins over the word that it starts with.
            spelt = (r"\s+".join(map(re.escape, w.split())) for w in sorted(alike, key=len)[::-1])
            rules.append((re.compile(rf"(?<!\w)(?:{'|'.join(spelt)})(?!\w)", re.I), weight))
        return tuple(rules)

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        return [self._outcome(text) for text in texts]

    def _outcome(self, text: str) -> Outcome:
        masked = self.mention.masked(text)
        spans = []
        for start, end in ranges(text, self.unit):
            inside = masked[start:end]
            weight = sum(own * sum(1 for _ in rule.finditer(inside)) for rule, own in self._rules)
            spans.append(self.scale.span((start, end), weight, default=_ANY))
        return tuple(span for span in spans if span is not None)


_ANY = 1e-9
"""The least weight that counts where no threshold is given."""


def read_words(path: Path) -> dict[str, float]:
    """A word list: one word or phrase a line, a tab and its weight if not 1; ``#`` comments.

    Raises OSError or ValueError.
    """
    words: dict[str, float] = {}
    for number, line in enumerate(decoded(path.read_bytes()).split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        word, _, weight = line.partition("\t")
        try:
            words[word.strip()] = float(weight or 1)
        except ValueError:
            raise ValueError(f"line {number}: {weight!r} is no weight") from None
    return words
