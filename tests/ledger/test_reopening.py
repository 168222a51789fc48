"""Going on with a run: where its chain stands, who may append, what may follow its end."""

import asyncio
import json

import pytest

from secateur.agents.thought import Status
from secateur.runtime.ledger import connect, provenance
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import ErasedBlob, RunStatus
from secateur.runtime.ledger.integrity.verification import rebuild
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog


def whole(url: str) -> bool:
    """Whether the whole ledger verifies."""
    with AuditLog(url) as audit:
        return audit.verify().ok


@pytest.fixture
async def escalated(ledger_url, make):
    """The URL and start of a run that ended with thought ``t1`` waiting for a person."""
    start = make.start()
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(start)
        await log.intend(make.intent("t1"))
        grab = make.judged("t1", make.evidence(powerseeking=0.3), status=Status.ESCALATED)
        await log.judge(grab)
        await log.escalate("t1", "a rule asks for a person")
        await log.finish(RunStatus.ESCALATED, "t1 waits")
    return ledger_url, start


async def test_a_reopened_run_goes_on_without_a_gap(escalated, make, seqs):
    url, start = escalated
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        await log.resumed(start, "the machine was restarted")
        await log.intend(make.intent("t2"))
        await log.judge(make.judged("t2", make.evidence()))
        await log.finish(RunStatus.DONE, "up")
    assert seqs(url, start.run) == list(range(9))
    assert whole(url)


async def test_a_resumed_run_is_bound_to_the_code_that_resumed_it(
    escalated, make, ask, monkeypatch
):
    url, start = escalated
    was = provenance.run_digests(start)
    monkeypatch.setattr(
        "secateur.runtime.ledger.writing.runlog.run_digests", lambda _: was | {"code": "f" * 64}
    )
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        await log.resumed(start, "newer code", by="ops")
        await log.note("after", {})
    found = ask(url, "SELECT kind, digests, body FROM event ORDER BY seq")
    assert len({digests for _, digests, _ in found[:-2]}) == 1
    assert found[-1][1] == found[-2][1] != found[0][1]
    body = json.loads(found[-2][2])
    assert (body["digests"]["code"], body["by"]) == ("f" * 64, "ops")
    assert whole(url)
    async with Ledger.open(url) as ledger:  # the newest binding is the one that is gone on with
        log = await ledger.reopen(start.run)
        await log.note("later still", {})
    assert whole(url)


@pytest.mark.parametrize("what", ["policy", "model", "tokenizer", "vocabulary"])
async def test_another_model_or_policy_cannot_resume_a_run(
    escalated, what, monkeypatch, one_line, seqs
):
    url, start = escalated
    was = provenance.run_digests(start)
    monkeypatch.setattr(
        "secateur.runtime.ledger.writing.runlog.run_digests", lambda _: was | {what: "e" * 64}
    )
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        with pytest.raises(LedgerError, match=f"another {what}") as error:
            await log.resumed(start, "with another")
        one_line(error.value)
    assert seqs(url, start.run) == [0, 1, 2, 3, 4]


async def test_after_its_end_only_people_and_a_resumption_add_to_a_run(escalated, make, one_line):
    url, start = escalated
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        for refused in (
            log.intend(make.intent("t2")),
            log.judge(make.judged("t2", make.evidence())),
            log.score("t1", 1.0, "late"),
            log.finish(RunStatus.DONE),
        ):
            with pytest.raises(LedgerError, match="resume") as error:
                await refused
            one_line(error.value)
        await log.note("seen", {"by": "ada"})
        await log.decide("t1", approve=True, by="ada", reason="harmless")
    assert whole(url)


@pytest.mark.parametrize(("approve", "status"), [(True, "kept"), (False, "pruned")])
async def test_a_decision_changes_the_fate_of_a_thought(escalated, ask, approve, status):
    url, start = escalated
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        await log.decide("t1", approve=approve, by="Ada Lovelace", reason="read twice")
    ((found, reason),) = ask(url, "SELECT status, reason FROM thought WHERE id = 't1'")
    assert found == status
    assert "Ada Lovelace" in reason
    assert "read twice" in reason
    ((actor, said, about),) = ask(url, "SELECT actor, approve, about FROM decision")
    assert (actor, bool(said), about) == ("person:Ada Lovelace", approve, "verdict")
    assert whole(url)


