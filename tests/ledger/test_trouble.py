"""Trouble under a running ledger: the runs concerned stop and say why, what was acknowledged
stays, and the same ledger goes on when the database is back."""

import asyncio
import resource
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from secateur.runtime.ledger import connect
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.writing import writer


async def work(log, make, name: str, count: int = 10_000) -> list[str]:
    """Intents and verdicts until the ledger refuses; the thoughts that were acknowledged."""
    acknowledged: list[str] = []
    for n in range(count):
        id = f"{name}x{n}"
        try:
            await log.intend(make.intent(id))
            await log.judge(make.judged(id, make.evidence(), parents=()))
        except LedgerError:
            break
        acknowledged.append(id)
    return acknowledged


async def goes_on(ledger, start, make, acknowledged, url) -> None:
    """The same ledger takes the run up again, and everything acknowledged is there."""
    log = await ledger.reopen(start.run)
    await log.resumed(start, "the database is back")
    await log.intend(make.intent("after"))
    await log.judge(make.judged("after", make.evidence(), parents=()))
    await log.finish(RunStatus.DONE, "up")
    with AuditLog(url) as audit:
        assert audit.verify().ok
        there = {thought.id for thought in audit.thoughts(start.run)}
        assert {*acknowledged, "after"} <= there


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """Make room on it."""
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)


async def test_a_full_disk_stops_the_run_until_there_is_room(tiny_disk, new_in_sqlite, make):
    url = str(shutil.copy(new_in_sqlite, tiny_disk / "x.db"))
    start = make.start()
    async with Ledger.open(url) as ledger:
        log = await ledger.start(start)
        acknowledged = await work(log, make, "t")
        assert len(acknowledged) > 20
        with pytest.raises(LedgerError, match="disk") as error:
            await log.note("still", {})
        assert "what was acknowledged is kept" in str(error.value)
        enlarge(tiny_disk)
        await goes_on(ledger, start, make, acknowledged, url)


@contextmanager
def little_room(url: str) -> Iterator[None]:
    """Writes soon beyond the file's size fail, as on a full disk."""
    size = Path(url).stat().st_size + 200_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_fails_stops_the_run_and_no_other(sqlite_url, make, one_line):
    first, second = make.start(), make.start()
    async with Ledger.open(sqlite_url) as ledger:
        log, other = await ledger.start(first), await ledger.start(second)
        with little_room(sqlite_url):
            acknowledged = await work(log, make, "t")
            with pytest.raises(LedgerError, match="cannot be read or written") as error:
                await log.note("still", {})
            assert f"--resume {first.run}" in one_line(error.value)
        assert await work(other, make, "o", 3) == ["ox0", "ox1", "ox2"]
        await goes_on(ledger, first, make, acknowledged, sqlite_url)


