"""Reads the bytes of a text file: UTF-8, or what its byte order mark says."""

import codecs

__all__ = ["decoded", "marked"]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decoded(raw: bytes) -> str:
    """The text, without its mark. Raises :class:`UnicodeDecodeError`."""
    return raw.decode(marked(raw) or "utf-8")


def marked(raw: bytes) -> str | None:
    """The encoding that a byte order mark names, if there is one."""
    return next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
