"""``secateur audit verify``: whether the ledger is as it was written."""

import json
from typing import Annotated, Any

import typer

from ..ledger.audit import AuditLog
from ..settings import Settings

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""

DbOption = Annotated[
    str | None,
    typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    run: Annotated[
        str | None, typer.Argument(help="One run (the start of its id); all if not given.")
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Recompute every hash, blob and derived row; exit code 1 when something was changed.

    Example: secateur audit verify
    """
    with AuditLog(db or Settings().db) as audit:
        found = audit.verify(run)
    bad = found.first_bad
    if json_:
        answer: dict[str, Any] = {"ok": found.ok, "events": found.events, "runs": found.runs}
        if bad is not None:
            answer["first_bad"] = {"run": bad.run, "seq": bad.seq, "reason": bad.reason}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    elif bad is None:
        print(f"fine: {found.events} events of {found.runs} runs are as they were written")
    else:
        print(f"damaged: run {bad.run}: {bad.reason}")
    if bad is not None:
        raise typer.Exit(1)
