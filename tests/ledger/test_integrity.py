"""Integrity: what is changed, missing, swapped or cut off is found, and named for what it is."""

import asyncio
import shutil
from dataclasses import replace

import pytest
from sqlalchemy.engine import make_url

from secateur.gates.control import Control
from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.chain import GENESIS, event_hash
from secateur.runtime.ledger.events import EventKind, Retry, RunStatus, Switch
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.integrity.links import COLUMNS, link_hash
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog


def verify(told, run=None):
    with AuditLog(told.url) as audit:
        return audit.verify(run)


def first_bad(told, run=None):
    bad = verify(told, run).first_bad
    assert bad is not None
    return bad


async def live_on(make, told) -> None:
    """Let the first run have an event of every kind."""
    async with Ledger.open(told.url) as ledger:
        log = await ledger.reopen(told.first)
        await log.resumed(make.start(run=told.first), "killed", by="person:ann")
        await log.intend(make.intent("b6"))
        await log.abandon("b6", 0, "its process was killed")
        await log.intend(replace(make.intent("b6"), attempt=1))
        switch = Switch(2, {}, {"deceit": Control.model_validate("ban")}, (1, 2), 8, 0)
        await log.switch("b6", 1, switch, "restart web")
        verdict = make.judged("b6", make.evidence([0.1, 0.5]), attempt=1)
        await log.judge(verdict)
        cause = verdict.judgement.crossings[0]
        await log.back_up(Retry("b6", 1, "b7", 1, "sentence", 3, " web.", cause, {}, 9))
        await log.decide("b5", approve=True, by="ann", reason="seen")
        await log.finish(RunStatus.DONE, "up")
    engine = connect.open_existing(told.url)
    with engine.connect() as connection:
        (found,) = erasing.find(connection, "b1", ("text", "value"), told.first)
    engine.dispose()
    await erasing.erase(told.url, found, by="ann", reason="asked for")


@pytest.fixture(scope="module")
def lived_in_sqlite(make, told_in_sqlite, tmp_path_factory):
    path = shutil.copy(told_in_sqlite.url, tmp_path_factory.mktemp("lived") / "lived.db")
    lived = replace(told_in_sqlite, url=str(path))
    asyncio.run(live_on(make, lived))
    return lived


@pytest.fixture(scope="module")
def lived_in_postgres(make, told_in_postgres, postgres):
    name = postgres.database(str(make_url(told_in_postgres.url).database))
    lived = replace(told_in_postgres, url=postgres.url(name))
    asyncio.run(live_on(make, lived))
    return lived


@pytest.fixture(params=["sqlite", "postgresql"])
def lived(request, tmp_path):
    """A copy of a ledger whose first run has an event of every kind."""
    if request.param == "sqlite":
        once = request.getfixturevalue("lived_in_sqlite")
        yield replace(once, url=str(shutil.copy(once.url, tmp_path / "lived.db")))
        return
    once, server = request.getfixturevalue("lived_in_postgres"), request.getfixturevalue("postgres")
    name = server.database(str(make_url(once.url).database))
    yield replace(once, url=server.url(name))
    server.drop(name)


def test_a_ledger_that_nobody_touched_is_fine(told):
    found = verify(told)
    assert found.ok
    assert found.runs == 2
    assert found.events == told.ask("SELECT count(*) FROM event")[0][0]
    assert found.blobs == told.ask("SELECT count(*) FROM blob")[0][0]
    assert verify(told, told.first).runs == 1


def test_a_run_with_events_of_every_kind_is_fine(lived):
    assert {kind for (kind,) in lived.ask("SELECT kind FROM event")} == set(EventKind)
    assert verify(lived).damages == ()


def test_the_quick_hash_is_the_hash(lived):
    for row in lived.ask(f"SELECT {', '.join(COLUMNS)} FROM event"):
        columns = dict(zip(COLUMNS, row, strict=True))
        assert link_hash(row) == event_hash(columns) == columns["hash"]


OTHER = {
    "run_id": "'zzzzzzzzzzzz'",
    "seq": "seq + 100",
    "kind": "'x' || kind",
    "at": "'2020-01-01T00:00:00.000000Z'",
    "monotonic_ns": "monotonic_ns + 1",
    "actor": "actor || ' '",
    "thought_id": "coalesce(thought_id || 'x', 'b2')",
    "attempt": "coalesce(attempt + 1, 0)",
    "digests": f"'{GENESIS}'",
    "latency_s": "coalesce(latency_s + 1e-9, 0.25)",
    "blobs": "blobs || ' '",
    "body": "replace(body, ':', ': ')",
    "prev_hash": "hash",
    "hash": "prev_hash",
}
"""What somebody may write into each column; small changes, where they can be."""


