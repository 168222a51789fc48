"""Integrity: whatever is changed, taken out or put in between is found and named."""

import pytest

from secateur.runtime.ledger import connect, integrity, tables
from secateur.runtime.ledger.audit import AuditLog
from secateur.runtime.ledger.errors import LedgerError


def verify(told, run=None):
    with AuditLog(told.path) as audit:
        return audit.verify(run)


def test_a_ledger_that_nobody_touched_is_fine(told):
    found = verify(told)
    assert found.ok
    assert found.runs == 2
    assert found.events == told.ask("SELECT count(*) FROM event")[0][0]
    assert verify(told, told.first).runs == 1


CHANGED = {
    "seq": "seq + 100",
    "kind": "'noted'",
    "at": "'2020-01-01T00:00:00.000000Z'",
    "monotonic_ns": "monotonic_ns + 1",
    "actor": "'nobody'",
    "thought_id": "'b2'",
    "attempt": "7",
    "digests": "'0'",
    "latency_s": "latency_s + 1e-9",
    "blobs": "'{}'",
    "body": "replace(body, 'pruned', 'kept')",
    "prev_hash": "hash",
    "hash": "prev_hash",
    "run_id": "(SELECT max(id) FROM run)",
}


@pytest.mark.parametrize("column", [column.name for column in tables.event.c])
def test_a_changed_column_of_an_event_is_found(told, column):
    where = f"WHERE run_id = '{told.first}' AND kind = 'judged' AND thought_id = 'b1'"
    ((seq,),) = told.ask(f"SELECT seq FROM event {where}")
    told.change(
        "DELETE FROM event WHERE run_id = (SELECT max(id) FROM run) AND seq > 0"
        if column == "run_id"
        else f"UPDATE event SET actor = actor {where}",
        f"UPDATE event SET {column} = {CHANGED[column]} {where}",
    )
    bad = verify(told).first_bad
    assert bad is not None
    assert (bad.run, bad.seq) == (told.first, seq)
    assert f"event {seq} " in bad.reason


def test_an_event_taken_from_the_middle_is_missed(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.first}' AND seq = 5")
    bad = verify(told).first_bad
    assert bad is not None
    assert (bad.seq, bad.reason) == (5, "event 5 is missing")


def test_events_cut_from_the_end_are_missed_by_the_thoughts_they_made(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.second}' AND seq > 1")
    bad = verify(told).first_bad
    assert bad is not None
    assert bad.run == told.second
    assert "were cut off" in bad.reason


def test_a_run_whose_row_is_gone_is_missed(told):
    told.change(f"DELETE FROM run WHERE id = '{told.second}'")
    bad = verify(told).first_bad
    assert bad is not None
    assert (bad.run, bad.reason) == (told.second, "the run's row is missing")


@pytest.mark.parametrize("column", [c.name for c in tables.run.c if c.name != "id"])
def test_a_changed_column_of_a_run_is_found(told, column):
    new = {
        "task": "(SELECT max(digest) FROM blob)",
        "policy": "'other'",
        "seed": "seed + 1",
        "digests": "replace(digests, 'aaaa', 'cccc')",
    }.get(column, "'other'")
    told.change(f"UPDATE run SET {column} = {new} WHERE id = '{told.first}'")
    bad = verify(told).first_bad
    assert bad is not None
    assert bad.run == told.first
    assert column in bad.reason


@pytest.mark.parametrize("column", ["digest", "salt", "bytes"])
@pytest.mark.parametrize("name", ["text", "value", "evidence", "prompt", "task", "result"])
def test_a_changed_blob_is_found_and_named(told, column, name):
    ((seq, digest),) = told.ask(
        f"SELECT seq, json_extract(blobs, '$.{name}') FROM event "
        f"WHERE run_id = '{told.first}' AND json_extract(blobs, '$.{name}') IS NOT NULL "
        "ORDER BY seq DESC LIMIT 1"
    )
    told.change(f"UPDATE blob SET {column} = x'00' WHERE digest = '{digest}'")
    bad = verify(told).first_bad
    assert bad is not None
    if name == "task" and column == "digest":
        assert bad.run == told.first
    else:
        assert (bad.run, bad.seq) == (told.first, seq)
        assert name in bad.reason


