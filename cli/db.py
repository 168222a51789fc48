"""``secateur db``: the ledger's own database."""

import json
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError

from ..runtime.ledger import connect, tables
from ..runtime.ledger.errors import LedgerError
from ..runtime.ledger.integrity import verification
from ..runtime.ledger.search import index as passages
from ..runtime.settings import Settings

__all__ = ["app"]

app = typer.Typer(help="Look after the ledger's database.", no_args_is_help=True)

DbOption = Annotated[
    str | None,
    typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def current(db: DbOption = None, json_: JsonOption = False) -> None:
    """Say which revision the ledger is at, and which one this version needs."""
    url = db or Settings().db
    name = connect.place(connect.address(url))
    found = connect.revision(url)
    if json_:
        print(json.dumps({"db": name, "revision": found, "needed": tables.HEAD}))
    else:
        state = "up to date" if found == tables.HEAD else f"this version needs {tables.HEAD}"
        print(f"{name}: revision {found or 'none'}, {state}")


@app.command()
def upgrade(db: DbOption = None, json_: JsonOption = False) -> None:
    """Bring the ledger to the revision that this version needs. Nothing recorded is lost."""
    url = db or Settings().db
    name = connect.place(connect.address(url))
    before, after = connect.upgrade(url)
    if json_:
        print(json.dumps({"db": name, "before": before, "after": after}))
    elif before == after:
        print(f"{name}: at revision {after} already")
    else:
        print(f"{name}: from revision {before or 'none'} to {after}")


@app.command()
def rebuild(db: DbOption = None, json_: JsonOption = False) -> None:
    """Make the derived tables, the full-text index, triggers and views as they should be."""
    url = db or Settings().db
    name = connect.place(connect.address(url))
    engine = connect.open_existing(url, read_only=False)
    try:
        made = verification.rebuild(engine)
        passages.rebuild(engine)
    except DBAPIError as error:
        raise LedgerError(connect.explain(error, name)) from None
    finally:
        engine.dispose()
    if json_:
        print(json.dumps({"db": name, "thoughts": made}))
    else:
        print(f"{name}: {made} thoughts made anew from their events")
