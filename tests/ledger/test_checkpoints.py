"""Checkpoints: what was signed and kept elsewhere shows what a chain alone cannot."""

import json
from dataclasses import replace

import pytest

from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity.checkpoints import (
    Checkpoint,
    make_checkpoint,
    read_checkpoint,
)
from secateur.runtime.ledger.integrity.signing import SigningKey, public_key
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog


@pytest.fixture
def key(tmp_path):
    return SigningKey.generate(tmp_path / "keys" / "checkpoint.key")


@pytest.fixture
def make_one(told, key, tmp_path):
    """Make a checkpoint and keep it as a file; what the file says."""

    def make(by: SigningKey = key, heads: bool = False) -> Checkpoint:
        engine = connect.open_existing(told.url, read_only=False)
        try:
            made = make_checkpoint(engine, by)
        finally:
            engine.dispose()
        path = tmp_path / f"checkpoint-{made.number}.json"
        path.write_text(json.dumps(made.as_json(heads=heads)))
        return read_checkpoint(path)

    return make


def verify(told, run=None, **given):
    with AuditLog(told.url) as audit:
        return audit.verify(run, **given)


async def go_on(told, make):
    """Another run, and another event of a run that was there."""
    async with Ledger.open(told.url) as ledger:
        await ledger.start(make.start())
        log = await ledger.reopen(told.second)
        await log.resumed(make.start(run=told.second, agent="writer", context="fiction"), "killed")
        await log.intend(make.intent("e1"))


def test_a_key_is_its_owners_alone_and_never_in_the_database(told, key, make_one):
    assert key.path.stat().st_mode & 0o777 == 0o600
    assert key.path.parent.stat().st_mode & 0o777 == 0o700
    assert SigningKey.open(key.path).public == key.public
    assert public_key(f"{key.path}.pub") == public_key(key.public.upper()) == key.public
    make_one()
    secret = key._private.private_bytes_raw()
    (row,) = told.ask("SELECT * FROM checkpoint")
    assert secret.hex() not in str(row)
    assert key.public in str(row)


def test_a_key_that_others_can_read_or_that_is_none_is_refused(key, tmp_path, one_line):
    key.path.chmod(0o640)
    with pytest.raises(LedgerError, match="can be read by others") as error:
        SigningKey.open(key.path)
    assert "chmod 600" in one_line(error.value)
    nothing = tmp_path / "nothing"
    nothing.write_text("shears")
    nothing.chmod(0o600)
    with pytest.raises(LedgerError, match="holds no Ed25519 private key") as error:
        SigningKey.open(nothing)
    one_line(error.value)
    with pytest.raises(LedgerError, match="no key can be made") as error:
        SigningKey.generate(nothing)
    one_line(error.value)
    with pytest.raises(LedgerError, match="is no public key") as error:
        public_key("abc")
    one_line(error.value)


async def test_what_comes_after_a_checkpoint_is_fine(told, make, make_one, key):
    first = make_one()
    assert (first.number, first.runs, first.previous) == (1, 2, "0" * 64)
    assert verify(told, checkpoint=first, key=key.public).ok
    await go_on(told, make)
    second = make_one()
    assert (second.number, second.runs, second.previous) == (2, 3, first.hash)
    found = verify(told, checkpoint=first, key=key.public)
    assert (found.ok, found.checkpoints, found.runs) == (True, 2, 3)
    assert verify(told, told.second, checkpoint=second, key=key.public).ok


async def test_a_ledger_that_is_open_signs_all_that_was_told_to_it(ledger_url, make, key):
    async with Ledger.open(ledger_url) as ledger:
        assert (await ledger.checkpoint(key)).runs == 0
        log = await ledger.start(make.start())
        await log.note("queued", {})
        made = await ledger.checkpoint(key)
        await log.intend(make.intent("t1"))
        assert (made.number, made.runs, made.events) == (2, 1, 2)
    with AuditLog(ledger_url) as audit:
        assert audit.verify(checkpoint=made, key=key.public).ok


CUT = (
    "DELETE FROM tag_score WHERE run_id = '{run}' AND thought_id = 'd1'",
    "DELETE FROM thought WHERE run_id = '{run}' AND id = 'd1'",
    "DELETE FROM event WHERE run_id = '{run}' AND seq = 3",
    "DELETE FROM blob WHERE digest IN ({blobs})",
)
"""The newest event of the second run, with all that was made from it."""


