"""Integrity beside the chain: runs, blobs, policies, derived rows, and what is asked of them."""

import json

import pytest

from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.reading.audit import AuditLog


def verify(told):
    with AuditLog(told.url) as audit:
        return audit.verify()


def first_bad(told):
    bad = verify(told).first_bad
    assert bad is not None
    return bad


def test_a_run_whose_row_is_gone_is_missed(told):
    told.change(f"DELETE FROM run WHERE id = '{told.second}'")
    bad = verify(told).first_bad
    assert bad is not None
    assert (bad.run, bad.reason) == (told.second, "the run's row is missing")


def test_a_changed_column_of_a_run_is_found(told):
    here = f"WHERE id = '{told.first}'"
    other = {"seed": "seed + 1", "task": "(SELECT max(digest) FROM blob WHERE digest <> run.task)"}
    for column in (each.name for each in tables.run.c if each.name != "id"):
        ((before,),) = told.ask(f"SELECT {column} FROM run {here}")
        told.change(f"UPDATE run SET {column} = {other.get(column, literal('other'))} {here}")
        bad = first_bad(told)
        assert (bad.run, bad.seq) == (told.first, None)
        assert bad.kind == ("missing" if column == "policy" else "changed")
        assert column in bad.reason
        told.change(f"UPDATE run SET {column} = {literal(before)} {here}")
    assert verify(told).ok


def literal(value):
    """As SQL spells it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


def named(told, name):
    """The last event of the first run that names such a blob, and the blob's digest."""
    rows = told.ask("SELECT seq, blobs FROM event WHERE run_id = ? ORDER BY seq", (told.first,))
    return [(seq, json.loads(blobs)[name]) for seq, blobs in rows if name in json.loads(blobs)][-1]


@pytest.mark.parametrize("column", ["digest", "salt", "bytes"])
@pytest.mark.parametrize("name", ["text", "value", "evidence", "prompt", "task", "result"])
def test_a_changed_blob_is_found_and_named(told, column, name):
    seq, digest = named(told, name)
    other = f"'{'0' * 64}'" if column == "digest" else "x'00'"
    told.change(f"UPDATE blob SET {column} = {other} WHERE digest = '{digest}'")
    bad = first_bad(told)
    assert bad.run == told.first
    if name == "task" and column == "digest":
        return  # the run's row names it as well
    assert bad.seq == seq
    if column == "digest":
        assert (bad.kind, bad.reason) == ("missing", f"the {name} of event {seq} is missing")
    else:
        assert (bad.kind, bad.reason) == ("changed", f"the {name} of event {seq} was changed")


def test_bytes_that_are_gone_without_an_erasure_are_missing(told):
    seq, digest = named(told, "text")
    told.change(f"UPDATE blob SET bytes = x'', salt = x'' WHERE digest = '{digest}'")
    bad = first_bad(told)
    assert (bad.seq, bad.kind) == (seq, "missing")
    assert "are gone, and no erasure says why" in bad.reason


def test_two_blobs_that_changed_places_are_swapped(told):
    (one, first), (_, second) = named(told, "text"), named(told, "evidence")
    told.change(
        f"UPDATE blob SET digest = '{'0' * 64}' WHERE digest = '{first}'",
        f"UPDATE blob SET digest = '{first}' WHERE digest = '{second}'",
        f"UPDATE blob SET digest = '{second}' WHERE digest = '{'0' * 64}'",
    )
    bad = first_bad(told)
    assert (bad.seq, bad.kind) == (one, "swapped")
    # Both are of one event; its names are read in order.
    assert f"the evidence of event {one} was swapped with another blob, {first[:12]}" in bad.reason


@pytest.mark.parametrize("column", ["name", "body"])
def test_a_changed_policy_is_found(told, column):
    told.change(f"UPDATE policy SET {column} = replace({column}, 'e', 'f')")
    bad = verify(told).first_bad
    assert bad is not None
    assert "policy" in bad.reason


def other(column):
    """Another value of the column's type."""
    kind = column.type.python_type
    return "NOT decided" if kind is bool else "77" if kind in (int, float) else "'zz'"


def rebuild(told):
    engine = connect.open_existing(told.url, read_only=False)
    try:
        return verification.rebuild(engine)
    finally:
        engine.dispose()


def test_a_changed_column_of_a_thought_is_found_and_made_anew(told):
    here = f"WHERE run_id = '{told.first}' AND id = 'b1'"
    for column in (each for each in tables.thought.c if each.name not in ("run_id", "id")):
        told.change(f"UPDATE thought SET {column.name} = {other(column)} {here}")
        bad = first_bad(told)
        assert (bad.run, bad.kind) == (told.first, "changed")
        assert bad.reason.startswith(f"thought b1: {column.name} is not what its events say")
        assert "secateur db rebuild" in bad.reason
        rebuild(told)
    assert verify(told).ok


def test_a_changed_column_of_a_tags_scores_is_found_and_made_anew(told):
    here = f"WHERE run_id = '{told.first}' AND thought_id = 'b1' AND tag = 'deceit'"
    keys = ("run_id", "thought_id", "tag")
    for column in (each for each in tables.tag_score.c if each.name not in keys):
        told.change(f"UPDATE tag_score SET {column.name} = {other(column)} {here}")
        bad = first_bad(told)
        assert (bad.run, bad.kind) == (told.first, "changed")
        assert "the scores of deceit for thought b1 are changed" in bad.reason
        rebuild(told)
    assert verify(told).ok


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ("DELETE FROM tag_score WHERE tag = 'deceit' AND thought_id = 'b1'", "missing", "scores"),
        ("UPDATE tag_score SET thought_id = 'b9' WHERE thought_id = 'b1'", "missing", "scores"),
        ("DELETE FROM thought WHERE id = 'a0'", "missing", "a0 is not in the thought table"),
        ("UPDATE thought SET id = 'a9' WHERE id = 'a0'", "changed", "a9 stands in no event"),
    ],
)
def test_derived_rows_that_are_gone_or_put_in_are_found_and_made_anew(told, change, kind, reason):
    told.change(change)
    bad = first_bad(told)
    assert bad.kind == kind
    assert reason in bad.reason
    rebuild(told)
    assert verify(told).ok


def test_derived_tables_are_made_from_the_events_alone(told):
    tables_ = ("thought", "tag_score")
    before = {t: told.ask(f"SELECT * FROM {t} ORDER BY 1, 2, 3") for t in tables_}
    told.change("DELETE FROM tag_score", "DELETE FROM thought")
    assert rebuild(told) == len(before["thought"])
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
        "UPDATE blob SET bytes = x'00' "
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


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_question_to_what_was_changed_is_refused_in_one_line(told, damage, one_line):
    statement, questions = DAMAGES[damage]
    told.change(statement)
    with AuditLog(told.url) as audit:
        for question in questions:
            with pytest.raises(LedgerError, match="was damaged: run `secateur audit verify`") as no:
                QUESTIONS[question](audit, told.first)
            one_line(no.value)
        assert not audit.verify().ok
