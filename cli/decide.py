"""``secateur audit waiting`` and ``decide``: what a person has to decide on, and the decision."""

import asyncio
from typing import Annotated, Literal

import typer

from ..runtime.ledger.ledger import Ledger
from ..runtime.ledger.reading.waiting import Waiting
from ..runtime.pictures.looks import shortened
from ..runtime.review.decisions import decide as decide_on
from ..runtime.settings import Settings
from .terminal import (
    DbOption,
    JsonOption,
    one_line,
    open_ledger,
    print_json,
    print_table,
    table,
    when,
)

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""

RunOption = Annotated[str | None, typer.Option(help="Of this run (the start of its id).")]


@app.command()
def waiting(run: RunOption = None, db: DbOption = None, json_: JsonOption = False) -> None:
    """What waits for a person, oldest first: escalated thoughts, with the tool call that approving
    would make, and tool calls of killed runs of which nobody knows whether they were made.

    Example: secateur audit waiting
    """
    with open_ledger(db) as audit:
        found = audit.waiting(run)
    if json_:
        print_json([each.as_json() for each in found])
        return
    listed = table("thought", "run", "agent", "at", "about", "because", "text", "call")
    for each in found:
        because = shortened(_because(each), 70)
        text = shortened(each.text, 60)
        listed.add_row(
            each.thought[:8],
            each.run,
            each.agent,
            when(each.at),
            each.about,
            because,
            text,
            _call(each),
        )
    print_table(listed, "nothing waits for a person")


@app.command()
def decide(
    thought: Annotated[str, typer.Argument(help="The thought's id, or the start of it.")],
    approve: Annotated[
        bool | None,
        typer.Option("--approve/--refuse", help="Whether the run may go on from it."),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who decides.", metavar="NAME")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.", metavar="TEXT")] = None,
    outcome: Annotated[
        Literal["done", "not done"] | None,
        typer.Option(help="Of a tool call of which nobody knew: whether it was made."),
    ] = None,
    run: RunOption = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Decide on a thought that waits; `secateur run --resume RUN` then goes on with its run.

    Example: secateur audit decide 3f9a1c --approve --by ada --reason "the change is announced"
    """
    if approve is None:
        raise typer.BadParameter("say --approve or --refuse")
    if by is None or reason is None:
        raise typer.BadParameter("say who decides and why: --by NAME --reason TEXT")
    name, why, yes = by, reason, approve

    async def write() -> Waiting:
        async with Ledger.open(db or Settings().db) as ledger:
            return await decide_on(
                ledger, thought, approve=yes, by=name, reason=why, outcome=outcome, run=run
            )

    with open_ledger(db):  # a ledger that is not there is refused, and not made
        pass
    found = asyncio.run(write())
    if json_:
        print_json(
            {
                "run": found.run,
                "thought": found.thought,
                "about": found.about,
                "approve": yes,
                "by": name,
                "reason": why,
                "outcome": outcome,
            }
        )
        return
    print(f"{found.thought[:8]} {'approved' if yes else 'refused'} by {one_line(name)}")
    print(f"go on with it: secateur run --resume {found.run}")


def _call(found: Waiting) -> str:
    if found.call is None:
        return "not written yet" if found.cut else ""
    return shortened(str(found.call), 80)


def _because(found: Waiting) -> str:
    if found.tag is None:
        return found.reason or ""
    return f"{found.tag} {found.reading} {found.score or 0:.3f}, from {found.threshold or 0:g}"
