"""Erasing: the bytes are gone from everywhere the database kept them, and the chain says so."""

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from secateur.agents.thought import Status
from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.search import index as passages
from secateur.runtime.ledger.search.index import index_some

SECRET = "Margery Allingham of Pleurs Cottage"


@pytest.fixture
async def telling(make, told):
    """A ledger with a finished run that says a secret in a thought and its prompt, indexed."""
    async with Ledger.open(told.url) as ledger:
        log = await ledger.start(make.start(task=f"write to {SECRET}"))
        for n in range(40):  # enough for the secret to lie in pages of its own
            intent = make.intent(f"t{n}")
            await log.intend(intent)
            text = f"{SECRET} number {n} " * 40 if n % 2 else "nothing"
            judged = make.judged(f"t{n}", make.evidence(), text=text, value={"to": text})
            await log.judge(judged)
        await log.finish(RunStatus.DONE, f"wrote to {SECRET}")
    engine = connect.open_existing(told.url, read_only=False)
    while True:
        with engine.begin() as connection:
            if not index_some(connection):
                break
    engine.dispose()
    return told, log.run


def found(url, name, what=erasing.WHAT, run=None):
    engine = connect.open_existing(url)
    try:
        with engine.connect() as connection:
            return erasing.find(connection, name, what, run)
    finally:
        engine.dispose()


def swept(url):
    engine = connect.open_existing(url, read_only=False)
    try:
        return erasing.sweep(engine)
    finally:
        engine.dispose()


async def erase(url, name, what=erasing.WHAT, run=None):
    wanted = found(url, name, what, run)
    for each in wanted:
        await erasing.erase(url, each, by="ann", reason="asked for")
    return wanted


def files(url):
    """Everything that SQLite keeps of a ledger."""
    return b"".join(path.read_bytes() for path in Path(url).parent.glob(f"{Path(url).name}*"))


async def test_erased_text_is_in_no_byte_of_the_file(telling):
    told, run = telling
    path = told.path
    assert SECRET.encode() in files(path)
    await erase(told.url, run)
    assert swept(told.url).complete
    assert SECRET.encode() not in files(path)
    assert b"margery" not in files(path).lower()


async def test_erased_text_is_in_no_table(telling):
    told, run = telling
    await erase(told.url, run)
    for table in ("event", "thought", "tag_score", "decision", "run", "erasure"):
        assert "Margery" not in str(told.ask(f"SELECT * FROM {table}"))
    for column in ("salt", "bytes"):
        left = told.ask(
            f"SELECT count(*) FROM blob WHERE length({column}) > 0 "
            f"AND digest IN (SELECT digest FROM erasure)"
        )
        assert left == [(0,)]
    assert all(SECRET.encode() not in bytes(content) for (content,) in told.ask(
        "SELECT bytes FROM blob"))  # fmt: skip
    assert swept(told.url).complete


async def test_erased_words_are_not_found_any_more(telling):
    told, run = telling
    with AuditLog(told.url) as audit:
        assert len(list(audit.search("Margery"))) == 20
    await erase(told.url, "t3", run=run)
    with AuditLog(told.url) as audit:
        there = {row.thought for row in audit.search("Margery", limit=None)}
    assert there == {f"t{n}" for n in range(40) if n % 2 and n != 3}
    await erase(told.url, run, ("text",))
    with AuditLog(told.url) as audit:
        assert list(audit.search("Margery")) == []
        asked = audit.search("report", run=run, limit=None)  # the prompts were left
        assert {row.thought for row in asked} == {f"t{n}" for n in range(40) if n != 3}


async def test_nobody_can_index_what_is_about_to_be_erased(telling):
    told, run = telling
    (wanted,) = found(told.url, "t3", run=run)
    engine = connect.open_existing(told.url, read_only=False)
    with engine.begin() as connection:
        passages._clear(connection)  # as if the writer had not come to it yet
    erasing._index(engine, wanted, passages.forget)
    with engine.begin() as connection:
        while index_some(connection):
            pass
    engine.dispose()
    mine = told.ask(f"SELECT thought_id FROM passage WHERE run_id = '{run}'")
    indexed = {thought for (thought,) in mine}
    assert indexed == {f"t{n}" for n in range(40) if n != 3}


async def test_the_chain_stays_whole_and_says_who_erased_what(telling):
    told, run = telling
    ((before,),) = told.ask("SELECT count(*) FROM event WHERE run_id = ?", (run,))
    (wanted,) = await erase(told.url, run)
    with AuditLog(told.url) as audit:
        assert audit.verify().damages == ()
        *_, last = audit.events(run)
        assert audit.run(run).status == "done"
        thoughts = {thought.id: thought for thought in audit.thoughts(run)}
    assert (last.kind, last.actor, last.seq) == ("erased", "person:ann", before)
    assert last.body["reason"] == "asked for"
    assert set(last.body["blobs"]) == {blob.digest for blob in wanted.blobs}
    assert {said["name"] for said in last.body["blobs"].values()} == {
        "task", "prompt", "text", "value", "evidence", "result",
    }  # fmt: skip
    assert thoughts["t1"].status is Status.KEPT
    assert (thoughts["t1"].text, thoughts["t1"].value) == ("", None)
    assert thoughts["t1"].reason == "erased: asked for"


