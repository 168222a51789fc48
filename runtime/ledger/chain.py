"""The hash chain of a run's events, and the salted digests of its blobs. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from ...gates.canonical import canonical_json

__all__ = ["GENESIS", "Blob", "as_text", "blob_digest", "event_hash", "from_text"]

GENESIS: Final = "0" * 64
"""``prev_hash`` of a run's first event."""


_COLUMNS: Final = tuple(
    (name, f'"{name}":')
    for name in (
        "actor",
        "at",
        "attempt",
        "blobs",
        "body",
        "digests",
        "kind",
        "latency_s",
        "monotonic_ns",
        "prev_hash",
        "run_id",
        "seq",
        "thought_id",
    )
)
"""Every column of an event but its hash, in canonical order."""


def event_hash(columns: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of every column but ``hash`` itself."""
    # Column by column, because a dict that is copied, sorted and walked takes three times as long.
    text = ",".join([key + _spelt(columns[name]) for name, key in _COLUMNS])
    return hashlib.sha256(f"{{{text}}}".encode("ascii")).hexdigest()


def _spelt(value: Any) -> str:
    """One value as canonical JSON spells it."""
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is int:
        return str(value)
    if value is None:
        return "null"
    return as_text(value)


def blob_digest(salt: bytes, content: bytes) -> str:
    """SHA-256(salt + content): whoever guesses the content cannot confirm it without the salt."""
    return hashlib.sha256(salt + content).hexdigest()


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with the salt that hides them behind their digest."""

    salt: bytes
    content: bytes

    @property
    def digest(self) -> str:
        """What the chain commits to."""
        return blob_digest(self.salt, self.content)


def as_text(value: Any) -> str:
    """Canonical JSON as the text that a column holds."""
    return canonical_json(value).decode("ascii")


def from_text(text: str) -> Any:
    """Read what :func:`as_text` wrote."""
    return json.loads(text)
