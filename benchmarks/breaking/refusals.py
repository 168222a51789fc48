"""What the ledger's own connection may not do: change or remove what was recorded."""

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from secateur.benchmarks.breaking.attacker import write_ledger
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import in_child
from secateur.benchmarks.breaking.tally import Tally
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.integrity import verification

__all__ = ["refuse_everything"]

REFUSED = "UPDATE, DELETE, REPLACE, TRUNCATE of what was recorded are refused"


def refuse_everything(place: Place, folder: Path) -> Tally:
    """Try each of them on every append-only table, column by column, over a plain connection."""
    tally = Tally()
    url = place.new()
    in_child(lambda: write_ledger(url, folder))
    engine = connect.open_existing(url, read_only=False)
    for table in tables.APPEND_ONLY:
        for statement in _statements(table, engine.dialect.name):
            tally.done["changes tried through the front door"] += 1
            refusal = _refusal(engine, statement)
            tally.hold(
                REFUSED, "append-only" in refusal, f"{statement}: {refusal or 'it was done'}"
            )
    found = verification.verify(engine)
    tally.hold(REFUSED, found.ok, f"something was changed all the same: {found.first_bad}")
    engine.dispose()
    return tally


def _statements(table: sa.Table, dialect: str) -> Iterator[str]:
    name = table.name
    names = ", ".join(column.name for column in table.c)
    for column in table.c:
        yield f"UPDATE {name} SET {column.name} = {column.name}"
    yield f"DELETE FROM {name}"
    keys = ", ".join(column.name for column in table.primary_key)
    last = list(table.c)[-1].name
    same = f"INSERT INTO {name} ({names}) SELECT {names} FROM {name} WHERE true"
    yield f"{same} ON CONFLICT ({keys}) DO UPDATE SET {last} = excluded.{last}"
    if dialect == "postgresql":
        yield f"TRUNCATE {name} CASCADE"
        same_key = " AND ".join(f"t.{key.name} = s.{key.name}" for key in table.primary_key)
        yield f"MERGE INTO {name} t USING {name} s ON {same_key} WHEN MATCHED THEN DELETE"
    else:
        yield same.replace("INSERT", "REPLACE")
        yield same.replace("INSERT", "INSERT OR REPLACE")
        yield f"UPDATE OR REPLACE {name} SET {last} = {last}"


def _refusal(engine: sa.Engine, statement: str) -> str:
    """What the database says to it; nothing where it was done."""
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        return str(error.orig)
    return ""
