"""Writing: what was awaited is durable and contiguous, whatever happens next."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secateur.agents.thought import Status
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.audit import AuditLog
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger, new_run_id

HERE = Path(__file__).parent


def seqs(path: Path, run: str) -> list[int]:
    """The sequence numbers that a reader from outside sees."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT seq FROM event WHERE run_id = ? ORDER BY seq"
        return [seq for (seq,) in connection.execute(query, (run,))]


def test_run_ids_sort_by_time():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [new_run_id(begin + timedelta(milliseconds=n * 7)) for n in range(200)]
    assert ids == sorted(ids)
    assert {len(id) for id in ids} == {12}
    assert len(set(ids)) == len(ids)


async def test_an_event_can_be_read_by_others_once_it_was_awaited(tmp_path, make):
    path = tmp_path / "x.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start())
        assert seqs(path, log.run) == [0]
        for n in range(1, 20):
            await log.intend(make.intent(f"t{n}"))
            assert seqs(path, log.run) == list(range(n + 1))


async def test_many_writers_at_once_leave_no_gap_and_break_no_chain(tmp_path, make):
    path = tmp_path / "x.db"

    async def write(log, n):
        await log.intend(make.intent(f"t{n}"))
        await log.judge(make.judged(f"t{n}", make.evidence([0.5]), parents=()))

    async with Ledger.open(path) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(4)]
        await asyncio.gather(*(write(log, n) for log in logs for n in range(30)))
    for log in logs:
        assert seqs(path, log.run) == list(range(61))
    with AuditLog(path) as audit:
        found = audit.verify()
        assert (found.ok, found.events, found.runs) == (True, 4 * 61, 4)


async def test_two_ledgers_on_one_file_write_side_by_side(tmp_path, make):
    path = tmp_path / "x.db"
    async with Ledger.open(path) as one, Ledger.open(path) as two:
        logs = [await one.start(make.start()), await two.start(make.start())]
        for n in range(20):
            await asyncio.gather(*(log.intend(make.intent(f"t{n}")) for log in logs))
    with AuditLog(path) as audit:
        assert audit.verify().ok
        assert [run.policy for run in audit.runs()] == ["test", "test"]


