"""One link of the chain from its raw columns: what :func:`.chain.event_hash` says, but fast.

The columns come as a database driver gives them, and their canonical JSON is put together from
text that is canonical already; nothing is parsed. Verification reads millions of these.
"""

from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Final, NamedTuple

import orjson

from .. import tables

__all__ = ["COLUMNS", "Link", "link_hash"]

COLUMNS: Final = tuple(column.name for column in tables.event.c)
"""The columns of an event in the order of :class:`Link`."""


class Link(NamedTuple):
    """One event, its columns untouched."""

    run_id: str
    seq: int
    kind: str
    at: str
    monotonic_ns: int
    actor: str
    thought_id: str | None
    attempt: int | None
    digests: str
    latency_s: float | None
    blobs: str
    body: str
    prev_hash: str
    hash: str


assert Link._fields == COLUMNS, "the table of events and its fast reader disagree"

_text = encode_basestring_ascii
_whole = int.__repr__
_real = float.__repr__


def link_hash(columns: tuple) -> str | None:
    """SHA-256 over every column but the hash; None where a column is nothing that JSON has.

    ``columns`` in the order of :class:`Link`. The same digest as :func:`.chain.event_hash`.
    """
    run, seq, kind, at, ns, actor, thought, attempt, digests, latency, blobs, body, previous, _ = (
        columns
    )
    try:
        spelt = orjson.dumps(
            {
                "actor": actor,
                "at": at,
                "attempt": attempt,
                "blobs": blobs,
                "body": body,
                "digests": digests,
                "kind": kind,
                # orjson has another way to write exponents, and calls NaN null.
                "latency_s": None if latency is None else orjson.Fragment(_real(latency)),
                "monotonic_ns": ns,
                "prev_hash": previous,
                "run_id": run,
                "seq": seq,
                "thought_id": thought,
            }
        )
    except TypeError:  # a lone surrogate, a number beyond 64 bits, another type
        return _spelt_out(columns)
    # Beyond ASCII the two differ; DEL is the one character within it.
    if not spelt.isascii() or b"\x7f" in spelt:
        return _spelt_out(columns)
    return sha256(spelt).hexdigest()


def _spelt_out(columns: tuple) -> str | None:
    """The same of any text, more slowly."""
    run, seq, kind, at, ns, actor, thought, attempt, digests, latency, blobs, body, previous, _ = (
        columns
    )
    try:
        spelt = (
            f'{{"actor":{_text(actor)},"at":{_text(at)},'
            f'"attempt":{"null" if attempt is None else _whole(attempt)},'
            f'"blobs":{_text(blobs)},"body":{_text(body)},"digests":{_text(digests)},'
            f'"kind":{_text(kind)},'
            f'"latency_s":{"null" if latency is None else _real(latency)},'
            f'"monotonic_ns":{_whole(ns)},"prev_hash":{_text(previous)},'
            f'"run_id":{_text(run)},"seq":{_whole(seq)},'
            f'"thought_id":{"null" if thought is None else _text(thought)}}}'
        )
    except TypeError:
        return None
    return sha256(spelt.encode("ascii")).hexdigest()
