"""Opening a ledger: made when new, refused in one line when it is not what it should be."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    path = tmp_path / "fresh.db"
    connect.open_or_create(path).dispose()
    return path


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.commit()


def take_down(path: Path) -> None:
    engine = connect.connect(path)
    with engine.begin() as connection:
        settings = connect.config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "base")
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
        assert sa.inspect(connection).get_view_names() == []
    engine.dispose()


async def test_a_new_file_becomes_a_ledger(tmp_path, make):
    async with Ledger.open(f"sqlite:///{tmp_path / 'new.db'}") as ledger:
        await ledger.start(make.start())
    with AuditLog(tmp_path / "new.db") as audit:
        assert [run.agent for run in audit.runs()] == ["opsdesk"]


def test_a_ledger_goes_down_to_nothing_and_up_again(fresh):
    take_down(fresh)
    with pytest.raises(LedgerError, match="is at revision 0000"):
        AuditLog(fresh)
    assert connect.upgrade(fresh) == ("0000", tables.HEAD)
    AuditLog(fresh).close()


def test_upgrading_a_ledger_of_this_version_changes_nothing(told):
    before = told.ask("SELECT count(*), max(hash) FROM event")
    assert connect.upgrade(told.url) == (tables.HEAD, tables.HEAD)
    assert told.ask("SELECT count(*), max(hash) FROM event") == before


@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog])
def test_an_older_revision_names_the_upgrade(fresh, open_it, one_line):
    take_down(fresh)
    with pytest.raises(LedgerError) as error:
        open_it(fresh)
    line = one_line(error.value)
    assert f"is at revision 0000, this version needs {tables.HEAD}" in line
    assert f"secateur db upgrade --db {fresh}" in line


@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog, connect.upgrade, connect.revision])
@pytest.mark.parametrize("statement", ["UPDATE {} SET version_num = '0000'", "DELETE FROM {}"])
def test_tables_without_a_revision_of_ours_are_no_case_for_an_upgrade(
    told, open_it, statement, one_line
):
    told.change(statement.format("alembic_version"))
    with pytest.raises(LedgerError, match="names no revision of a ledger") as error:
        open_it(told.url)
    assert "restore it from a backup" in one_line(error.value)
    assert told.ask("SELECT count(*) FROM run") == [(2,)]


def test_a_ledger_without_tables_is_upgraded_even_where_it_says_0000(fresh):
    take_down(fresh)
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('0000')")
        connection.commit()
    assert connect.upgrade(fresh) == ("0000", tables.HEAD)
    AuditLog(fresh).close()


@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog])
def test_a_newer_revision_asks_for_a_newer_version(fresh, open_it, one_line):
    set_revision(fresh, "0999")
    with pytest.raises(LedgerError, match="newer than this version") as error:
        open_it(fresh)
    one_line(error.value)
    with pytest.raises(LedgerError, match="does not know"):
        connect.upgrade(fresh)


@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog, connect.upgrade])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, open_it, one_line):
    path = tmp_path / "notes.txt"
    path.write_text("pruning shears\n" * 100)
    with pytest.raises(LedgerError, match="is not a database") as error:
        open_it(path)
    one_line(error.value)
    assert path.read_text() == "pruning shears\n" * 100


@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog, connect.upgrade])
def test_somebody_elses_database_is_refused_and_left_alone(tmp_path, open_it, one_line):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE garden (shears)")
    with pytest.raises(LedgerError, match="no ledger of ours") as error:
        open_it(path)
    one_line(error.value)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("garden",)]


@pytest.mark.parametrize("name", ["none/of/this.db", "."])
@pytest.mark.parametrize("open_it", [Ledger.open, AuditLog])
def test_a_missing_folder_or_a_folder_is_named(tmp_path, name, open_it, one_line):
    with pytest.raises(LedgerError) as error:
        open_it(tmp_path / name)
    assert str(tmp_path) in one_line(error.value)


def test_asking_a_ledger_that_is_not_there_creates_nothing(tmp_path, one_line):
    with pytest.raises(LedgerError, match="there is no ledger at") as error:
        AuditLog(tmp_path / "none.db")
    assert "SECATEUR_DB" in one_line(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "://", " "])
def test_what_is_no_ledger_url_is_refused(url, one_line):
    with pytest.raises(LedgerError) as error:
        Ledger.open(url)
    one_line(error.value)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder seen without root's rights: root may write anywhere."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        os.seteuid(os.getuid())


def become_nobody() -> None:
    if os.getuid() == 0:
        os.seteuid(65534)


def test_a_folder_that_may_not_be_written_to_is_named(nobody, one_line):
    nobody.chmod(0o555)
    become_nobody()
    with pytest.raises(LedgerError, match="cannot be written") as error:
        Ledger.open(nobody / "new.db")
    one_line(error.value)


def test_a_ledger_that_may_not_be_written_to_can_still_be_asked(nobody, one_line):
    path = nobody / "kept.db"
    connect.open_or_create(path).dispose()
    path.chmod(0o444)
    nobody.chmod(0o555)
    become_nobody()
    with pytest.raises(LedgerError, match="cannot be written") as error:
        Ledger.open(path)
    one_line(error.value)
    with AuditLog(path) as audit:
        assert audit.runs() == []
        assert audit.verify().ok
