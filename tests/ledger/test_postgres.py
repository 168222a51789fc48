"""What only PostgreSQL has: roles, commands against a server, and ways to part with old runs."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from secateur.agents.thought import Status
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import ErasedBlob, RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog

ROLES = Path(__file__).parents[2] / "docs" / "postgresql-roles.sql"
GROUPS = ("reader", "writer", "reviewer")


@pytest.fixture
def roles(postgres, postgres_url):
    """The URL of the same ledger for somebody of each group, by the documented script."""
    name = str(make_url(postgres_url).database)
    postgres.execute(ROLES.read_text(), ROLES.read_text(), database=name)
    for group in GROUPS:
        login = f"a_{group}"
        if not postgres.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{login}'"):
            postgres.execute(f"CREATE ROLE {login} LOGIN IN ROLE secateur_{group}")
    return {group: postgres.url(name, f"a_{group}") for group in GROUPS}


async def test_each_role_does_its_part(roles, make, ask):
    start = make.start()
    async with Ledger.open(roles["writer"]) as ledger:
        log = await ledger.start(start)
        await log.intend(make.intent("t1"))
        await log.judge(
            make.judged("t1", make.evidence(powerseeking=0.3), status=Status.ESCALATED, parents=())
        )
        await log.escalate("t1", "a rule asks for a person")
        await log.finish(RunStatus.ESCALATED, "t1 waits")
    with AuditLog(roles["reader"]) as audit:
        assert audit.verify().ok
    ((seq, blobs),) = ask(roles["reader"], "SELECT seq, blobs FROM event WHERE kind = 'judged'")
    digest = json.loads(blobs)["text"]
    async with Ledger.open(roles["reviewer"]) as ledger:
        log = await ledger.reopen(start.run)
        await log.decide("t1", approve=True, by="ada", reason="harmless")
        await log.erased([ErasedBlob(digest, seq, "text")], by="ada", reason="privacy")
    async with Ledger.open(roles["writer"]) as ledger:
        log = await ledger.reopen(start.run)
        await log.resumed(start, "ada decided")
        await log.finish(RunStatus.DONE, "up")
    with AuditLog(roles["reader"]) as audit:
        assert audit.verify().ok
        assert audit.run(start.run).status == "done"
        assert audit.thoughts(start.run)[0].status is Status.KEPT


async def test_nobody_does_what_is_not_theirs(roles, make, one_line):
    start = make.start()
    async with Ledger.open(roles["writer"]) as ledger:
        log = await ledger.start(start)
        await log.judge(
            make.judged("t1", make.evidence(powerseeking=0.3), status=Status.ESCALATED, parents=())
        )
        await log.finish(RunStatus.ESCALATED)
        again = await ledger.reopen(start.run)
        with pytest.raises(LedgerError, match="secateur_reviewer") as error:
            await again.decide("t1", approve=True, by="myself", reason="I may")
        one_line(error.value)
    async with Ledger.open(roles["reviewer"]) as ledger:
        with pytest.raises(LedgerError, match="permission denied") as error:
            await ledger.start(make.start())
        one_line(error.value)
        again = await ledger.reopen(start.run)
        with pytest.raises(LedgerError, match="may not append resumed events") as error:
            await again.resumed(start, "I am no agent")
        one_line(error.value)
    async with Ledger.open(roles["reader"]) as ledger:
        with pytest.raises(LedgerError, match="permission denied"):
            await ledger.start(make.start())
    with AuditLog(roles["reader"]) as audit:
        assert audit.verify().ok


UNDOING = (
    "UPDATE event SET body = body",
    "DELETE FROM event",
    "TRUNCATE event CASCADE",
    "DELETE FROM blob",
    "DELETE FROM thought",
    "ALTER TABLE event DISABLE TRIGGER ALL",
    "DROP TABLE tag_score",
    "CREATE TABLE other (x int)",
    "SET session_replication_role = replica",
    "INSERT INTO alembic_version VALUES ('x')",
)


def test_no_role_can_undo_the_record(roles):
    import psycopg

    for url in roles.values():
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            for statement in UNDOING:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


async def test_who_may_not_rebuild_is_told_so_in_one_line(roles, make, command, one_line):
    async with Ledger.open(roles["writer"]) as ledger:
        await ledger.start(make.start())
    for url in roles.values():
        code, _, err = command("db", "rebuild", "--db", url)
        assert code == 1
        assert "permission denied" in err
        one_line(err.strip())


def test_the_commands_work_on_a_server(postgres, command):
    name = postgres.database()
    url = postgres.url(name).replace("+psycopg", "")
    try:
        code, out, _ = command("db", "upgrade", "--db", url, "--json")
        assert code == 0
        assert json.loads(out)["before"] is None
        code, out, _ = command("db", "current", "--db", url)
        assert code == 0
        assert "up to date" in out
        code, out, _ = command("db", "rebuild", "--db", url, "--json")
        assert (code, json.loads(out)["thoughts"]) == (0, 0)
        code, out, _ = command("audit", "verify", "--db", url, "--json")
        assert (code, json.loads(out)["ok"]) == (0, True)
    finally:
        postgres.drop(name)


def test_a_password_is_never_printed(postgres_url, command):
    url = make_url(postgres_url).set(drivername="postgresql", password="hushhush")
    shown = url.render_as_string(hide_password=False)
    assert "hushhush" in shown
    for words in (("current",), ("upgrade",), ("current", "--json"), ("upgrade", "--json")):
        code, out, err = command("db", *words, "--db", shown)
        assert code == 0
        assert "hushhush" not in out + err
    code, out, err = command("db", "current", "--db", shown.replace("ledger", "noledger"))
    assert code == 1
    assert "hushhush" not in out + err


def test_a_server_or_database_that_is_not_there_is_named_in_one_line(postgres, tmp_path, one_line):
    with pytest.raises(LedgerError, match="createdb") as error:
        Ledger.open(postgres.url("nowhere"))
    one_line(error.value)
    with pytest.raises(LedgerError, match="see that the database is reachable") as error:
        AuditLog(f"postgresql://x@/x?host={tmp_path}")
    one_line(error.value)


def test_a_dump_restored_elsewhere_verifies(postgres, told_in_postgres):
    where = make_url(told_in_postgres.url)
    host = str(where.query["host"])
    dump = subprocess.run(
        [postgres.program("pg_dump"), "-h", host, "-U", "postgres", str(where.database)],
        capture_output=True,
        check=True,
    )
    name = postgres.database("template0")
    try:
        subprocess.run(
            [postgres.program("psql"), "-qX1", "-h", host, "-U", "postgres", "-d", name],
            input=dump.stdout,
            capture_output=True,
            check=True,
        )
        with AuditLog(postgres.url(name)) as audit:
            assert audit.verify().ok
            assert audit.run(told_in_postgres.first).status == "done"
    finally:
        postgres.drop(name)


def test_a_year_that_is_over_is_dropped_with_its_database_and_no_trigger_minds(postgres, make):
    """One database for each period: what the documentation advises."""
    years = {year: postgres.database() for year in (2025, 2026)}

    async def write(name: str) -> str:
        async with Ledger.open(postgres.url(name)) as ledger:
            log = await ledger.start(make.start())
            await log.finish(RunStatus.DONE, "up")
            return log.run

    runs = {year: asyncio.run(write(name)) for year, name in years.items()}
    postgres.execute(f"ALTER DATABASE {years[2025]} SET default_transaction_read_only = on")
    with pytest.raises(LedgerError, match="read-only"):
        asyncio.run(write(years[2025]))
    with AuditLog(postgres.url(years[2025])) as audit:
        assert audit.run(runs[2025]).status == "done"
    postgres.execute(f"DROP DATABASE {years[2025]}")
    with AuditLog(postgres.url(years[2026])) as audit:
        assert audit.verify().ok
    postgres.drop(years[2026])


def test_a_partition_is_not_guarded_by_its_tables_triggers(postgres):
    """Why the documentation advises against partitions of the record."""
    name = postgres.database()
    try:
        postgres.execute(
            "CREATE TABLE event (run_id text, seq int, PRIMARY KEY (run_id, seq)) "
            "PARTITION BY RANGE (run_id)",
            "CREATE TABLE event_old PARTITION OF event FOR VALUES FROM ('0') TO ('z')",
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'append-only'; END $$",
            "CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON event "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
            "CREATE TABLE erasure (run_id text, seq int, FOREIGN KEY (run_id, seq) "
            "REFERENCES event)",
            "INSERT INTO event VALUES ('1', 0)",
            "INSERT INTO erasure VALUES ('1', 0)",
            database=name,
        )
        with pytest.raises(Exception, match="violates foreign key"):
            postgres.execute("ALTER TABLE event DETACH PARTITION event_old", database=name)
        postgres.execute("DELETE FROM erasure", database=name)
        with pytest.raises(Exception, match="append-only"):
            postgres.execute("DELETE FROM event", database=name)
        postgres.execute("DELETE FROM event_old", database=name)
        assert postgres.execute("SELECT count(*) FROM event", database=name) == [(0,)]
    finally:
        postgres.drop(name)
