"""Writing: what was awaited is durable and contiguous, whatever happens next."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secateur.agents.thought import Status
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.reading.audit import AuditLog

HERE = Path(__file__).parent


def test_run_ids_sort_by_time():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [new_run_id(begin + timedelta(milliseconds=n * 7)) for n in range(200)]
    assert ids == sorted(ids)
    assert {len(id) for id in ids} == {12}
    assert len(set(ids)) == len(ids)


async def test_an_event_can_be_read_by_others_once_it_was_awaited(ledger_url, make, seqs):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        assert seqs(ledger_url, log.run) == [0]
        for n in range(1, 20):
            await log.intend(make.intent(f"t{n}"))
            assert seqs(ledger_url, log.run) == list(range(n + 1))


async def test_many_writers_at_once_leave_no_gap_and_break_no_chain(ledger_url, make, seqs):
    async def write(log, n):
        await log.intend(make.intent(f"t{n}"))
        await log.judge(make.judged(f"t{n}", make.evidence([0.5]), parents=()))

    async with Ledger.open(ledger_url) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(4)]
        await asyncio.gather(*(write(log, n) for log in logs for n in range(30)))
    for log in logs:
        assert seqs(ledger_url, log.run) == list(range(61))
    with AuditLog(ledger_url) as audit:
        found = audit.verify()
        assert (found.ok, found.events, found.runs) == (True, 4 * 61, 4)


async def test_two_ledgers_on_one_database_write_side_by_side(ledger_url, make):
    async with Ledger.open(ledger_url) as one, Ledger.open(ledger_url) as two:
        logs = [await one.start(make.start()), await two.start(make.start())]
        for n in range(20):
            await asyncio.gather(*(log.intend(make.intent(f"t{n}")) for log in logs))
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok
        assert [run.policy for run in audit.runs()] == ["test", "test"]


KEPT = {
    "policy": "name",
    "blob": "salt",
    "run": "agent",
    "event": "body",
    "erasure": "at",
    "checkpoint": "root",
}


@pytest.fixture
def full(told):
    """A ledger with a row in every append-only table."""
    run, digest = told.ask("SELECT id, task FROM run LIMIT 1")[0]
    told.insert("erasure", (digest, run, 0, "x"))
    told.insert("checkpoint", (1, "x", 2, 3, "r", "p", "k", "s", "{}", "[]"))
    return told


@pytest.mark.parametrize("table", KEPT)
@pytest.mark.parametrize(
    "word", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}", "replace all"]
)
def test_what_was_recorded_can_be_neither_changed_nor_removed(full, table, word):
    if word == "replace all":
        word = "INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
        if "://" in full.url:
            word = "TRUNCATE {table} CASCADE"
    why = full.refuses(word.format(table=table, column=KEPT[table]))
    assert "is append-only" in why


async def test_a_cancelled_wait_leaves_no_gap(ledger_url, make, seqs):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        task = asyncio.create_task(log.intend(make.intent("t1")))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await log.finish(RunStatus.CANCELLED)
    assert seqs(ledger_url, log.run) == [0, 1, 2]


async def test_a_value_that_is_no_json_is_refused(ledger_url, make, one_line, seqs):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        for value in ({1, 2}, float("nan"), b"bytes"):
            with pytest.raises(LedgerError, match="use plain JSON") as error:
                await log.place(make.thought("t1", value=value))
            one_line(error.value)
        await log.place(make.thought("t1", value=[1, 2]))
    assert seqs(ledger_url, log.run) == [0, 1]


async def test_a_thought_stands_once_in_a_run(ledger_url, make, one_line, seqs):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        await log.place(make.thought("t1"))
        with pytest.raises(LedgerError, match="stands in run") as error:
            await log.place(make.thought("t1"))
        one_line(error.value)
        await log.place(make.thought("t2"))
    assert seqs(ledger_url, log.run) == [0, 1, 2]


async def test_nothing_is_added_to_a_finished_run_or_a_closed_ledger(ledger_url, make):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        other = await ledger.start(make.start())
        await log.finish(RunStatus.DONE, "up")
        with pytest.raises(LedgerError, match="is finished"):
            await log.score("t1", 1.0, "late")
    with pytest.raises(LedgerError, match="is closed"):
        await other.note("later", {})


async def test_text_that_no_encoding_likes_is_recorded(ledger_url, make):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start(task="a\x00b\ud800c"))
        await log.place(make.thought("t1", text="x\x00\udfffy", reason="nul \x00"))
    with AuditLog(ledger_url) as audit:
        assert audit.run(log.run).task == "a\x00b?c"
        assert audit.thoughts(log.run)[0].text == "x�?y"
        assert audit.verify().ok


async def test_words_beyond_ascii_are_recorded_beside_scores(ledger_url, make):
    said = "größer als “1”"
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        await log.intend(replace(make.intent("t1"), operation="Prüfung"))
        judged = make.judged("t1", make.evidence([0.5]), parents=())
        await log.judge(replace(judged, operation="Prüfung", reason=said, score=1e-7))
    with AuditLog(ledger_url) as audit:
        (thought,) = audit.thoughts(log.run)
        assert (thought.operation, thought.reason, thought.score) == ("Prüfung", said, 1e-7)
        assert audit.verify().ok


CHILD = """
import asyncio, sys
sys.path.insert(0, {here!r})
from conftest import Making
from secateur.runtime.ledger.ledger import Ledger