@pytest.mark.parametrize("table", ["policy", "blob", "run", "event"])
@pytest.mark.parametrize("change", ["UPDATE {0} SET rowid = rowid", "DELETE FROM {0}"])
def test_what_was_recorded_can_be_neither_changed_nor_removed(told, table, change):
    column = {"policy": "name", "blob": "salt", "run": "agent", "event": "body"}[table]
    statement = change.format(table).replace("rowid", column)
    with (
        closing(sqlite3.connect(told.path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"),
    ):
        connection.execute(statement)


async def test_a_cancelled_wait_leaves_no_gap(tmp_path, make):
    path = tmp_path / "x.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start())
        task = asyncio.create_task(log.intend(make.intent("t1")))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await log.finish(RunStatus.CANCELLED)
    assert seqs(path, log.run) == [0, 1, 2]


async def test_a_value_that_is_no_json_is_refused_and_leaves_no_gap(tmp_path, make, one_line):
    path = tmp_path / "x.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start())
        for value in ({1, 2}, float("nan"), b"bytes"):
            with pytest.raises(LedgerError, match="use plain JSON") as error:
                await log.place(make.thought("t1", value=value))
            one_line(error.value)
        await log.place(make.thought("t1", value=[1, 2]))
    assert seqs(path, log.run) == [0, 1]


async def test_a_thought_stands_once_in_a_run(tmp_path, make, one_line):
    async with Ledger.open(tmp_path / "x.db") as ledger:
        log = await ledger.start(make.start())
        await log.place(make.thought("t1"))
        with pytest.raises(LedgerError, match="stands in run") as error:
            await log.place(make.thought("t1"))
        one_line(error.value)
        await log.place(make.thought("t2"))
    assert seqs(tmp_path / "x.db", log.run) == [0, 1, 2]


async def test_nothing_is_added_to_a_finished_run_or_a_closed_ledger(tmp_path, make):
    async with Ledger.open(tmp_path / "x.db") as ledger:
        log = await ledger.start(make.start())
        other = await ledger.start(make.start())
        await log.finish(RunStatus.DONE, "up")
        with pytest.raises(LedgerError, match="is finished"):
            await log.score("t1", 1.0, "late")
    with pytest.raises(LedgerError, match="is closed"):
        await other.note("later", {})


async def test_text_that_no_encoding_likes_is_recorded(tmp_path, make):
    path = tmp_path / "x.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start(task="a\x00b\ud800c"))
        await log.place(make.thought("t1", text="x\x00\udfffy", reason="nul \x00"))
    with AuditLog(path) as audit:
        assert audit.run(log.run).task == "a\x00b?c"
        assert audit.thoughts(log.run)[0].text == "x�?y"
        assert audit.verify().ok


async def test_a_ledger_locked_by_another_fails_for_good(tmp_path, make, monkeypatch, one_line):
    monkeypatch.setattr(connect, "_WAIT_S", 0.2)
    path = tmp_path / "x.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="is locked by another process") as error:
                await log.intend(make.intent("t1"))
            one_line(error.value)
            other.execute("ROLLBACK")
        # The lock is gone, but an event was lost: whatever came now would leave a gap.
        with pytest.raises(LedgerError, match="is locked by another process"):
            await log.intend(make.intent("t2"))
    assert seqs(path, log.run) == [0]


CHILD = """
import asyncio, resource, sys
sys.path.insert(0, {here!r})
from conftest import Making
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.ledger import Ledger

async def work(make, log, name):
    for n in range(100_000):
        id = f"{{name}}x{{n}}"
        await log.intend(make.intent(id))
        await log.judge(make.judged(id, make.evidence([0.5]), parents=()))
        print(log.run, id, flush=True)

async def main():
    make = Making()
    async with Ledger.open({path!r}) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(2)]
        {limit}
        tasks = [asyncio.create_task(work(make, log, f"w{{n}}")) for log in logs for n in range(4)]
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, LedgerError) for error in ended), ended
        try:
            await logs[0].note("after", {{}})
        except LedgerError as error:
            print("failed:", error, flush=True)

asyncio.run(main())
"""


def child(path: Path, limit: str = "") -> subprocess.Popen[str]:
    script = CHILD.format(here=str(HERE), path=str(path), limit=limit or "pass")
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def check_acknowledged(path: Path, acknowledged: list[tuple[str, str]]) -> None:
    """Everything that was acknowledged is there, contiguous, and verifies."""
    runs = {run for run, _ in acknowledged}
    with AuditLog(path) as audit:
        assert audit.verify().ok
        for run in runs:
            there = {thought.id for thought in audit.thoughts(run)}
            assert {thought for owner, thought in acknowledged if owner == run} <= there
            assert audit.run(run).status == "unfinished"
    for run in runs:
        found = seqs(path, run)
        assert found == list(range(len(found)))


@pytest.mark.parametrize("count", [1, 100])
def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path, count):
    path = tmp_path / "x.db"
    process = child(path)
    assert process.stdout is not None
    acknowledged = [tuple(process.stdout.readline().split()) for _ in range(count)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [tuple(line.split()) for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    check_acknowledged(path, [(run, thought) for run, thought in acknowledged])


def test_a_disk_that_is_full_fails_the_run_and_keeps_what_was_acknowledged(tmp_path):
    path = tmp_path / "x.db"
    # A file-size limit is what the writer meets on a full disk: the write itself fails.
    process = child(path, "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))")
    out, _ = process.communicate(timeout=120)
    *lines, last = out.splitlines()
    assert process.returncode == 0
    assert last.startswith("failed: ")
    assert "what was acknowledged is kept" in last
    assert len(lines) > 5
    check_acknowledged(path, [(run, thought) for run, thought in map(str.split, lines)])


async def test_what_happened_can_be_read_back(told):
    with AuditLog(told.path) as audit:
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