@pytest.mark.parametrize("column", ["name", "body"])
def test_a_changed_policy_is_found(told, column):
    told.change(f"UPDATE policy SET {column} = replace({column}, 'e', 'f')")
    bad = verify(told).first_bad
    assert bad is not None
    assert "policy" in bad.reason


@pytest.mark.parametrize("column", [c.name for c in tables.thought.c if c.name != "run_id"])
def test_a_changed_column_of_a_thought_is_found_and_made_anew(told, column):
    fix = "UPDATE tag_score SET thought_id = 'zz' WHERE thought_id = 'b1'"
    new = "'zz'" if column == "id" else "77"
    told.change(
        *([fix] if column == "id" else []),
        f"UPDATE thought SET {column} = {new} WHERE run_id = '{told.first}' AND id = 'b1'",
    )
    assert not verify(told).ok
    engine = connect.open_existing(told.path, read_only=False)
    integrity.rebuild(engine)
    engine.dispose()
    assert verify(told).ok


def test_a_changed_score_of_a_tag_is_found_and_made_anew(told):
    told.change("UPDATE tag_score SET opened = 0.0 WHERE thought_id = 'b1' AND tag = 'deceit'")
    bad = verify(told).first_bad
    assert bad is not None
    assert "secateur db rebuild" in bad.reason
    engine = connect.open_existing(told.path, read_only=False)
    integrity.rebuild(engine)
    engine.dispose()
    assert verify(told).ok


def test_derived_tables_are_made_from_the_events_alone(told):
    tables_ = ("thought", "tag_score")
    before = {t: told.ask(f"SELECT * FROM {t} ORDER BY 1, 2, 3") for t in tables_}
    told.change("DELETE FROM tag_score", "DELETE FROM thought")
    engine = connect.open_existing(told.path, read_only=False)
    assert integrity.rebuild(engine) == len(before["thought"])
    engine.dispose()
    assert {t: told.ask(f"SELECT * FROM {t} ORDER BY 1, 2, 3") for t in tables_} == before


QUESTIONS = {
    "runs": lambda audit, run: audit.runs(),
    "events": lambda audit, run: audit.events(run),
    "thoughts": lambda audit, run: audit.thoughts(run),
    "why": lambda audit, run: audit.why("b1", run),
    "replay": lambda audit, run: audit.replay(run),
    "recompute": lambda audit, run: audit.recompute(run, "b1"),
}

DAMAGES = {
    "an event": ("UPDATE event SET body = '{'", ("runs", "events", "thoughts", "why", "replay")),
    "all blobs": ("UPDATE blob SET bytes = x'ff7b'", ("runs", "why", "replay", "recompute")),
    "evidence": (
        "UPDATE blob SET bytes = CAST(substr(bytes, 1, length(bytes) - 1) || x'00' AS BLOB) "
        "WHERE digest IN (SELECT evidence FROM thought WHERE id = 'b1')",
        ("why", "replay", "recompute"),
    ),
    "the policy": (
        "UPDATE policy SET body = replace(body, '0.3', '0.7')",
        ("why", "replay", "recompute"),
    ),
    "a policy's form": ("UPDATE policy SET body = '{'", ("why", "replay", "recompute")),
    "the first event": (
        "UPDATE event SET body = replace(body, 'opsdesk', 'another') WHERE seq = 0",
        ("why", "replay", "recompute"),
    ),
    "a run's row": ("UPDATE run SET digests = '{'", ("runs", "why")),
}


@pytest.mark.parametrize(
    ("damage", "question"),
    [(damage, each) for damage, (_, questions) in DAMAGES.items() for each in questions],
)
def test_a_question_to_what_was_changed_is_refused_in_one_line(told, damage, question, one_line):
    told.change(DAMAGES[damage][0])
    with AuditLog(told.path) as audit:
        with pytest.raises(LedgerError, match="was damaged: run `secateur audit verify`") as error:
            QUESTIONS[question](audit, told.first)
        assert not audit.verify().ok
    one_line(error.value)
