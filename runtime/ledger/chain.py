"""The hash chain of a run's events, and the salted digests of its blobs. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...gates.canonical import canonical_json, digest

__all__ = ["GENESIS", "Blob", "as_text", "blob_digest", "event_hash", "from_text"]

GENESIS: Final = "0" * 64
"""``prev_hash`` of a run's first event."""


def event_hash(columns: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of every column but ``hash`` itself."""
    return digest({name: value for name, value in columns.items() if name != "hash"})


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
