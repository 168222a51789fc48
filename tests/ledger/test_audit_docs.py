"""docs/audit.md against what is there: views, columns, options, commands."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer

from secateur.cli.commands import app
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.reading import export
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.reading.filters import CutFilters

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCS.read_text(encoding="utf-8")


def documented(text: str) -> dict[str, list[str]]:
    """The columns of each view, in the order of the page."""
    views: dict[str, list[str]] = {}
    for name, body in re.findall(r"^### (\w+)\n(.*?)(?=^##)", text, re.M | re.S):
        cells = re.findall(r"^\| (`.*?) \|", body, re.M)
        views[name] = [column for cell in cells for column in re.findall(r"`(\w+)`", cell)]
    return views


def test_every_view_is_documented_column_by_column(told, text):
    engine = connect.open_existing(told.url)
    with engine.connect() as connection:
        schema = sa.inspect(connection)
        there = {
            name: {column["name"] for column in schema.get_columns(name)}
            for name in schema.get_view_names()
        }
        names = set(schema.get_table_names())
    engine.dispose()
    said = documented(text)
    assert {name: set(columns) for name, columns in said.items()} == there
    assert all(len(columns) == len(set(columns)) for columns in said.values())
    ours = {name for name in names if not name.startswith(("passage_words", "alembic"))}
    assert ours == {table.name for table in tables.metadata.sorted_tables}
    beneath = text[text.index("Beneath them") :]
    assert ours <= set(re.findall(r"`(\w+)`", beneath))


def test_every_view_can_be_asked(told):
    with AuditLog(told.url) as audit:
        rows = {
            name: len(audit.sql(f"SELECT * FROM {name}").rows)
            for name in ("pruned_branch", "why_pruned", "run_summary", "step")
        }
        (summary,) = audit.sql(f"SELECT * FROM run_summary WHERE run = '{told.first}'").as_json()
        row = audit.run(told.first)
    assert rows == {"pruned_branch": 3, "why_pruned": 7, "run_summary": 2, "step": 10}
    for name in ("status", "finished_at", "thoughts", "pruned", "tokens", "policy_digest"):
        assert summary[name] == getattr(row, name)


def test_every_filter_is_documented(text):
    table = text[text.index("## Filters") : text.index("**Words.**")]
    said = set(re.findall(r"`(\w+)`", table)) | set(re.findall(r"`--(\w+)`", table))
    assert set(CutFilters.__annotations__) <= said


def test_every_command_of_asking_is_documented_and_has_an_example(text):
    audit = typer.main.get_command(app).commands["audit"]  # pyright: ignore
    elsewhere = {"verify", "checkpoint", "erase", "decide", "verifier"}
    for name, command in audit.commands.items():
        assert "Example: secateur audit" in (command.help or ""), name
        if name not in elsewhere:
            assert f"audit {name}" in text, name


def test_the_schema_version_of_exports_is_documented(text):
    assert f"says `schema`, now {export.SCHEMA}" in text