def cut_off(told):
    ((blobs,),) = told.ask("SELECT blobs FROM event WHERE run_id = ? AND seq = 3", (told.second,))
    digests = ", ".join(f"'{digest}'" for digest in json.loads(blobs).values())
    told.change(*(each.format(run=told.second, blobs=digests) for each in CUT))
    told.forget_words(told.second, upto=2)


def test_a_tail_that_was_cut_off_with_all_that_came_of_it_only_a_checkpoint_misses(told, make_one):
    kept = make_one()
    told.change("DELETE FROM checkpoint")
    cut_off(told)
    assert verify(told).ok  # the chain ends earlier, and nothing in the ledger knows
    damages = verify(told, checkpoint=kept).damages
    assert [(d.run, d.kind) for d in damages] == [(None, "truncated")]
    assert "is not in the ledger any more" in damages[0].reason


def test_a_checkpoint_that_kept_the_heads_names_what_was_cut_off(told, make_one):
    kept = make_one(heads=True)
    told.change("DELETE FROM checkpoint")
    cut_off(told)
    bad = verify(told, checkpoint=kept).first_bad
    assert bad is not None
    assert (bad.run, bad.seq, bad.kind) == (told.second, 3, "truncated")
    assert "events after 2 were cut off: the checkpoint 1 of" in bad.reason


def test_the_ledgers_own_checkpoint_names_it_as_well(told, make_one):
    make_one()
    cut_off(told)
    for found in (verify(told), verify(told, told.second)):
        assert found.first_bad is not None
        assert (found.first_bad.run, found.first_bad.kind) == (told.second, "truncated")
    assert verify(told, told.first).ok


def test_a_run_that_was_removed_whole_is_missing(told, make_one):
    kept = make_one(heads=True)
    digests = [
        f"'{digest}'"
        for (blobs,) in told.ask("SELECT blobs FROM event WHERE run_id = ?", (told.second,))
        for digest in json.loads(blobs).values()
    ]
    told.change(
        *(f"DELETE FROM {table} WHERE run_id = '{told.second}'" for table in (
            "tag_score", "thought", "event")),
        f"DELETE FROM run WHERE id = '{told.second}'",
        f"DELETE FROM blob WHERE digest IN ({', '.join(digests)})",
        "DELETE FROM checkpoint",
    )  # fmt: skip
    told.forget_words(told.second)
    assert verify(told).ok
    bad = verify(told, checkpoint=kept).first_bad
    assert bad is not None
    assert (bad.run, bad.seq, bad.kind) == (told.second, None, "missing")
    assert "the whole run is missing" in bad.reason


def test_a_chain_that_was_made_anew_is_found_by_the_checkpoint(told, make_one):
    from secateur.runtime.ledger.chain import event_hash

    kept = make_one(heads=True)
    told.change("DELETE FROM checkpoint")
    names = [column.name for column in tables.event.c]
    head = "0" * 64
    rows = told.ask(f"SELECT {', '.join(names)} FROM event WHERE run_id = ? ORDER BY seq", (
        told.second,))  # fmt: skip
    for row in rows:
        event = dict(zip(names, row, strict=True)) | {"monotonic_ns": 7, "prev_hash": head}
        head = event_hash(event)
        told.change(
            f"UPDATE event SET monotonic_ns = 7, prev_hash = '{event['prev_hash']}', "
            f"hash = '{head}' WHERE run_id = '{told.second}' AND seq = {event['seq']}"
        )
    assert verify(told).ok
    bad = verify(told, checkpoint=kept).first_bad
    assert bad is not None
    assert (bad.run, bad.seq, bad.kind) == (told.second, 3, "changed")
    assert "event 3 is not the one that the checkpoint 1 of" in bad.reason


def test_a_kept_checkpoint_that_nobody_signed_proves_nothing(told, make_one, tmp_path, one_line):
    kept = make_one()
    stranger = SigningKey.generate(tmp_path / "stranger.key")
    forged = replace(kept, events=kept.events + 1)
    for given in ({"checkpoint": forged}, {"checkpoint": kept, "key": stranger.public}):
        with pytest.raises(LedgerError, match="that was kept proves nothing") as error:
            verify(told, **given)
        one_line(error.value)