async def test_a_thought_is_erased_in_every_run_that_has_it_or_in_one(told):
    assert [each.run for each in found(told.url, "b2")] == sorted([told.first, told.second])
    (one,) = await erase(told.url, "b2", ("text", "evidence"), told.second)
    assert {blob.name for blob in one.blobs} == {"text", "evidence"}
    assert told.ask("SELECT text FROM thought WHERE run_id = ? AND id = 'b2'", (told.second,)) == [
        ("",)
    ]
    assert told.ask("SELECT text FROM thought WHERE run_id = ? AND id = 'b2'", (told.first,)) != [
        ("",)
    ]
    with AuditLog(told.url) as audit:
        assert audit.verify().ok
    first, second = found(told.url, "b2", ("text", "evidence"))
    assert {each.run: len(each.blobs) for each in (first, second)} == {
        told.first: 2,
        told.second: 0,
    }
    assert (first.finished, second.finished) == (first.run == told.first, second.run == told.first)


async def test_what_is_erased_twice_is_refused_and_what_is_left_can_follow(told, one_line):
    (once,) = await erase(told.url, "b1", ("text",), told.first)
    with pytest.raises(LedgerError) as error:
        await erasing.erase(told.url, once, by="ann", reason="again")
    one_line(error.value)
    await erase(told.url, "b1", run=told.first)
    with AuditLog(told.url) as audit:
        assert audit.verify().ok


def test_what_nobody_can_erase_is_refused(told, one_line):
    for name, what, reason in (
        ("b1", ("texts",), "'texts' is nothing that can be erased: say prompt, text"),
        ("nobody", ("text",), "neither a run nor a thought starts with 'nobody'"),
        ("", ("text",), "neither a run nor a thought"),
        (told.first[:1], ("text",), "several runs start with"),
    ):
        with pytest.raises(LedgerError) as error:
            found(told.url, name, what)
        assert reason in one_line(error.value)


async def test_a_blob_that_is_empty_without_its_erasure_is_damage(telling):
    told, run = telling
    await erase(told.url, run)
    told.change(f"DELETE FROM erasure WHERE run_id = '{run}'")
    with AuditLog(told.url) as audit:
        bad = audit.verify().first_bad
    assert bad is not None
    assert (bad.run, bad.seq, bad.kind) == (run, 0, "missing")
    assert "the bytes of the task of event 0 are gone, and no erasure says why" in bad.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE erasure SET seq = seq - 1", "the erasure row of the text of event 3 is not what"),
        ("UPDATE erasure SET at = '2020-01-01T00:00:00.000000Z'", "is not what event"),
        ("UPDATE erasure SET run_id = '{other}'", "no erasure says why"),
        ("UPDATE blob SET bytes = x'00' WHERE digest IN (SELECT digest FROM erasure)", "changed"),
    ],
)
async def test_an_erasure_that_does_not_agree_is_damage(told, change, reason):
    await erase(told.url, "b1", ("text",), told.first)
    told.change(change.format(other=told.second))
    with AuditLog(told.url) as audit:
        bad = next(d for d in audit.verify().damages if d.run == told.first)
    assert reason in bad.reason


async def test_an_erasure_that_erased_nothing_is_damage(told):
    (once,) = await erase(told.url, "b1", ("text",), told.first)
    (digest,) = {blob.digest for blob in once.blobs}
    told.change(f"DELETE FROM erasure WHERE digest = '{digest}'")
    with AuditLog(told.url) as audit:
        bad = audit.verify().first_bad
    assert bad is not None
    assert (bad.seq, bad.kind) == (once.blobs[0].seq, "missing")


async def test_erased_thoughts_are_explained_and_replayed_as_erased(told):
    await erase(told.url, "b1", run=told.first)
    with AuditLog(told.url) as audit:
        why = audit.why("b1", told.first)
        replay = audit.replay(told.first)
    assert "erased" in str(why.thought.reason)
    assert json.dumps(why.as_json())
    assert replay.erased == 1
    assert replay.flips == ()


async def test_a_file_that_is_open_elsewhere_is_said_to_keep_copies(telling):
    told, run = telling
    path = told.path
    reader = connect.connect(path, read_only=True)
    with reader.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM blob").all()
        await erase(told.url, run)
        left = swept(told.url)
    reader.dispose()
    assert not left.complete
    assert str(path) in left.remark
    assert swept(told.url).complete
    assert SECRET.encode() not in files(path)


async def test_a_role_that_may_not_rewrite_the_tables_is_told_so(telling, postgres):
    told, run = telling
    if "://" not in told.url:
        pytest.skip("SQLite has no roles")
    await erase(told.url, run)
    name = str(make_url(told.url).database)
    postgres.execute(
        "DROP ROLE IF EXISTS lowly",
        "CREATE ROLE lowly LOGIN",
        "GRANT SELECT ON alembic_version TO lowly",
        database=name,
    )
    left = swept(postgres.url(name, "lowly"))
    postgres.execute("DROP OWNED BY lowly", "DROP ROLE lowly", database=name)
    assert not left.complete
    assert "permission denied" in left.remark
    assert "as the owner of the tables" in left.remark
