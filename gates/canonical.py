"""One spelling for every value that is hashed: canonical JSON and its SHA-256."""

import hashlib
import json
import sys
from typing import Any, Final

__all__ = ["DEEPEST", "LONGEST", "canonical_json", "digest", "recordable", "recordable_text"]

DEEPEST: Final = 200
"""How deep lists and dicts of a value that is recorded may lie in one another: every reader of JSON
goes that deep."""

LONGEST: Final = 1 << 26
"""Characters of one text, or of a value as JSON: what both databases hold in one row."""

_CONTAINERS: Final = 1_000_000
"""Lists and dicts of one value; one that is held twice counts twice."""
_DIGITS: Final = 4300
"""Digits of a whole number, as many as Python reads unless it is told otherwise."""

_LARGE: Final = f"a whole number has more than {_DIGITS} digits: give it as a text"

_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_LISTS: Final = (list, tuple)
_TEXTS: Final = frozenset({str})

_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON with sorted keys, no spaces and pure ASCII: equal values, equal bytes.

    Raises ``ValueError``, in one line, for NaN and infinities, keys that are no texts, whole
    numbers of more than 4300 digits and what is nested too deep for Python's stack, and
    ``TypeError`` for what JSON has no word for, so that nothing unreadable is ever hashed.
    """
    _check(value, _CONTAINERS)
    return _spelt(value)


def digest(value: Any) -> str:
    """SHA-256 of :func:`canonical_json`, in 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def recordable(value: Any) -> bytes:
    """The canonical JSON of a value that a parser, a tool call or a user's function gives.

    Raises ``ValueError`` or ``TypeError``, in one line that names the remedy, where the ledger
    could not hold it, or could not give it back as it was.
    """
    try:
        _check(value, DEEPEST)
        spelt = _spelt(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"the value cannot be recorded: {error}; use plain JSON data: texts, finite numbers, "
            "booleans, None, and lists and dicts of these with texts as keys"
        ) from None
    if len(spelt) > LONGEST:
        raise ValueError(
            f"the value cannot be recorded: as JSON it is longer than {LONGEST:,} characters; "
            "write it to a file, and give its name"
        )
    return spelt


def recordable_text(text: str) -> str:
    """The text itself. Raises ``ValueError`` where no row of a database holds so much."""
    if len(text) > LONGEST:
        raise ValueError(
            f"a text of {len(text):,} characters cannot be recorded: write it to a file, and give "
            "its name"
        )
    return text


def _spelt(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value).encode("ascii")
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError(_LARGE) from None
        raise


def _check(value: Any, deepest: int) -> None:
    """What the encoder would let pass, or fall over: keys that it would turn into texts, depth
    beyond its stack, numbers that only this process could read."""
    if type(value) in _LEAVES:
        return
    level = [value]
    lifted = sys.get_int_max_str_digits() != _DIGITS
    containers = 0
    for _ in range(deepest):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if not _TEXTS.issuperset(map(type, each)):
                    _check_keys(each)
                items = each.values()
            elif isinstance(each, _LISTS):
                items = each
            else:  # a number or a text of a kind of its own, or what the encoder will refuse
                continue
            if lifted and any(type(i) is int and _is_large(i) for i in items):
                raise ValueError(_LARGE)
            if not _LEAVES.issuperset(map(type, items)):
                below += [item for item in items if type(item) not in _LEAVES]
        if not below:
            return
        containers += len(below)
        if containers > _CONTAINERS:
            raise ValueError(f"it holds more than {_CONTAINERS:,} lists and dicts")
        level = below
    raise ValueError(f"it is nested more than {deepest} deep")


def _check_keys(keys: dict[Any, Any]) -> None:
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(f"a key is no text but of type {type(key).__name__}")


def _is_large(number: int) -> bool:
    return number.bit_length() > 14_284 and abs(number) >= 10**_DIGITS
