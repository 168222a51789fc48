"""Blobs read in the order of writing: the same as when each is looked up."""

import random
import sqlite3
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.runtime.ledger import connect
from secateur.runtime.ledger.chain import event_hash
from secateur.runtime.ledger.integrity import sweep as sweeps
from secateur.runtime.ledger.integrity.links import COLUMNS, link_hash
from secateur.runtime.ledger.integrity.sweep import sweeping

MANY = 400


@pytest.fixture
def stored(tmp_path):
    """A file with blobs, their digests in the order of writing, and what they hold."""
    path = tmp_path / "blobs.db"
    rows = [
        (sha256(b"%d" % n).hexdigest(), b"salt%d" % n, b"%d" % n * (n % 7)) for n in range(MANY)
    ]
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE blob (digest TEXT PRIMARY KEY, salt BLOB, bytes BLOB)")
        file.executemany("INSERT INTO blob VALUES (?, ?, ?)", rows)
    file.close()
    return connect.connect(path, read_only=True), {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("credit", [0, 10, 100, 100_000])
@pytest.mark.parametrize("order", ["written", "interleaved", "any", "backwards"])
def test_every_blob_is_met_in_whatever_order_it_is_asked_for(stored, order, credit, monkeypatch):
    monkeypatch.setattr(sweeps, "_CREDIT", credit)
    engine, held = stored
    digests = list(held)
    digests = {
        "written": digests,
        "interleaved": [digest for first in range(8) for digest in digests[first::8]],
        "any": random.Random(1).sample(digests, MANY),
        "backwards": digests[::-1],
    }[order]
    with sweeping(engine) as sweep:
        for start in range(0, MANY, 25):
            asked = digests[start : start + 25]
            assert sweep.blobs([*asked, "gone", asked[0]]) == {each: held[each] for each in asked}
        assert sweep.blobs(digests[:3]) == {each: held[each] for each in digests[:3]}
        assert sweep.blobs(["gone"]) == sweep.blobs([]) == {}


def test_blobs_in_a_row_are_not_looked_up(stored):
    engine, held = stored
    digests = list(held)
    statements: list[str] = []
    with sweeping(engine) as sweep:
        sweep._driver.set_trace_callback(statements.append)
        for start in range(0, MANY, 25):
            sweep.blobs(digests[start : start + 25])
    assert statements
    assert not [each for each in statements if "json_each" in each]


TEXT = st.text(max_size=20)
SIZES = st.integers(min_value=-(1 << 63), max_value=1 << 64)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=9, max_size=9),
    thought=st.none() | TEXT,
    seq=SIZES,
    ns=SIZES,
    attempt=st.none() | SIZES,
    latency=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_the_quick_hash_of_any_columns_is_the_hash(texts, thought, seq, ns, attempt, latency):
    run, kind, at, actor, digests, blobs, body, previous, hash = texts
    columns = (run, seq, kind, at, ns, actor, thought, attempt, digests, latency, blobs, body)
    columns += (previous, hash)
    assert link_hash(columns) == event_hash(dict(zip(COLUMNS, columns, strict=True)))


@pytest.mark.parametrize("column", ["actor", "latency_s", "body"])
def test_a_column_of_bytes_has_no_hash(column):
    columns = dict.fromkeys(COLUMNS, "x") | {"seq": 1, "monotonic_ns": 1, "attempt": None}
    columns |= {"latency_s": 0.5, column: b"x"}
    assert link_hash(tuple(columns[name] for name in COLUMNS)) is None
