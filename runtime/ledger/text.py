"""The rule by which text enters the ledger: any Python string, the same on both databases.

- A blob keeps a text exactly, as UTF-8 in which a lone half of a surrogate pair is spelt like any
  other character (three bytes, which strict UTF-8 does not have).
- The body of an event keeps it exactly, as canonical JSON, which is pure ASCII: ``\\u0000``,
  ``\\ud800``. A pair of halves reads back as the one character that it is.
- A column that shows a text (names, and all that is derived) has U+FFFD in place of NUL, which
  PostgreSQL cannot hold, and ``?`` in place of each lone half, which neither database can.
"""

from ...gates.unicode import well_formed

__all__ = ["shown", "text_of", "to_bytes"]


def to_bytes(text: str) -> bytes:
    """A text as a blob keeps it."""
    return text.encode("utf-8", "surrogatepass")


def text_of(content: bytes) -> str:
    """Read what :func:`to_bytes` wrote. Raises ``ValueError`` for other bytes."""
    return content.decode("utf-8", "surrogatepass")


def shown(text: str) -> str:
    """A text as a column holds it."""
    whole = text if text.isascii() else well_formed(text)
    return whole.replace("\0", "\ufffd") if "\0" in whole else whole
