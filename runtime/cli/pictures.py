"""``secateur audit tree``: a run's graph on the terminal, and as a picture."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..ledger.audit import AuditLog
from ..settings import Settings
from .tree import render_tree, tree_svg

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""

_UNLIMITED = 10_000


@app.command()
def tree(
    run: Annotated[str, typer.Argument(help="A run's id, or the start of it.")],
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write the picture to this file as SVG.")
    ] = None,
    db: Annotated[
        str | None,
        typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A run as a tree: what was kept, what was cut and for what.

    Example: secateur audit tree 1qebdd97
    """
    with AuditLog(db or Settings().db) as audit:
        found, thoughts = audit.run(run), audit.thoughts(run)
    title = f"{found.agent} · {found.policy} · {found.status} · {found.run}"
    if svg is not None:
        _write(svg, tree_svg(thoughts, title))
    if json_:
        print(json.dumps([row.as_json() for row in thoughts], indent=2, ensure_ascii=False))
        return
    width = None if sys.stdout.isatty() else _UNLIMITED
    Console(width=width, markup=False, highlight=False).print(render_tree(thoughts, title))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from None
