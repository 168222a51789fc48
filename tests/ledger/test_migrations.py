"""Migrations: the same tables as the models on both databases, up and down, with what they hold."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.reading.audit import AuditLog

REVISIONS = ["0001", "0002", "0003"]

RECORDS = ("policy", "blob", "run", "event")


@contextmanager
def migrating(url: str) -> Iterator[tuple[Config, sa.Connection]]:
    """Alembic's configuration for one transaction on a ledger."""
    engine = connect.connect(url)
    try:
        with engine.begin() as connection:
            settings = connect.config()
            settings.attributes["connection"] = connection
            yield settings, connection
    finally:
        engine.dispose()


def names(url: str) -> dict[str, set[str]]:
    """Everything that a ledger's schema has, by kind."""
    engine = connect.connect(url)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            found = connection.exec_driver_sql("SELECT type, name FROM sqlite_master")
        else:
            found = connection.exec_driver_sql(
                "SELECT relkind::text, relname FROM pg_class JOIN pg_namespace n "
                "ON n.oid = relnamespace WHERE nspname = 'public' "
                "UNION SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal "
                "UNION SELECT 'function', proname FROM pg_proc JOIN pg_namespace n "
                "ON n.oid = pronamespace WHERE nspname = 'public'"
            )
        kinds: dict[str, set[str]] = {}
        for kind, name in found:
            kinds.setdefault(kind, set()).add(name)
    engine.dispose()
    return kinds


def test_the_tables_are_what_the_migrations_make(ledger_url):
    engine = connect.connect(ledger_url)
    with engine.begin() as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an index on an expression cannot be compared
        found = MigrationContext.configure(connection, opts={"include_name": tables.in_metadata})
        assert compare_metadata(found, tables.metadata) == []
    engine.dispose()


def test_the_head_is_the_newest_migration():
    scripts = ScriptDirectory.from_config(connect.config())
    assert scripts.get_current_head() == tables.HEAD == REVISIONS[-1]


def test_down_and_up_again_makes_the_same(ledger_url):
    made = names(ledger_url)
    for _ in REVISIONS:
        with migrating(ledger_url) as (settings, _):
            command.downgrade(settings, "-1")
    left = names(ledger_url)
    assert {name for kind in left.values() for name in kind if "alembic" not in name} <= {""}
    for revision in REVISIONS:
        with migrating(ledger_url) as (settings, _):
            command.upgrade(settings, revision)
    assert names(ledger_url) == made


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_what_was_recorded_survives_every_way_down_and_up(told, revision):
    # The order of rows is the database's own affair.
    before = {table: sorted(told.ask(f"SELECT * FROM {table}")) for table in RECORDS}
    with migrating(told.url) as (settings, _):
        command.downgrade(settings, revision)
    assert connect.revision(told.url) == revision
    assert connect.upgrade(told.url) == (revision, tables.HEAD)
    assert {table: sorted(told.ask(f"SELECT * FROM {table}")) for table in RECORDS} == before
    with AuditLog(told.url) as audit:
        assert audit.verify().ok


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_refuses_to_change_a_record(told, revision):
    with migrating(told.url) as (settings, _):
        command.downgrade(settings, revision)
    for table in RECORDS:
        assert "append-only" in told.refuses(f"DELETE FROM {table}")
    assert "append-only" in told.refuses("UPDATE blob SET bytes = x'', salt = x''")


def test_a_blob_is_emptied_only_where_an_erasure_names_it(told):
    digest, other = (d for (d,) in told.ask("SELECT digest FROM blob ORDER BY digest LIMIT 2"))
    empty = f"UPDATE blob SET bytes = x'', salt = x'' WHERE digest = '{digest}'"
    assert "append-only" in told.refuses(empty)
    told.insert("erasure", (digest, told.first, 0, "now"))
    for more in (
        f"UPDATE blob SET bytes = x'00', salt = x'' WHERE digest = '{digest}'",
        f"UPDATE blob SET bytes = x'' WHERE digest = '{digest}'",
        f"UPDATE blob SET digest = 'x', bytes = x'', salt = x'' WHERE digest = '{digest}'",
        f"UPDATE blob SET bytes = x'', salt = x'' WHERE digest = '{other}'",
        f"DELETE FROM blob WHERE digest = '{digest}'",
    ):
        assert "append-only" in told.refuses(more)
    assert told.execute(empty) == 1


def test_a_ledger_with_an_erasure_does_not_go_back_to_where_it_has_no_place(told):
    ((digest,),) = told.ask("SELECT digest FROM blob LIMIT 1")
    told.insert("erasure", (digest, told.first, 0, "now"))
    with pytest.raises(ValueError, match="erasure holds records"), migrating(told.url) as (s, _):
        command.downgrade(s, "0001")
    assert connect.revision(told.url) == tables.HEAD
    assert told.ask("SELECT digest FROM erasure") == [(digest,)]
