"""How the audit commands speak: their options, tables, JSON, and where an answer goes on."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from ..ledger.errors import LedgerError
from ..ledger.reading.audit import AuditLog
from ..ledger.reading.filters import moment
from ..ledger.reading.page import Page
from ..settings import Settings

__all__ = [
    "AfterOption",
    "DbOption",
    "JsonOption",
    "LimitOption",
    "RunArgument",
    "SinceOption",
    "UntilOption",
    "console",
    "open_ledger",
    "print_json",
    "print_table",
    "say_more",
    "table",
    "when",
]

RunArgument = Annotated[str, typer.Argument(help="A run's id, or the start of it.")]
DbOption = Annotated[
    str | None,
    typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[int, typer.Option(min=1, help="How many, newest first.")]
AfterOption = Annotated[
    str | None, typer.Option(help="Go on below this row, as the list before says.")
]


def _time(text: str) -> str:
    """Checked here, so that what is no time is wrong usage."""
    try:
        return moment(text).isoformat()
    except LedgerError as error:
        raise typer.BadParameter(str(error)) from None


SinceOption = Annotated[
    str | None,
    typer.Option(parser=_time, metavar="TIME", help="Since then: 30m, 12h, 7d, a date."),
]
UntilOption = Annotated[
    str | None, typer.Option(parser=_time, metavar="TIME", help="Until then, in the same words.")
]

_SHRINKS = ("text", "task", "where")
_SHORTEST = 8
"""Columns a text or task keeps on a narrow terminal."""
_UNLIMITED = 10_000
_NUMBERS = ("thoughts", "cut", "tokens", "score", "from", "seq")


def open_ledger(db: str | None) -> AuditLog:
    """The ledger that an option, a variable or a file names."""
    return AuditLog(db or Settings().db)


def table(*columns: str) -> Table:
    """An empty table; numbers stand to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in _NUMBERS else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return made


def print_table(table: Table, otherwise: str) -> None:
    """On a terminal only a text or task is shortened; a table that is wider still, wraps."""
    if not table.row_count:
        print(otherwise)
        return
    out = console()
    for column in table.columns:
        column.width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    wide = sum((column.width or 0) + 1 for column in table.columns)
    for column in table.columns:
        if column.header in _SHRINKS and column.width and wide > out.width:
            narrow = min(column.width, max(_SHORTEST, column.width - (wide - out.width)))
            wide -= column.width - narrow
            column.width = narrow
    out.width = max(out.width, wide)
    # Cells hold what models wrote: nothing in them is markup.
    out.print(table, crop=False)


def say_more(page: Page[Any]) -> None:
    """Where the list goes on, if it does; beside the answer, so that scripts need not mind."""
    if page.next is not None:
        print(f"there is more: go on with --after {page.next}", file=sys.stderr)


def console() -> Console:
    """Standard output: as wide as the terminal, or without a limit where there is none."""
    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, markup=False, highlight=False)


def when(iso: str) -> str:
    """A time to the minute on a terminal, else to the second."""
    return iso[5:16].replace("T", " ") if sys.stdout.isatty() else iso[:19].replace("T", " ")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Indented, in the letters that it has."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