async def test_only_what_waits_for_a_person_can_be_decided(escalated, make, one_line):
    url, start = escalated
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        with pytest.raises(LedgerError, match="does not wait for a person") as error:
            await log.decide("t9", approve=True, by="ada", reason="")
        one_line(error.value)
        for name in ("", " ", "a\nb"):
            with pytest.raises(LedgerError, match="a name of printable") as error:
                await log.decide("t1", approve=True, by=name, reason="")
            one_line(error.value)
        await log.decide("t1", approve=False, by="ada", reason="no")
        with pytest.raises(LedgerError, match="does not wait for a person"):
            await log.decide("t1", approve=True, by="bob", reason="yes")
    assert whole(url)


async def test_erased_bytes_are_gone_and_the_chain_is_whole(escalated, ask):
    url, start = escalated
    ((seq, blobs),) = ask(url, "SELECT seq, blobs FROM event WHERE kind = 'judged'")
    digest = json.loads(blobs)["text"]
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        await log.erased([ErasedBlob(digest, seq, "text")], by="ada", reason="asked to forget")
    ((salt, held),) = ask(url, "SELECT salt, bytes FROM blob WHERE digest = ?", (digest,))
    assert (bytes(salt), bytes(held)) == (b"", b"")
    ((text, reason),) = ask(url, "SELECT text, reason FROM thought WHERE id = 't1'")
    assert (text, reason) == ("", "erased: asked to forget")
    assert ask(url, "SELECT digest, run_id, seq FROM erasure") == [(digest, start.run, 5)]


async def test_derived_rows_come_out_of_the_events_again(escalated, ask):
    url, start = escalated
    ((seq, blobs),) = ask(url, "SELECT seq, blobs FROM event WHERE kind = 'judged'")
    async with Ledger.open(url) as ledger:
        log = await ledger.reopen(start.run)
        await log.decide("t1", approve=True, by="ada", reason="fine")
        await log.resumed(start, "go on")
        await log.abandon("t0", 0, "its process was killed")
        digest = json.loads(blobs)["text"]
        await log.erased([ErasedBlob(digest, seq, "text")], by="ada", reason="privacy")
    queries = [f"SELECT * FROM {table} ORDER BY 1, 2, 3" for table in ("thought", "tag_score")]
    queries.append("SELECT * FROM decision ORDER BY 1, 2")
    before = [ask(url, query) for query in queries]
    assert all(before)
    engine = connect.open_existing(url, read_only=False)
    rebuild(engine)
    engine.dispose()
    assert [ask(url, query) for query in queries] == before
    assert whole(url)


async def test_the_second_of_two_writers_is_refused_and_nobody_else(ledger_url, make, one_line):
    start, other = make.start(), make.start()
    async with Ledger.open(ledger_url) as one, Ledger.open(ledger_url) as two:
        log = await one.start(start)
        bystander = await one.start(other)
        again = await two.reopen(start.run)
        await again.resumed(start, "believed dead")
        late = asyncio.gather(
            log.intend(make.intent("t1")),
            *(bystander.intend(make.intent(f"t{n}")) for n in range(20)),
            return_exceptions=True,
        )
        first, *rest = await late
        assert isinstance(first, LedgerError)
        assert "another writer" in one_line(first)
        assert rest == [None] * 20
        with pytest.raises(LedgerError, match="another writer"):
            await log.note("still there", {})
        await again.intend(make.intent("t1"))
    assert whole(ledger_url)


async def test_what_is_no_run_of_ours_cannot_be_reopened(ledger_url, make, one_line):
    async with Ledger.open(ledger_url) as ledger:
        with pytest.raises(LedgerError, match="no run is called") as error:
            await ledger.reopen("nothing")
    one_line(error.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE event SET body = '{{}}' WHERE run_id = '{run}' AND seq = {last}", "was changed"),
        ("DELETE FROM event WHERE run_id = '{run}' AND seq = 3", "is missing"),
        ("DELETE FROM event WHERE run_id = '{run}' AND seq = 0", "is missing"),
    ],
)
async def test_a_run_whose_chain_is_damaged_cannot_be_reopened(told, damage, said, one_line):
    ((last,),) = told.ask("SELECT max(seq) FROM event WHERE run_id = ?", (told.first,))
    told.change(damage.format(run=told.first, last=last))
    async with Ledger.open(told.url) as ledger:
        with pytest.raises(LedgerError, match=said) as error:
            await ledger.reopen(told.first)
    assert "audit verify" in one_line(error.value)