def test_a_checkpoint_of_another_key_is_found(told, make_one, key, tmp_path):
    make_one()
    make_one(SigningKey.generate(tmp_path / "stranger.key"))
    assert verify(told).ok
    (bad,) = verify(told, key=key.public).damages
    assert (bad.run, bad.kind) == (None, "changed")
    assert "checkpoint 2 was changed: it is signed with the key" in bad.reason


OTHER = {
    "number": "9",
    "runs": "runs + 1",
    "events": "events + 1",
    "body": "replace(body, ',', ', ')",
    "heads": "replace(heads, ',1', ',2')",
    "signature": f"'{'0' * 128}'",
    "at": "'2020-01-01T00:00:00.000000Z'",
}


@pytest.mark.parametrize("column", [column.name for column in tables.checkpoint.c])
def test_any_column_of_a_checkpoint_is_missed_when_changed(told, make_one, column):
    make_one()
    make_one()
    other = OTHER.get(column, f"'{'1' * 64}'")
    told.change(f"UPDATE checkpoint SET {column} = {other} WHERE number = 2")
    damages = verify(told).damages
    assert damages
    assert all(damage.run is None for damage in damages)
    assert {damage.kind for damage in damages} <= {"changed", "missing", "swapped"}


def test_checkpoints_that_are_missing_or_swapped_are_found(told, make_one):
    for _ in range(3):
        make_one()
    told.change(
        "UPDATE checkpoint SET number = 9 WHERE number = 1",
        "UPDATE checkpoint SET number = 1 WHERE number = 2",
        "UPDATE checkpoint SET number = 2 WHERE number = 9",
    )
    first, *_ = verify(told).damages
    assert (first.kind, first.reason) == ("swapped", "checkpoint 1 was swapped: it is checkpoint 2")
    told.change("DELETE FROM checkpoint WHERE number = 2")
    assert ("missing", "checkpoint 2 is missing") in [(d.kind, d.reason) for d in (
        verify(told).damages)]  # fmt: skip


def test_nobody_vouches_for_what_was_damaged(told, make_one, one_line):
    make_one()
    cut_off(told)
    with pytest.raises(LedgerError, match="no checkpoint was made") as error:
        make_one()
    assert f"run {told.second} is not what it vouches for" in one_line(error.value)


def test_a_checkpoint_from_outside_needs_only_to_read(told, make_one, key, one_line):
    make_one()
    reading = connect.open_existing(told.url)
    outside = make_checkpoint(reading, key, outside=True)
    reading.dispose()
    assert outside.number == 0
    assert told.ask("SELECT count(*) FROM checkpoint") == [(1,)]
    assert verify(told, checkpoint=outside, key=key.public).ok
    with pytest.raises(LedgerError, match="names no heads") as error:
        verify(told, checkpoint=replace(outside, heads=None))
    one_line(error.value)
    told.change("DELETE FROM checkpoint")
    assert verify(told, checkpoint=outside).ok
    cut_off(told)
    bad = verify(told, checkpoint=outside).first_bad
    assert bad is not None
    assert (bad.run, bad.seq, bad.kind) == (told.second, 3, "truncated")


def test_a_run_is_proved_to_be_under_a_checkpoint(told, make_one):
    made = make_one()
    with AuditLog(told.url) as audit:
        stored = audit.checkpoint()
        assert [c.number for c in audit.checkpoints()] == [1]
        assert audit.checkpoint(1) == stored
        with pytest.raises(LedgerError, match="no checkpoint 2"):
            audit.checkpoint(2)
    assert stored.fault() is None
    for run in (told.first, told.second):
        proof = stored.prove(run)
        assert proof.holds
        assert not replace(proof, head=proof.head._replace(seq=99)).holds
        assert not replace(proof, path=()).holds
    assert replace(stored, heads=None) == made
    with pytest.raises(LedgerError, match="has no run"):
        stored.prove("nobody")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "secateur-checkpoint/1"}', "null"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, text, one_line):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(LedgerError, match="is no checkpoint") as error:
        read_checkpoint(path)
    one_line(error.value)
    with pytest.raises(LedgerError, match="cannot be read"):
        read_checkpoint(tmp_path / "none.json")