@contextmanager
def held(url: str) -> Iterator[None]:
    """The ledger, locked by somebody else."""
    if "://" not in url:
        with closing(sqlite3.connect(url, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


async def test_a_run_whose_first_event_is_lost_is_to_be_run_again(
    ledger_url, make, monkeypatch, one_line
):
    monkeypatch.setattr(connect, "_WAIT_S", 0.2)
    start = make.start()
    async with Ledger.open(ledger_url) as ledger:
        with held(ledger_url):
            with pytest.raises(LedgerError, match="run it again") as error:
                await ledger.start(start)
            assert "--resume" not in one_line(error.value)
        await ledger.start(start)
    with AuditLog(ledger_url) as audit:
        assert [run.run for run in audit.runs()] == [start.run]


async def test_a_locked_ledger_stops_the_run_until_the_lock_is_gone(
    ledger_url, make, monkeypatch, one_line, seqs
):
    monkeypatch.setattr(connect, "_WAIT_S", 0.2)
    start = make.start()
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(start)
        with held(ledger_url):
            with pytest.raises(LedgerError, match="is locked by another process") as error:
                await log.intend(make.intent("t1"))
            one_line(error.value)
        # The lock is gone, but an event was lost: whatever came now would leave a gap.
        with pytest.raises(LedgerError, match="is locked by another process"):
            await log.intend(make.intent("t2"))
        assert seqs(ledger_url, log.run) == [0]
        await goes_on(ledger, start, make, [], ledger_url)


async def test_who_appends_waits_where_too_much_is_to_be_written(ledger_url, make, monkeypatch):
    monkeypatch.setattr(writer, "_MOST_APPENDS", 40)
    said = 0

    async def say(log) -> None:
        nonlocal said
        for n in range(50):
            await log.note("n", {"n": n})
            said += 1

    async with Ledger.open(ledger_url) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(8)]
        with held(ledger_url):
            await asyncio.sleep(0.1)
            tasks = [asyncio.create_task(say(log)) for log in logs]
            await asyncio.sleep(0.3)
            # One batch is at the lock, one queue is full, and nobody adds to them.
            assert 40 <= said <= 80
        await asyncio.gather(*tasks)
    with AuditLog(ledger_url) as audit:
        assert audit.verify().events == 8 * 51


async def test_a_large_append_waits_for_room_too(ledger_url, make, monkeypatch):
    monkeypatch.setattr(writer, "_MOST_BYTES", 1_000_000)
    async with Ledger.open(ledger_url) as ledger:
        logs = [await ledger.start(make.start()) for _ in range(20)]
        long = [make.thought(f"t{n}", text="word " * 100_000) for n in range(20)]
        with held(ledger_url):
            tasks = [
                asyncio.create_task(log.place(each)) for log, each in zip(logs, long, strict=True)
            ]
            await asyncio.sleep(0.3)
            assert 2 <= sum(task.done() for task in tasks) <= 6
        await asyncio.gather(*tasks)
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok


async def test_a_row_that_the_database_refuses_harms_no_other_run(ledger_url, make, one_line, seqs):
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(make.start())
        other = await ledger.start(make.start())
        bad = other.intend(replace(make.intent("t0"), attempt=1 << 70))
        good = (log.intend(make.intent(f"t{n}")) for n in range(20))
        first, *rest = await asyncio.gather(bad, *good, return_exceptions=True)
        assert isinstance(first, LedgerError)
        assert "refuses a row" in one_line(first)
        assert rest == [None] * 20
        assert seqs(ledger_url, log.run) == list(range(21))
        assert seqs(ledger_url, other.run) == [0]
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok


async def test_what_rides_along_and_is_lost_is_told_at_the_latest_when_closing(
    ledger_url, make, monkeypatch
):
    monkeypatch.setattr(connect, "_WAIT_S", 0.2)
    ledger = Ledger.open(ledger_url)
    log = await ledger.start(make.start())
    with held(ledger_url):
        await log.note("n", {})
        with pytest.raises(LedgerError, match="is locked"):
            await ledger.aclose()


@pytest.mark.parametrize("change", ["removed", "replaced by a backup"])
async def test_a_file_that_is_taken_away_is_noticed(sqlite_url, make, tmp_path, change, one_line):
    start = make.start()
    async with Ledger.open(sqlite_url) as ledger:
        log = await ledger.start(start)
        backup = tmp_path / "backup.db"
        with closing(sqlite3.connect(sqlite_url)) as now, closing(sqlite3.connect(backup)) as then:
            now.backup(then)
        await log.intend(make.intent("t1"))
        kept = tmp_path / "kept"
        kept.mkdir()
        for file in tmp_path.glob("x.db*"):
            file.rename(kept / file.name)
        if change == "replaced by a backup":
            backup.rename(sqlite_url)
        with pytest.raises(LedgerError, match="was moved, removed or replaced") as error:
            await log.intend(make.intent("t2"))
        one_line(error.value)
        if change == "removed":
            for file in kept.iterdir():
                file.rename(tmp_path / file.name)
            await goes_on(ledger, start, make, [], sqlite_url)
        else:  # the backup is a ledger, but without what this run was told
            again = await ledger.reopen(start.run)
            await again.resumed(start, "from the backup")
    with AuditLog(sqlite_url) as audit:
        assert audit.verify().ok


async def test_ended_connections_are_made_anew_and_nothing_is_lost(postgres_url, make, postgres):
    name = make_url(postgres_url).database
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    start = make.start()
    async with Ledger.open(postgres_url) as ledger:
        log = await ledger.start(start)
        tasks = [asyncio.create_task(work(log, make, f"w{n}", 25)) for n in range(8)]
        ended = 0
        while not all(task.done() for task in tasks):
            ((some,),) = await asyncio.to_thread(postgres.execute, end)
            ended += some
            await asyncio.sleep(0.02)
        acknowledged = [id for task in tasks for id in await task]
        assert ended
        await goes_on(ledger, start, make, acknowledged, postgres_url)


async def test_a_server_that_stops_stops_the_runs_until_it_is_back(
    postgres_url, make, postgres, one_line
):
    starts = [make.start() for _ in range(3)]
    async with Ledger.open(postgres_url) as ledger:
        logs = [await ledger.start(start) for start in starts]
        tasks = [asyncio.create_task(work(log, make, f"w{n}")) for n, log in enumerate(logs)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(postgres.stop)
        try:
            acknowledged = [await task for task in tasks]
            with pytest.raises(LedgerError, match="acknowledged is kept") as error:
                await logs[0].note("still", {})
            one_line(error.value)
            with pytest.raises(LedgerError):
                await ledger.start(make.start())
        finally:
            await asyncio.to_thread(postgres.start)
        for start, ids in zip(starts, acknowledged, strict=True):
            await goes_on(ledger, start, make, ids, postgres_url)
        fresh = await ledger.start(make.start())
        await fresh.intend(make.intent("t1"))
    with AuditLog(postgres_url) as audit:
        assert audit.verify().runs == 4


class Between:
    """Stands between a client and the server; can swallow the answer to a COMMIT and hang up."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.swallow = False
        self.swallowed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            for side, other, forward in (
                (client, server, self._asked),
                (server, client, self._answered),
            ):
                threading.Thread(
                    target=self._pass, args=(side, other, forward), daemon=True
                ).start()

    def _pass(self, side: socket.socket, other: socket.socket, forward: Callable) -> None:
        try:
            while said := side.recv(65536):
                forward(said, other)
        except OSError:
            pass
        finally:
            for end in (side, other):
                with closing(end):
                    pass

    def _asked(self, said: bytes, server: socket.socket) -> None:
        self._committing = self.swallow and b"COMMIT" in said
        server.sendall(said)

    def _answered(self, said: bytes, client: socket.socket) -> None:
        if getattr(self, "_committing", False):
            self._committing = self.swallow = False
            self.swallowed += 1
            client.shutdown(socket.SHUT_RDWR)
            raise OSError("hung up")
        client.sendall(said)

    def close(self) -> None:
        """Take no more."""
        self._listener.close()


async def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_done_twice(
    postgres_url, make, seqs
):
    where = make_url(postgres_url)
    between = Between(f"{where.query['host']}/.s.PGSQL.5432")
    through = where.set(query={}, host="127.0.0.1", port=between.port)
    async with Ledger.open(through.render_as_string(hide_password=False)) as ledger:
        log = await ledger.start(make.start())
        for n in range(5):
            between.swallow = True
            await log.intend(make.intent(f"t{n}"))
    between.close()
    assert between.swallowed == 5
    assert seqs(postgres_url, log.run) == list(range(6))
    with AuditLog(postgres_url) as audit:
        assert audit.verify().ok


async def test_a_database_that_lost_what_it_acknowledged_gets_no_more(
    postgres_url, make, postgres, one_line
):
    """As after a failover to a standby that lagged behind."""
    name = make_url(postgres_url).database
    async with Ledger.open(postgres_url) as ledger:
        log = await ledger.start(make.start())
        await log.intend(make.intent("t1"))
        postgres.execute(
            "SET session_replication_role = replica",
            "DELETE FROM event WHERE seq = 1",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()",
            database=str(name),
        )
        with pytest.raises(LedgerError, match="it lost what it had acknowledged") as error:
            await log.intend(make.intent("t2"))
        one_line(error.value)


@pytest.mark.parametrize(
    "said", ["No space left on device", "wrote only 4096 of 8192 bytes at block 0"]
)
async def test_a_full_server_stops_the_run_until_there_is_room(postgres_url, make, postgres, said):
    """The server's own errors for a full disk, raised by a trigger."""
    name = make_url(postgres_url).database
    start = make.start()
    async with Ledger.open(postgres_url) as ledger:
        log = await ledger.start(start)
        acknowledged = await work(log, make, "t", 3)
        postgres.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
            f"EXCEPTION 'could not extend file: {said}' USING ERRCODE = '53100'; "
            "END $$",
            "CREATE TRIGGER full_disk BEFORE INSERT ON event EXECUTE FUNCTION full_disk()",
            database=str(name),
        )
        with pytest.raises(LedgerError, match="is full: make room"):
            await log.intend(make.intent("t9"))
        postgres.execute("DROP TRIGGER full_disk ON event", database=str(name))
        await goes_on(ledger, start, make, acknowledged, postgres_url)


async def test_commits_are_durable_whatever_the_server_defaults_to(postgres_url, make, postgres):
    name = make_url(postgres_url).database
    postgres.execute(
        f"ALTER DATABASE {name} SET synchronous_commit = off",
    )
    postgres.execute(
        "CREATE TABLE seen (setting text)",
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen "
        "VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$",
        "CREATE TRIGGER look AFTER INSERT ON event EXECUTE FUNCTION look()",
        database=str(name),
    )
    async with Ledger.open(postgres_url) as ledger:
        await ledger.start(make.start())
    assert postgres.execute("SELECT DISTINCT setting FROM seen", database=str(name)) == [("on",)]
