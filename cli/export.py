"""``secateur audit sql`` and ``export``: the ledger's rows for one's own questions and tools."""

import csv
import json
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import DbOption, JsonOption, open_ledger, print_json, print_table, table

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""


_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    limit: Annotated[
        int, typer.Option(min=0, help="How many rows at most; 0 is all of them.")
    ] = 1000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that it may take.")] = 60.0,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Ask in SQL, on a connection that cannot write. The tables and views are in docs/audit.md.

    Example: secateur audit sql "SELECT tag, count(*) FROM pruned_branch GROUP BY tag"
    """
    if csv_ and json_:
        raise typer.BadParameter("give --json or --csv, not both")
    with open_ledger(db) as audit:
        found = audit.sql(query, limit or None, timeout)
    if found.cut:
        print(f"cut at {limit} rows: give --limit N for more, 0 for all", file=sys.stderr)
    if json_:
        print_json(found.as_json())
    elif csv_:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(_cell, found.columns))
        writer.writerows(map(_cell, row) for row in found.plain())
    else:
        shown = table(*found.columns)
        for row in found.plain():
            shown.add_row(*("" if cell is None else str(cell) for cell in row))
        print_table(shown, "no rows")


@app.command()
def export(
    run: Annotated[
        str | None, typer.Argument(help="A run's id, or the start of it; else --all.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run of the ledger.")] = False,
    format: Annotated[Format, typer.Option(help="JSON lines, or Parquet.")] = Format.JSONL,
    out: Annotated[
        Path | None,
        typer.Option(help="The file; for Parquet also a folder. JSON lines else go to stdout."),
    ] = None,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Every row of every table, for the stand-alone verifier."),
    ] = False,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Write runs to a file: JSON lines, or Parquet (a file of steps, or a folder of tables).

    Example: secateur audit export --all --format parquet --out ledger.parquet
    """
    if (run is None) == (not all_):
        raise typer.BadParameter("name one run, or give --all")
    if format is Format.PARQUET and complete:
        raise typer.BadParameter("--complete is for jsonl: Parquet holds no blobs")
    if format is Format.PARQUET and out is None:
        raise typer.BadParameter("Parquet needs --out: a file.parquet, or a folder")
    with open_ledger(db) as audit:
        try:
            if format is Format.PARQUET and out is not None:
                counts = audit.to_parquet(out, run)
            else:
                counts = audit.to_jsonl(out or sys.stdout, run, complete=complete)
        except OSError as error:
            where = out or "standard output"
            raise typer.BadParameter(f"{where} cannot be written: {error.strerror}") from None
    if out is not None:
        _say(out, format, counts, json_)


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _say(out: Path, format: Format, counts: Counter[str], json_: bool) -> None:
    if json_:
        print(json.dumps({"out": str(out), "format": format.value, "rows": dict(counts)}))
    else:
        rows = ", ".join(f"{number} of {name}" for name, number in counts.items())
        print(f"{out}: rows: {rows or 'none'}")
