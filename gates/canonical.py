"""One spelling for every value that is hashed: canonical JSON and its SHA-256."""

import hashlib
import json
from typing import Any

__all__ = ["canonical_json", "digest"]

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON with sorted keys, no spaces and pure ASCII: equal values, equal bytes.

    Raises ``ValueError`` for NaN and infinities and ``TypeError`` for what JSON has no word for,
    so that nothing unreadable is ever hashed.
    """
    return _ENCODER.encode(value).encode("ascii")


def digest(value: Any) -> str:
    """SHA-256 of :func:`canonical_json`, in 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
