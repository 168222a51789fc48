"""``audit sql``: whatever is asked, the ledger stays as it is."""

import csv
import io
import json
from pathlib import Path

import pytest

from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.reading.audit import AuditLog

WRITES = (
    "DELETE FROM event",
    "UPDATE thought SET text = ''",
    "INSERT INTO policy VALUES ('a', 'b', 'c')",
    "DROP TABLE event",
    "DROP VIEW why_pruned",
    "CREATE TABLE mine (x INTEGER)",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON run BEGIN SELECT 1; END",
    "CREATE INDEX i ON event (kind)",
    "ALTER TABLE event ADD COLUMN x INTEGER",
    "VACUUM",
    "ANALYZE",
    "REINDEX",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "EXPLAIN ANALYZE DELETE FROM event",
    "SELECT 1; DELETE FROM event",
    "SELECT 1; COMMIT; DELETE FROM event",
    "/* SELECT */ DELETE FROM event",
    "WITH x AS (SELECT 1) DELETE FROM event",
    "WITH gone AS (DELETE FROM event RETURNING *) SELECT * FROM gone",
    "WITH new AS (INSERT INTO policy VALUES ('a', 'b', 'c') RETURNING *) SELECT * FROM new",
    "SELECT * INTO mine FROM event",
    "SELECT * FROM event FOR UPDATE",
    "",
    "   ",
    "no SQL at all",
    "SELECT * FROM there_is_no_such_table",
    "SELECT 'a\0b'",
)

SQLITE = (
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version = 7",
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "VACUUM INTO 'copy.db'",
    "DETACH main",
    "SELECT load_extension('x')",
    "INSERT INTO passage_words (passage_words) VALUES ('delete-all')",
    "REPLACE INTO policy VALUES ('a', 'b', 'c')",
    "SELECT fts3_tokenizer('x', x'00')",
)

POSTGRESQL = (
    "COPY event TO '/tmp/out'",
    "COPY event TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO STDOUT",
    "SET transaction_read_only = off",
    "SET ROLE postgres",
    "RESET ROLE",
    "DO $$ BEGIN DELETE FROM event; END $$",
    "CALL something()",
    "TRUNCATE event",
    "LOCK TABLE event",
    "GRANT ALL ON event TO PUBLIC",
    "CREATE ROLE intruder SUPERUSER",
    "LISTEN a",
    "SELECT set_config('transaction_read_only', 'off', false), lo_create(0)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_export(1, '/tmp/out')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_reload_conf()",
    "SELECT pg_create_restore_point('x')",
    "SELECT nextval('pg_catalog.pg_class_oid_index')",
    "EXPLAIN SELECT 1",
    "SHOW data_directory",
    "PREPARE p AS SELECT 1",
)


def state(told) -> list[list[tuple]]:
    """Everything that the ledger says, tables and schema."""
    tables = ("run", "event", "blob", "policy", "thought", "tag_score", "passage_mark")
    rows = [sorted(told.ask(f"SELECT * FROM {table}"), key=str) for table in tables]
    if "://" in told.url:
        return [
            *rows,
            told.ask("SELECT count(*) FROM pg_class"),
            told.ask("SELECT * FROM pg_roles"),
        ]
    return [*rows, told.ask("SELECT * FROM sqlite_master ORDER BY name")]


def test_nothing_that_would_write_is_done(told, one_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = set(Path().iterdir())
    before = state(told)
    more = POSTGRESQL if "://" in told.url else SQLITE
    with AuditLog(told.url) as audit:
        for query in (*WRITES, *more):
            with pytest.raises(LedgerError) as error:
                audit.sql(query)
            one_line(error.value)
        assert audit.sql("SELECT count(*) FROM event").rows == ((22,),)
    assert state(told) == before
    assert {path.name for path in Path().iterdir()} - {path.name for path in there} <= {
        "told.db-wal",
        "told.db-shm",
    }


def test_on_postgresql_a_superuser_asks_as_a_reader(told):
    if "://" not in told.url:
        pytest.skip("SQLite has no roles")
    with AuditLog(told.url) as audit:
        assert audit.sql("SELECT current_user").rows == (("pg_read_all_data",),)


def test_a_select_answers_in_columns_and_rows(told):
    with AuditLog(told.url) as audit:
        answer = audit.sql("SELECT tag, count(*) AS n FROM pruned_branch GROUP BY tag ORDER BY n")
        assert answer.columns == ("tag", "n")
        assert set(answer.rows) == {("deceit", 2), (None, 1)}
        assert answer.as_json()[-1] == {"tag": "deceit", "n": 2}
        assert not answer.cut
        named = audit.sql("WITH x AS (SELECT 1 AS a) SELECT a, '%' AS b FROM x; -- so")
        assert named.as_json() == [{"a": 1, "b": "%"}]
        assert audit.sql("VALUES (1, 'a'), (2, 'b')").rows == ((1, "a"), (2, "b"))


def test_too_many_rows_are_cut_and_it_says_so(told):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
    with AuditLog(told.url) as audit:
        answer = audit.sql(f"{many} SELECT i FROM n")
        assert (len(answer.rows), answer.cut) == (1000, True)
        answer = audit.sql(f"{many} SELECT i FROM n", limit=None)
        assert (len(answer.rows), answer.cut) == (3000, False)
        answer = audit.sql(f"{many} SELECT i FROM n", limit=3000)
        assert not answer.cut


def test_an_endless_query_is_ended(told, one_line):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with AuditLog(told.url) as audit, pytest.raises(LedgerError, match=r"longer than 0\.2 s") as e:
        audit.sql(endless, timeout_s=0.2)
    one_line(e.value)


def test_bytes_and_odd_numbers_can_be_printed(told):
    with AuditLog(told.url) as audit:
        (row,) = audit.sql("SELECT salt, bytes FROM blob LIMIT 1").as_json()
        assert bytes.fromhex(row["salt"])
        infinite = "9e999" if "://" not in told.url else "'Infinity'::float8"
        assert audit.sql(f"SELECT {infinite} AS x").as_json() == [{"x": "inf"}]


def test_the_command_prints_a_table_json_or_csv(command, told):
    query = "SELECT thought, tag FROM pruned_branch ORDER BY at"
    code, out, err = command("audit", "sql", query, "--db", told.url)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["thought", "tag"]
    _, out, _ = command("audit", "sql", query, "--db", told.url, "--json")
    assert json.loads(out)[0] == {"thought": "b1", "tag": "deceit"}
    _, out, err = command("audit", "sql", query, "--db", told.url, "--csv", "--limit", "2")
    assert next(iter(csv.reader(io.StringIO(out)))) == ["thought", "tag"]
    assert "cut at 2 rows" in err
    code, out, err = command("audit", "sql", "DELETE FROM event", "--db", told.url)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert command("audit", "sql", query, "--csv", "--json", "--db", told.url)[0] == 2
