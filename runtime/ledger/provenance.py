"""What a run is bound to: the digests of policy, model, tokenizer, vocabulary and code."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...gates.canonical import digest
from .events import RunStart

__all__ = ["code_digest", "run_digests"]

_ROOMS = ("agents", "gates", "runtime")
"""The code that makes verdicts."""


@cache
def code_digest() -> str:
    """SHA-256 of this package's version and of every source file that takes part in a run."""
    root = Path(__file__).parents[2]
    sources = {
        str(path.relative_to(root).as_posix()): hashlib.sha256(path.read_bytes()).hexdigest()
        for room in _ROOMS
        for path in sorted((root / room).rglob("*"))
        if path.suffix in (".py", ".yaml")
    }
    try:
        released = version("secateur")
    except PackageNotFoundError:  # run from a source tree that was never installed
        released = "source"
    return digest({"version": released, "sources": sources})


def run_digests(start: RunStart) -> dict[str, str]:
    """The five digests, by name."""
    return {
        "policy": start.policy.digest,
        "model": start.engine.model_digest,
        "tokenizer": start.engine.tokenizer_digest,
        "vocabulary": start.engine.vocabulary.vocabulary.digest,
        "code": code_digest(),
    }
