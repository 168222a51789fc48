"""How the audit commands speak: their options, tables, JSON, and where an answer goes on."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table

from ..gates.visible import visible
from ..runtime.ledger.errors import LedgerError
from ..runtime.ledger.reading.audit import AuditLog
from ..runtime.ledger.reading.filters import moment
from ..runtime.ledger.reading.page import Page
from ..runtime.screen import Console, Words
from ..runtime.settings import Settings

__all__ = [
    "AfterOption",
    "DbOption",
    "Fact",
    "JsonOption",
    "LimitOption",
    "Rows",
    "RunArgument",
    "SinceOption",
    "UntilOption",
    "one_line",
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


def _since(text: str) -> str:
    return _time(text, end=False)


def _until(text: str) -> str:
    return _time(text, end=True)


def _time(text: str, end: bool) -> str:
    """Checked here, so that what is no time is wrong usage."""
    try:
        return moment(text, end=end).isoformat()
    except LedgerError as error:
        raise typer.BadParameter(str(error)) from None


SinceOption = Annotated[
    str | None,
    typer.Option(parser=_since, metavar="TIME", help="Since then: 30m, 12h, 7d, a day."),
]
UntilOption = Annotated[
    str | None,
    typer.Option(parser=_until, metavar="TIME", help="Until then, a day to its end."),
]

_SHRINKS = ("text", "task", "where")
_SHORTEST = 8
"""Columns a text or task keeps on a narrow terminal."""
_NUMBERS = ("thoughts", "cut", "tokens", "score", "from", "seq")


def open_ledger(db: str | None) -> AuditLog:
    """The ledger that an option, a variable or a file names."""
    return AuditLog(db or Settings().db)


class Rows(Table):
    """A table whose rows are one line each, whatever stands in their cells."""

    def add_row(self, *cells: str | Words) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().add_row(*(one_line(cell) if isinstance(cell, str) else cell for cell in cells))


def one_line(text: object) -> str:
    """A text without its line breaks."""
    return " ".join(str(text).split())


def table(*columns: str) -> Rows:
    """An empty table; numbers stand to the right."""
    made = Rows(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(
            one_line(column),
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
    out = Console()
    for column in table.columns:
        cells = (column.header, *column.cells)
        column.width = max(cell_len(visible(str(cell))) for cell in cells)
    wide = sum((column.width or 0) + 1 for column in table.columns)
    for column in table.columns:
        if column.header in _SHRINKS and column.width and wide > out.width:
            narrow = min(column.width, max(_SHORTEST, column.width - (wide - out.width)))
            wide -= column.width - narrow
            column.width = narrow
    out.width = max(out.width, wide)
    out.print(table, crop=False)


def say_more(page: Page[Any]) -> None:
    """Where the list goes on, if it does; beside the answer, so that scripts need not mind."""
    if page.next is not None:
        print(f"there is more: go on with --after {page.next}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what is said of it. Its further lines stand below the first one's text, so that no
    text can pass for a fact of its own."""

    name: str
    value: str | Words
    width: int = 0
    """Columns of the names, which stand to the right."""
    style: str | Style = ""

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        name = Words(f"{self.name:>{self.width}}  ", "bold")
        value = Words(self.value, self.style) if isinstance(self.value, str) else self.value
        below = Words(" " * name.cell_len)
        room = max(options.max_width - name.cell_len, 1)
        for number, line in enumerate(value.wrap(console, room, tab_size=8)):
            line.rstrip()
            yield Words.assemble(below if number else name, line)


def when(iso: str) -> str:
    """A time to the minute on a terminal, else to the second."""
    return iso[5:16].replace("T", " ") if sys.stdout.isatty() else iso[:19].replace("T", " ")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Indented, in the letters that it has; what acts on a screen is escaped there."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
