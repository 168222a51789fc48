"""Makes any Python string one that every encoding can spell: what to do with surrogates.

A Python string may hold halves of a surrogate pair, which no encoding of Unicode has: from a
``\\ud800`` in JSON, from bytes of a file name that are no UTF-8, from a program that cut a text in
the middle of a character.
"""

__all__ = ["joined", "well_formed"]


def joined(text: str) -> str:
    """With each pair of halves as the one character that they are, as JSON reads it back."""
    return text if _whole(text) else _pairs(text)


def well_formed(text: str) -> str:
    """The same, and with ``?`` for each half that stands alone."""
    return text if _whole(text) else _pairs(text).encode("utf-8", "replace").decode()


def _whole(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pairs(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
