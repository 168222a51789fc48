"""Runs that are not gone on with: what does not fit, is damaged or erased, is named."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from secateur import Agent, Ledger, Sampling
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import ErasedBlob
from secateur.runtime.recovery.resuming import ResumeError, RunOverError


async def test_a_run_that_is_done_says_so(home):
    run = await home.run(home.stamper)
    before = home.kinds(run.run_id)
    with pytest.raises(RunOverError, match="is done already: stamped"):
        await home.resume(home.stamper, run.run_id)
    assert home.kinds(run.run_id) == before


@pytest.mark.parametrize(
    ("other", "given", "says"),
    [
        ("the same", {"policy": "strict"}, "has another policy, 'observe'"),
        ("the same", {"task": "another"}, "has another task, '3120 4217'"),
        ("another plan", {}, "step 1 was 'say' and is another one"),
        ("another name", {}, "is one of agent 'stamper'"),
        ("other sampling", {}, "sample otherwise"),
    ],
)
async def test_another_run_is_not_passed_off_as_this_one(
    home, other: str, given: dict[str, Any], says: str
):
    agents = {
        "the same": home.stamper,
        "another plan": home.stamping("say it: {task}\n"),
        "another name": home.figure,
        "other sampling": Agent.of(replace(home.stamper, sampling=Sampling(max_tokens=9))),
    }
    whole = await home.killed_at(home.stamper, "judged")
    before = home.kinds(whole.run_id)
    with pytest.raises(ResumeError, match=says) as refused:
        await home.resume(agents[other], whole.run_id, **given)
    assert "\n" not in str(refused.value)
    assert home.kinds(whole.run_id) == before


@pytest.mark.parametrize("what", ["model_digest", "tokenizer_digest"])
async def test_another_model_is_refused(home, what: str):
    whole = await home.killed_at(home.stamper, "judged")
    home.watched.info = replace(home.watched.info, **{what: "f" * 64})
    with pytest.raises(LedgerError, match=f"another {what.removesuffix('_digest')}"):
        await home.resume(home.stamper, whole.run_id)
    assert home.kinds(whole.run_id)[-1] == "judged"


async def test_a_run_that_is_not_there_is_named(home):
    await home.run(home.stamper)
    with pytest.raises(LedgerError, match="no run is called 'nowhere'"):
        await home.resume(home.stamper, "nowhere")


async def test_an_erased_or_damaged_record_is_not_gone_on_with(home):
    whole = await home.killed_at(home.stamper, "judged")
    with closing(sqlite3.connect(home.db, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER event_no_update")
        connection.execute("UPDATE event SET actor = 'nobody' WHERE seq = 1")
    with pytest.raises(
        LedgerError, match=rf"run {whole.run_id} was damaged \(event 1 was changed\)"
    ):
        await home.resume(home.stamper, whole.run_id)
    run = await home.run(home.stamper, home.asking)
    async with Ledger.open(home.db) as ledger:
        log = await ledger.reopen(run.run_id)
        with closing(sqlite3.connect(home.db)) as connection:
            digest = connection.execute(
                "SELECT json_extract(blobs, '$.task') FROM event WHERE run_id = ? AND seq = 0",
                (run.run_id,),
            ).fetchone()[0]
        await log.erased([ErasedBlob(digest, 0, "task")], by="ada", reason="asked to")
    with pytest.raises(LedgerError, match="texts of it were erased"):
        await home.resume(home.stamper, run.run_id)