@pytest.mark.parametrize("kind", list(EventKind))
def test_any_column_of_any_kind_of_event_is_missed_when_changed(lived, kind):
    ((seq,),) = lived.ask(
        "SELECT max(seq) FROM event WHERE run_id = ? AND kind = ?", (lived.first, kind.value)
    )
    (before,) = lived.ask(
        f"SELECT {', '.join(COLUMNS)} FROM event WHERE run_id = ? AND seq = ?", (lived.first, seq)
    )
    engine = connect.open_existing(lived.url)
    for column in COLUMNS:
        here = f"run_id = '{lived.first}' AND seq = {seq}"
        lived.change(f"UPDATE event SET {column} = {OTHER[column]} WHERE {here}")
        bad = next(d for d in verification.verify(engine).damages if d.run == lived.first)
        # The last event that was moved to another run has left a chain that merely ends earlier.
        last = kind is EventKind.ERASED and column == "run_id"
        expected = "truncated" if last else MOVED.get(column, "changed")
        assert (bad.seq, bad.kind) == (seq, expected), (column, bad.reason)
        there = {"run_id": f"run_id = 'zzzzzzzzzzzz' AND seq = {seq}", "seq": f"seq = {seq + 100}"}
        lived.change(f"DELETE FROM event WHERE {there.get(column, here)}")
        lived.insert("event", before)
    assert verification.verify(engine, lived.first).ok
    engine.dispose()


MOVED = {"run_id": "swapped", "seq": "swapped"}


def test_a_column_that_was_changed_is_named_where_that_can_be_told(told):
    here = f"WHERE run_id = '{told.first}' AND seq = 3"
    for column in ("prev_hash", "digests"):
        (before,) = told.ask(f"SELECT {column} FROM event {here}")[0]
        told.change(f"UPDATE event SET {column} = '{'1' * 64}' {here}")
        assert first_bad(told).reason == f"event 3 was changed: its {column} is not what was hashed"
        told.change(f"UPDATE event SET {column} = '{before}' {here}")
    told.change(f"UPDATE event SET hash = '{'1' * 64}' {here}")
    reason = "event 3 was changed: its hash is not the one that event 4 follows"
    assert first_bad(told).reason == reason


def test_an_event_taken_from_the_middle_is_missing(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.first}' AND seq = 5")
    bad = first_bad(told)
    assert (bad.seq, bad.kind, bad.reason) == (5, "missing", "event 5 is missing")
    told.change(f"DELETE FROM event WHERE run_id = '{told.first}' AND seq IN (6, 7)")
    assert first_bad(told).reason == "events 5 to 7 are missing"


def test_the_first_event_is_missing(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.first}' AND seq = 0")
    bad = first_bad(told)
    assert (bad.seq, bad.kind, bad.reason) == (0, "missing", "event 0 is missing")


def swap(told, columns, one, other, run=None):
    """Exchange these columns of two events."""
    (first,) = told.ask(
        f"SELECT {columns} FROM event WHERE run_id = ? AND seq = ?", (told.first, one)
    )
    (second,) = told.ask(
        f"SELECT {columns} FROM event WHERE run_id = ? AND seq = ?", (run or told.first, other)
    )
    for (at, seq), values in (((told.first, one), second), ((run or told.first, other), first)):
        given = ", ".join(
            f"{name} = " + ("NULL" if value is None else "'" + str(value).replace("'", "''") + "'")
            for name, value in zip(columns.split(", "), values, strict=True)
        )
        told.change(f"UPDATE event SET {given} WHERE run_id = '{at}' AND seq = {seq}")


ALL = ", ".join(name for name in COLUMNS if name not in ("run_id", "seq"))
BETWEEN = ", ".join(name for name in ALL.split(", ") if name not in ("prev_hash", "hash"))


@pytest.mark.parametrize("columns", [ALL, BETWEEN], ids=["whole", "all but their links"])
@pytest.mark.parametrize("other", [4, 9])
def test_two_events_that_changed_places_are_swapped(told, columns, other):
    swap(told, columns, 3, other)
    bad = first_bad(told)
    assert (bad.run, bad.seq, bad.kind) == (told.first, 3, "swapped")
    assert f"what stands there was recorded as event {other}" in bad.reason


def test_events_that_changed_places_with_another_runs_are_swapped(told):
    swap(told, ALL, 2, 2, told.second)
    bad = first_bad(told)
    assert (bad.run, bad.seq, bad.kind) == (told.first, 2, "swapped")
    assert f"event 2 of run {told.second}" in bad.reason


def test_an_event_that_was_moved_away_is_found(told):
    told.change(f"UPDATE event SET seq = 500 WHERE run_id = '{told.first}' AND seq = 7")
    bad = first_bad(told)
    assert (bad.seq, bad.kind) == (7, "swapped")
    assert bad.reason == "event 7 does not stand in its place, but as event 500"


def rehash(told, seq, **changes):
    """Change an event, and make its hash anew."""
    (row,) = told.ask(
        f"SELECT {', '.join(COLUMNS)} FROM event WHERE run_id = ? AND seq = ?", (told.first, seq)
    )
    columns = dict(zip(COLUMNS, row, strict=True)) | changes
    given = ", ".join(f"{name} = '{value}'" for name, value in changes.items())
    told.change(
        f"UPDATE event SET {given}, hash = '{event_hash(columns)}' "
        f"WHERE run_id = '{told.first}' AND seq = {seq}"
    )


