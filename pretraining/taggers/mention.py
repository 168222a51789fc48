"""Use and mention: whose words are they? What quotes or reports another's words is not judged."""

import re
from functools import cached_property

from pydantic import BaseModel, ConfigDict, field_validator

__all__ = ["Mention", "compiled"]

_QUOTES = r'"[^"\n]*"|“[^”\n]*”|«[^»\n]*»'
"""Text in double quotation marks, within a line. Single ones are apostrophes too often."""


def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression. Raises ValueError for a fault in it, or if it matches nothing."""
    try:
        found = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
    if found.search(""):
        raise ValueError(f"{pattern!r} matches where there is nothing, so it would match anywhere")
    return found


class Mention(BaseModel):
    """What in a text mentions words instead of using them.

    ``quotes``: text in double quotation marks. ``patterns``: regular expressions for reports of
    another's words (``\\w+ (wrote|said) that [^.]*``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    quotes: bool = False
    patterns: tuple[str, ...] = ()

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compiled(pattern)
        return patterns

    @cached_property
    def _masks(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(compiled, ((_QUOTES,) if self.quotes else ()) + self.patterns))

    def masked(self, text: str) -> str:
        """``text`` with every mention blanked out, character for character: offsets hold.

        Every pattern sees the whole text, and newlines stay.
        """
        if not self._masks:
            return text
        kept = list(text)
        for mask in self._masks:
            for found in mask.finditer(text):
                for place in range(*found.span()):
                    if kept[place] != "\n":
                        kept[place] = " "
        return "".join(kept)
