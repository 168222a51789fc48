"""Spells out the characters that act on a screen or hide on it, so that text can only be read."""

import re

__all__ = ["spelt", "visible"]

# Control, format, private and surrogate characters, line and paragraph separators, those that
# Unicode calls ignorable, and noncharacters; a newline and a tab are left to who lays text out.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    + "".join(
        f"{chr(0x1FFFE + plane)}{chr(0x1FFFF + plane)}" for plane in range(0, 0xC0001, 0x10000)
    )
    + "\U000dfffe-\U000e0fff\U000efffe-\U0010ffff]"
)

_UNUSUAL = re.compile("[^\n\t -~\u00a1-\u00ac\u00ae-\u024f]")
"""Asked first, since most texts have none and the class above is slow."""


def visible(text: str) -> str:
    """The text with each such character as JSON spells it: ``\\u001b``, ``\\u202e``.

    So a JSON document stays one, with the same strings in it.
    """
    if _UNUSUAL.search(text) is None:
        return text
    return _ACTS.sub(lambda found: spelt(found[0]), text)


def spelt(text: str) -> str:
    """Every character of the text as JSON's escape of it."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