def test_an_event_whose_hash_was_made_anew_is_found_by_the_next(told):
    rehash(told, 4, actor="nobody")
    bad = first_bad(told)
    assert (bad.seq, bad.kind) == (4, "changed")
    assert "event 4 was changed and its hash made anew: event 5 follows" in bad.reason


def test_a_tail_that_was_cut_off_is_missed_by_the_thoughts_it_made(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.second}' AND seq > 1")
    bad = first_bad(told)
    assert (bad.run, bad.seq, bad.kind) == (told.second, 2, "truncated")
    assert bad.reason == "events after 1 were cut off: thought b2 was recorded by event 2"


def test_a_tail_that_was_cut_off_is_missed_by_an_erasure(lived):
    ((last,),) = lived.ask("SELECT max(seq) FROM event")
    lived.change(f"DELETE FROM event WHERE seq = {last}")
    assert first_bad(lived).reason == (
        f"events after {last - 1} were cut off: an erasure names event {last}"
    )


def test_blobs_that_belong_to_no_event_tell_of_a_tail_that_was_cut_off(told):
    seqs = f"WHERE run_id = '{told.second}'"
    told.change(
        f"DELETE FROM event {seqs} AND seq > 0",
        f"DELETE FROM tag_score {seqs}",
        f"DELETE FROM thought {seqs}",
    )
    told.forget_words(told.second, upto=0)
    (bad,) = verify(told).damages
    assert (bad.run, bad.seq, bad.kind) == (None, None, "truncated")
    assert "6 blobs belong to no event" in bad.reason
    assert verify(told, told.second).ok  # the chain alone cannot know


def test_a_run_without_any_event_is_truncated(told):
    told.change(f"DELETE FROM event WHERE run_id = '{told.second}'")
    (bad, *_) = verify(told).damages
    assert (bad.run, bad.kind) == (told.second, "truncated")
    assert bad.reason == "all of its events were cut off"


def test_each_damaged_run_is_named_and_the_others_are_counted(told):
    for run, seq in ((told.second, 1), (told.first, 3)):
        told.change(f"UPDATE event SET actor = 'x' WHERE run_id = '{run}' AND seq = {seq}")
    found = verify(told)
    assert [(damage.run, damage.seq) for damage in found.damages] == [
        (told.first, 3),
        (told.second, 1),
    ]
    assert found.first_bad == found.damages[0]
    assert (found.runs, found.events) == (2, told.ask("SELECT count(*) FROM event")[0][0])


@pytest.mark.parametrize("column", ["kind", "actor", "body", "blobs", "hash", "at"])
def test_text_that_is_no_utf8_is_a_change_like_any_other(told, column):
    told.path  # noqa: B018 - PostgreSQL stores no such text
    told.change(
        f"UPDATE event SET {column} = CAST(x'ff' || {column} AS TEXT) "
        f"WHERE run_id = '{told.first}' AND seq = 3"
    )
    bad = first_bad(told)
    assert (bad.run, bad.seq, bad.kind) == (told.first, 3, "changed")


@pytest.mark.parametrize("value", ["x'00'", "1.5", "'1'"])
def test_a_value_of_another_type_is_a_change_like_any_other(told, value):
    told.path  # noqa: B018 - PostgreSQL's columns have one type
    for column in ("attempt", "monotonic_ns", "actor"):
        there = f"WHERE run_id = '{told.first}' AND seq = 3"
        ((before,),) = told.ask(f"SELECT {column} FROM event {there}")
        told.change(f"UPDATE event SET {column} = {value} {there}")
        bad = first_bad(told)
        assert (bad.run, bad.seq, bad.kind) == (told.first, 3, "changed")
        told.change(f"UPDATE event SET {column} = '{before}' {there}")


def test_several_processes_find_what_one_finds(told, monkeypatch):
    monkeypatch.setattr(verification, "_SPAN", 1)
    monkeypatch.setattr(verification, "_WORTH_A_PROCESS", 1)
    told.change(f"UPDATE event SET actor = 'x' WHERE run_id = '{told.second}' AND seq = 1")
    engine = connect.open_existing(told.url)
    steps: list[tuple[int, int]] = []
    found = verification.verify(engine, processes=2, progress=lambda *step: steps.append(step))
    assert found == verification.verify(engine)
    assert steps[0] == (0, found.events)
    assert steps[-1] == (found.events, found.events)
    assert not found.ok
    engine.dispose()


async def test_what_is_written_meanwhile_is_no_damage(ledger_url, make):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        with AuditLog(ledger_url) as audit:
            for n in range(20):
                await log.judge(make.judged(f"t{n}", make.evidence([0.5]), parents=()))
                assert audit.verify().ok
