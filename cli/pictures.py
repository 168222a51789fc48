"""``secateur audit tree``: a run's graph on the terminal, and as a picture."""

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.ledger import connect
from ..runtime.ledger.errors import LedgerError
from ..runtime.ledger.reading.answers import ThoughtRow
from ..runtime.ledger.reading.audit import AuditLog
from ..runtime.pictures.folding import picture
from ..runtime.pictures.kin import kin_of
from ..runtime.pictures.mermaid import MOST_EDGES, mermaid
from ..runtime.pictures.svg import svg as draw_svg
from ..runtime.private import written
from ..runtime.screen import Console, Words
from ..runtime.settings import Settings
from .tree import TreeView

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""

_TEXT = 60
"""Characters of each thought's text on the terminal."""


@app.command()
def tree(
    run: Annotated[str, typer.Argument(help="A run's id, or the start of it.")],
    all_: Annotated[bool, typer.Option("--all", help="Fold nothing.")] = False,
    unfold: Annotated[
        list[str] | None,
        typer.Option(
            "--unfold",
            metavar="THOUGHT",
            help="Open the fold that holds this thought, and those below it; may be repeated.",
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write the picture to this file as SVG.")
    ] = None,
    mermaid_: Annotated[
        Path | None,
        typer.Option("--mermaid", help="Write a Mermaid flowchart to this file; - prints it."),
    ] = None,
    db: Annotated[
        str | None,
        typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A run as a tree: what was kept, what was cut and for what, what lost, what was merged.

    Branches that came to nothing are folded into one line each, in pictures as on the terminal.

    Example: secateur audit tree 1qebdd97 --svg run.svg
    """
    url = db or Settings().db
    for path in (svg, mermaid_):
        if path is not None:
            connect.keep_off(path, connect.address(url))
    with AuditLog(url) as audit:
        found, thoughts = audit.run(run), audit.thoughts(run)
    title = f"{found.agent} · {found.policy} · {found.status} · {found.run}"
    opened = [_thought(thoughts, start) for start in unfold or ()]
    drawn = picture(thoughts, title, everything=all_, unfold=opened)
    if svg is not None:
        _write(svg, draw_svg(drawn))
    if mermaid_ is not None:
        chart, edges = mermaid(drawn)
        if edges > MOST_EDGES:
            print(
                f"note: GitHub draws up to {MOST_EDGES} edges and this chart has {edges}"
                + ("; leave out --all" if all_ else "; take --svg"),
                file=sys.stderr,
            )
        if mermaid_ == Path("-"):
            print(chart, end="")
            return
        _write(mermaid_, chart)
    if json_:
        print(json.dumps(_as_json(thoughts), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(TreeView(drawn, _TEXT))
    if drawn.folded:
        said = f"{drawn.folded} of {len(thoughts)} thoughts are folded (▸): --all opens every fold"
        console.print(Words(f"{said}, --unfold THOUGHT one", style="dim"))


def _thought(thoughts: Sequence[ThoughtRow], start: str) -> str:
    """The one thought whose id starts so. Raises :class:`LedgerError`."""
    found = [row.id for row in thoughts if row.id.startswith(start.strip().lower())]
    if start.strip().lower() in found:
        return start.strip().lower()
    if len(found) != 1 or not start.strip():
        what = (
            f"several thoughts ({', '.join(found[:3])} …) start" if found else "no thought starts"
        )
        raise LedgerError(f"{what} with {start!r} in this run: take an id from the tree")
    return found[0]


def _as_json(thoughts: Collection[ThoughtRow]) -> list[dict[str, Any]]:
    """Every thought with its kin: children, siblings, tries and what it lost to."""
    kin = kin_of(thoughts)
    return [row.as_json() | kin[row.id].as_json() for row in thoughts]


def _write(path: Path, text: str) -> None:
    try:
        with written(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from None
