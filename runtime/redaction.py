"""Cuts secrets out of addresses and texts before they are stored or shown."""

import os
import re
from urllib.parse import unquote_plus

__all__ = ["redacted", "shown_url"]

_CUT = "***"

_HARMLESS = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "service", "sslmode", "sslrootcert", "timeout"}
    | {"connect_timeout", "tcp_user_timeout", "application_name", "target_session_attrs", "mode"}
)
"""Parameters of a database URL whose values may be seen; all others are taken for secrets."""

_PLACE = re.compile(r"(\[[^\]\s]*\]|[^:/\s]*)(:(?:\d+|PORT))?(?![\w:])")
"""A host with or without a port. Anything else before a path may be half of a password."""

# Whatever repeats before a mark that may be missing is bounded: texts are long, and hostile.
_SPACED = re.compile(r"(?<=://)(?=[^\s/@]{0,200}:(?!\d))(?=[^\s@]{0,400}\s)[^\n@]{1,400}(?=@)")
"""A login whose password has blanks in it."""
_URL = re.compile(r"\b[a-zA-Z][\w+.-]{0,40}://\S*")
_BARE = re.compile(r"(?<![\w/.])([\w.+-]{1,200}:)[^\s@/]{1,200}(?=@[\w\[.-])")
"""A login without an address before it: ``me:…@host``."""
_NAMED = re.compile(
    r"""(?ix) ((?: password | passwd | passphrase | secret | api[_-]?key | access[_-]?token))
    ( \s* = \s* ['"]? | ['"] \s* : \s* (?: \[ \s* )? ['"] | \s+ (?<=--api-key\s) )
    (?!\*\*\*) [^\s'",;&)\]]+
    | (authorization ['"]? \s* : \s* ['"]?) (?: (?: bearer | basic ) \s+ )? [^\s'",;&)\]]+"""
)
"""``password=…``, ``'api_key': ['…']``, ``Authorization: Bearer …``."""
_KEY = re.compile(r"\bsk-[\w-]{16,}")

_SECRET_VARIABLE = re.compile(r"(?:PASSWORD|SECRET|TOKEN|KEY)$")
_SHORTEST = 6
"""Characters of a variable's value that is looked for: a shorter one may be any word."""


def shown_url(url: str) -> str:
    """An address without its secrets: what may be a password or a token is ``***``.

    The login goes whole (a database's user name stays), the fragment too, and the values of all
    parameters but those that are known to be harmless.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    head, mark, tail = re.fullmatch(r"([^?#]*)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in tail:  # a password with a question mark in it, or an at sign in a parameter
        return f"{scheme}://{_CUT}"
    login, at, place = head.rpartition("@")
    if not at and _PLACE.match(place) is None:
        return f"{scheme}://{_CUT}"
    if at:
        user, colon, _ = login.partition(":")
        of_database = not scheme.casefold().endswith(("http", "https"))
        login = f"{user}:{_CUT}" if of_database and colon else user if of_database else _CUT
    query = (
        "" if mark != "?" else "?" + "&".join(map(_parameter, tail.partition("#")[0].split("&")))
    )
    return f"{scheme}://{login}{at}{place}{query}"


def redacted(text: str, *secrets: str) -> str:
    """A text (an error, a log line, a traceback) without secrets.

    Cut are ``secrets``, the values of this process's ``…_KEY``, ``…_TOKEN``, ``…_SECRET`` and
    ``…PASSWORD`` variables, what stands behind such a name, and all that :func:`shown_url` cuts.
    """
    known = [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)]
    known = [value for value in known if len(value) >= _SHORTEST]
    for secret in sorted({*known, *secrets} - {""}, key=len, reverse=True):
        text = text.replace(secret, _CUT)
    text = _SPACED.sub(_CUT, text)
    text = _URL.sub(_url, text)
    text = _BARE.sub(rf"\1{_CUT}", text)
    text = _NAMED.sub(lambda found: f"{found[1] or found[3]}{found[2] or ''}{_CUT}", text)
    return _KEY.sub(_CUT, text)


def _url(found: re.Match[str]) -> str:
    url = found[0].rstrip(":;,.!)]}>'\"")  # the sentence's own
    return shown_url(url) + found[0][len(url) :]


def _parameter(given: str) -> str:
    name, equals, value = given.partition("=")
    harmless = unquote_plus(name).casefold() in _HARMLESS and re.fullmatch(r"[\w./:,+%-]*", value)
    if not equals:
        return _CUT if name else ""
    return given if harmless else f"{name}={_CUT}"