async def work(make, log, name):
    for n in range(100_000):
        id = f"{{name}}x{{n}}"
        await log.intend(make.intent(id))
        await log.judge(make.judged(id, make.evidence([0.5]), parents=()))
        print(log.run, id, flush=True)

async def main():
    make = Making()
    async with Ledger.open({url!r}) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(2)]
        await asyncio.gather(*(work(make, log, f"w{{n}}") for log in logs for n in range(4)))

asyncio.run(main())
"""


def child(url: str) -> subprocess.Popen[str]:
    script = CHILD.format(here=str(HERE), url=url)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("count", [1, 100])
def test_nothing_that_was_acknowledged_is_lost_by_kill_9(ledger_url, count, seqs):
    process = child(ledger_url)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().split() for _ in range(count)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok
        for run in {run for run, _ in acknowledged}:
            there = {thought.id for thought in audit.thoughts(run)}
            assert {thought for owner, thought in acknowledged if owner == run} <= there
            assert audit.run(run).status == "unfinished"
            found = seqs(ledger_url, run)
            assert found == list(range(len(found)))


def test_several_processes_write_to_one_database_at_once(ledger_url, seqs, make):
    processes = [child(ledger_url) for _ in range(3)]
    runs: set[str] = set()
    for process in processes:
        assert process.stdout is not None
        runs |= {process.stdout.readline().split()[0] for _ in range(20)}
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(runs) == 6
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok
    for run in runs:
        found = seqs(ledger_url, run)
        assert found == list(range(len(found)))
        assert len(found) > 1


async def create(url: str) -> None:
    async with Ledger.open(url):
        pass


async def test_several_may_make_the_ledger_at_once(empty_url):
    each = [asyncio.to_thread(asyncio.run, create(empty_url)) for _ in range(3)]
    await asyncio.gather(*each)
    AuditLog(empty_url).close()


async def test_what_happened_can_be_read_back(told):
    with AuditLog(told.url) as audit:
        kinds = [event.kind for event in audit.events(told.first)]
        by_id = {thought.id: thought for thought in audit.thoughts(told.first)}
    assert kinds[:4] == ["run_started", "placed", "model_intended", "judged"]
    assert kinds[-1] == "run_finished"
    assert by_id["b1"].status is Status.PRUNED
    assert by_id["b1"].value == {"steps": ["b1", 1.5]}
    assert by_id["b3"].status is Status.DROPPED
    assert by_id["b3"].score == 2.5
    assert by_id["b5"].status is Status.ESCALATED
    assert by_id["c1"].acted == "restart"
