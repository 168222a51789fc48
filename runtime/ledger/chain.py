"""The hash chain of a run's events, and the salted digests of its blobs. Pure."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from ...gates.canonical import canonical_json, digest

__all__ = [
    "GENESIS",
    "Blob",
    "as_text",
    "blob_digest",
    "event_hash",
    "from_text",
    "plain_text",
    "with_room",
]

_PLAIN: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME

_NOTHING: Final[Mapping[str, str]] = {}

T = TypeVar("T")

_DEEP: Final = 2_000
"""More than the stack, and with it version 0.1, took."""

GENESIS: Final = "0" * 64
"""``prev_hash`` of a run's first event."""


def event_hash(columns: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of every column but ``hash`` itself."""
    # Written out, because a dict that is copied, sorted and walked takes four times as long.
    c, text = columns, encode_basestring_ascii
    try:
        spelt = (
            f'{{"actor":{text(c["actor"])},"at":{text(c["at"])},"attempt":{_plain(c["attempt"])},'
            f'"blobs":{text(c["blobs"])},"body":{text(c["body"])},"digests":{text(c["digests"])},'
            f'"kind":{text(c["kind"])},"latency_s":{_plain(c["latency_s"])},'
            f'"monotonic_ns":{_plain(c["monotonic_ns"])},"prev_hash":{text(c["prev_hash"])},'
            f'"run_id":{text(c["run_id"])},"seq":{_plain(c["seq"])},'
            f'"thought_id":{_plain(c["thought_id"])}}}'
        )
    except TypeError:  # a text that is none: somebody changed it, and its hash will say so
        return digest({name: value for name, value in columns.items() if name != "hash"})
    return hashlib.sha256(spelt.encode("ascii")).hexdigest()


def _plain(value: Any) -> str:
    """One value as canonical JSON spells it."""
    kind = type(value)
    if value is None:
        return "null"
    if kind is int:
        return str(value)
    if kind is float and isfinite(value):
        return repr(value)
    return encode_basestring_ascii(value) if kind is str else as_text(value)


def blob_digest(salt: bytes, content: bytes) -> str:
    """SHA-256(salt + content): whoever guesses the content cannot confirm it without the salt."""
    return hashlib.sha256(salt + content).hexdigest()


class Blob(NamedTuple):
    """Bytes with the salt that hides them behind their digest."""

    digest: str
    """What the chain commits to."""
    salt: bytes
    content: bytes

    @classmethod
    def seal(cls, content: bytes, salt: bytes) -> "Blob":
        """Under a salt that nothing else has."""
        return cls(hashlib.sha256(salt + content).hexdigest(), salt, content)


def plain_text(value: Any, known: Mapping[str, str] = _NOTHING) -> str:
    """The same as :func:`as_text`, much faster, of a value without floats.

    Of an object, ``known`` are the members that have floats, as they are spelt. Others must have
    none: they would be spelt in another way, and NaN as null.
    """
    quick = value
    if known:
        quick = {**value, **{name: orjson.Fragment(text) for name, text in known.items()}}
    try:
        spelt = orjson.dumps(quick, option=_PLAIN)
    except TypeError:  # a number beyond 64 bits, or nothing that JSON has a word for
        return as_text(value)
    # Beyond ASCII the two differ; DEL is the one character within it.
    return spelt.decode() if spelt.isascii() and b"\x7f" not in spelt else as_text(value)


def as_text(value: Any) -> str:
    """Canonical JSON as the text that a column holds."""
    return canonical_json(value).decode("ascii")


def from_text(text: str) -> Any:
    """Read what :func:`as_text` wrote."""
    try:
        return json.loads(text)
    except RecursionError:  # version 0.1 recorded values that lie deeper than now
        return with_room(json.loads, text)


def with_room(function: Callable[..., T], *given: Any, **named: Any) -> T:
    """What a function gives that reads or writes JSON deeper than Python's stack allows."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _DEEP)
    try:
        return function(*given, **named)
    finally:
        sys.setrecursionlimit(limit)
